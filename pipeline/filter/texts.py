"""The texts of a clip: what training contrasts it with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from clipvip.shards.errors import Skip
from clipvip.shards.files.hashes import sha256_of_file
from clipvip.shards.files.places import is_file, size_of
from clipvip.shards.files.stores import Location
from clipvip.shards.format.captions import captions_path
from clipvip.shards.format.clip_captions import captions_of_shard
from clipvip.shards.tar.reader import Sample, read_samples


@dataclass(frozen=True)
class ClipTexts:
    """A clip's subtitle, or each of a video set's captions, and what captioners say; both may be none."""

    key: str
    texts: list[str]
    captions: list[str] = field(default_factory=list)


def texts_of(sample: Sample) -> list[str]:
    """The subtitle, or where a video set has several captions, of which each would do, all of them."""
    several = sample.sentences if sample.sentences_are == "alternatives" else []
    return _told(several if len(several) > 1 else [sample.subtitle])


def captions_for(
    shard: Location, sha256: str, captions: Sequence[Location], keys: list[str]
) -> tuple[dict[str, list[str]], list[Skip]]:
    """Key -> captions in the folders `captions`, and why there are none where some were to be expected."""
    if not captions or not keys:
        return {}, []
    found = captions_of_shard(
        list(map(str, captions)), shard.stem, num_bytes=size_of(shard), sha256=sha256, keys=keys
    )
    return {key: _told(texts) for key, texts in found.by_key.items()}, found.skips


def captions_sum(captions: Sequence[Location], stem: str) -> str:
    """What tells the captions of a shard from others: hashes, or "none"."""
    paths = [captions_path(folder, stem) for folder in captions]
    return ", ".join(sha256_of_file(path) if is_file(path) else "none" for path in paths) or "none"


def read_texts(shard: Location, sha256: str, captions: Sequence[Location]) -> Iterator[ClipTexts]:
    """The texts of a shard's clips, without reading pixels; clips that cannot be read are left out."""
    samples = [s for s in read_samples(shard, with_pixels=False) if isinstance(s, Sample)]
    by_key, _ = captions_for(shard, sha256, captions, [sample.key for sample in samples])
    for sample in samples:
        yield ClipTexts(sample.key, texts_of(sample), by_key.get(sample.key, []))


def _told(texts: Sequence[str]) -> list[str]:
    return [text for text in (" ".join(text.split()) for text in texts) if text]
