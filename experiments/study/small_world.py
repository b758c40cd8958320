"""The small world of a seed: the tasks that make it, by the stages that users run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clipvip.experiments.demo.corpus import is_of_another
from clipvip.experiments.demo.models import copy_models
from clipvip.experiments.demo.pictures import FPS
from clipvip.experiments.study.data import StudyData, made_data
from clipvip.experiments.study.stages import (
    Knobs,
    SpoilOptions,
    WorldOptions,
    make_world,
    spoil_captions,
    world_of,
)
from clipvip.experiments.study.tasks import Task
from clipvip.pipeline.caption.stage import CaptionOptions, caption
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.shard.stage import ShardOptions, shard

MODELS_NAME = "models"


@dataclass(frozen=True)
class SmallWorld:
    """A corpus of its own for each seed, and the tiny models for all.

    The models are copied into the study's folder, which so knows them wherever the package lies.
    """

    knobs: Knobs
    quick: bool = False
    num_texts: int = 1000

    def prepare(self, out: Path, tasks: Sequence[Task]) -> None:
        """Copy the tiny CLIP and OFA into the study's folder, unless they are there.

        Raises:
            UserError: the folder holds another world than `tasks` make, of other knobs or an older version.
        """
        for options in (task.options for task in tasks):
            if isinstance(options, WorldOptions) and is_of_another(world_of(options), options.out):
                raise UserError(f"{options.out}: holds a world made with other settings; give another --out")
        copy_models(out / MODELS_NAME, keep=True)

    def preparation(self, out: Path) -> list[str]:
        """The command that does what `prepare` does."""
        return ["clipvip-demo", "models", "--out", str(out / MODELS_NAME)]

    def data(self, out: Path, folder: Path) -> StudyData:
        """The names of what there is of a seed in its folder."""
        spoilt = bool(self.knobs.caption_error)
        return made_data(folder, out / MODELS_NAME, num_texts=self.num_texts, spoilt=spoilt)

    def tasks(self, out: Path, seed: int, folder: Path, *, workers: int, extras: bool = False) -> list[Task]:
        """What makes the data of a seed in `folder`; `extras`: also what only that study reads."""
        many, prefix = {"workers": workers}, f"seed{seed}"

        def world(kind: str, **options: bool) -> Task:
            knobs = {} if kind else self.knobs.chosen()
            knobs.pop("caption_error", None)
            corpus = WorldOptions(
                out=folder / f"corpus{kind}", seed=seed, quick=self.quick, **options, **knobs
            )
            return Task(f"{prefix}/world{kind}", make_world, corpus, how=many, cost=100)

        def sharding(split: str, made: Task, kind: str = "", texts: str = "descriptions.jsonl") -> Task:
            parts = folder / f"corpus{kind}" / split
            options = ShardOptions(
                metadata=str(parts / "metadata.jsonl"),
                videos=str(parts / "videos"),
                subtitles=str(parts / texts),
                out=str(folder / f"shards{kind}-{split}"),
                shard_size=250,
                # All frames: at a lower rate a clip and its twin have other frames, which tell them apart.
                fps=FPS,
            )
            return Task(f"{prefix}/shards{kind}-{split}", shard, options, (made.name,), how=many, cost=50)

        main, motion, web = world(""), world("-motion", motion=True), world("-web", web=True)
        train = sharding("train", main, texts="subtitles")

        def captioning(name: str, frames: int, cost: float) -> Task:
            options = CaptionOptions(
                shards=folder / "shards-train",
                out=folder / name,
                model=str(out / MODELS_NAME / "ofa"),
                batch_size=32,
                frames=frames,
            )
            return Task(f"{prefix}/{name}", caption, options, (train.name,), how=many, cost=cost)

        captions = captioning("captions", 1, 80)
        tasks = [main, motion, web, train, captions, sharding("finetune", web, "-web")]
        for split in ("finetune", "test"):
            tasks += [sharding(split, main), sharding(split, motion, "-motion")]
        if extras:
            noisy = world("-noisy", noisy=True)
            tasks += [
                noisy,
                sharding("train", noisy, "-noisy", texts="subtitles"),
                captioning("captions-3", 3, 200),
            ]
        if self.knobs.caption_error:
            spoiling = SpoilOptions(
                shards=folder / "shards-train",
                captions=folder / "captions",
                out=folder / "captions-spoilt",
                rate=self.knobs.caption_error,
                seed=seed,
            )
            tasks.append(Task(f"{prefix}/spoil", spoil_captions, spoiling, (captions.name,)))
        return tasks
