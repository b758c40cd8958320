"""The command `clipvip-data split`: parts of a folder of shards, such as train and val, by video.

Choosing is `selection`'s business, copying `rearrange`'s.
"""

import re
from itertools import accumulate, pairwise
from pathlib import Path

import click

from clipvip.pipeline.runtime.cores import num_cores
from clipvip.pipeline.runtime.errors import StageCommand
from clipvip.pipeline.runtime.options import print_result
from clipvip.pipeline.tools.copy_options import copying_options, require_captions_pair
from clipvip.pipeline.tools.copy_run import (
    Output,
    common_options,
    describe_output,
    open_input,
    shard_size_of,
    survey_inputs,
    write_output,
)
from clipvip.pipeline.tools.selection import between

_EPILOG = """\b
Examples (this one writes parts/train and parts/val):
  clipvip-data split clips/ --part train=0.99 --part val=0.01 --out parts/
"""


class _Part(click.ParamType):
    """NAME=FRACTION."""

    name = "name=fraction"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float]:
        match = re.fullmatch(r"([A-Za-z0-9_-]+)=([0-9]*\.?[0-9]+)", str(value))
        if match is None or not 0 < float(match[2]) < 1:
            self.fail(f"{value!r}: write NAME=FRACTION, such as val=0.01", param, ctx)
        return match[1], float(match[2])


@click.command(cls=StageCommand, epilog=_EPILOG)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=Path, help="Folder for the parts, each a folder of shards.")
@click.option(
    "--part", "parts", required=True, multiple=True, type=_Part(), help="A part and its share of the videos."
)
@click.option(
    "--seed", type=click.IntRange(0, 2**64 - 1), default=0, show_default=True, help="Seed of the split."
)
@click.option("--captions", type=Path, help="Folder of the clips' captions, to split along.")
@click.option("--captions-out", type=Path, help="Folder for the parts of the captions.")
@click.option(
    "--shard-size", type=click.IntRange(min=1), show_default="as before", help="Most clips in a shard."
)
@copying_options
def command(
    folder: Path,
    out: Path,
    parts: tuple[tuple[str, float], ...],
    seed: int,
    captions: Path | None,
    captions_out: Path | None,
    shard_size: int | None,
    workers: int | None,
    check: bool,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Split shards into parts so that all clips of a video are in one part.

    A video's part follows from a hash of its id and the seed: a video that is added later moves no other, and
    shares hold over many videos, not exactly.
    """
    names = [name for name, _ in parts]
    if len(set(names)) < len(names):
        raise click.UsageError("give each --part another name")
    if abs(sum(fraction for _, fraction in parts) - 1) > 1e-9:
        raise click.UsageError("the fractions of all --part must add up to 1")
    require_captions_pair(given=captions is not None, out=captions_out)
    source = open_input(folder, captions)
    size = shard_size or shard_size_of(source)
    ends = [0.0, *list(accumulate(fraction for _, fraction in parts))[:-1], 1.0]
    num_workers = workers or num_cores()
    made: dict[str, tuple[dict[str, object], str]] = {}
    with survey_inputs([source], workers=num_workers, check=check, seed=seed, by_video=True) as survey:
        for name, (low, high) in zip(names, pairwise(ends), strict=True):
            output = Output(
                "split",
                out / name,
                captions_out / name if captions_out else None,
                options=common_options([source]) | {"shard_size": size},
                made_by={"part": name, "from": low, "to": high, "seed": seed},
                shard_size=size,
                workers=num_workers,
            )
            made[name] = (describe_output if dry_run else write_output)(survey, between(low, high), output)
    content = {"parts": {name: result for name, (result, _) in made.items()}}
    print_result(content, "\n".join(text for _, text in made.values()), as_json=as_json)
