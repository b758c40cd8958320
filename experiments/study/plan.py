"""From studies, data and seeds to tasks: the stages with their options, and what each needs.

Nothing is run here. Rows that share a run share its task, whichever study they are of.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clipvip.experiments.study.data import StudyData
from clipvip.experiments.study.rows import ENCODERS, STARTS, Pretraining, Row, Study, TaskName
from clipvip.experiments.study.small_world import SmallWorld
from clipvip.experiments.study.stages import StartOptions, make_start
from clipvip.experiments.study.tables import EXTRAS, RESCORED, STUDIES, ZERO_SHOT
from clipvip.experiments.study.tasks import Task
from clipvip.pipeline.domain_gap.stage import DomainGapOptions, nmi
from clipvip.pipeline.evaluate.actions import ActionsOptions, actions
from clipvip.pipeline.evaluate.multiple_choice import MultipleChoiceOptions, multiple_choice
from clipvip.pipeline.evaluate.retrieval import RetrievalOptions, retrieval
from clipvip.pipeline.filter.options import KEEP_NAME, FilterOptions
from clipvip.pipeline.filter.stage import filter
from clipvip.pipeline.tools.interpolate import InterpolateOptions, interpolate
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

    def data_of(self, seed: int) -> StudyData:
        """The data of a seed."""
        if isinstance(self.source, StudyData):
            return self.source
        return self.source.data(self.out, seed_folder(self.out, seed))


def seed_folder(out: Path, seed: int) -> Path:
    return out / f"seed{seed}"


def between_folder(folder: Path, row: Row, task: TaskName) -> Path:
    """Where the scores of a row's interpolated weights are, in the folder of a seed."""
    return folder / "between" / row.run_name(task)


def make_plan(study: StudyRun, *, workers: int) -> list[Task]:
    """All tasks of the studies, those of a seed before those of the next; `workers` are the processes of one
    that takes several.
    """
    tasks: dict[str, Task] = {}
    for turn, seed in enumerate(study.seeds):
        folder, source = seed_folder(study.out, seed), study.source
        made: list[Task] = []
        if isinstance(source, SmallWorld):
            extras = EXTRAS.name in study.names
            made = source.tasks(study.out, seed, folder, workers=workers, extras=extras)
        of_seed = SeedPlan(seed, folder, study.data_of(seed), study.settings, tuple(t.name for t in made))
        for task in [*made, *of_seed.tasks(study.names)]:
            tasks[task.name] = replace(task, turn=turn)
    return list(tasks.values())


def chosen_studies(names: Iterable[str]) -> list[Study]:
    return [study for study in STUDIES if study.name in names]


def rows_of(study: Study, data: StudyData) -> list[Row]:
    """The rows that can be had with the data, on the tasks that it has."""
    return [
        resolved(row, data) for row in study.rows if row.pretraining is None or _has(data, row.pretraining)
    ]


def resolved(row: Row, data: StudyData) -> Row:
    """The row with the tasks that the data has, and without a start that is the recipes'."""
    tasks = tuple(dict.fromkeys(data.resolve(task) for task in row.tasks))
    return replace(row, tasks=tasks, start="" if row.start == data.start else row.start)


def _has(data: StudyData, run: Pretraining) -> bool:
    needed = {"web": data.web, "noisy": data.noisy, "images": data.images, "both": data.images}
    return needed.get(run.data, "") is not None and not (run.several and data.several_captions is None)


