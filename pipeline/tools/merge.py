"""The command `clipvip-data merge`: several folders of shards as one.

Copying is `rearrange`'s business; this file decides whether the folders go together.
"""

from pathlib import Path

import click

from clipvip.pipeline.runtime.cores import num_cores
from clipvip.pipeline.runtime.errors import StageCommand, UserError
from clipvip.pipeline.runtime.options import print_result
from clipvip.pipeline.tools.copy_options import copying_options, require_captions_pair
from clipvip.pipeline.tools.copy_run import (
    Input,
    Output,
    Survey,
    common_options,
    describe_output,
    open_input,
    survey_inputs,
    write_output,
)
from clipvip.pipeline.tools.selection import without
from clipvip.shards.tar.index import ShardFile

CUT_OPTIONS = ("fps", "size", "store", "quality", "max_frames")
# Keys are compared by their hashes; so many that repeat are looked up to be sure.
_MAX_LOOKED_UP = 100

_EPILOG = """\b
Examples:
  clipvip-data merge monday/ tuesday/ --out week/
"""


@click.command(cls=StageCommand, epilog=_EPILOG)
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=Path, help="Folder for the merged shards.")
@click.option("--duplicates", type=click.Choice(["refuse", "first"]), default="refuse", show_default=True,
              help="Where several clips have one key: give up, or keep the first.")  # fmt: skip
@click.option("--mixed-options", is_flag=True, help="Merge also what was cut in different ways.")
@click.option(
    "--captions", multiple=True, type=Path, help="Folder of captions, one for each DIR in their order."
)
@click.option("--captions-out", type=Path, help="Folder for the merged captions.")
@click.option("--shard-size", type=click.IntRange(min=1), show_default="each shard stays as it is",
              help="Most clips in a shard; packs the clips anew.")  # fmt: skip
@copying_options
def command(
    folders: tuple[Path, ...],
    out: Path,
    duplicates: str,
    mixed_options: bool,
    captions: tuple[Path, ...],
    captions_out: Path | None,
    shard_size: int | None,
    workers: int | None,
    check: bool,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Put the shards of several folders into one, numbered anew in the order given.

    Clips are copied byte for byte. Folders that were cut in different ways, or have clips in common, are
    refused unless you say what to do about it.
    """
    if captions and len(captions) != len(folders):
        raise click.UsageError(f"give --captions once for each of the {len(folders)} folders, or not at all")
    require_captions_pair(given=bool(captions), out=captions_out)
    inputs = [open_input(f, c) for f, c in zip(folders, captions or [None] * len(folders), strict=True)]
    if not mixed_options:
        _require_one_cut(inputs)
    _require_one_captioner(inputs)
    output = Output(
        "merge",
        out,
        captions_out,
        options=common_options(inputs) | ({"shard_size": shard_size} if shard_size else {}),
        made_by={"duplicates": duplicates, "shard_size": shard_size},
        shard_size=shard_size,
        workers=workers or num_cores(),
    )
    # A shard that is copied whole has its checksum compared on the way.
    is_checked_first = check and (duplicates == "first" or shard_size is not None)
    with survey_inputs(inputs, workers=output.workers, check=is_checked_first) as survey:
        dropped = _repeated(survey) if duplicates == "first" else _refuse_repeated(survey)
        result, text = (describe_output if dry_run else write_output)(survey, without(dropped), output)
    print_result(result, text, as_json=as_json)


def _require_one_cut(inputs: list[Input]) -> None:
    first = inputs[0]
    for other in inputs[1:]:
        for name in CUT_OPTIONS:
            ours, theirs = first.options.get(name), other.options.get(name)
            if ours != theirs:
                raise UserError(
                    f"{other.folder}: was cut with {name} {theirs!r}, {first.folder} with {ours!r}; "
                    "give --mixed-options to merge them all the same"
                )


def _require_one_captioner(inputs: list[Input]) -> None:
    for other in inputs[1:]:
        if other.caption_options != inputs[0].caption_options:
            raise UserError(
                f"{other.captions}: captioned by another model or other options than {inputs[0].captions}; "
                "merge without --captions and caption the result"
            )


def _repeated(survey: Survey) -> dict[int, list[int]]:
    """Every clip whose key an earlier one has: shard -> numbers."""
    dropped: dict[int, list[int]] = {}
    for group in survey.hashes.repeated():
        for shard, number in group[1:]:
            dropped.setdefault(shard, []).append(number)
    return dropped


def _refuse_repeated(survey: Survey) -> dict[int, list[int]]:
    for number, group in enumerate(survey.hashes.repeated()):
        places = [(survey.shards[shard][1], _place(survey, shard, index)) for shard, index in group[:2]]
        keys = [_key_at(path, place) for path, place in places] if number < _MAX_LOOKED_UP else ["", ""]
        if keys[0] == keys[1]:
            raise UserError(
                f"clip {keys[0]} is in {places[0][0]} and in {places[1][0]}; "
                "give --duplicates first to keep the first of such clips"
            )
    return {}


def _place(survey: Survey, shard: int, index: int) -> int:
    return int(survey.places[shard][index]) if shard in survey.places else index


def _key_at(path: Path, place: int) -> str:
    with ShardFile(path) as shard:
        return next(span.key for number, span in enumerate(shard.spans()) if number == place)
