"""What a row of a table is: a start, its post-pretraining, its encoder, and the tasks that score it.

The tables themselves are data in `tables`. Nothing is run here.
"""

from dataclasses import dataclass, field
from typing import Literal

Texts = Literal["subtitles", "images", "both", "web", "noisy"]
# The downstream tasks: the first (MSR-VTT's place), the second, where motion decides (DiDeMo's), and
# the second with fine-tuning long enough to learn motion from nothing, by which encoders are compared.
TaskName = Literal["first", "motion", "encoders"]
Metric = Literal["zero_shot", "finetuned"]
Measure = Literal["r1", "mean_recall"]
BOTH: tuple[TaskName, ...] = ("first", "motion")


@dataclass(frozen=True, slots=True)
class Pretraining:
    """A post-pretraining run, by what it changes in the recipe.

    `settings` are `--set` texts; `data` says what it reads: clips with subtitles and captions, an image-text
    set, both, clips of another source, or clips whose subtitles are often about something else; `fraction` is
    the part of the clips that it may see. `top` is the part that `clipvip-data filter` keeps, by the
    similarity of clip and subtitle; `several` takes captions of several frames. All take the same number of
    steps.
    """

    name: str
    settings: tuple[str, ...] = ()
    data: Texts = "subtitles"
    fraction: float = 1.0
    top: float = 1.0
    several: bool = False


@dataclass(frozen=True, slots=True)
class Paper:
    """What the paper printed, in percent; None where it did not."""

    r1: float | None = None
    r5: float | None = None
    r10: float | None = None
    mean: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table: where fine-tuning starts, with which encoder, and on which tasks.

    `pretraining` None: from CLIP itself. `at` is the part of the post-pretraining's steps after which its
    model is taken. `start`, of `STARTS`: how new parameters begin; "": as the recipes say. `alpha` below 1:
    what is scored are weights between those before fine-tuning (0) and after it (1). `paper` has MSR-VTT's
    numbers, `didemo` DiDeMo's.
    """

    label: str
    pretraining: Pretraining | None = None
    encoder: str = "vip4"
    at: float = 1.0
    start: str = ""
    alpha: float = 1.0
    paper: Paper = field(default_factory=Paper)
    didemo: Paper = field(default_factory=Paper)
    tasks: tuple[TaskName, ...] = BOTH

    @property
    def name(self) -> str:
        """What tells its runs from others; rows of two tables may share them."""
        start = "clip" if self.pretraining is None else self.pretraining.name
        at = "" if self.at == 1 else f"@{self.at:g}"
        return f"{start}{at}-{self.encoder}{f'-{self.start}' if self.start else ''}"

    def run_name(self, task: TaskName) -> str:
        """The name of its fine-tuning on a task."""
        return self.name if task == "first" else f"{self.name}-{task}"


@dataclass(frozen=True, slots=True)
class Claim:
    """That the row `better` of a study is above the row `worse` on the task `on`, as the paper says.

    `measure` is R@1, or the mean of R@1, R@5 and R@10 where the paper gives no other. `paper` is how it is
    written where the paper has no number of both: "+", or "" where it does not say so.
    """

    text: str
    better: str
    worse: str
    on: TaskName = "first"
    metric: Metric = "finetuned"
    measure: Measure = "r1"
    paper: str = "+"


@dataclass(frozen=True, slots=True)
class Study:
    """One table or figure of the paper, or a question beyond it."""

    name: str
    title: str
    rows: tuple[Row, ...]
    claims: tuple[Claim, ...]


# The encoders of Table 2 as settings of a recipe.
ENCODERS = {
    "mean_pool": ("model.encoder=mean_pool",),
    "seq_transformer": ("model.encoder=seq_transformer",),
    "full_attention": ("model.encoder=full_attention", "model.num_proxies=1"),
    "vip2": ("model.encoder=vip", "model.num_proxies=2"),
    "vip4": ("model.encoder=vip", "model.num_proxies=4"),
    "vip8": ("model.encoder=vip", "model.num_proxies=8"),
}
# How new parameters begin: as in the released code, or as docs/method.md has it.
STARTS = {
    "random": ("model.proxy_start=random", "model.temporal_start=zero"),
    "class": ("model.proxy_start=class", "model.temporal_start=0.5"),
}
