"""The omnisource contrastive loss (section 3.4 of the paper), written once over named pairs.

Letters: V video, S subtitle, F middle frame, C its caption. Every variant is a list of cross-entropies, each
with an anchor, the text or video that is its positive, and further negatives.
"""

import math
from typing import NamedTuple, get_args

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
            Captions also (batch, several, dim): each is a positive of its sample and a negative of the
            others, a sample's are no negatives of each other, and in each term the mean over a sample's
            captions stands for the sample.
        logit_scale: the LOGARITHM of the inverse temperature, a scalar: 4.6 for CLIP's 100. More than
            MAX_LOGIT_SCALE must be the inverse temperature itself, and is refused.
        variant: Table 3: `baseline` V-S; `a` V-S, F-C; `b` V-S, V-C; `c` V-S, V-C, F-C; `d` V-S,C with the
            larger set of negatives (Eq. 4), F-C. Besides, `V-C`: captions only (Table 4).
        weighting: `released` adds all cross-entropies, as the released code does: twice the paper's value for
            baseline, a, b and c; `paper` reads Eq. 3 and 4 literally.
        caption_mask: (batch,), true where a sample has a caption; of several (batch, several). A sample
            without any is left out of all terms of captions and frames.
        contrast: `softmax`, InfoNCE as in the paper; `sigmoid`, the loss of SigLIP (arXiv 2303.15343): of
            each pair of inputs, such as V and S, -1/B times the sum over all i and j of
            log sigmoid(z (scale V_i S_j + bias)), z 1 for i = j and else -1. It has no `weighting`. Several
            captions of a sample are right each, and weigh as one together.
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
        given = "without" if logit_bias is None else "with"
        raise ValueError(
            f"contrast {contrast!r} {given} logit_bias: give softmax without, or sigmoid with it"
        )
    rows = {"V": video, "S": subtitle, "F": frame, "C": caption}
    names = {"V": "video", "S": "subtitle", "F": "frame", "C": "caption"}
    for letter in inputs_of(variant):
        if rows[letter] is None:
            raise ValueError(f"variant {variant!r} needs {names[letter]}")
    mask = None if caption_mask is None else caption_mask.to(video.device).bool()
    with torch.autocast(video.device.type, enabled=False):
        masks = {"F": mask, "C": mask}
        full = {x: _side(row, masks.get(x)) for x, row in rows.items() if row is not None}
        scale = _at_least_float32(logit_scale).exp()
        if logit_bias is not None:
            bias = _at_least_float32(torch.as_tensor(logit_bias, device=video.device)).reshape(())
            return {t.name: _cross_entropy(t, full, scale, bias) for t in pairs_of(variant)}
        losses = {term.name: _cross_entropy(term, full, scale) for term in VARIANTS[variant]}
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
            f"{MAX_LOGIT_SCALE:g}; for a temperature of 0.01 it is 4.605"
        )
    return logit_scale.reshape(())


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


class _Side(NamedTuple):
    """The rows of one kind of input, (n, dim), sample after sample; `owners` says whose each is, (n,).

    `has` tells which rows there are, (n,), and `any_of` which of the `num_samples` have one; None: all. Where
    samples may have several rows, these have `weights`, (num_samples, several), which add up to 1 for a
    sample that has any.
    """

    rows: Tensor
    owners: Tensor
    num_samples: int
    has: Tensor | None
    any_of: Tensor | None
    weights: Tensor | None

    def told_of_rows(self, samples: Tensor | None) -> Tensor | None:
        """What is known of samples, for each row."""
        return samples if samples is None or self.weights is None else samples[self.owners]


def _side(rows: Tensor, mask: Tensor | None) -> _Side:
    """Rows of (batch, dim) or (batch, several, dim) with a mask of captions, (batch,) or (batch, several)."""
    rows = _at_least_float32(rows)
    samples = torch.arange(len(rows), device=rows.device)
    any_of = mask if mask is None or mask.dim() == 1 else mask.any(1)
    # What lies in the rows of absent inputs is of no account, be it no number.
    if rows.dim() == 2:
        rows = rows if any_of is None else rows.where(any_of[:, None], 0.0)
        return _Side(rows, samples, len(rows), any_of, any_of, None)
    several = rows.shape[1]
    has = rows.new_ones(rows.shape[:2], dtype=torch.bool)
    if mask is not None:
        has = has & mask.view(len(rows), -1)
    weights = has.to(rows.dtype) / has.sum(1, keepdim=True).clamp(min=1)
    flat = rows.where(has[..., None], 0.0).flatten(0, 1)
    owners = samples.repeat_interleave(several)
    return _Side(flat, owners, len(rows), has.flatten(), has.any(1), weights)


class _Columns(NamedTuple):
    """What anchors are contrasted with: the positives of all samples, and then further negatives.

    `owners` says whose each is, `there` which there are (None: all), `weights` (samples, several) what the
    positives of a sample count where it may have several. `has_negatives`: whether any follow the positives.
    """

    rows: Tensor
    owners: Tensor
    there: Tensor | None
    weights: Tensor | None
    has_negatives: bool


