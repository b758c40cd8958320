"""Rows of the paper's tables as data, without torch: the encoders of Table 2, the losses of Table 3 and 4.

Plug-ins may add encoders and losses.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

from clipvip.plugins import Registry

# Of a plug-in: makes of a ClipVipConfig the torch module from the projected features of a video's frames
# (batch, frames, dim) to the video's (batch, dim), which are then normalised. None: ours, in `clip_vip`.
ENCODERS: Registry[Callable[[Any], Any] | None] = Registry(
    dict.fromkeys(("vip", "mean_pool", "seq_transformer", "full_attention"))
)

# Whose tokens of all frames go through one transformer; the others encode frames one by one.
JOINT_ENCODERS = ("vip", "full_attention")
# What is asked of the similarities of a batch: the own one among all of a row (InfoNCE), or each for itself
# (SigLIP, arXiv 2303.15343).
Contrast = Literal["softmax", "sigmoid"]
Weighting = Literal["released", "paper"]
Precision = Literal["bf16", "fp16", "fp32"]
ProxyStart = Literal["random", "class"]
TemporalStart = Literal["zero"] | float


def check_temporal_start(value: Any) -> TemporalStart:
    """`value` if a temporal table can begin so; else ValueError."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value != "zero" and not (is_number and 0 < value < math.inf):
        raise ValueError(
            f"the start of the temporal table is 'zero' or a standard deviation above 0, not {value!r}"
        )
    return cast(TemporalStart, value)


@dataclass(frozen=True, slots=True)
class Term:
    """One cross-entropy: `anchor` against all of `positives`, and `negatives` of other samples.

    `paper_weight` is the weight where Eq. 3 and 4 are read literally; the released code weighs all 1.
    """

    anchor: str
    positives: str
    negatives: str | None = None
    paper_weight: float = 0.5

    @property
    def name(self) -> str:
        return f"{self.anchor}->{self.positives}" + (f"+{self.negatives}" if self.negatives else "")


def _pair(first: str, second: str) -> list[Term]:
    """L_X<->Y of Eq. 3: both directions; the paper averages them, the released code adds them."""
    return [Term(first, second), Term(second, first)]


# L_V<->S,C with Eq. 4. Its v2t has 1/(2B) before two terms, and L_V<->S,C is the mean of v2t and t2v, so each
# v2t term weighs 1/4; "L_t2v is equal to (c)" makes t2v the sum over both sources, 1/2 each.
_VIDEO_TO_BOTH = [
    Term("V", "S", "C", paper_weight=0.25),
    Term("V", "C", "S", paper_weight=0.25),
    Term("S", "V"),
    Term("C", "V"),
]

VARIANTS: Registry[list[Term]] = Registry(
    {
        "baseline": _pair("V", "S"),
        "a": _pair("V", "S") + _pair("F", "C"),
        "b": _pair("V", "S") + _pair("V", "C"),
        "c": _pair("V", "S") + _pair("V", "C") + _pair("F", "C"),
        "d": _VIDEO_TO_BOTH + _pair("F", "C"),
        "V-C": _pair("V", "C"),
    }
)


def pairs_of(variant: str) -> list[Term]:
    """What the sigmoid loss contrasts: each pair of inputs of a variant once, both ways at the same time.

    It has no denominators: where d lets captions and subtitles share one, c is the same to it.
    """
    pairs: dict[frozenset[str], Term] = {}
    for term in VARIANTS[variant]:
        pairs.setdefault(frozenset((term.anchor, term.positives)), Term(term.anchor, term.positives))
    return list(pairs.values())


def inputs_of(variant: str) -> frozenset[str]:
    """Which of V, S, F and C a variant needs; KeyError where there is no such variant."""
    terms = VARIANTS[variant]
    return frozenset(name for term in terms for name in (term.anchor, term.positives, term.negatives) if name)
