"""Whether the fast ways of computing are right: embeddings and gradients beside those of float64."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from clipvip.model.variants import ENCODERS
from clipvip.pipeline.train.step import Encoder, compute_gradients, make_encoder
from gpu_sections.rows import Check
from gpu_sections.session import Session, clip_of, opened

# The largest errors, as ||a - b|| / ||b||, that rounding explains.
_MOST = {"float32": 2e-5, "bf16": 1e-1}
# At the recipe's temperature of 1/100 rounding of an embedding by bf16 moves a logit by half a unit; at 1/7
# it does not.
_LOGIT_SCALE = 2.0


def correctness(check: Check) -> None:
    """Four encoders of two layers in float32, bf16 and compiled, against float64; two passes against one."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    init = clip_of(check, num_layers=2)
    exact = {}
    for encoder in ENCODERS:
        with opened(
            check, init, batch_size=8, model__encoder=encoder, model__logit_scale=_LOGIT_SCALE
        ) as session:
            exact[encoder] = _results(session, torch.float64, "fp32")
            for name, precision in {"float32": "fp32", "bf16": "bf16"}.items():
                _tell(
                    check, f"{encoder}, {name}", _results(session, torch.float32, precision), exact[encoder]
                )
    _two_passes(check, init)
    for encoder in list(ENCODERS)[:1] if check.tiny else ENCODERS:
        if check.has_time_for(f"{encoder}, bf16, compiled", 10):
            with opened(
                check, init, batch_size=8, model__encoder=encoder, model__logit_scale=_LOGIT_SCALE
            ) as session:
                found = _results(session, torch.float32, "bf16", compiled=True)
                _tell(check, f"{encoder}, bf16, compiled", found, exact[encoder])


def _two_passes(check: Check, init: Path) -> None:
    gradients = []
    for chunk_size in (8, 3):
        with opened(
            check, init, batch_size=8, chunk_size=chunk_size, model__logit_scale=_LOGIT_SCALE
        ) as session:
            gradients.append(_results(session, torch.float32, "fp32"))
    _tell(check, "vip, float32, two passes against one", gradients[1], gradients[0])


def _results(
    session: Session, dtype: torch.dtype, precision: str, compiled: bool = False
) -> dict[str, torch.Tensor]:
    """Embeddings of the batch and the gradient of its loss, each as one float64 vector."""
    job = session.job
    model = job.model.to(dtype)
    model.zero_grad(set_to_none=True)
    encode: Encoder = make_encoder(model, precision=precision, device=job.place.device, compiled=compiled)
    compute_gradients(replace(job, encode=encode), session.chunks)
    gradient = [p.grad.double().flatten() for p in model.parameters() if p.grad is not None]
    with torch.no_grad():
        rows = [encode(chunk) for chunk in session.chunks]
    embeddings = [torch.cat([row[role].double().flatten() for row in rows]) for role in rows[0]]
    return {"embeddings": torch.cat(embeddings), "gradient": torch.cat(gradient)}


def _tell(check: Check, name: str, found: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]) -> None:
    errors: dict[str, Any] = {
        f"{what}_error": ((found[what] - exact[what]).norm() / exact[what].norm()).item() for what in exact
    }
    most = next(value for kind, value in _MOST.items() if kind in name)
    right = all(error <= most for error in errors.values())  # false for NaN
    check.row(name, **errors, allowed=most, verdict="right" if right else "WRONG")
