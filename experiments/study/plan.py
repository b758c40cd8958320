"""From studies, data and seeds to tasks: the stages with their options, and what each needs.

Nothing is run here. Rows that share a run share its task, whichever study they are of.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clipvip.experiments.study.data import SmallWorld, StudyData
from clipvip.experiments.study.rows import ENCODERS, STUDIES, Pretraining, Row, Study
from clipvip.experiments.study.tasks import Task
from clipvip.pipeline.domain_gap.stage import DomainGapOptions, nmi
from clipvip.pipeline.tools.subset import SubsetOptions, subset
from clipvip.pipeline.train.stage import TrainOptions, train

VALIDATIONS = 3


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How long runs are and how they are run."""

    pretrain_steps: int | None
    """None: as the recipe says."""
    finetune_steps: int | None
    gpus: int
    """GPUs of each training; 0: the CPU."""
    sets: tuple[str, ...] = ()
    """`--set` texts for each post-pretraining and fine-tuning."""


@dataclass(frozen=True)
class StudyRun:
    """Which studies, for which seeds, on what, and where to."""

    names: Sequence[str]
    seeds: Sequence[int]
    out: Path
    source: SmallWorld | StudyData
    settings: Settings


def seed_folder(out: Path, seed: int) -> Path:
    return out / f"seed{seed}"


def make_plan(study: StudyRun, *, workers: int) -> list[Task]:
    """All tasks of the studies for all seeds; `workers` are the processes of one that takes several."""
    tasks: dict[str, Task] = {}
    names, data, settings = study.names, study.source, study.settings
    for seed in study.seeds:
        folder = seed_folder(study.out, seed)
        made: list[Task] = []
        if isinstance(study.source, SmallWorld):
            data, made = study.source.of_seed(seed, folder, workers=workers, motion=needs_motion(names))
        assert isinstance(data, StudyData)
        ready = tuple(task.name for task in made)
        found = list(made)
        if "domain-gap" in names:
            found.append(_gap_task(seed, folder, data, ready))
        for row in (row for one in chosen_studies(names) for row in rows_of(one, data)):
            found += _row_tasks(row, seed, folder, data, settings, ready)
        tasks |= {task.name: task for task in found}
    return list(tasks.values())


def chosen_studies(names: Iterable[str]) -> list[Study]:
    return [study for study in STUDIES if study.name in names]


def needs_motion(names: Iterable[str]) -> bool:
    """Whether the task on which encoders are compared is needed."""
    return any(row.motion for study in chosen_studies(names) for row in study.rows)


def rows_of(study: Study, data: StudyData) -> list[Row]:
    """The rows that can be had with the data, which may lack image-text pairs and a task of motion."""
    has_motion = data.motion_finetune is not None
    return [
        replace(row, motion=row.motion and has_motion)
        for row in study.rows
        if data.images is not None or row.pretraining is None or row.pretraining.data == "subtitles"
    ]


def _gap_task(seed: int, folder: Path, data: StudyData, ready: tuple[str, ...]) -> Task:
    sources = {"subtitles": data.shards, "captions": data.captions} | data.texts
    options = DomainGapOptions(
        sources=sources,
        targets=data.descriptions,
        model=data.clip,
        out=folder / "nmi",
        seed=seed,
        samples=data.num_texts,
    )
    return Task(f"seed{seed}/nmi", nmi, options, ready, cost=20)


def _row_tasks(
    row: Row, seed: int, folder: Path, data: StudyData, settings: Settings, ready: tuple[str, ...]
) -> list[Task]:
    """What a row needs: a subset of the clips perhaps, the post-pretraining, and its own fine-tuning."""
    tasks: list[Task] = []
    start, needs = data.clip, ready
    if row.pretraining is not None:
        tasks += _pretraining_tasks(row.pretraining, seed, folder, data, settings, ready)
        out = folder / "pretrain" / row.pretraining.name
        start = str(out / "model" if row.at == 1 else out / "models" / _step_name(row.at, settings))
        needs = (tasks[-1].name,)
    recipe, shards, test = data.finetune_recipe, data.finetune, data.test
    if row.motion:
        recipe = data.motion_recipe or recipe
        shards, test = data.motion_finetune or shards, data.motion_test or test
    sets = (f"seed={seed}", "evaluation.at_start=true", *ENCODERS[row.encoder], *settings.sets)
    if settings.finetune_steps is not None:
        every = max(1, settings.finetune_steps // VALIDATIONS)
        steps = (f"optim.steps={settings.finetune_steps}", "optim.epochs=null")
        sets += (*steps, f"evaluation.every_steps={every}")
    options = TrainOptions(
        recipe,
        shards=shards,
        init=start,
        out=str(folder / "finetune" / row.name),
        validation=test,
        select="last",
        overrides=sets,
    )
    how = {"gpus": settings.gpus}
    return [*tasks, Task(f"seed{seed}/finetune/{row.name}", train, options, needs, how=how, cost=60)]


def _pretraining_tasks(
    run: Pretraining, seed: int, folder: Path, data: StudyData, settings: Settings, ready: tuple[str, ...]
) -> list[Task]:
    tasks: list[Task] = []
    needs = ready
    shards: str | None = data.shards
    captions: str | None = data.captions
    if run.fraction < 1:
        shards, captions = str(folder / "subsets" / run.name), ""
        choice = SubsetOptions(
            Path(data.shards), out=Path(shards), fraction=run.fraction, seed=seed, shard_size=250
        )
        tasks.append(Task(f"seed{seed}/subset/{run.name}", subset, choice, ready, cost=5))
        needs = (tasks[0].name,)
    sets: tuple[str, ...] = ()
    if run.data == "images":
        shards = captions = None
        sets = (f"data.sources={{images: {{kind: images, shards: '{data.images}'}}}}",)
    elif run.data == "both":
        sets = (f"data.sources.images={{kind: images, shards: '{data.images}', weight: 1}}",)
    sets += (f"seed={seed}", *run.settings, *settings.sets)
    if settings.pretrain_steps is not None:
        sets += (f"optim.steps={settings.pretrain_steps}", "optim.epochs=null")
        if run.name.startswith("subtitles-mean_pool"):
            sets += (f"run.keep_models_every_steps={settings.pretrain_steps // 2}",)
    options = TrainOptions(
        data.pretrain,
        shards=shards,
        captions=() if captions is None else (captions,),
        init=data.clip,
        out=str(folder / "pretrain" / run.name),
        overrides=sets,
    )
    name, how = f"seed{seed}/pretrain/{run.name}", {"gpus": settings.gpus}
    return [*tasks, Task(name, train, options, needs, how=how, cost=100)]


def _step_name(at: float, settings: Settings) -> str:
    assert settings.pretrain_steps is not None
    return f"step-{int(at * settings.pretrain_steps):06d}"
