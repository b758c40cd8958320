"""What a study reads: shards, captions and texts, under one set of names.

`SmallWorld` makes them of a seed, by the stages; `read_data` takes those that a user has.
"""

from dataclasses import dataclass, field, fields
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from clipvip.experiments.demo.pictures import FPS
from clipvip.experiments.demo.world import WEIGHTS
from clipvip.experiments.study.stages import Knobs, SpoilOptions, WorldOptions, make_world, spoil_captions
from clipvip.experiments.study.tasks import Task
from clipvip.pipeline.caption.stage import CaptionOptions, caption
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.shard.stage import ShardOptions, shard
from clipvip.pipeline.train.recipe_yaml import parse_yaml
from clipvip.shards.errors import DatasetError


@checked_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class StudyData:
    """Folders and recipes of a study; `--data FILE.yaml` gives them by these names."""

    clip: str
    """The image-text model that all begins with, a CLIP in Hugging Face layout."""
    shards: str
    """Clips with subtitles to post-pretrain on."""
    captions: str
    """What `clipvip-data caption` wrote for them."""
    finetune: str
    """Clips of the downstream task to fine-tune on."""
    test: str
    """Clips of the downstream task, with one description each, to score."""
    descriptions: dict[str, str]
    """Name -> texts of a downstream task, for NMI: as `clipvip-data nmi --target`."""
    images: str | None = None
    """An image-text WebDataset; without it the rows that need one are left out."""
    texts: dict[str, str] = field(default_factory=dict)
    """Name -> more texts to measure by NMI, such as COCO's captions."""
    pretrain: str = "pretrain_vip_b32"
    """The recipe of post-pretraining."""
    finetune_recipe: str = "finetune_msrvtt_b32"
    motion_finetune: str | None = None
    """As `finetune`, `test` and their recipe, but for clips that motion tells apart: there encoders are
    compared. Without them: on the task itself."""
    motion_test: str | None = None
    motion_recipe: str | None = None
    num_texts: int = 1000
    """Texts drawn of each corpus for NMI."""


def read_data(path: Path) -> StudyData:
    """The data that a YAML file names.

    Raises:
        UserError: an unknown name, one that is missing, or a path that is not there.
    """
    try:
        tree = parse_yaml(path.read_text(encoding="utf-8"), name=str(path))
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from error
    try:
        data = TypeAdapter(StudyData).validate_python(tree)
    except ValidationError as error:
        mistake = error.errors()[0]
        place = ".".join(map(str, mistake["loc"]))
        known = ", ".join(item.name for item in fields(StudyData))
        raise UserError(f"{path}: {place}: {mistake['msg'].lower()}; the names are {known}") from error
    for name in ("shards", "captions", "finetune", "test"):
        if not Path(getattr(data, name)).is_dir():
            raise UserError(f"{path}: {name}: {getattr(data, name)} is no folder")
    return data


@dataclass(frozen=True)
class SmallWorld:
    """A corpus of its own for each seed."""

    knobs: Knobs
    quick: bool = False
    num_texts: int = 1000

    def of_seed(
        self, seed: int, folder: Path, *, workers: int, motion: bool = True
    ) -> tuple[StudyData, list[Task]]:
        """The data of one seed, and the tasks that make it in `folder`, with a task of motion or without."""
        corpus, many, prefix = folder / "corpus", {"workers": workers}, f"seed{seed}"
        train_shards, captions_folder = folder / "shards-train", folder / "captions"

        def sharding(split: str, texts: str, world: Task, kind: str = "") -> Task:
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
            return Task(f"{prefix}/shards{kind}-{split}", shard, options, (world.name,), how=many, cost=50)

        knobs = {name: value for name, value in self.knobs.chosen().items() if name != "caption_error"}
        world_options = WorldOptions(out=corpus, seed=seed, quick=self.quick, **knobs)
        world = Task(f"{prefix}/world", make_world, world_options, how=many, cost=100)
        shards = [sharding("train", "subtitles", world)]
        shards += [sharding(split, "descriptions.jsonl", world) for split in ("finetune", "test")]
        captioning = CaptionOptions(
            shards=train_shards, out=captions_folder, model=str(WEIGHTS / "ofa"), batch_size=32
        )
        needs = (shards[0].name,)
        captions = Task(f"{prefix}/captions", caption, captioning, needs, how=many, cost=80)
        tasks = [world, *shards, captions]
        if motion:
            of_motion = WorldOptions(out=folder / "corpus-motion", seed=seed, quick=self.quick, motion=True)
            few = Task(f"{prefix}/world-motion", make_world, of_motion, how=many, cost=100)
            tasks.append(few)
            tasks += [sharding(split, "descriptions.jsonl", few, "-motion") for split in ("finetune", "test")]
        if self.knobs.caption_error:
            rate, right, captions_folder = (
                self.knobs.caption_error,
                captions_folder,
                folder / "captions-spoilt",
            )
            spoiling = SpoilOptions(
                shards=train_shards, captions=right, out=captions_folder, rate=rate, seed=seed
            )
            tasks.append(Task(f"{prefix}/spoil", spoil_captions, spoiling, (captions.name,)))
        data = StudyData(
            clip=str(WEIGHTS / "clip"),
            shards=str(train_shards),
            captions=str(captions_folder),
            finetune=str(folder / "shards-finetune"),
            test=str(folder / "shards-test"),
            descriptions={"descriptions": str(corpus / "texts" / "descriptions.txt")},
            images=str(corpus / "images"),
            pretrain="study_pretrain",
            finetune_recipe="study_finetune",
            motion_finetune=str(folder / "shards-motion-finetune") if motion else None,
            motion_test=str(folder / "shards-motion-test") if motion else None,
            motion_recipe="study_finetune_motion",
            num_texts=self.num_texts,
        )
        return data, tasks