def _cross_entropy(term: Term, sides: dict[str, _Side], scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """Mean over the samples that have both sides of -log softmax at the positive; zero where none has.

    With a `bias` the mean of the sums over all columns of -log sigmoid. Of several anchors or positives of a
    sample their mean counts. What is absent is masked and not taken out: how much that leaves is known to the
    GPU alone, which would be waited for.
    """
    anchor, positives = sides[term.anchor], sides[term.positives]
    kept = _both(anchor.has, anchor.told_of_rows(positives.any_of))
    columns = _columns(anchor, positives, None if term.negatives is None else sides[term.negatives])
    both = _both(anchor.any_of, positives.any_of)
    count = anchor.num_samples if both is None else both.sum().clamp(min=1)
    num_rows = len(anchor.rows)
    parts = [slice(start, start + _ROWS_PER_CHUNK) for start in range(0, num_rows, _ROWS_PER_CHUNK)]
    total = torch.zeros((), dtype=anchor.rows.dtype, device=anchor.rows.device)
    for part in parts:
        kept_of_part = None if kept is None else kept[part]
        weights = None if anchor.weights is None else anchor.weights.flatten()[part]
        arguments = (anchor.rows[part], anchor.owners[part], kept_of_part, weights, columns, scale, bias)
        if len(parts) == 1:
            return _part_sum(*arguments) / count
        total = total + checkpoint(_part_sum, *arguments, use_reentrant=False)
    return total / count


def _both(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Those that have both; None: all."""
    return second if first is None else first if second is None else first & second


def _columns(anchor: _Side, positives: _Side, negatives: _Side | None) -> _Columns:
    there = _both(positives.has, positives.told_of_rows(anchor.any_of))
    if negatives is None:
        return _Columns(positives.rows, positives.owners, there, positives.weights, has_negatives=False)
    rows = torch.cat([positives.rows, negatives.rows])
    owners = torch.cat([positives.owners, negatives.owners])
    if there is not None or negatives.has is not None:
        of_each = ((there, positives), (negatives.has, negatives))
        all_have = (torch.ones_like(side.owners, dtype=torch.bool) for _, side in of_each)
        there = torch.cat([a if h is None else h for a, (h, _) in zip(all_have, of_each, strict=True)])
    return _Columns(rows, owners, there, positives.weights, has_negatives=True)


def _part_sum(
    anchors: Tensor,
    own: Tensor,
    kept: Tensor | None,
    weights: Tensor | None,
    columns: _Columns,
    scale: Tensor,
    bias: Tensor | None,
) -> Tensor:
    """Sum over some anchors, of the samples `own`; those that are not `kept` add nothing.

    What belongs to the anchor's own sample and is not its positive is in no denominator (Eq. 4), and nor is
    what is not there. `weights` are those of the anchors; None: each counts as one.
    """
    # V->S+C of two samples, the second without a caption: the columns S0 S1 C0 C1 have the owners 0 1 0 1. V0
    # is contrasted with S0 and S1 alone, since C0 is its own and not its positive, and C1 is not there; V1
    # with S0, S1 and C0.
    logits = scale * (anchors @ columns.rows.T)
    if bias is not None:
        losses = F.softplus((logits + bias) * torch.where(columns.owners == own[:, None], -1.0, 1.0))
        losses = losses if columns.there is None else losses.masked_fill(~columns.there, 0.0)
        losses = losses if columns.weights is None else losses * columns.weights.flatten()
        losses = losses if weights is None else losses * weights[:, None]
        return (losses if kept is None else losses.where(kept[:, None], 0.0)).sum()
    if columns.weights is not None:
        losses = _of_several_positives(logits, own, columns)
    else:
        left_out = None
        if columns.has_negatives:
            column = torch.arange(len(columns.rows), device=own.device)
            left_out = (columns.owners == own[:, None]) & (column != own[:, None])
        if columns.there is not None:
            absent = ~columns.there.expand(len(own), -1)
            left_out = absent if left_out is None else left_out | absent
        if left_out is not None:
            # An anchor that does not count keeps all its columns: with none, its gradient would be no number.
            left_out = left_out if kept is None else left_out & kept[:, None]
            logits = logits.masked_fill(left_out, float("-inf"))
        if kept is None:
            return F.cross_entropy(logits, own, reduction="sum")
        losses = F.cross_entropy(logits, own, reduction="none")
    losses = losses if weights is None else losses * weights
    return (losses if kept is None else torch.where(kept, losses, 0.0)).sum()


def _of_several_positives(logits: Tensor, own: Tensor, columns: _Columns) -> Tensor:
    """For each anchor the mean over the positives of its sample, each contrasted with what is of others."""
    assert columns.weights is not None
    several = columns.weights.shape[1]
    left_out = columns.owners == own[:, None]
    if columns.there is not None:
        left_out = left_out | ~columns.there
    # Not infinity: where nothing is left, the gradient would be no number.
    others = logits.masked_fill(left_out, torch.finfo(logits.dtype).min).logsumexp(1, keepdim=True)
    places = own[:, None] * several + torch.arange(several, device=own.device)
    return (-F.logsigmoid(logits.gather(1, places) - others) * columns.weights[own]).sum(1)
