"""The omnisource contrastive loss (section 3.4 of the paper), written once over named pairs.

Letters: V video, S subtitle, F middle frame, C its caption. Every variant is a list of cross-entropies, each
with an anchor, the text or video that is its positive, and further negatives.
"""

import math
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from clipvip.model.variants import VARIANTS, Contrast, Term, Weighting, inputs_of, pairs_of

# e^10 = 22,026. CLIP's training stops at ln 100 = 4.6, ours at optim.max_scale; 1/0.07 = 14.3, where CLIP's
# begins, is not the logarithm of anything in use.
MAX_LOGIT_SCALE = 10.0
# Above this many rows, logits are made in chunks of rows and made again for the gradient.
_ROWS_PER_CHUNK = 4096


def omnisource_loss(
    *,
    video: Tensor,
    subtitle: Tensor | None = None,
    frame: Tensor | None = None,
    caption: Tensor | None = None,
    logit_scale: Tensor | float,
    variant: str = "d",
    weighting: Weighting = "released",
    caption_mask: Tensor | None = None,
    contrast: Contrast = "softmax",
    logit_bias: Tensor | float | None = None,
) -> Tensor:
    """The loss of a batch, a scalar: the sum of `omnisource_terms`, which has the arguments and errors.

    Examples:
        >>> import torch
        >>> from clipvip.model import omnisource_loss
        >>> video = subtitle = frame = caption = torch.eye(4)  # (batch, dim), rows of length 1
        >>> loss = omnisource_loss(
        ...     video=video, subtitle=subtitle, frame=frame, caption=caption, logit_scale=4.6
        ... )
        >>> loss.item() < 0.01  # each row is nearest to its own
        True
    """
    terms = omnisource_terms(
        video=video,
        subtitle=subtitle,
        frame=frame,
        caption=caption,
        logit_scale=logit_scale,
        variant=variant,
        weighting=weighting,
        caption_mask=caption_mask,
        contrast=contrast,
        logit_bias=logit_bias,
    )
    return torch.stack(list(terms.values())).sum()


def omnisource_terms(
    *,
    video: Tensor,
    subtitle: Tensor | None = None,
    frame: Tensor | None = None,
    caption: Tensor | None = None,
    logit_scale: Tensor | float,
    variant: str = "d",
    weighting: Weighting = "released",
    caption_mask: Tensor | None = None,
    checks_scale: bool = True,
    contrast: Contrast = "softmax",
    logit_bias: Tensor | float | None = None,
) -> dict[str, Tensor]:
    """The weighted terms of the loss by name, such as `V->S+C`.

    Args:
        video, subtitle, frame, caption: (batch, dim), L2-normalised, a row a sample; None where not used.
        logit_scale: the LOGARITHM of the inverse temperature, a scalar: 4.6 for CLIP's 100. More than
            MAX_LOGIT_SCALE must be the inverse temperature itself, and is refused.
        variant: Table 3: `baseline` V-S; `a` V-S, F-C; `b` V-S, V-C; `c` V-S, V-C, F-C; `d` V-S,C with the
            larger set of negatives (Eq. 4), F-C. Besides, `V-C`: captions only (Table 4).
        weighting: `released` adds all cross-entropies, as the released code does: twice the paper's value for
            baseline, a, b and c; `paper` reads Eq. 3 and 4 literally.
        caption_mask: (batch,), true where a sample has a caption. One without is left out of all terms of
            captions and frames.
        contrast: `softmax`, InfoNCE as in the paper; `sigmoid`, the loss of SigLIP (arXiv 2303.15343): of
            each pair of inputs, such as V and S, -1/B times the sum over all i and j of
            log sigmoid(z (scale V_i S_j + bias)), z 1 for i = j and else -1. It has no `weighting`.
        logit_bias: the bias of the sigmoid loss, a scalar, which it needs.
        checks_scale: false: believe a scalar tensor, and so wait for no GPU that has its value.

    Computed in float32 at least, also under autocast: at a scale of 100 bfloat16 rounds logits to 0.5.

    Raises:
        ValueError: an unknown variant or weighting, an input that the variant needs is None, or a logit_scale
            that is no finite scalar or no logarithm of an inverse temperature, or a sigmoid loss without its
            bias.
    """
    if checks_scale or not isinstance(logit_scale, Tensor):
        logit_scale = _checked_scale(logit_scale, like=video)
    if variant not in VARIANTS:
        raise ValueError(VARIANTS.refusal("variant", variant))
    if weighting not in ("released", "paper"):
        raise ValueError(f"weighting {weighting!r} is neither 'released' nor 'paper'")
    if contrast not in get_args(Contrast) or (contrast == "sigmoid") != (logit_bias is not None):
        raise ValueError(f"contrast {contrast!r} is softmax, or sigmoid with a logit_bias")
    rows = {"V": video, "S": subtitle, "F": frame, "C": caption}
    names = {"V": "video", "S": "subtitle", "F": "frame", "C": "caption"}
    for letter in inputs_of(variant):
        if rows[letter] is None:
            raise ValueError(f"variant {variant!r} needs {names[letter]}")
    has = {} if caption_mask is None else dict.fromkeys("FC", caption_mask.to(video.device).bool())
    with torch.autocast(video.device.type, enabled=False):
        full = {letter: _at_least_float32(row) for letter, row in rows.items() if row is not None}
        # What lies in the rows of absent inputs is of no account, be it no number.
        full |= {letter: full[letter].where(has[letter][:, None], 0.0) for letter in full.keys() & has.keys()}
        scale = _at_least_float32(logit_scale).exp()
        if logit_bias is not None:
            bias = _at_least_float32(torch.as_tensor(logit_bias, device=video.device)).reshape(())
            return {t.name: _cross_entropy(t, full, has, scale, bias) for t in pairs_of(variant)}
        losses = {term.name: _cross_entropy(term, full, has, scale) for term in VARIANTS[variant]}
        if weighting == "paper":
            return {term.name: term.paper_weight * losses[term.name] for term in VARIANTS[variant]}
        return losses


