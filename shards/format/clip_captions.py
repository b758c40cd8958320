"""All captions of a clip, out of several folders: as training draws them, and with what made each of them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from pydantic import JsonValue

from clipvip.media.sampling import middle_index
from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.files.places import is_file, location_of
from clipvip.shards.files.stores import Location
from clipvip.shards.files.text import parse_object
from clipvip.shards.format.captions import (
    CaptionFile,
    SeenFrame,
    captions_path,
    is_made_of,
    read_caption_file,
)
from clipvip.shards.format.manifest import read_manifest
from clipvip.shards.format.record import ClipRecord

# Among the options of captions that a model of ours made, be it of whatever version; and of how many frames.
_OF_OURS = "num_beams"
NUM_FRAMES = "frames"


class ClipCaption(NamedTuple):
    """A caption of a clip, and what made it: model and revision, its options, of which frame.

    `options` are as the caption file has them, empty where others made it, as are the names then. `frame` is
    a number among the stored frames and `seconds` its time in the source; None where nobody knows.
    """

    text: str
    model: str
    revision: str
    options: dict[str, JsonValue]
    frame: int | None
    seconds: float | None


def sourced_captions(content: CaptionFile) -> dict[str, list[ClipCaption]]:
    """Key -> its captions, of a file that was read with origins.

    Those of a middle frame have no `frame` yet: see `with_middle_frame`.
    """
    options = {origin: parse_object(origin.options) for origin in content.origins | set(content.row_origins)}
    found = {}
    for (key, texts), origin in zip(content.all_captions().items(), content.row_origins, strict=True):
        seen: list[SeenFrame] | list[tuple[None, None]]
        seen = content.frames.get(key) or [(None, None)] * len(texts)
        found[key] = [
            ClipCaption(text, origin.model, origin.revision, options[origin], *frame)
            for text, frame in zip(texts, seen, strict=True)
        ]
    return found


def with_middle_frame(captions: Sequence[ClipCaption], record: ClipRecord) -> list[ClipCaption]:
    """The captions of a clip; what our captioners made of its middle frame says so."""
    middle = middle_index(len(record.frame_seconds))
    seconds = record.frame_seconds[middle]
    return [
        one._replace(frame=middle, seconds=seconds) if one.frame is None and _OF_OURS in one.options else one
        for one in captions
    ]


@dataclass(frozen=True, slots=True)
class ShardCaptions:
    """The captions of one shard by key, and why there are none where some were to be expected."""

    by_key: dict[str, tuple[str, ...]]
    skips: list[Skip]

    def draw(self, key: str, rng: np.random.Generator, *, most: int = 1) -> tuple[str, ...]:
        """The captions of a key; of more than `most` so many by chance, in their order."""
        texts = self.by_key.get(key, ())
        if len(texts) <= most:
            return texts
        if most == 1:
            return (texts[int(rng.integers(len(texts)))],)
        return tuple(texts[n] for n in sorted(rng.choice(len(texts), most, replace=False).tolist()))


def captions_of_shard(
    folders: Sequence[str],
    shard_stem: str,
    *,
    num_bytes: int,
    sha256: str | None,
    keys: Collection[str],
    first_counts: bool = False,
) -> ShardCaptions:
    """What the folders hold for a shard that has the `keys`: of each key the captions of all, in their order.

    With `first_counts` those of the first folder that has the key, as earlier versions took them.

    Names of shards may be equal in several data sets: a file that was made of another shard, or has captions
    for none of the keys, is not used. Reasons: `no_captions` (no file for the shard),
    `captions_of_another_shard`, `unreadable_captions`.
    """
    by_key: dict[str, tuple[str, ...]] = {}
    wanted = set(keys)
    skips: list[Skip] = []
    is_used = False
    for folder in folders:
        path = captions_path(folder, shard_stem)
        if not is_file(path):
            continue
        try:
            found = read_caption_file(path)
        except DatasetError as error:
            skips.append(Skip("unreadable_captions", path.name, str(error)))
            continue
        is_of_shard = is_made_of(found.source, num_bytes=num_bytes, sha256=sha256)
        rows = {key: texts for key, texts in found.all_captions().items() if key in wanted and is_of_shard}
        if rows or (is_of_shard and not found.rows):
            is_used = True
            for key, texts in rows.items():
                if not (first_counts and key in by_key):
                    by_key[key] = (*by_key.get(key, ()), *texts)
        else:
            made_of = f"made of {found.source}" if not is_of_shard else "has none of the shard's keys"
            skips.append(Skip("captions_of_another_shard", path.name, f"{path}: {made_of}"))
    if is_used:
        # A file of another data set beside the right one is as it should be.
        skips = [skip for skip in skips if skip.reason != "captions_of_another_shard"]
    elif not skips:
        skips = [Skip("no_captions", f"{shard_stem}.parquet", f"in {', '.join(folders)}")]
    return ShardCaptions(by_key, skips)


def most_captions(folder: str) -> int | None:
    """The most captions that a clip has in a folder, by its manifest; None where that does not say it."""
    try:
        manifest = read_manifest(location_of(folder))
    except (DatasetError, OSError):
        return None
    if manifest is None or _OF_OURS not in manifest.options:
        return None
    frames = manifest.options.get(NUM_FRAMES, 1)
    return frames if isinstance(frames, int) and frames > 0 else None


def sourced_captions_of(
    folders: Sequence[str], shard_stem: str, *, num_bytes: int | None, where: str
) -> dict[str, list[ClipCaption]]:
    """Key -> its captions in all folders, of the shard of that name and size (None: whatever its size).

    Raises DatasetError, which names `where`: no folder has a file of the shard, or one is damaged.
    """
    of_folders = [_of_folder(folder, shard_stem, num_bytes) for folder in folders]
    if all(found is None for found in of_folders):
        raise DatasetError(f"{where} in {', '.join(folders)}; make them with 'clipvip-data caption'")
    joined: dict[str, list[ClipCaption]] = {}
    for found in of_folders:
        for key, captions in (found or {}).items():
            joined.setdefault(key, []).extend(captions)
    return joined


def _of_folder(
    folder: Location | str, shard_stem: str, num_bytes: int | None
) -> dict[str, list[ClipCaption]] | None:
    path = captions_path(folder, shard_stem)
    if not is_file(path):
        return None
    content = read_caption_file(path, with_origins=True)
    if num_bytes is not None and not is_made_of(content.source, num_bytes=num_bytes, sha256=None):
        return None
    return sourced_captions(content)
