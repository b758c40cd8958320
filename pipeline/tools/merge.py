"""The stage `merge`: several folders of shards as one."""

from collections import defaultdict
from dataclasses import replace
from itertools import chain, islice
from typing import Literal

from pydantic import JsonValue

from clipvip.pipeline.runtime.errors import UserError, WrongOptions
from clipvip.pipeline.runtime.options import ALSO, at_least, opt, options
from clipvip.pipeline.runtime.report import StageReport
from clipvip.pipeline.runtime.stage import stage
from clipvip.pipeline.tools.copy_run import CopyOptions, Input, Output, Survey, survey_inputs
from clipvip.pipeline.tools.selection import without
from clipvip.shards.files.stores import Location
from clipvip.shards.tar.index import ShardFile

CUT_OPTIONS = ("fps", "size", "store", "quality", "max_frames")
# Keys are compared by their hashes; so many that repeat are looked up to be sure.
_MAX_LOOKED_UP = 100


@options
class MergeOptions(CopyOptions):
    """Options of `merge`."""

    folders: tuple[Location, ...] = opt(argument=True, metavar="DIR...", kw_only=False)
    out: Location = opt(f"Folder for the merged shards; {ALSO}.")
    duplicates: Literal["refuse", "first"] = opt(
        "If several clips have one key: stop with an error, or keep the first.", default="refuse"
    )
    mixed_options: bool = opt("Merge shards that were cut in different ways too.", default=False)
    captions: tuple[Location, ...] | None = opt(
        "Folder of captions: one for each DIR, in the order of the DIRs, for the first --captions-out, then "
        f"as many for the next; {ALSO}.",
        default=(),
    )
    captions_out: tuple[Location, ...] | None = opt(
        f"Folder for the merged captions; may be given several times; {ALSO}.", default=()
    )
    shard_size: int | None = opt(
        "Most clips in a shard; packs the clips anew.",
        at_least(1),
        shown="each shard stays as it is",
        default=None,
    )


@stage(
    MergeOptions,
    "clipvip-data merge",
    "monday/ tuesday/ --out week/",
    "s3://bucket/monday s3://bucket/tuesday --out s3://bucket/week",
)
def merge(options: MergeOptions) -> StageReport:
    """Merge the shards of several folders into one, with new numbers, in the order given.

    Clips are copied byte for byte. Folders may also be in s3://, gs:// and hf://. Those that were cut in
    different ways, or have clips in common, are refused unless you say what to do about it.

    Raises:
        UserError, DatasetError: the folders do not go together, or one is damaged.

    Examples:
        >>> import clipvip
        >>> clipvip.merge(["monday", "tuesday"], out="both").counts["clips"]
        8
    """
    folders, captions, captions_out = options.folders, options.captions or (), options.captions_out or ()
    if captions and len(captions) != len(folders) * max(len(captions_out), 1):
        of_each = "" if len(captions_out) < 2 else ", and as often for each --captions-out"
        raise WrongOptions(
            f"give --captions once for each of the {len(folders)} folders{of_each}, or not at all"
        )
    inputs = [
        Input.open(folder, captions[number :: len(folders)], captions_out)
        for number, folder in enumerate(folders)
    ]
    _require_one_way(inputs, options)
    made_by: dict[str, JsonValue] = {"duplicates": options.duplicates, "shard_size": options.shard_size}
    output = Output("merge", options.out, captions_out, made_by, options.shard_size)
    keep_first = options.duplicates == "first"
    # A shard that is copied whole has its checksum compared on the way.
    stays_whole = not keep_first and options.shard_size is None
    survey = survey_inputs(inputs, replace(options, check=options.check and not stays_whole))
    if not keep_first:
        _refuse_repeated(survey)
    return survey.make(without(_repeated(survey) if keep_first else {}), output, options)


def _require_one_way(inputs: list[Input], options: MergeOptions) -> None:
    """Refuse folders that were cut or captioned in different ways."""
    first = inputs[0]
    for other in inputs[1:] if not options.mixed_options else ():
        for name in CUT_OPTIONS:
            ours, theirs = first.options.get(name), other.options.get(name)
            if ours != theirs:
                raise UserError(
                    f"{other.folder}: was cut with {name} {theirs!r}, {first.folder} with {ours!r}; "
                    "give --mixed-options to merge them all the same"
                )
    for other in inputs[1:]:
        for number, (ours, theirs) in enumerate(
            zip(first.caption_options, other.caption_options, strict=True)
        ):
            if ours != theirs:
                raise UserError(
                    f"{other.captions[number]}: captioned by another model or other options than "
                    f"{first.captions[number]}; merge without --captions and caption the result"
                )


def _repeated(survey: Survey) -> dict[int, list[int]]:
    """Every clip whose key an earlier one has: shard -> numbers."""
    dropped = defaultdict(list)
    for shard, number in chain.from_iterable(group[1:] for group in survey.hashes.repeated()):
        dropped[shard].append(number)
    return dropped


def _refuse_repeated(survey: Survey) -> None:
    for number, group in enumerate(survey.hashes.repeated()):
        paths = [survey.shards[shard][1] for shard, _ in group[:2]]
        keys = [_key_of(survey, *at) if number < _MAX_LOOKED_UP else "" for at in group[:2]]
        if keys[0] == keys[1]:
            raise UserError(
                f"clip {keys[0]} is in {paths[0]} and in {paths[1]}; "
                "give --duplicates first to keep the first of such clips"
            )


def _key_of(survey: Survey, shard: int, index: int) -> str:
    place = survey.places[shard][index] if shard in survey.places else index
    with ShardFile(survey.shards[shard][1]) as file:
        return next(islice(file.spans(), int(place), None)).key
