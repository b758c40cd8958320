"""The stage `split`: parts of a folder of shards, such as train and val, by video."""

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import click
import numpy as np
from pydantic import JsonValue

from clipvip.pipeline.runtime.errors import UserError, WrongOptions
from clipvip.pipeline.runtime.options import ALSO, opt, options
from clipvip.pipeline.runtime.report import StageReport
from clipvip.pipeline.runtime.stage import stage
from clipvip.pipeline.tools.copy_run import CopyOptions, Input, Output, ShardSize, survey_inputs
from clipvip.pipeline.tools.selection import between, cuts
from clipvip.shards.files.stores import Location


class Part(NamedTuple):
    """A part and its share of the clips."""

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
    """Options of `split`; a part is ("val", 0.01) or "val=0.01"."""

    folder: Location = opt(argument=True, metavar="DIR", kw_only=False)
    out: Location = opt(f"Folder for the parts, each a folder of shards; {ALSO}.")
    parts: tuple[tuple[str, float], ...] = opt(
        "A part and its share of the clips; repeatable.", _PartType(), names=("--part",)
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
    """What came of each part, by its name, and its share of the clips as it was made."""

    parts: dict[str, StageReport]
    shares: dict[str, float]


@stage(
    SplitOptions,
    "clipvip-data split",
    "clips/ --part train=0.99 --part val=0.01 --out parts/",
    "s3://bucket/clips --part train=0.99 --part val=0.01 --out s3://bucket/parts",
    note="The first example writes parts/train and parts/val.",
)
def split(options: SplitOptions) -> SplitReport:
    """Split shards into parts so that all clips of a video are in one part.

    Shares are of clips, and as exact as whole videos allow: off by no more than the clips of one video, as
    long as each part gets a video. The order is that of a hash of the videos' ids and the seed. So the same
    clips are always split in the same way, and if a folder grows, only videos next to a cut change their
    part. Folders may also be in s3://, gs:// and hf://.

    Raises:
        UserError, DatasetError: the parts do not add up, or what was given cannot be used.

    Examples:
        >>> import clipvip
        >>> report = clipvip.split("clips", parts=[("train", 0.75), ("val", 0.25)], out="parts")
        >>> {name: part.counts["clips"] for name, part in report.parts.items()}
        {'train': 840, 'val': 280}
    """
    names = [name for name, _ in options.parts]
    if len(set(names)) < len(names):
        raise WrongOptions("give each --part another name")
    if abs(sum(fraction for _, fraction in options.parts) - 1) > 1e-9:
        raise WrongOptions("the fractions of all --part must add up to 1")
    captions_out, seed = options.captions_out or (), options.seed
    source = Input.open(options.folder, options.captions or (), captions_out)
    size = options.shard_size or source.shard_size
    parts: dict[str, StageReport] = {}
    survey = survey_inputs([source], options, seed=seed, by_video=True)
    try:
        ends = cuts(survey.hashes, [fraction for _, fraction in options.parts])
    except ValueError as error:
        problem = f"has fewer videos than the {len(names)} parts that were asked for; give fewer --part"
        raise UserError(f"{options.folder}: {problem}") from error
    shares: dict[str, float] = {}
    for (name, fraction), (first, end) in zip(options.parts, pairwise(ends), strict=True):
        captions = tuple(folder / name for folder in captions_out)
        made_by: dict[str, JsonValue] = {"part": name, "share": fraction, "seed": seed}
        made_by["hashes"] = [f"{first:016x}", f"{end:016x}"]
        output = Output("split", options.out / name, captions, made_by, size)
        parts[name] = survey.make(between(first, end), output, options)
        num_clips = survey.hashes.count_below(end) - survey.hashes.count_below(first)
        shares[name] = num_clips / len(survey.hashes)
    content = {"parts": {name: part.content for name, part in parts.items()}, "shares": shares}
    asked = dict(options.parts)
    told = (f"{name} {share:.2%} (asked for {asked[name]:.2%})" for name, share in shares.items())
    text = "\n".join([*map(str, parts.values()), f"split: shares of the clips: {', '.join(told)}"])
    return SplitReport(content=content, text=text, parts=parts, shares=shares)
