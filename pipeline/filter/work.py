"""What a worker process of `clipvip-data filter` does: measure the clips of a shard, without a model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clipvip.media.errors import one_line
from clipvip.pipeline.filter.language import language_of
from clipvip.pipeline.filter.motion import motion_of
from clipvip.pipeline.filter.table import ClipTable, Values, read_table, table_path, write_table
from clipvip.pipeline.filter.texts import captions_for, captions_sum, texts_of
from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.files.stores import Location
from clipvip.shards.format.captions import shard_source
from clipvip.shards.tar.reader import Sample, read_samples

_VERSION = 1  # of what is measured, and how


@dataclass(frozen=True, slots=True)
class MeasureTask:
    """A shard to be measured, by its file's hash, and the folders of its captions and of its table.

    `detector` is what tells languages, `decodes` False after a decoder has crashed on the shard.
    """

    shard: Location
    sha256: str
    captions: tuple[Location, ...]
    out: Location
    max_pixels: int
    detector: str
    decodes: bool = True


@dataclass(frozen=True, slots=True)
class Measured:
    """How many clips a table has, and what it says of how many that they were not or not wholly measured."""

    num_clips: int
    num_skipped: int


def measure_shard(task: MeasureTask) -> Measured:
    """Write the table of a shard.

    Raises:
        DatasetError: the shard is damaged as a whole; nothing is written then.
    """
    found = _measure(task, _made_of(task))
    write_table(table_path(task.out, task.shard.stem), found)
    return Measured(len(found.keys), len(found.skips))


def is_measured(task: MeasureTask) -> bool:
    """Whether there is a table that was made of the same."""
    found = read_table(table_path(task.out, task.shard.stem))
    return found is not None and found.made_of.get("measures") == _made_of(task)


def had_captions(task: MeasureTask) -> bool:
    """Whether there is a table that was made with captions."""
    found = read_table(table_path(task.out, task.shard.stem))
    parts = [] if found is None else found.made_of.get("measures", "").split("; ")
    return any(part.startswith("captions ") and part != "captions none" for part in parts)


def _made_of(task: MeasureTask) -> str:
    """What a table's measures depend on."""
    return "; ".join(
        (
            f"version {_VERSION}",
            shard_source(task.shard, task.sha256),
            f"captions {captions_sum(task.captions, task.shard.stem)}",
            f"language {task.detector}",
        )
    )


def _measure(task: MeasureTask, made_of: str) -> ClipTable:
    keys: list[str] = []
    texts: list[list[str]] = []
    seconds, motion, skips = list[float](), list[float](), list[Skip]()
    seen: set[str] = set()
    for sample in read_samples(task.shard, max_pixels=task.max_pixels):
        if isinstance(sample, Skip):
            skips.append(sample)
        elif sample.key in seen:
            skips.append(Skip("duplicate_key", sample.key, "another clip of this shard has the same"))
        else:
            seen.add(sample.key)
            start, end = sample.record.span_seconds
            keys.append(sample.key)
            texts.append(texts_of(sample))
            seconds.append(max(0.0, end - start))
            motion.append(_motion(sample, task, skips))
    captions, notes = captions_for(task.shard, task.sha256, task.captions, keys)
    columns: dict[str, Values] = {
        "words": num_words(texts),
        "caption_words": num_words([captions.get(key, []) for key in keys], of_none=np.nan),
        "seconds": np.array(seconds, np.float32),
        "motion": np.array(motion, np.float32),
        "language": [language_of(" ".join(some)) for some in texts],
    }
    return ClipTable(keys, {}, {}, skips + notes).with_family("measures", made_of, columns)


def _motion(sample: Sample, task: MeasureTask, skips: list[Skip]) -> float:
    """NaN where it cannot be told, which `skips` then says."""
    if not task.decodes:
        skips.append(Skip("motion_unknown", sample.key, "a decoder crashed on another clip of the shard"))
        return np.nan
    try:
        return motion_of(sample)
    except DatasetError as error:
        skips.append(Skip("damaged_sample", sample.key, one_line(error)))
        return np.nan


def num_words(texts: Sequence[Sequence[str]], *, of_none: float = 0) -> np.ndarray:
    """Words of each clip's text, float32; of several texts the mean."""
    counts = [np.mean([len(text.split()) for text in some]) if some else of_none for some in texts]
    return np.array(counts, np.float32)
