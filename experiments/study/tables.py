"""The paper's tables as data: rows, claims, and the numbers that the paper printed.

The numbers are text-to-video R@1, R@5, R@10 and their mean on MSR-VTT and DiDeMo, in percent (arXiv
2209.06430). To add a row is to write it here.
"""

from clipvip.experiments.study.rows import BOTH, ENCODERS, Claim, Paper, Pretraining, Row, Study, TaskName

SUBTITLES = Pretraining("subtitles", ("loss.pairs=baseline",))
CAPTIONS = Pretraining("captions", ("loss.pairs=V-C",))
OCL = {name: Pretraining(f"ocl-{name}", (f"loss.pairs={name}",)) for name in "abcd"}
IMAGES = Pretraining("images", ("loss.pairs=baseline",), data="images")
SUBTITLES_AND_IMAGES = Pretraining("subtitles-images", ("loss.pairs=baseline",), data="both")
SCRATCH = Pretraining("scratch", ("loss.pairs=d", "model.from_scratch=true"))
_MEAN_POOLED = ("loss.pairs=baseline", *ENCODERS["mean_pool"])
WEB = Pretraining("web-mean_pool", _MEAN_POOLED, data="web")
NOISY = Pretraining("noisy", ("loss.pairs=baseline",), data="noisy")
NOISY_FILTERED = Pretraining("noisy-filtered", ("loss.pairs=baseline",), data="noisy", top=0.5)
SEVERAL_CAPTIONS = Pretraining("ocl-d-several", ("loss.pairs=d",), several=True)
HALF_OF_THE_PATCHES = Pretraining("ocl-d-patches", ("loss.pairs=d", "model.drop_patches=0.5"))
# Of the paper's sizes, 10 and 100 million clips are of one set, 2.5 million are WebVid. A part as small as
# WebVid of the first set tells size from source.
FRACTIONS = {"2.5%": 0.025, "10%": 0.1, "100%": 1.0}
MEAN_POOL_ON = {
    label: Pretraining(f"subtitles-mean_pool-{label.rstrip('%')}", _MEAN_POOLED, fraction=fraction)
    for label, fraction in FRACTIONS.items()
}
# Fig. 1 at the steps at which its curves have points for more than one set.
_FIG1 = {
    ("10%", 0.5): Paper(mean=64.7),
    ("10%", 1.0): Paper(mean=62.8),
    ("100%", 0.5): Paper(mean=65.2),
    ("100%", 1.0): Paper(mean=65.7),
    ("web", 0.5): Paper(mean=63.0),
}
_WEB_LABEL = "a small, clean, other source"
_NOTHING, _ALL = "no post-pretraining", "100% of the clips"


def _of_scale(run: Pretraining, label: str, key: str) -> list[Row]:
    return [
        Row(
            f"{label}{'' if at == 1 else ', half of the steps'}",
            run,
            encoder="mean_pool",
            at=at,
            paper=_FIG1.get((key, at), Paper()),
            tasks=BOTH if at == 1 else ("first",),
        )
        for at in (0.5, 1.0)
    ]


def _of_fig1(text: str, better: str, worse: str, on: TaskName = "first") -> Claim:
    """By the mean of recalls, which is all that the figure shows."""
    return Claim(text, better, worse, on, measure="mean_recall")


_MEAN_POOL = Paper(43.4, 70.9, 81.1, 65.1)
_MEAN_POOL_DIDEMO = Paper(40.6, 67.5, 77.2, 61.8)
_VIP = Row(
    "CLIP-ViP, no post-pretraining",
    paper=Paper(46.5, 72.1, 82.5, 67.0),
    didemo=Paper(40.6, 70.4, 79.3, 63.4),
)
_V_S_PAPER, _V_S_DIDEMO = Paper(47.7, 72.1, 82.4, 67.4), Paper(44.6, 73.9, 81.9, 66.8)
_V_S = Row("+ L(V,S)", SUBTITLES, paper=_V_S_PAPER, didemo=_V_S_DIDEMO)
_D_PAPER, _D_DIDEMO = Paper(49.6, 74.5, 84.8, 69.6), Paper(48.2, 76.7, 84.4, 69.8)
_A = Row(
    "(a) + L(V,S) + L(F,C)",
    OCL["a"],
    paper=Paper(49.3, 74.8, 83.8, 69.3),
    didemo=Paper(48.4, 74.5, 84.4, 69.1),
)
_D = Row("(d) + L(V,S+C) + L(F,C)", OCL["d"], paper=_D_PAPER, didemo=_D_DIDEMO)
_ENCODERS: tuple[TaskName, ...] = ("encoders", "first")

