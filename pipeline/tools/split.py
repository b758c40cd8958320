"""The stage `split`: parts of a folder of shards, such as train and val, by video."""

import re
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

import click
import numpy as np
from pydantic import JsonValue

from clipvip.pipeline.runtime.errors import WrongOptions
from clipvip.pipeline.runtime.options import ALSO, opt, options
from clipvip.pipeline.runtime.report import StageReport
from clipvip.pipeline.runtime.stage import stage
from clipvip.pipeline.tools.copy_run import CopyOptions, Input, Output, ShardSize, survey_inputs
from clipvip.pipeline.tools.selection import between
from clipvip.shards.files.stores import Location


class Part(NamedTuple):
    """A part and its share of the videos."""

    name: str
    fraction: float

    def __str__(self) -> str:
        return f"{self.name}={np.format_float_positional(self.fraction)}"


class _PartType(click.ParamType):
    """NAME=FRACTION, or from Python also (NAME, FRACTION)."""

    name = "name=fraction"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Part:
        text = str(Part(*value)) if isinstance(value, tuple) else str(value)
        match = re.fullmatch(r"([A-Za-z0-9_-]+)=([0-9]*\.?[0-9]+)", text)
        if match is None or not 0 < float(match[2]) < 1:
            self.fail(f"{value!r}: write NAME=FRACTION, such as val=0.01", param, ctx)
        return Part(match[1], float(match[2]))


@options
class SplitOptions(CopyOptions):
    """What `split` is asked for; a part is ("val", 0.01) or "val=0.01"."""

    folder: Location = opt(argument=True, metavar="DIR", kw_only=False)
    out: Location = opt(f"Folder for the parts, each a folder of shards; {ALSO}.")
    parts: tuple[tuple[str, float], ...] = opt(
        "A part and its share of the videos.", _PartType(), names=("--part",)
    )
    seed: int = opt("Seed of the split.", click.IntRange(0, 2**64 - 1), default=0)
    captions: tuple[Location, ...] | None = opt(
        f"Folder of the clips' captions, to split along; may be given several times; {ALSO}.", default=()
    )
    captions_out: tuple[Location, ...] | None = opt(
        f"Folder for the parts of the captions, one for each --captions; {ALSO}.", default=()
    )
    shard_size: ShardSize = None


@dataclass(frozen=True, kw_only=True)
class SplitReport(StageReport):
    """What came of each part, by its name."""

    parts: dict[str, StageReport]


@stage(
    SplitOptions,
    "clipvip-data split",
    "clips/ --part train=0.99 --part val=0.01 --out parts/",
    "s3://bucket/clips --part train=0.99 --part val=0.01 --out s3://bucket/parts",
    note="The first example writes parts/train and parts/val.",
)
def split(options: SplitOptions) -> SplitReport:
    """Split shards into parts so that all clips of a video are in one part.

    A video's part follows from a hash of its id and the seed: a video that is added later moves no other, and
    shares hold over many videos, not exactly. Folders may also be in s3://, gs:// and hf://.

    Raises:
        UserError, DatasetError: the parts do not add up, or what was given cannot be used.
    """
    names = [name for name, _ in options.parts]
    if len(set(names)) < len(names):
        raise WrongOptions("give each --part another name")
    if abs(sum(fraction for _, fraction in options.parts) - 1) > 1e-9:
        raise WrongOptions("the fractions of all --part must add up to 1")
    captions_out, seed = options.captions_out or (), options.seed
    source = Input.open(options.folder, options.captions or (), captions_out)
    size = options.shard_size or source.shard_size
    ends = [0.0, *list(accumulate(fraction for _, fraction in options.parts))[:-1], 1.0]
    parts: dict[str, StageReport] = {}
    survey = survey_inputs([source], options, seed=seed, by_video=True)
    for name, (low, high) in zip(names, pairwise(ends), strict=True):
        captions = tuple(folder / name for folder in captions_out)
        made_by: dict[str, JsonValue] = {"part": name, "from": low, "to": high, "seed": seed}
        output = Output("split", options.out / name, captions, made_by, size)
        parts[name] = survey.make(between(low, high), output, options)
    content = {"parts": {name: part.content for name, part in parts.items()}}
    return SplitReport(content=content, text="\n".join(map(str, parts.values())), parts=parts)
