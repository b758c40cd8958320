"""The stages that only a study has: making its small world, and wrong captions on purpose."""

import operator
import random
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import click

from clipvip.experiments.demo.world import COLOURS, PLACES, REVERSED, World
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.options import LAST, at_least, finite, opt, options
from clipvip.pipeline.runtime.report import StageReport, counted
from clipvip.pipeline.runtime.stage import StageOptions, stage

# Fixed before any result of the seeds that they are reported for was looked at: docs/study.md.
STUDY_WORLD = World(
    num_train_videos=500,
    num_finetune_videos=50,
    num_test_videos=24,
    num_images=3000,
    distinct_test=True,
    # The shapes that the demo's captioner tells apart: captions are to be right about appearance.
    shapes=("circle", "star", "cross", "ring"),
    colours=("red", "yellow", "blue", "white"),
    sizes=("big",),
    places=("field", "night", "snow"),
    motions=tuple(REVERSED),
    # Speech tells what moves and how, in words of its own, and never where. Captions tell where, not how.
    topic_noise=0.1,
    filler_rate=0.3,
    shape_rate=1.0,
    colour_rate=0.8,
    size_rate=0.0,
    place_rate=0.0,
    motion_rate=1.0,
    synonym_rate=0.5,
)
# The second task: few appearances and a twin for each test clip, so that motion decides.
_MOTION_WORLD: dict[str, Any] = {
    "num_train_videos": 1,
    "num_finetune_videos": 200,
    "num_test_videos": 12,
    "num_images": 0,
    "num_descriptions": 1,
    "distinct_test": False,
    "twins": True,
    "colours": ("red", "yellow", "blue"),
    "places": ("field", "night"),
}
# A small, clean, other source of clips, in the place of Fig. 1's WebVid: descriptions of other shapes.
_WEB_WORLD: dict[str, Any] = {
    "num_train_videos": 1,
    "num_finetune_videos": 13,
    "num_test_videos": 1,
    "num_images": 0,
    "num_descriptions": 1,
    "shapes": ("square", "triangle"),
    "colours": tuple(COLOURS),
    "sizes": ("small",),
    "places": PLACES,
}
# Subtitles of which most are about something else, to be filtered: nothing but clips to post-pretrain on.
_NOISY_WORLD: dict[str, Any] = {
    "num_finetune_videos": 1,
    "num_test_videos": 1,
    "num_images": 0,
    "num_descriptions": 1,
    "distinct_test": False,
    "topic_noise": 0.6,
}
# A --quick world: to see that all runs, not to learn anything.
_QUICK_WORLD: dict[str, Any] = {
    "num_train_videos": 200,
    "num_finetune_videos": 40,
    "num_test_videos": 10,
    "num_images": 500,
    "num_descriptions": 300,
}
_QUICK_MOTION_WORLD = {"num_finetune_videos": 20, "num_test_videos": 6}
FOLDER = click.Path(file_okay=False, path_type=Path)


def _knob(flag: str, name: str, help: str, type: click.ParamType | None = None) -> Any:
    shown = str(getattr(STUDY_WORLD, name))
    return opt(help, type or finite(0, 1), names=(flag,), shown=shown, default=None)


_Share = Annotated[float | None, LAST]


@options
class Knobs(StageOptions):
    """What can be set of the small world, by `World`'s names; None: as `STUDY_WORLD` has it."""

    num_train_videos: Annotated[int | None, LAST] = _knob(
        "--videos", "num_train_videos", "Videos of six clips each to post-pretrain on.", at_least(1)
    )
    topic_noise: _Share = _knob(
        "--topic-noise", "topic_noise", "Share of the subtitles that are about something else."
    )
    motion_rate: _Share = _knob(
        "--motion-rate", "motion_rate", "Share of the other subtitles that tell the motion."
    )
    synonym_rate: _Share = _knob(
        "--synonyms",
        "synonym_rate",
        "Share of a subtitle's words that descriptions do not have; 0 shares all.",
    )
    caption_error: _Share = _knob(
        "--caption-error",
        "caption_error",
        "Share of the captions in which something is wrong, beside the captioner's own mistakes.",
    )

    def chosen(self) -> dict[str, Any]:
        """The knobs that are set."""
        knobs = {name: getattr(self, name) for name in Knobs.__dataclass_fields__}
        return {name: value for name, value in knobs.items() if value is not None}


