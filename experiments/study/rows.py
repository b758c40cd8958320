"""What the paper's tables compare, as data: rows, the post-pretraining behind each, and the paper's numbers.

The numbers are text-to-video R@1, R@5, R@10 and their mean on MSR-VTT, in percent, as printed in the paper
(arXiv 2209.06430). Nothing is run here.
"""

from dataclasses import dataclass, field
from typing import Literal

Texts = Literal["subtitles", "images", "both"]


@dataclass(frozen=True, slots=True)
class Pretraining:
    """A post-pretraining run, by what it changes in the recipe.

    `settings` are `--set` texts; `data` says what it reads: clips with subtitles and captions, an image-text
    set, or both; `fraction` is the part of the clips that it may see. All take the same number of steps.
    """

    name: str
    settings: tuple[str, ...] = ()
    data: Texts = "subtitles"
    fraction: float = 1.0


@dataclass(frozen=True, slots=True)
class Paper:
    """What the paper printed, in percent; None where it did not."""

    r1: float | None = None
    r5: float | None = None
    r10: float | None = None
    mean: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table: where fine-tuning starts, and with which encoder.

    `pretraining` None: from CLIP itself. `at` is the part of the post-pretraining's steps after which its
    model is taken. With `motion` it is fine-tuned and scored on clips that motion tells apart.
    """

    label: str
    pretraining: Pretraining | None = None
    encoder: str = "vip4"
    at: float = 1.0
    paper: Paper = field(default_factory=Paper)
    motion: bool = False

    @property
    def name(self) -> str:
        """What tells its fine-tuning run from others; rows of two tables may share one."""
        start = "clip" if self.pretraining is None else self.pretraining.name
        at = "" if self.at == 1 else f"@{self.at:g}"
        return f"{start}{at}-{self.encoder}{'-motion' if self.motion else ''}"


@dataclass(frozen=True, slots=True)
class Claim:
    """That the row `better` of a study is above the row `worse`, as the paper says, by `metric`."""

    text: str
    better: str
    worse: str
    metric: str = "finetuned"


@dataclass(frozen=True, slots=True)
class Study:
    """One table or figure of the paper."""

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

SUBTITLES = Pretraining("subtitles", ("loss.pairs=baseline",))
CAPTIONS = Pretraining("captions", ("loss.pairs=V-C",))
OCL = {name: Pretraining(f"ocl-{name}", (f"loss.pairs={name}",)) for name in "abcd"}
IMAGES = Pretraining("images", ("loss.pairs=baseline",), data="images")
SUBTITLES_AND_IMAGES = Pretraining("subtitles-images", ("loss.pairs=baseline",), data="both")
SCRATCH = Pretraining("scratch", ("loss.pairs=d", "model.from_scratch=true"))
# Of the paper's sizes, 2.5, 10 and 100 million clips, the first is another set, WebVid.
FRACTIONS = {"2.5%": 0.025, "10%": 0.1, "100%": 1.0}
MEAN_POOL_ON = {
    label: Pretraining(
        f"subtitles-mean_pool-{label.rstrip('%')}",
        ("loss.pairs=baseline", *ENCODERS["mean_pool"]),
        fraction=fraction,
    )
    for label, fraction in FRACTIONS.items()
}
# Fig. 1 at the steps at which its curves have points for more than one size.
_FIG1 = {
    ("2.5%", 0.5): Paper(mean=63.0),
    ("10%", 0.5): Paper(mean=64.7),
    ("10%", 1.0): Paper(mean=62.8),
    ("100%", 0.5): Paper(mean=65.2),
    ("100%", 1.0): Paper(mean=65.7),
}

_MEAN_POOL = Paper(43.4, 70.9, 81.1, 65.1)
_VIP = Row("CLIP-ViP, no post-pretraining", paper=Paper(46.5, 72.1, 82.5, 67.0))
_V_S = Row("+ L(V,S)", SUBTITLES, paper=Paper(47.7, 72.1, 82.4, 67.4))
_FULL_START = Row("Full attention, where appearance decides", encoder="full_attention")
_VIP_START = Row("4 video proxies, where appearance decides")
_D = Row("(d) + L(V,S+C) + L(F,C)", OCL["d"], paper=Paper(49.6, 74.5, 84.8, 69.6))

STUDIES = (
    Study(
        "scale",
        "Fig. 1: post-pretraining on subtitles alone, by the number of clips (MeanPool)",
        (
            Row("no post-pretraining", encoder="mean_pool", paper=Paper(mean=65.1)),
            *(
                Row(
                    f"{label} of the clips{'' if at == 1 else ', half of the steps'}",
                    run,
                    encoder="mean_pool",
                    at=at,
                    paper=_FIG1.get((label, at), Paper()),
                )
                for label, run in MEAN_POOL_ON.items()
                for at in (0.5, 1.0)
            ),
        ),
        (
            Claim("few subtitled clips hurt", "no post-pretraining", "2.5% of the clips"),
            Claim("few subtitled clips hurt (a tenth)", "no post-pretraining", "10% of the clips"),
            Claim("more clips hurt less", "100% of the clips", "2.5% of the clips"),
            Claim("more clips hurt less (a tenth)", "100% of the clips", "10% of the clips"),
            Claim("all clips help", "100% of the clips", "no post-pretraining"),
        ),
    ),
    Study(
        "encoders",
        "Table 2: encoders, fine-tuned from CLIP",
        (
            Row("MeanPool", encoder="mean_pool", paper=_MEAN_POOL, motion=True),
            Row("SeqTransformer", None, "seq_transformer", paper=Paper(44.6, 71.2, 81.8, 65.9), motion=True),
            Row("Full attention", encoder="full_attention", paper=Paper(42.8, 70.1, 80.3, 64.4), motion=True),
            Row("2 video proxies", encoder="vip2", paper=Paper(45.8, 71.3, 81.7, 66.3), motion=True),
            Row("4 video proxies", paper=Paper(46.5, 72.1, 82.5, 67.0), motion=True),
            Row("8 video proxies", encoder="vip8", paper=Paper(45.7, 72.7, 81.7, 66.7), motion=True),
            # What CLIP knows is the appearance: how an encoder starts is seen where that decides.
            _FULL_START,
            _VIP_START,
        ),
        (
            Claim("proxies beat mean pooling", "4 video proxies", "MeanPool"),
            Claim("proxies beat the transformer over frames", "4 video proxies", "SeqTransformer"),
            Claim("proxies beat full attention", "4 video proxies", "Full attention"),
            Claim(
                "proxies start better than full attention", _VIP_START.label, _FULL_START.label, "zero_shot"
            ),
        ),
    ),
    Study(
        "losses",
        "Table 3: losses of post-pretraining",
        (
            Row("CLIP-MeanPool, no post-pretraining", encoder="mean_pool", paper=_MEAN_POOL),
            _VIP,
            _V_S,
            Row("(a) + L(V,S) + L(F,C)", OCL["a"], paper=Paper(49.3, 74.8, 83.8, 69.3)),
            Row("(b) + L(V,S) + L(V,C)", OCL["b"], paper=Paper(49.6, 74.2, 84.0, 69.3)),
            Row("(c) + L(V,S) + L(V,C) + L(F,C)", OCL["c"], paper=Paper(49.6, 74.5, 83.8, 69.3)),
            _D,
        ),
        (
            Claim("(d) beats subtitles alone", _D.label, _V_S.label),
            Claim("(a) beats subtitles alone", "(a) + L(V,S) + L(F,C)", _V_S.label),
            Claim("(d) beats no post-pretraining", _D.label, _VIP.label),
            Claim("(d) beats subtitles alone, zero-shot", _D.label, _V_S.label, "zero_shot"),
            Claim("(a) beats subtitles alone, zero-shot", "(a) + L(V,S) + L(F,C)", _V_S.label, "zero_shot"),
        ),
    ),
    Study(
        "data",
        "Table 4: data of post-pretraining",
        (
            _VIP,
            Row("subtitles", SUBTITLES, paper=Paper(47.7, 72.1, 82.4, 67.4)),
            Row("captions", CAPTIONS, paper=Paper(45.9, 73.0, 81.8, 66.9)),
            Row("subtitles + captions", OCL["d"], paper=Paper(49.6, 74.5, 84.8, 69.6)),
            Row("image captions", IMAGES, paper=Paper(45.6, 70.7, 81.1, 65.8)),
            Row("subtitles + image captions", SUBTITLES_AND_IMAGES, paper=Paper(49.1, 73.1, 83.5, 68.6)),
        ),
        (
            Claim("both texts beat subtitles", "subtitles + captions", "subtitles"),
            Claim("both texts beat captions", "subtitles + captions", "captions"),
            Claim("both texts beat image captions", "subtitles + captions", "image captions"),
            Claim(
                "the clips' own captions beat labelled images", "subtitles + captions",
                "subtitles + image captions"
            ),
        ),
    ),
    Study(
        "scratch",
        "Table 8: from scratch, without CLIP",
        (
            Row("from scratch", SCRATCH, paper=Paper(28.5, 55.2, 68.6)),
            Row("from CLIP", OCL["d"], paper=Paper(49.6, 74.5, 84.8)),
        ),
        (Claim("CLIP is a far better start", "from CLIP", "from scratch"),),
    ),
)  # fmt: skip
STUDY_NAMES = ("domain-gap", *(study.name for study in STUDIES))
# What there are commands for, and their titles.
TITLES = {
    "all": "All tables and Fig. 1",
    "domain-gap": "Table 1: how far subtitles and captions are from descriptions",
} | {study.name: study.title for study in STUDIES}