SCALE = Study(
    "scale",
    "Fig. 1: post-pretraining on subtitles alone, by the number of clips (MeanPool)",
    (
        Row(_NOTHING, encoder="mean_pool", paper=Paper(mean=65.1)),
        *(
            row
            for label, run in MEAN_POOL_ON.items()
            for row in _of_scale(run, f"{label} of the clips", label)
        ),
        *_of_scale(WEB, _WEB_LABEL, "web"),
    ),
    (
        _of_fig1("few subtitled clips hurt", _NOTHING, "2.5% of the clips"),
        _of_fig1("a tenth of the clips hurts", _NOTHING, "10% of the clips"),
        _of_fig1("a small, clean, other source hurts", _NOTHING, f"{_WEB_LABEL}, half of the steps"),
        _of_fig1("more clips hurt less", _ALL, "2.5% of the clips"),
        _of_fig1("more clips hurt less than a tenth", _ALL, "10% of the clips"),
        _of_fig1("very many clips help", _ALL, _NOTHING),
        _of_fig1("very many clips help", _ALL, _NOTHING, "motion"),
    ),
)
ENCODER_STUDY = Study(
    "encoders",
    "Table 2: encoders, fine-tuned from CLIP",
    (
        Row("MeanPool", encoder="mean_pool", paper=_MEAN_POOL, tasks=_ENCODERS),
        Row("SeqTransformer", None, "seq_transformer", paper=Paper(44.6, 71.2, 81.8, 65.9), tasks=_ENCODERS),
        Row("Full attention", encoder="full_attention", paper=Paper(42.8, 70.1, 80.3, 64.4), tasks=_ENCODERS),
        Row("2 video proxies", encoder="vip2", paper=Paper(45.8, 71.3, 81.7, 66.3), tasks=_ENCODERS),
        Row("4 video proxies", paper=Paper(46.5, 72.1, 82.5, 67.0), tasks=_ENCODERS),
        Row("8 video proxies", encoder="vip8", paper=Paper(45.7, 72.7, 81.7, 66.7), tasks=_ENCODERS),
    ),
    (
        Claim("proxies beat mean pooling", "4 video proxies", "MeanPool", "encoders"),
        Claim("proxies beat the transformer over frames", "4 video proxies", "SeqTransformer", "encoders"),
        Claim("proxies beat full attention", "4 video proxies", "Full attention", "encoders"),
        Claim(
            "proxies start better than full attention",
            "4 video proxies",
            "Full attention",
            metric="zero_shot",
        ),
    ),
)
STARTS_STUDY = Study(
    "starts",
    "How new parameters begin: as in the released code, or by the class token and a table that is not zero",
    (
        Row("4 proxies, released start", start="random", tasks=("encoders", *BOTH)),
        Row("4 proxies, class start", start="class", tasks=("encoders", *BOTH)),
        Row("full attention, released start", None, "full_attention", start="random", tasks=_ENCODERS),
        Row("full attention, class start", None, "full_attention", start="class", tasks=_ENCODERS),
        Row("(d), released start", OCL["d"], start="random"),
        Row("(d), class start", OCL["d"], start="class"),
    ),
    (
        Claim("a class start begins better", "4 proxies, class start", "4 proxies, released start",
              metric="zero_shot", paper=""),
        Claim("a class start learns more motion", "4 proxies, class start", "4 proxies, released start",
              "encoders", paper=""),
        Claim("a class start learns more motion by (d)", "(d), class start", "(d), released start", "motion",
              paper=""),
        Claim("released: proxies beat full attention", "4 proxies, released start",
              "full attention, released start", "encoders"),
    ),
)  # fmt: skip
LOSSES = Study(
    "losses",
    "Table 3: losses of post-pretraining",
    (
        Row("CLIP-MeanPool, no post-pretraining", None, "mean_pool", paper=_MEAN_POOL,
            didemo=_MEAN_POOL_DIDEMO),
        _VIP,
        _V_S,
        _A,
        Row("(b) + L(V,S) + L(V,C)", OCL["b"], paper=Paper(49.6, 74.2, 84.0, 69.3),
            didemo=Paper(48.5, 76.6, 83.6, 69.5)),
        Row("(c) + L(V,S) + L(V,C) + L(F,C)", OCL["c"], paper=Paper(49.6, 74.5, 83.8, 69.3),
            didemo=Paper(48.5, 76.8, 84.1, 69.8)),
        _D,
    ),
    (
        Claim("(d) beats subtitles alone", _D.label, _V_S.label),
        Claim("(a) beats subtitles alone", _A.label, _V_S.label),
        Claim("(d) beats no post-pretraining", _D.label, _VIP.label),
        Claim("subtitles alone beat no post-pretraining", _V_S.label, _VIP.label, "motion"),
        Claim("(d) beats no post-pretraining", _D.label, _VIP.label, "motion"),
        Claim("(d) beats subtitles alone", _D.label, _V_S.label, "motion"),
        Claim("(d) beats subtitles alone", _D.label, _V_S.label, metric="zero_shot", paper=""),
    ),
)  # fmt: skip
DATA = Study(
    "data",
    "Table 4: data of post-pretraining",
    (
        _VIP,
        Row("subtitles", SUBTITLES, paper=_V_S_PAPER, didemo=_V_S_DIDEMO),
        Row("captions", CAPTIONS, paper=Paper(45.9, 73.0, 81.8, 66.9), didemo=Paper(44.9, 74.4, 82.3, 67.2)),
        Row("subtitles + captions", OCL["d"], paper=_D_PAPER, didemo=_D_DIDEMO),
        Row("image captions", IMAGES, paper=Paper(45.6, 70.7, 81.1, 65.8),
            didemo=Paper(43.7, 69.5, 77.9, 63.7)),
        Row("subtitles + image captions", SUBTITLES_AND_IMAGES, paper=Paper(49.1, 73.1, 83.5, 68.6),
            didemo=Paper(47.0, 75.3, 84.1, 68.8)),
    ),
    (
        Claim("both texts beat subtitles", "subtitles + captions", "subtitles"),
        Claim("both texts beat captions", "subtitles + captions", "captions", "motion"),
        Claim("both texts beat image captions", "subtitles + captions",
              "image captions", "motion"),
        Claim("the clips' own captions beat labelled images", "subtitles + captions",
              "subtitles + image captions"),
    ),
)  # fmt: skip
FROM_SCRATCH = Study(
    "scratch",
    "Table 8: from scratch, without CLIP",
    (
        Row("from scratch", SCRATCH, paper=Paper(28.5, 55.2, 68.6)),
        Row("from CLIP", OCL["d"], paper=Paper(49.6, 74.5, 84.8)),
    ),
    (Claim("CLIP is a far better start", "from CLIP", "from scratch"),),
)
_FULL, _NOISY = "(d), captions of one frame, all patches", "noisy subtitles"
_BETWEEN = "(d), halfway between before and after fine-tuning"