@options
class WorldOptions(Knobs):
    """What `make_world` is asked for."""

    out: Path = opt("Folder for the world.", FOLDER)
    seed: int = opt("Seed of the world.", at_least(0))
    workers: int = opt("Processes.", at_least(1), default=2)
    quick: bool = opt("A very small world.", default=False)
    motion: bool = opt("The second task: few appearances and twins, so that motion decides.", default=False)
    web: bool = opt("The small, clean, other source of clips, in OUT/finetune.", default=False)
    noisy: bool = opt("Clips of which most subtitles are about something else.", default=False)


@stage(WorldOptions, "clipvip-study world", "--seed 1 --out world")
def make_world(options: WorldOptions) -> StageReport:
    """Write the small world alone: videos with subtitles, the splits of a task, labelled pictures.

    Raises:
        UserError: there cannot be such a world.
    """
    from clipvip.experiments.demo.run import make_corpus
    from clipvip.experiments.study.questions import write_questions

    world = world_of(options)
    text = make_corpus(world, options.out, workers=options.workers)
    if options.motion:
        write_questions(world, options.out / "texts")
    return StageReport(content=asdict(world), text=text)


def world_of(options: WorldOptions) -> World:
    """The world that is asked for; a UserError where that is more than one."""
    if options.motion + options.web + options.noisy > 1:
        raise UserError("--motion, --web and --noisy each stand for a whole world; give one of them")
    chosen = _QUICK_WORLD if options.quick else {}
    if options.motion:
        chosen = chosen | _MOTION_WORLD | (_QUICK_MOTION_WORLD if options.quick else {})
    if options.web:
        chosen = chosen | _WEB_WORLD
    if options.noisy:
        chosen = chosen | _NOISY_WORLD
    return replace(STUDY_WORLD, seed=options.seed, **(chosen | options.chosen()))


@options
class StartOptions(StageOptions):
    """What `make_start` is asked for."""

    recipe: str = opt(argument=True, metavar="RECIPE", kw_only=False)
    init: str = opt("The model to begin with.", metavar="FOLDER")
    out: Path = opt("Folder for the model.", FOLDER)
    overrides: tuple[str, ...] = opt(
        "Change one setting of the recipe; repeatable.", names=("--set",), metavar="KEY=VALUE", default=()
    )


@stage(
    StartOptions,
    "clipvip-study start",
    "study_finetune --init clip --out start --set model.encoder=mean_pool",
)
def make_start(options: StartOptions) -> StageReport:
    """Write the model with which training by RECIPE begins, to score it as it is.

    Raises:
        UserError, CheckpointError: there is no such recipe, or no such model.
    """
    from clipvip.pipeline.train.recipe import load_recipe
    from clipvip.pipeline.train.start import save_model, start_model

    recipe = load_recipe(options.recipe, options.overrides, options={"model.init": options.init})
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_model(start_model(recipe), options.out)
    return StageReport(
        content={"encoder": recipe.model.encoder}, text=f"start: {options.init} -> {options.out}"
    )


@options
class SpoilOptions(StageOptions):
    """What `spoil` is asked for."""

    shards: Path = opt("Folder of shards.")
    captions: Path = opt("Folder of their captions.")
    rate: float = opt("Share of the captions to replace.", finite(0, 1))
    seed: int = opt("Seed of the choice.", at_least(0))
    out: Path = opt("Folder for the captions.", FOLDER)


@stage(
    SpoilOptions,
    "clipvip-study spoil",
    "--shards clips --captions captions --rate 0.3 --seed 1 --out spoilt",
)
def spoil_captions(options: SpoilOptions) -> StageReport:
    """Give some clips the caption of another clip of their shard, to see what wrong captions cost.

    Returns:
        How many captions are `changed`, of how many in `total`.

    Raises:
        DatasetError: there are no shards, or a shard has no captions.
    """
    from clipvip.shards.format.captions import captions_path, read_caption_file, write_captions
    from clipvip.shards.tar.reader import list_shards

    out, rate = options.out, options.rate
    out.mkdir(parents=True, exist_ok=True)
    changed = total = 0
    for shard in list_shards(options.shards):
        found = read_caption_file(captions_path(options.captions, shard.stem))
        chance = random.Random(f"{options.seed}/{shard.stem}")
        texts = [text for _, text in found.rows]
        spoilt = [chance.choice(texts) if chance.random() < rate else text for text in texts]
        rows = [(key, text) for (key, _), text in zip(found.rows, spoilt, strict=True)]
        changed += sum(map(operator.ne, texts, spoilt))
        total += len(rows)
        write_captions(captions_path(out, shard.stem), rows, options={"spoilt": rate}, source=found.source)
    return StageReport(
        content={"changed": changed, "total": total},
        text=f"spoil: {changed:,} of {counted(total, 'captions')} replaced by those of other clips -> {out}",
    )
