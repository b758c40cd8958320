"""Which number format is computed in, on a processor and on GPUs with and without bfloat16."""

import pytest
import torch
from torch import Tensor

from clipvip.model import ClipVip, ClipVipConfig, precision
from clipvip.model.baselines import FrameTransformer
from clipvip.model.image_captioner import default_dtype
from clipvip.model.layer import TransformerLayer
from clipvip.model.precision import choose_precision, half_dtype
from clipvip.model.variants import ENCODERS
from tiny_clip import tiny_text_config


@pytest.mark.parametrize(
    ("asked", "on_gpu", "has_bf16", "chosen"),
    [
        ("auto", False, False, "fp32"),
        ("auto", True, True, "bf16"),
        ("auto", True, False, "fp16"),
        ("bf16", False, False, "bf16"),
        ("bf16", True, True, "bf16"),
        *[("fp16", on_gpu, has, "fp16") for on_gpu in (False, True) for has in (False, True)],
        *[("fp32", on_gpu, has, "fp32") for on_gpu in (False, True) for has in (False, True)],
    ],
)
def test_the_format(asked: str, on_gpu: bool, has_bf16: bool, chosen: str) -> None:
    found, remark = choose_precision(asked, on_gpu=on_gpu, has_bf16=has_bf16)  # type: ignore[arg-type]
    assert found == chosen
    assert ("no bf16" in remark) == (asked == "auto" and chosen == "fp16")


def test_bf16_where_there_is_none_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"optim\.precision is bf16, which this GPU does not have; give fp16, fp32 or auto"
    ):
        choose_precision("bf16", on_gpu=True, has_bf16=False)


def test_captions_are_made_in_the_half_precision_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_dtype(torch.device("cpu")) == torch.float32
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for has_bf16, expected in ((True, torch.bfloat16), (False, torch.float16)):
        # torch also says yes of GPUs that emulate it, unless told not to count these.
        monkeypatch.setattr(
            torch.cuda,
            "is_bf16_supported",
            lambda including_emulation=True, has=has_bf16: including_emulation or has,
        )
        assert precision.has_native_bf16() == has_bf16
        assert half_dtype() == default_dtype(torch.device("cuda")) == expected


def embeddings_and_gradient(encoder: str, dtype: torch.dtype, *, half: bool = False) -> tuple[Tensor, Tensor]:
    """Of four videos and their texts; `half` under autocast to bfloat16."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 4, "num_hidden_layers": 6}
    vision = sizes | {"image_size": 32, "patch_size": 8}
    settings = {"num_frame_heads": 4} if encoder == "seq_transformer" else {}
    model = ClipVip(
        ClipVipConfig(tiny_text_config() | sizes, vision, projection_dim=32, encoder=encoder, **settings)
    )
    # Weights that matter: what CLIP draws is so small that a layer hardly changes its input.
    for name, parameter in sorted(model.named_parameters()):
        if name.endswith("weight") and parameter.ndim == 2 and "embedding" not in name:
            torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    model = model.to(dtype)
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(4, 5, 3, 32, 32, generator=generator)
    ids = torch.randint(1, 200, (4, 9), generator=generator)
    ids[:, -1] = tiny_text_config()["eos_token_id"]
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        output = model(pixels.to(dtype), ids, embeds_only=True)
    videos, texts = output.video_embeds.to(dtype), output.text_embeds.to(dtype)
    torch.nn.functional.cross_entropy(4.0 * videos @ texts.T, torch.arange(4)).backward()
    gradients = [p.grad.double().flatten() for p in model.parameters() if p.grad is not None]
    return torch.cat([videos, texts]).double().detach(), torch.cat(gradients)


@pytest.mark.parametrize(("encoder", "at_once"), [*[(name, False) for name in ENCODERS], ("vip", True)])
def test_bfloat16_is_as_close_to_float64_as_its_digits_allow(
    encoder: str, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens that were summed in bfloat16 layer by layer would be further off. `at_once`: as on a GPU."""
    exact = embeddings_and_gradient(encoder, torch.float64)
    if at_once:
        monkeypatch.setattr(TransformerLayer, "frame_kernel_on", ("cpu",))
    found = embeddings_and_gradient(encoder, torch.float32, half=True)
    errors = [((a - b).norm() / b.norm()).item() for a, b in zip(found, exact, strict=True)]
    assert errors[0] < 8.5e-3 and errors[1] < 3e-2, errors


def test_the_transformer_over_frames_computes_in_float32() -> None:
    torch.manual_seed(0)
    head = FrameTransformer(32, num_layers=2, num_heads=4, max_frames=8)
    frames = torch.randn(2, 5, 32)
    with torch.autocast("cpu", torch.bfloat16):
        found = head(frames)
    assert torch.equal(found, head(frames)) and found.dtype == torch.float32