def _checked_scale(logit_scale: Tensor | float, *, like: Tensor) -> Tensor:
    """The logarithm of the inverse temperature as a scalar tensor; ValueError where it cannot be one."""
    if not isinstance(logit_scale, Tensor):
        dtype = torch.promote_types(like.dtype, torch.float32)
        logit_scale = torch.tensor(float(logit_scale), dtype=dtype, device=like.device)
    shown = f"{logit_scale.item():g}" if logit_scale.numel() == 1 else f"of shape {tuple(logit_scale.shape)}"
    if logit_scale.numel() != 1 or not -math.inf < logit_scale.item() <= MAX_LOGIT_SCALE:
        raise ValueError(
            f"logit_scale is {shown}: give the logarithm of the inverse temperature, one number of at most "
            f"{MAX_LOGIT_SCALE:g}; of 100 it is 4.605"
        )
    return logit_scale.reshape(())


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _cross_entropy(
    term: Term,
    rows: dict[str, Tensor],
    has: dict[str, Tensor],
    scale: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    """Mean over the samples that have both sides of -log softmax at the positive; zero where none has.

    With a `bias` the mean of the sums over all columns of -log sigmoid.

    `has` tells by letter which samples have an input; one that all have is not in it. What is absent is
    masked and not taken out: how much that leaves is known to the GPU alone, which would be waited for.
    """
    anchors, columns = rows[term.anchor], rows[term.positives]
    kept, there = _both(has.get(term.anchor), has.get(term.positives)), None
    own = torch.arange(len(anchors), device=anchors.device)
    owners = None
    if term.negatives is not None:
        columns, owners = torch.cat([columns, rows[term.negatives]]), torch.cat([own, own])
    if kept is not None or term.negatives in has:
        all_have = torch.ones_like(own, dtype=torch.bool)
        there = all_have if kept is None else kept
        if term.negatives is not None:
            there = torch.cat([there, has.get(term.negatives, all_have)])
    parts = [slice(start, start + _ROWS_PER_CHUNK) for start in range(0, len(own), _ROWS_PER_CHUNK)]
    total = torch.zeros((), dtype=anchors.dtype, device=anchors.device)
    for part in parts:
        kept_of_part = None if kept is None else kept[part]
        arguments = (anchors[part], columns, own[part], owners, kept_of_part, there, scale, bias)
        if len(parts) == 1:
            return _part_sum(*arguments) / _count(own, kept)
        total = total + checkpoint(_part_sum, *arguments, use_reentrant=False)
    return total / _count(own, kept)


def _both(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """The samples that have both; None: all."""
    return second if first is None else first if second is None else first & second


def _count(samples: Tensor, kept: Tensor | None) -> Tensor | int:
    return len(samples) if kept is None else kept.sum().clamp(min=1)


def _part_sum(
    anchors: Tensor,
    columns: Tensor,
    own: Tensor,
    owners: Tensor | None,
    kept: Tensor | None,
    there: Tensor | None,
    scale: Tensor,
    bias: Tensor | None,
) -> Tensor:
    """Sum of cross-entropies of some anchors. Column `own[i]` is anchor i's positive.

    `owners` says whose each column is, where samples have several: a negative of the anchor's own sample is
    in no denominator (Eq. 4), and nor is what is not `there`. Anchors that are not `kept` add nothing. The
    last three are None where there is nothing of the kind.
    """
    # V->S+C of two samples, the second without a caption: the columns S0 S1 C0 C1 have the owners 0 1 0 1. V0
    # is contrasted with S0 and S1 alone, since C0 is its own and not its positive, and C1 is not there; V1
    # with S0, S1 and C0.
    logits = scale * (anchors @ columns.T)
    left_out = None
    if owners is not None:
        column = torch.arange(len(columns), device=own.device)
        left_out = (owners == own[:, None]) & (column != own[:, None])
    if there is not None:
        left_out = ~there.expand(len(own), -1) if left_out is None else left_out | ~there
    if bias is not None:
        is_own = torch.arange(len(columns), device=own.device) == own[:, None]
        losses = F.softplus((logits + bias) * torch.where(is_own, -1.0, 1.0))
        losses = losses if left_out is None else losses.masked_fill(left_out, 0.0)
        return (losses if kept is None else losses.where(kept[:, None], 0.0)).sum()
    if left_out is not None:
        # An anchor that does not count keeps all its columns: with none, its gradient would be no number.
        left_out = left_out if kept is None else left_out & kept[:, None]
        logits = logits.masked_fill(left_out, float("-inf"))
    if kept is None:
        return F.cross_entropy(logits, own, reduction="sum")
    return torch.where(kept, F.cross_entropy(logits, own, reduction="none"), 0.0).sum()
