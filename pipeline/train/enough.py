"""Whether there is enough to train on, looked at before the first step.

Looking is bounded: all of a small data set, and of a large one some thousand samples out of shards all over
it. Of 64 of these pictures are decoded.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass, field, replace

import click
import numpy as np

from clipvip.pipeline.loading.pixels import PixelsWriter
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.options import require_captions
from clipvip.pipeline.runtime.report import counted
from clipvip.pipeline.train.batches import BatchPlan, SourcePart
from clipvip.pipeline.train.samples import Example, SampleLoader
from clipvip.shards.errors import Skip
from clipvip.shards.files.places import location_of
from clipvip.shards.files.stores import COMMAND, is_remote
from clipvip.shards.format.clip_captions import ShardCaptions
from clipvip.shards.tar.index import SampleSpan, ShardFile

_MOST_SAMPLES = 4096
_MOST_SHARDS = 16  # of a data set that is not looked at as a whole; each has to be indexed
_MOST_REMOTE_SHARDS = 4  # each has to be copied
_MOST_DECODED = 64
_MOST_FRAMES_DECODED = 4  # of a clip
_MANY_LOST = 0.2


@dataclass
class Look:
    """What was seen of a source: samples looked at, how many are unusable by reason, and without a caption.

    `distinct` are those that can be used, each once however often it is there. `notes` counts, by reason, the
    shards of which no caption file could be used. Of `num_decoded` samples the pictures were decoded;
    `undecodable` counts those that failed. Where `all_decoded`, all that seemed usable, these are `lost`.
    """

    num_seen: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    num_without_caption: int = 0
    distinct: set[tuple[object, ...]] = field(default_factory=set)
    notes: Counter[str] = field(default_factory=Counter)
    example: str = ""
    num_decoded: int = 0
    all_decoded: bool = False
    undecodable: Counter[str] = field(default_factory=Counter)
    undecodable_example: str = ""

    @property
    def num_usable(self) -> int:
        return self.num_seen - self.lost.total()


def check_samples(plan: BatchPlan, *, processes: int = 1, warns: bool = True) -> None:
    """Refuse data of which too little can be used, and warn where much of it cannot.

    A UserError: too few samples for a batch or for the processes; captions are needed and there are none.
    """
    for part in plan.parts:
        if part.order.rows < processes:
            raise UserError(
                f"source {part.shards.name} has {counted(part.order.rows, 'samples')} in a batch, fewer than "
                f"the {processes} processes; raise optim.batch_size or data.sources.{part.shards.name}.weight"
            )
    for line in plan.notes if warns else ():
        click.echo(f"Warning: {line}", err=True)
    for part in plan.parts:
        _check_captions_given(part)
        if part.shards.shards[0].location.startswith(COMMAND):
            continue  # a program may run as long as it likes: the loading processes alone start it
        look = look_at(part)
        _check_captions_found(part, look)
        _check_usable(part, look)
        for line in _warnings(part, look) if warns else []:
            click.echo(f"Warning: source {part.shards.name}: {line}", err=True)


def look_at(part: SourcePart) -> Look:
    """Look at samples all over a source."""
    shards = part.shards.shards
    most = _MOST_SHARDS if part.order.num_samples > _MOST_SAMPLES else len(shards)
    if is_remote(shards[0].location):
        most = _MOST_REMOTE_SHARDS
    chosen = _some_of(len(shards), most)
    most_of_each = -(-_MOST_SAMPLES // len(chosen))
    places = [(number, _some_of(shards[number].num_samples, most_of_each)) for number in chosen]
    num_places = sum(len(indices) for _, indices in places)
    # Drawn, since every second sample may be damaged.
    to_decode = set(np.random.default_rng(0).permutation(num_places)[:_MOST_DECODED].tolist())
    few = min(part.settings.num_frames, _MOST_FRAMES_DECODED)
    settings = replace(part.settings, num_frames=few, jitter=False, needs_frame=False)
    loader = SampleLoader(part.shards, settings, image_size=1, resizes=False)
    look = Look()
    for number, indices in places:
        captions = ShardCaptions({}, [])
        if part.settings.needs_caption:
            captions = loader.captions(number)
            for skip in captions.skips:
                look.notes[skip.reason] += 1
                if not look.example or skip.reason == "unreadable_captions":
                    look.example = f"{shards[number].location}: {skip.detail}"
        for index in indices:
            look.num_seen += 1
            found = loader.reader.entry(number, index)
            if isinstance(found, Skip):
                look.lost[found.reason] += 1
                continue
            span, file = found
            texts = captions.by_key.get(span.key, ())
            look.num_without_caption += not any(texts)
            read = loader.read(span, file, texts if any(texts) else (), with_pixels=False)
            if isinstance(read, Skip):
                look.lost[read.reason] += 1
            elif look.num_seen - 1 not in to_decode or _decodes(loader, number, index, look):
                look.distinct.add(_content_of_sample(span, file))
    look.all_decoded = look.num_decoded == look.num_usable
    if look.all_decoded:
        look.lost += look.undecodable
    return look


def _content_of_sample(span: SampleSpan, file: ShardFile) -> tuple[object, ...]:
    """What tells a sample from others: keys are unique in a data set, not in two that were put together."""
    lengths = tuple((name, length) for name, (_, length) in sorted(span.members.items()))
    words = [file.read(span, name) for name in ("json", "txt") if name in span.members]
    return span.key, lengths, hashlib.sha256(b"\0".join(words)).digest()


def _decodes(loader: SampleLoader, shard: int, index: int, look: Look) -> bool:
    """Whether a sample's pictures decode; noted in `look`."""
    writer = PixelsWriter()
    writer.begin()
    found = loader.load(shard, index, np.random.default_rng(0), video=writer, frame=writer)
    look.num_decoded += 1
    if isinstance(found, Example) or found.reason == "empty_subtitle":  # of one caption of several
        return True
    look.undecodable[found.reason] += 1
    look.undecodable_example = look.undecodable_example or f"{found.what}: {found.detail}"
    return False