@dataclass(frozen=True)
class SeedPlan:
    """What there is to run for a seed; `ready` are the tasks after which its data is there."""

    seed: int
    folder: Path
    data: StudyData
    settings: Settings
    ready: tuple[str, ...]

    def tasks(self, names: Iterable[str]) -> list[Task]:
        """The tasks of the studies, some more than once."""
        found = [self._gap()] if "domain-gap" in names else []
        for row in (row for study in chosen_studies(names) for row in rows_of(study, self.data)):
            for task in row.tasks:
                found += self._row(row, task)
        return found + (self._protocols() if "protocols" in names else [])

    def _gap(self) -> Task:
        data = self.data
        options = DomainGapOptions(
            sources={"subtitles": data.shards, "captions": data.captions} | data.texts,
            targets=data.descriptions,
            model=data.clip,
            out=self.folder / "nmi",
            seed=self.seed,
            samples=data.num_texts,
        )
        return self._task("nmi", nmi, options, self.ready, cost=20)

    def _row(self, row: Row, task: TaskName) -> list[Task]:
        """What a row needs on a task: a subset of the clips perhaps, post-pretraining, its fine-tuning."""
        before: list[Task] = []
        start, needs = self.data.clip, self.ready
        if row.pretraining is not None:
            before = self._pretraining(row.pretraining, row.start)
            out = self._pretrained(row)
            start = str(out / "model" if row.at == 1 else out / "models" / self._step_name(row.at))
            needs = (before[-1].name,)
        place = self.data.downstream(task)
        sets = (f"seed={self.seed}", "evaluation.at_start=true", *ENCODERS[row.encoder])
        sets += STARTS.get(row.start, ()) + self.settings.sets
        if (count := self.settings.finetune_steps) is not None:
            every = max(1, count // VALIDATIONS)
            sets += (f"optim.steps={count}", "optim.epochs=null", f"evaluation.every_steps={every}")
        options = TrainOptions(
            place.recipe,
            shards=place.finetune,
            init=start,
            out=str(self._finetuned(row, task)),
            validation=place.test,
            select="last",
            overrides=sets,
        )
        how = {"gpus": self.settings.gpus}
        name = f"finetune/{row.run_name(task)}"
        tasks = [*before, self._task(name, train, options, needs, how=how, cost=60)]
        if row.alpha < 1:
            between = InterpolateOptions(
                start,
                str(self._finetuned(row, task) / "model"),
                alpha=(f"{row.alpha:g}",),
                eval=Path(place.test),
                results=between_folder(self.folder, row, task),
                seed=self.seed,
            )
            name = f"between/{row.run_name(task)}"
            tasks.append(self._task(name, interpolate, between, (tasks[-1].name,)))
        return tasks

    def _pretraining(self, run: Pretraining, start: str) -> list[Task]:
        tasks: list[Task] = []
        data, needs, name = self.data, self.ready, _with_start(run.name, start)
        shards: str | None = data.shards
        captions: str | None = data.captions
        if run.data in ("web", "noisy"):
            shards, captions = data.web if run.data == "web" else data.noisy, ""
        elif run.fraction < 1:
            shards, captions = str(self.folder / "subsets" / run.name), ""
            choice = SubsetOptions(
                Path(data.shards), out=Path(shards), fraction=run.fraction, seed=self.seed, shard_size=250
            )
            tasks.append(self._task(f"subset/{run.name}", subset, choice, self.ready, cost=5))
            needs = (tasks[0].name,)
        if run.several:
            captions = data.several_captions
        sets: tuple[str, ...] = ()
        if run.top < 1:
            assert shards is not None
            choosing = FilterOptions(
                shards=Path(shards), out=self.folder / "filters" / name, model=data.clip, top=run.top
            )
            tasks.append(self._task(f"filter/{name}", filter, choosing, needs, cost=30))
            needs = (tasks[-1].name,)
            sets = (f"data.keep={choosing.out / KEEP_NAME}",)
        if run.data == "images":
            shards = captions = None
            sets = (f"data.sources={{images: {{kind: images, shards: '{data.images}'}}}}",)
        elif run.data == "both":
            sets = (f"data.sources.images={{kind: images, shards: '{data.images}', weight: 1}}",)
        sets += (f"seed={self.seed}", *run.settings, *STARTS.get(start, ()), *self.settings.sets)
        if (count := self.settings.pretrain_steps) is not None:
            sets += (f"optim.steps={count}", "optim.epochs=null")
            if "mean_pool" in run.name:
                sets += (f"run.keep_models_every_steps={count // 2}",)
        options = TrainOptions(
            data.pretrain,
            shards=shards,
            captions=() if captions is None else (captions,),
            init=data.clip,
            out=str(self.folder / "pretrain" / name),
            overrides=sets,
        )
        how = {"gpus": self.settings.gpus}
        return [*tasks, self._task(f"pretrain/{name}", train, options, needs, how=how, cost=100)]

    def _protocols(self) -> list[Task]:
        """Tables 5 to 7: rescored fine-tuned models, and questions to those that saw no task."""
        tasks: list[Task] = []
        for row in (resolved(row, self.data) for row in RESCORED):
            for task in row.tasks:
                tasks += self._row(row, task)
                rescoring = RetrievalOptions(
                    model=str(self._finetuned(row, task) / "model"),
                    shards=Path(self.data.downstream(task).test),
                    dsl=True,
                    out=self.folder / "rescored" / row.run_name(task),
                )
                needs = (tasks[-1].name,)
                tasks.append(self._task(f"rescored/{row.run_name(task)}", retrieval, rescoring, needs))
        for row, *_ in ZERO_SHOT:
            tasks += self._zero_shot(resolved(row, self.data))
        return tasks

    def _zero_shot(self, row: Row) -> list[Task]:
        data = self.data
        if data.questions is None and data.classes is None:
            return []
        if row.pretraining is None:
            out = self.folder / "starts" / row.name
            sets = (f"seed={self.seed}", *ENCODERS[row.encoder], *STARTS.get(row.start, ()))
            start = StartOptions(data.finetune_recipe, init=data.clip, out=out, overrides=sets)
            before = [self._task(f"starts/{row.name}", make_start, start, self.ready)]
            model = str(out)
        else:
            before = self._pretraining(row.pretraining, row.start)
            model = str(self._pretrained(row) / "model")
        needs, test = (before[-1].name,), Path(data.motion_test or data.test)
        tasks = list(before)
        if data.questions is not None:
            asked = MultipleChoiceOptions(
                model=model,
                shards=test,
                questions=Path(data.questions),
                out=self.folder / "multiple-choice" / row.name,
            )
            tasks.append(self._task(f"multiple-choice/{row.name}", multiple_choice, asked, needs))
        if data.classes is not None and data.labels is not None:
            named = ActionsOptions(
                model=model,
                shards=test,
                classes=Path(data.classes),
                labels=Path(data.labels),
                prompts=data.prompts,
                out=self.folder / "actions" / row.name,
            )
            tasks.append(self._task(f"actions/{row.name}", actions, named, needs))
        return tasks

    def _finetuned(self, row: Row, task: TaskName) -> Path:
        return self.folder / "finetune" / row.run_name(task)

    def _pretrained(self, row: Row) -> Path:
        assert row.pretraining is not None
        return self.folder / "pretrain" / _with_start(row.pretraining.name, row.start)

    def _step_name(self, at: float) -> str:
        assert self.settings.pretrain_steps is not None
        return f"step-{int(at * self.settings.pretrain_steps):06d}"

    def _task(self, name: str, *parts: object, **others: object) -> Task:
        return Task(f"seed{self.seed}/{name}", *parts, **others)  # type: ignore[arg-type]


def _with_start(name: str, start: str) -> str:
    return f"{name}-{start}" if start else name