def _of_extras(text: str, better: str, worse: str = _FULL) -> tuple[Claim, ...]:
    """A question of both tasks, to which the paper has no answer."""
    return (
        Claim(text, better, worse, paper=""),
        Claim(text, better, worse, "motion", paper=""),
    )


EXTRAS = Study(
    "extras",
    "Beyond the paper: filtered pairs, several captions, patch dropping, interpolated weights",
    (
        Row(_NOISY, NOISY),
        Row("noisy subtitles, the half that fits best", NOISY_FILTERED),
        Row(_FULL, OCL["d"]),
        Row("(d), captions of three frames", SEVERAL_CAPTIONS),
        Row("(d), half of the patches", HALF_OF_THE_PATCHES),
        Row(_BETWEEN, OCL["d"], alpha=0.5),
    ),
    (
        *_of_extras("filtering noisy subtitles helps", "noisy subtitles, the half that fits best", _NOISY),
        *_of_extras("captions of three frames help", "(d), captions of three frames"),
        *_of_extras("dropping half of the patches helps", "(d), half of the patches"),
        *_of_extras("weights half fine-tuned are better", _BETWEEN),
    ),
)
# In the order of the paper, and what is beyond it.
STUDIES = (SCALE, ENCODER_STUDY, STARTS_STUDY, LOSSES, DATA, FROM_SCRATCH, EXTRAS)
# Of Tables 5 and 6, rescoring by the dual softmax, and of Table 7, what models find that saw no task.
RESCORED = (_VIP, _D)
ZERO_SHOT = (
    (Row("CLIP-MeanPool", encoder="mean_pool"), 40.3, 89.9),
    (_VIP, 41.1, 89.4),
    (Row("CLIP-ViP, subtitles alone", SUBTITLES), 36.6, 86.6),
    (Row("CLIP-ViP, (d)", OCL["d"]), 44.8, 90.3),
)
STUDY_NAMES = ("domain-gap", *(study.name for study in STUDIES), "protocols")
# What there are commands for, and their titles.
TITLES = {
    "all": "All tables and Fig. 1",
    "domain-gap": "Table 1: how far subtitles and captions are from descriptions",
    "protocols": "Tables 5 to 7: rescoring by the dual softmax, multiple choice, actions",
} | {study.name: study.title for study in STUDIES}
