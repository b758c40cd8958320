"""The stage `subset`: some clips of a folder of shards, as a folder of their own."""

import click
from pydantic import JsonValue

from clipvip.pipeline.runtime.errors import UserError, WrongOptions
from clipvip.pipeline.runtime.options import ALSO, at_least, finite, opt, options
from clipvip.pipeline.runtime.report import StageReport, counted
from clipvip.pipeline.runtime.stage import stage
from clipvip.pipeline.tools.copy_run import CopyOptions, Input, Output, ShardSize, survey_inputs
from clipvip.pipeline.tools.selection import listed, not_listed, up_to
from clipvip.shards.files.hashes import HashStore, sha256_of_file
from clipvip.shards.files.stores import Location
from clipvip.shards.sources.key_list import KeyList


@options
class SubsetOptions(CopyOptions):
    """Options of `subset`: one of `num`, `fraction`, `keys` and `video_ids`."""

    folder: Location = opt(argument=True, metavar="DIR", kw_only=False)
    out: Location = opt(f"Folder for the new shards; {ALSO}.")
    num: int | None = opt("Take this many clips at random.", at_least(1), default=None)
    fraction: float | None = opt(
        "Take this fraction of the clips at random.", finite(0, 1, above=True), default=None
    )
    keys: Location | None = opt(
        f"Take the clips whose keys this text file lists, one a line, as 'filter' makes it; {ALSO}.",
        default=None,
    )
    video_ids: Location | None = opt(
        f"Take the clips of the videos whose ids this text file lists; {ALSO}.", default=None
    )
    exclude: bool = opt("Take all but what --keys or --video-ids lists.", default=False)
    seed: int = opt(
        "Seed of --num and --fraction; with one seed, small subsets lie in larger ones.",
        click.IntRange(0, 2**64 - 1),
        default=0,
    )
    captions: tuple[Location, ...] | None = opt(
        f"Folder of the clips' captions, to take along; may be given several times; {ALSO}.", default=()
    )
    captions_out: tuple[Location, ...] | None = opt(
        f"Folder for the captions taken along, one for each --captions; {ALSO}.", default=()
    )
    shard_size: ShardSize = None

    def key_list(self) -> KeyList | None:
        """What --keys or --video-ids lists."""
        path = self.keys or self.video_ids
        return None if path is None else KeyList(path, by_video=self.keys is None)

    def made_by(self) -> dict[str, JsonValue]:
        """What was chosen, by content rather than by file name."""
        for kind, path in (("keys", self.keys), ("video_ids", self.video_ids)):
            if path is not None:
                return {f"{kind}_sha256": sha256_of_file(path), "exclude": self.exclude}
        chosen = {"fraction": self.fraction} if self.num is None else {"num": self.num}
        return {**chosen, "seed": self.seed}


@stage(
    SubsetOptions,
    "clipvip-data subset",
    "clips/ --num 10000000 --out clips10m/ --captions captions/ --captions-out captions10m/",
    "clips/ --video-ids test-videos.txt --exclude --out train/",
    "s3://bucket/clips --fraction 0.01 --out few/",
    note="The first example is a random tenth of HD-VILA-100M, as in Fig. 1 of the paper.",
)
def subset(options: SubsetOptions) -> StageReport:
    """Copy some clips, byte for byte, into a folder of shards of their own.

    Random clips are chosen by a hash of the key and the seed. So the choice is the same on every machine,
    and a smaller subset is part of a larger one. Folders may also be in s3://, gs:// and hf://.

    Raises:
        UserError, DatasetError: what was given cannot be used, or no clip is chosen.

    Examples:
        >>> import clipvip
        >>> clipvip.subset("clips", num=100, out="some").counts["clips"]
        100
    """
    ways = (options.num, options.fraction, options.keys, options.video_ids)
    if sum(value is not None for value in ways) != 1:
        raise WrongOptions("give one of --num, --fraction, --keys and --video-ids")
    if options.exclude and options.keys is None and options.video_ids is None:
        raise WrongOptions("--exclude goes with --keys or --video-ids")
    captions_out = options.captions_out or ()
    source = Input.open(options.folder, options.captions or (), captions_out)
    keys = options.key_list()
    size = options.shard_size or source.shard_size
    output = Output("subset", options.out, captions_out, options.made_by(), size)
    seed = options.seed if keys is None else 0
    survey = survey_inputs([source], options, seed=seed, by_video=options.video_ids is not None)
    if keys is None:
        return survey.make(up_to(_largest(survey.hashes, options)), output, options)
    for number in range(len(survey.shards)):
        keys.choose(survey.hashes.of_shard(number))
    if missing := keys.told_missing():
        click.echo(f"note: {missing}", err=True)
    return survey.make(not_listed(keys) if options.exclude else listed(keys), output, options)


def _largest(hashes: HashStore, options: SubsetOptions) -> int:
    """The largest hash that is taken at random."""
    num = options.num
    if options.fraction is not None:
        num = max(1, round(options.fraction * len(hashes)))
    assert num is not None
    if num > len(hashes):
        raise UserError(f"--num {num}: the folder has {counted(len(hashes), 'clips')}; give no more")
    return hashes.nth_smallest(num)
