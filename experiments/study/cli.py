"""The command `clipvip-study`: the paper's tables and Fig. 1, in a small world or on data of one's own."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from clipvip import __version__
from clipvip.experiments.demo.world import World
from clipvip.experiments.study.rows import STUDIES, STUDY_NAMES
from clipvip.pipeline.runtime.errors import StageCommand, StageGroup, UserError
from clipvip.pipeline.runtime.options import RAY_HELP, at_least

# Fixed before any result of the seeds that they are reported for was looked at: docs/study.md.
STUDY_WORLD = World(
    num_train_videos=1000,
    num_finetune_videos=50,
    num_test_videos=32,
    num_images=3000,
    twins=True,
    # The shapes that the demo's captioner tells apart: captions are to be right about appearance.
    shapes=("circle", "star", "cross", "ring"),
    sizes=("big",),
    motions=("left", "right", "up", "down", "grow", "shrink"),
    topic_noise=0.3,
    motion_rate=0.85,
    shape_rate=0.5,
    colour_rate=0.4,
    place_rate=0.3,
    synonym_rate=0.5,
)
# Where encoders are compared: so few appearances that motion decides.
_MOTION_WORLD: dict[str, Any] = {
    "num_train_videos": 1,
    "num_finetune_videos": 200,
    "num_test_videos": 6,
    "num_images": 0,
    "num_descriptions": 1,
    "shapes": ("circle", "star"),
    "colours": ("red", "blue", "white"),
    "places": ("field", "night"),
}
_PRETRAIN_STEPS = 300
# A --quick world and its steps: to see that all runs, not to learn anything.
_QUICK_WORLD: dict[str, Any] = {
    "num_train_videos": 200,
    "num_finetune_videos": 40,
    "num_test_videos": 10,
    "num_images": 500,
    "num_descriptions": 300,
}
_QUICK_MOTION_WORLD = {"num_finetune_videos": 20, "num_test_videos": 6}
_QUICK_STEPS = 30
_QUICK_TEXTS = 300
_QUICK_BATCH = ("optim.batch_size=16",)
_KNOBS = {
    "--videos": ("num_train_videos", "Videos of six clips each to post-pretrain on."),
    "--topic-noise": ("topic_noise", "Share of the subtitles that are about something else."),
    "--motion-rate": ("motion_rate", "Share of the other subtitles that tell the motion."),
    "--synonyms": (
        "synonym_rate",
        "Share of a subtitle's words that descriptions do not have; 0 shares all.",
    ),
    "--caption-error": (
        "caption_error",
        "Share of the captions in which something is wrong, beside the captioner's own mistakes.",
    ),
}


_option = partial(click.option, show_default=True)
_FOLDER = click.Path(file_okay=False, path_type=Path)
_PATH = click.Path(path_type=Path)


def _world_options(command: Any) -> Any:
    """The knobs of the world."""
    for flag, (name, text) in reversed(_KNOBS.items()):
        number = at_least(1) if name == "num_train_videos" else click.FloatRange(0, 1)
        default = str(getattr(STUDY_WORLD, name))
        command = click.option(flag, name, type=number, help=text, show_default=default)(command)
    return command


def _epilog(*examples: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  clipvip-study {example}" for example in examples)


@click.group(cls=StageGroup, epilog=_epilog("all --seeds 3 --out study/"))
@click.version_option(__version__, package_name="clipvip")
def main() -> None:
    """The paper's experiments over several seeds, with intervals: in a small world, or on data of
    your own."""


def _study_command(name: str, text: str) -> click.Command:
    @click.command(
        name,
        cls=StageCommand,
        help=text,
        epilog=_epilog(f"{name} --seeds 3 --out study/", f"{name} --quick --out quick/"),
    )
    @click.option(
        "--seeds",
        type=at_least(1),
        help="How many seeds, each with a world of its own.",
        show_default="3; with --quick 1",
    )
    @_option("--first-seed", type=at_least(0), default=1, help="The first of the seeds.")
    @_option("--out", type=_FOLDER, default=Path("study-out"), help="Folder for everything.")
    @click.option(
        "--workers", type=at_least(1), help="Processes: runs at a time.", show_default="one per core"
    )
    @_option("--gpus", type=at_least(0), default=0, help="Processes with a GPU each: runs at a time.")
    @click.option("--quick", is_flag=True, help="A very small world and few steps: to see that it works.")
    @click.option(
        "--data",
        "data_file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Instead of the small world: a YAML file that names shards, captions and recipes.",
    )
    @click.option("--pretrain-steps", type=at_least(2), help="Steps of each post-pretraining.")
    @click.option("--finetune-steps", type=at_least(1), help="Steps of each fine-tuning.")
    @click.option("--dry-run", is_flag=True, help="Say which commands would be run, and run none.")
    @_world_options
    @click.option("--ray", "ray_address", metavar="ADDRESS", help=RAY_HELP)
    def command(seeds: int | None, first_seed: int, **options: Any) -> None:
        count = seeds or (1 if options["quick"] else 3)
        names = list(STUDY_NAMES) if name == "all" else [name]
        _run(names, list(range(first_seed, first_seed + count)), **options)

    return command


def _run(
    names: list[str],
    seeds: list[int],
    *,
    out: Path,
    workers: int | None,
    gpus: int,
    quick: bool,
    data_file: Path | None,
    pretrain_steps: int | None,
    finetune_steps: int | None,
    dry_run: bool,
    ray_address: str | None,
    **knobs: Any,
) -> None:
    from clipvip.experiments.study.data import SmallWorld, read_data
    from clipvip.experiments.study.plan import Settings
    from clipvip.experiments.study.run import StudyRun, run_studies

    chosen = {name: value for name, value in knobs.items() if value is not None}
    if data_file is not None and (chosen or quick):
        raise click.UsageError("--data goes with neither --quick nor the options of the small world")
    if data_file is None:
        pretrain_steps = pretrain_steps or (_QUICK_STEPS if quick else _PRETRAIN_STEPS)
        finetune_steps = finetune_steps or (_QUICK_STEPS if quick else None)
        source: Any = SmallWorld(
            _world_arguments(quick=quick, **chosen),
            motion_options=(*_world_arguments(quick=quick), "--motion"),
            caption_error=chosen.get("caption_error", STUDY_WORLD.caption_error),
            num_texts=_QUICK_TEXTS if quick else 1000,
        )
    else:
        source = read_data(data_file)
    if pretrain_steps is None and "scale" in names:
        raise UserError("scale: takes models half way through post-pretraining; give --pretrain-steps")
    batch = _QUICK_BATCH if quick else ()
    settings = Settings(
        pretrain_steps=pretrain_steps,
        finetune_steps=finetune_steps,
        device_options=("--gpus", "1" if gpus else "0"),
        pretrain_settings=batch,
        finetune_settings=batch,
    )
    study = StudyRun(names, seeds, out, source, settings)
    run_studies(
        study, workers=gpus or workers or os.cpu_count() or 1, gpus=gpus, ray=ray_address, dry_run=dry_run
    )


def _world_arguments(*, quick: bool, **chosen: Any) -> tuple[str, ...]:
    """Options for `clipvip-study world`; wrong captions are made later."""
    named = {flag: chosen.get(name) for flag, (name, _) in _KNOBS.items() if flag != "--caption-error"}
    given = [part for flag, value in named.items() if value is not None for part in (flag, str(value))]
    return (*(("--quick",) if quick else ()), *given)


for _study in STUDIES:
    main.add_command(_study_command(_study.name, f"{_study.title}."))
_GAP_TEXT = "Table 1: how far subtitles and captions are from descriptions."
main.add_command(_study_command("domain-gap", _GAP_TEXT))
main.add_command(_study_command("all", "All tables and Fig. 1."))


@main.command("world", cls=StageCommand, epilog=_epilog("world --seed 1 --out world"))
@click.option("--out", type=_FOLDER, required=True, help="Folder for the world.")
@click.option("--seed", type=at_least(0), required=True, help="Seed of the world.")
@_option("--workers", type=at_least(1), default=2, help="Processes.")
@click.option("--quick", is_flag=True, help="A very small world.")
@click.option("--motion", is_flag=True, help="The task for Table 2: few appearances, so that motion decides.")
@_world_options
def world_command(out: Path, seed: int, workers: int, quick: bool, motion: bool, **knobs: Any) -> None:
    """Write the small world alone: videos with subtitles, the splits of a task, labelled pictures."""
    from clipvip.experiments.demo.run import make_corpus

    chosen = _QUICK_WORLD if quick else {}
    if motion:
        chosen = chosen | _MOTION_WORLD | (_QUICK_MOTION_WORLD if quick else {})
    chosen = chosen | {name: value for name, value in knobs.items() if value is not None}
    world = replace(STUDY_WORLD, seed=seed, **chosen)
    make_corpus(world, out, workers=workers)


@main.command(
    "spoil",
    cls=StageCommand,
    epilog=_epilog("spoil --shards clips --captions captions --rate 0.3 --seed 1 --out spoilt"),
)
@click.option("--shards", type=_PATH, required=True, help="Folder of shards.")
@click.option("--captions", type=_PATH, required=True, help="Folder of their captions.")
@click.option("--rate", type=click.FloatRange(0, 1), required=True, help="Share of the captions to spoil.")
@click.option("--seed", type=at_least(0), required=True, help="Seed of the choice.")
@click.option("--out", type=_FOLDER, required=True, help="Folder for the captions.")
def spoil_command(shards: Path, captions: Path, rate: float, seed: int, out: Path) -> None:
    """Give some clips the caption of another clip, to see what wrong captions cost."""
    from clipvip.experiments.study.spoil import spoil_captions

    count, total = spoil_captions(shards, captions, out, rate=rate, seed=seed)
    click.echo(f"{count:,} of {total:,} captions are those of other clips in {out}")


if __name__ == "__main__":
    main()