def _some_of(size: int, most: int) -> list[int]:
    return [int(index) for index in np.unique(np.linspace(0, size - 1, min(size, most)).astype(int))]


def _check_captions_given(part: SourcePart) -> None:
    if not part.settings.needs_caption:
        return
    if not part.settings.captions:
        raise UserError(
            f"the loss needs captions for source {part.shards.name}; give --captions, or train without them "
            "(--set loss.pairs=baseline)"
        )
    folders = list(map(location_of, part.settings.captions))
    require_captions(folders, f"data.sources.{part.shards.name}.captions")


def _check_captions_found(part: SourcePart, look: Look) -> None:
    if part.settings.needs_caption and look.num_without_caption == look.num_seen:
        raise UserError(
            f"{', '.join(part.settings.captions)}: has captions for none of the {look.num_seen:,} samples "
            f"checked of source {part.shards.name}; give those that were made for its shards{_why(look)}"
        )


def _check_usable(part: SourcePart, look: Look) -> None:
    total = part.order.num_samples
    is_exact = look.num_seen == total
    usable = len(look.distinct) if is_exact else look.num_usable
    expected = usable * total / look.num_seen if look.num_seen else 0
    if look.num_decoded and look.undecodable.total() == look.num_decoded:
        raise UserError(
            f"source {part.shards.name}: all {look.num_decoded:,} samples whose pictures were decoded are "
            f"damaged ({_listed(look.undecodable)}), such as {look.undecodable_example}; find out more by "
            "'clipvip-data verify'"
        )
    if expected >= part.order.rows and look.num_usable:
        return
    seen = counted(look.num_seen, "samples")
    of = f"its {counted(total, 'samples')}" if is_exact else f"the {seen} checked (of {total:,})"
    ways = []
    if look.lost["empty_subtitle"]:
        ways.append("train on captions alone (--set loss.pairs=V-C)")
    if look.num_usable > 1:
        ways.append("lower optim.batch_size")
    ways.append("give more data")
    lost = look.lost if look.all_decoded else look.lost + look.undecodable
    lost = lost + Counter(there_more_than_once=look.num_seen - lost.total() - usable if is_exact else 0)
    raise UserError(
        f"source {part.shards.name}: {usable:,} of {of} can be used ({_listed(lost)}), and a batch takes "
        f"{part.order.rows:,} of them; {', or '.join(ways)}"
    )


def _warnings(part: SourcePart, look: Look) -> list[str]:
    lines = []
    contents = Counter(
        shard.location if shard.identity.startswith("url:") else shard.identity
        for shard in part.shards.shards
    )
    if twice := sum(count > 1 for count in contents.values()):
        lines.append(f"shards given more than once: {twice:,}; a clip may be in a batch twice")
    lost, many = look.lost.total(), _MANY_LOST * look.num_seen
    if lost > many:
        is_silent = look.lost["empty_subtitle"] > lost / 2
        way = "; --set loss.pairs=V-C trains without subtitles" if is_silent else ""
        lines.append(
            f"{lost:,} of the {look.num_seen:,} samples checked cannot be used "
            f"({_listed(look.lost)}); others take their places{way}"
        )
    damaged = look.undecodable.total()
    if damaged > _MANY_LOST * look.num_decoded and lost <= many:
        lines.append(
            f"{damaged:,} of the {look.num_decoded:,} samples whose pictures were decoded cannot be used "
            f"({_listed(look.undecodable)}), such as {look.undecodable_example}; others take their places"
        )
    lines += [f"{location} holds no samples of kind {part.shards.kind}" for location in part.shards.empty]
    without = look.num_without_caption
    if part.settings.needs_caption and part.settings.needs_subtitle and (look.notes or without > many):
        lines.append(
            f"{without:,} of the {look.num_seen:,} samples checked have no caption, and are used only in "
            f"terms of the loss that need none{_why(look)}"
        )
    return lines


def _why(look: Look) -> str:
    return f" ({_listed(look.notes)}, such as {look.example})" if look.notes else ""


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in sorted(counts.items()))
