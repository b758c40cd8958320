"""The command `clipvip-data subset`: some clips of a folder of shards, as a folder of their own.

Choosing is `selection`'s business, copying `rearrange`'s.
"""

from pathlib import Path

import click
from pydantic import JsonValue

from clipvip.pipeline.runtime.cores import num_cores
from clipvip.pipeline.runtime.errors import StageCommand, UserError
from clipvip.pipeline.runtime.options import print_result
from clipvip.pipeline.tools.copy_options import copying_options, require_captions_pair
from clipvip.pipeline.tools.copy_run import (
    Choose,
    Output,
    Survey,
    common_options,
    count_chosen,
    describe_output,
    open_input,
    shard_size_of,
    survey_inputs,
    write_output,
)
from clipvip.pipeline.tools.selection import Listed, inverse, listed_key, listed_video, up_to
from clipvip.shards.files.hashes import sha256_of_file

_EPILOG = """\b
Examples (the first is a random tenth of HD-VILA-100M, as in Fig. 1 of the paper):
  clipvip-data subset clips/ --num 10000000 --out clips10m/ --captions captions/ --captions-out captions10m/
  clipvip-data subset clips/ --video-ids test-videos.txt --exclude --out train/
"""


@click.command(cls=StageCommand, epilog=_EPILOG)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=Path, help="Folder for the new shards.")
@click.option("--num", type=click.IntRange(min=1), help="Take so many clips at random.")
@click.option(
    "--fraction", type=click.FloatRange(0, 1, min_open=True), help="Take this part of the clips at random."
)
@click.option("--keys", type=Path, help="Take the clips whose keys this text file lists, one a line.")
@click.option("--video-ids", type=Path, help="Take the clips of the videos whose ids this text file lists.")
@click.option("--exclude", is_flag=True, help="Take all but what --keys or --video-ids lists.")
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), default=0, show_default=True,
              help="Seed of --num and --fraction; with one seed, small subsets lie in larger ones.")  # fmt: skip
@click.option("--captions", type=Path, help="Folder of the clips' captions, to take along.")
@click.option("--captions-out", type=Path, help="Folder for the captions taken along.")
@click.option(
    "--shard-size", type=click.IntRange(min=1), show_default="as before", help="Most clips in a shard."
)
@copying_options
def command(
    folder: Path,
    out: Path,
    num: int | None,
    fraction: float | None,
    keys: Path | None,
    video_ids: Path | None,
    exclude: bool,
    seed: int,
    captions: Path | None,
    captions_out: Path | None,
    shard_size: int | None,
    workers: int | None,
    check: bool,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Copy some clips, byte for byte, into a folder of shards of their own.

    At random, a clip is taken by a hash of its key and the seed, so the same clips are taken wherever and
    however often this runs, and of two sizes the smaller is part of the larger.
    """
    if sum(value is not None for value in (num, fraction, keys, video_ids)) != 1:
        raise click.UsageError("give one of --num, --fraction, --keys and --video-ids")
    if exclude and keys is None and video_ids is None:
        raise click.UsageError("--exclude goes with --keys or --video-ids")
    require_captions_pair(given=captions is not None, out=captions_out)
    source = open_input(folder, captions)
    listed = _listed(keys, video_ids)
    size = shard_size or shard_size_of(source)
    output = Output(
        "subset",
        out,
        captions_out,
        options=common_options([source]) | {"shard_size": size},
        made_by=_made_by(num, fraction, keys, video_ids, exclude=exclude, seed=seed),
        shard_size=size,
        workers=workers or num_cores(),
    )
    by_video = video_ids is not None
    random_seed = seed if listed is None else 0
    with survey_inputs(
        [source], workers=output.workers, check=check, seed=random_seed, by_video=by_video
    ) as survey:
        choose = _choose(survey, num, fraction, listed, exclude=exclude)
        if listed is not None:
            count_chosen(survey, choose)  # after which `listed` knows what it has not met
            _tell_missing(listed)
        result, text = (describe_output if dry_run else write_output)(survey, choose, output)
    print_result(result, text, as_json=as_json)


def _listed(keys: Path | None, video_ids: Path | None) -> Listed | None:
    if keys is not None:
        return Listed(keys, listed_key)
    return None if video_ids is None else Listed(video_ids, listed_video)


def _choose(
    survey: Survey, num: int | None, fraction: float | None, listed: Listed | None, *, exclude: bool
) -> Choose:
    if listed is not None:
        return inverse(listed.choose) if exclude else listed.choose
    if fraction is not None:
        num = max(1, round(fraction * len(survey.hashes)))
    assert num is not None
    if num > len(survey.hashes):
        raise UserError(f"--num {num}: there are {len(survey.hashes)} clips; give no more")
    return up_to(survey.hashes.nth_smallest(num))


def _made_by(
    num: int | None,
    fraction: float | None,
    keys: Path | None,
    video_ids: Path | None,
    *,
    exclude: bool,
    seed: int,
) -> dict[str, JsonValue]:
    """What was chosen, by content rather than by file name."""
    if keys is not None or video_ids is not None:
        path = keys or video_ids
        assert path is not None
        kind = "keys" if keys is not None else "video_ids"
        return {f"{kind}_sha256": sha256_of_file(path), "exclude": exclude}
    return {"num": num, "seed": seed} if num is not None else {"fraction": fraction, "seed": seed}


def _tell_missing(listed: Listed) -> None:
    count, examples = listed.not_found()
    if count:
        names = ", ".join(ascii(example)[:80] for example in examples)
        click.echo(
            f"note: {count:,} of the listed have no clip here: {names}{' …' if count > 3 else ''}", err=True
        )
