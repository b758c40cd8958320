"""Which number format is computed in, on a processor and on GPUs with and without bfloat16."""

import pytest
import torch

from clipvip.model import precision
from clipvip.model.image_captioner import default_dtype
from clipvip.model.precision import choose_precision, half_dtype


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
