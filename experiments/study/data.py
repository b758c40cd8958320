"""What a study reads: shards, captions and texts, under one set of names.

`made_data` names what `small_world` makes of a seed; `read_data` takes what a user has.
"""

from dataclasses import dataclass, field, fields
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from clipvip.experiments.study.rows import TaskName
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.train.recipe_yaml import parse_yaml
from clipvip.shards.errors import DatasetError


@dataclass(frozen=True, slots=True)
class Downstream:
    """A downstream task: shards to fine-tune on and to score, and the recipe of fine-tuning."""

    finetune: str
    test: str
    recipe: str


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
    web: str | None = None
    """Clips with texts of another, small and clean source, as WebVid; without it its rows are left out."""
    noisy: str | None = None
    """Clips whose subtitles are often about something else, to filter; without it their rows are left out."""
    several_captions: str | None = None
    """Captions of several frames of each of the `shards`; without them their row is left out."""
    texts: dict[str, str] = field(default_factory=dict)
    """Name -> more texts to measure by NMI, such as COCO's captions."""
    pretrain: str = "pretrain_vip_b32"
    """The recipe of post-pretraining."""
    finetune_recipe: str = "finetune_msrvtt_b32"
    motion_finetune: str | None = None
    """As `finetune`, `test` and their recipe, but for a second task, where motion tells more: DiDeMo, say."""
    motion_test: str | None = None
    motion_recipe: str | None = None
    encoders_recipe: str | None = None
    """A longer recipe for the second task, to compare encoders by that begin at CLIP."""
    questions: str | None = None
    """Multiple choice about the clips of the second task, as `clipvip-eval multiple-choice` reads it."""
    classes: str | None = None
    """Names of actions, and below which clip of the second task shows which, for `clipvip-eval actions`."""
    labels: str | None = None
    prompts: tuple[str, ...] = ()
    start: str = "random"
    """How the recipes' new parameters begin: `random` (the released code) or `class`."""
    task_names: tuple[str, str] = ("first task", "second task")
    """How both tasks are called on the page."""
    num_texts: int = 1000
    """Texts drawn of each corpus for NMI."""

    def resolve(self, task: TaskName) -> TaskName:
        """The task that stands for it where the data has no second one, or no longer recipe for it."""
        if self.motion_finetune is None:
            return "first"
        return "motion" if task == "encoders" and self.encoders_recipe is None else task

    def downstream(self, task: TaskName) -> Downstream:
        """What a resolved task is made of."""
        if task == "first":
            return Downstream(self.finetune, self.test, self.finetune_recipe)
        recipe = self.encoders_recipe if task == "encoders" else self.motion_recipe
        assert self.motion_finetune is not None
        return Downstream(self.motion_finetune, self.motion_test or self.test, recipe or self.finetune_recipe)

    def title(self, task: TaskName) -> str:
        """How a task is called."""
        first, second = self.task_names
        return {"first": first, "motion": second, "encoders": f"{second}, fine-tuned longer"}[task]


def read_data(path: Path) -> StudyData:
    """The data that a YAML file names.

    Raises:
        UserError: an unknown name, one that is missing, or a path that is not there.
    """
    try:
        tree = parse_yaml(path.read_text(encoding="utf-8"), name=str(path))
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        data = TypeAdapter(StudyData).validate_python(tree)
    except ValidationError as error:
        mistake = error.errors()[0]
        place = ".".join(map(str, mistake["loc"]))
        known = ", ".join(item.name for item in fields(StudyData))
        raise UserError(f"{path}: {place}: {mistake['msg'].lower()}; the names are {known}") from error
    for name in ("shards", "captions", "finetune", "test", "motion_finetune", "motion_test"):
        folder = getattr(data, name)
        if folder is not None and not Path(folder).is_dir():
            raise UserError(f"{path}: {name}: there is no folder {folder}; give the path of one")
    if (data.classes is None) != (data.labels is None):
        raise UserError(f"{path}: classes and labels go together; give both or none")
    return data


def made_data(folder: Path, models: Path, *, num_texts: int, spoilt: bool) -> StudyData:
    """The names of what is made of a seed in `folder`; the tiny models are in `models`."""
    texts = folder / "corpus-motion" / "texts"
    return StudyData(
        clip=str(models / "clip"),
        shards=str(folder / "shards-train"),
        captions=str(folder / ("captions-spoilt" if spoilt else "captions")),
        finetune=str(folder / "shards-finetune"),
        test=str(folder / "shards-test"),
        descriptions={"descriptions": str(folder / "corpus" / "texts" / "descriptions.txt")},
        images=str(folder / "corpus" / "images"),
        web=str(folder / "shards-web-finetune"),
        noisy=str(folder / "shards-noisy-train"),
        several_captions=str(folder / "captions-3"),
        pretrain="study_pretrain",
        finetune_recipe="study_finetune",
        motion_finetune=str(folder / "shards-motion-finetune"),
        motion_test=str(folder / "shards-motion-test"),
        motion_recipe="study_finetune_motion",
        encoders_recipe="study_finetune_encoders",
        questions=str(texts / "questions.jsonl"),
        classes=str(texts / "actions.txt"),
        labels=str(texts / "actions.jsonl"),
        prompts=("a circle {}", "a star {}", "a cross {}", "a ring {}"),
        start="class",
        task_names=("appearance", "motion"),
        num_texts=num_texts,
    )
