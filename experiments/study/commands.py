"""The commands of `clipvip-study`: one for each of the paper's tables, one for all."""

import os
from pathlib import Path

import click

from clipvip.experiments.study.stages import FOLDER, Knobs
from clipvip.experiments.study.tables import STUDIES, STUDY_NAMES, TITLES
from clipvip.extras import require_package
from clipvip.pipeline.runtime.errors import StageCommand, UserError
from clipvip.pipeline.runtime.options import RayAddress, at_least, opt, options
from clipvip.pipeline.runtime.stage import parameters

_SEEDS = 5
_PRETRAIN_STEPS = 400
_QUICK_STEPS = 30
_QUICK_TEXTS = 300
_QUICK_BATCH = ("optim.batch_size=16",)


@options
class StudyOptions(Knobs):
    """What each study is asked for."""

    seeds: int | None = opt(
        "Number of seeds, each with a world of its own.",
        at_least(1),
        shown=f"{_SEEDS}; with --quick 1",
        default=None,
    )
    first_seed: int = opt("The first of the seeds.", at_least(0), default=1)
    out: Path = opt("Folder for everything.", FOLDER, default=Path("study-out"))
    workers: int | None = opt(
        "Processes, each with one run.", at_least(1), shown="one per core", default=None
    )
    gpus: int = opt("Processes with a GPU each; 0: compute on the CPU.", at_least(0), default=0)
    quick: bool = opt("Use a very small world and few steps, to try the command.", default=False)
    data: Path | None = opt(
        "Use your data instead of the small world: a YAML file that names shards, captions and recipes.",
        click.Path(dir_okay=False, path_type=Path),
        default=None,
    )
    pretrain_steps: int | None = opt("Steps of each post-pretraining.", at_least(2), default=None)
    finetune_steps: int | None = opt("Steps of each fine-tuning.", at_least(1), default=None)
    dry_run: bool = opt("Say which commands would be run, and run none.", default=False)
    ray: RayAddress = None


def _study_command(name: str) -> click.Command:
    names = list(STUDY_NAMES) if name == "all" else [name]
    return StageCommand(
        name,
        params=parameters(StudyOptions),
        callback=lambda **given: _run(names, StudyOptions(**given)),
        help=f"{TITLES[name]}.",
        epilog=f"\b\nExamples:\n  clipvip-study {name} --seeds 5 --out study/\n"
        f"  clipvip-study {name} --quick --out quick/",
    )


def _run(names: list[str], options: StudyOptions) -> None:
    from clipvip.experiments.study.data import StudyData, read_data
    from clipvip.experiments.study.plan import Settings, StudyRun
    from clipvip.experiments.study.run import run_studies
    from clipvip.experiments.study.small_world import SmallWorld

    if "domain-gap" in names:
        require_package("faiss", "the study's domain gap")
    quick, gpus = options.quick, options.gpus
    pretrain_steps, finetune_steps = options.pretrain_steps, options.finetune_steps
    chosen = options.chosen()
    if options.data is not None and (chosen or quick):
        raise click.UsageError(
            "--data cannot be combined with --quick or an option of the small world; leave one out"
        )
    if options.data is None:
        pretrain_steps = pretrain_steps or (_QUICK_STEPS if quick else _PRETRAIN_STEPS)
        finetune_steps = finetune_steps or (_QUICK_STEPS if quick else None)
        source: SmallWorld | StudyData = SmallWorld(
            Knobs(**chosen), quick=quick, num_texts=_QUICK_TEXTS if quick else 1000
        )
    else:
        source = read_data(options.data)
    if pretrain_steps is None and "scale" in names:
        raise UserError(
            "scale: also scores models halfway through post-pretraining, and --data does not say how many "
            "steps that has; give --pretrain-steps"
        )
    settings = Settings(
        pretrain_steps=pretrain_steps,
        finetune_steps=finetune_steps,
        gpus=min(1, gpus),
        sets=_QUICK_BATCH if quick else (),
    )
    count = options.seeds or (1 if quick else _SEEDS)
    seeds = list(range(options.first_seed, options.first_seed + count))
    study = StudyRun(names, seeds, options.out, source, settings)
    workers = gpus or options.workers or os.cpu_count() or 1
    run_studies(study, workers=workers, gpus=gpus, ray=options.ray, dry_run=options.dry_run)


everything, domain_gap, protocols = map(_study_command, ("all", "domain-gap", "protocols"))
scale, encoders, starts, losses, data, scratch, extras = (_study_command(study.name) for study in STUDIES)
