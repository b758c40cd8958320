"""The loss of samples with several captions each, against its definition in plain loops."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clipvip.model import losses
from clipvip.model.losses import omnisource_terms
from clipvip.model.variants import VARIANTS, pairs_of
from plain_captions import plain_sigmoid, plain_softmax

NAMES = {"V": "video", "S": "subtitle", "F": "frame", "C": "caption"}
SIZE, SEVERAL, DIM, SCALE, BIAS = 5, 3, 8, 1.7, -2.0


def random_rows(seed: int, *, several: int = SEVERAL, size: int = SIZE) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = dict.fromkeys("VSF", (size, DIM)) | {"C": (size, several, DIM)}
    return {
        letter: F.normalize(
            torch.randn(shape, generator=generator, dtype=torch.float64), dim=-1
        ).requires_grad_()
        for letter, shape in shapes.items()
    }


def terms_of(rows: dict[str, Tensor], mask: Tensor | None, variant: str, **more: Any) -> dict[str, Tensor]:
    given = {NAMES[letter]: tensor for letter, tensor in rows.items()}
    return omnisource_terms(**given, logit_scale=SCALE, caption_mask=mask, variant=variant, **more)


masks = st.lists(
    st.lists(st.booleans(), min_size=SEVERAL, max_size=SEVERAL), min_size=SIZE, max_size=SIZE
).map(torch.tensor)


@pytest.mark.parametrize("variant", ["a", "b", "c", "d", "V-C"])
@settings(max_examples=15, deadline=None)
@given(mask=masks, seed=st.integers(0, 1000))
def test_each_caption_is_a_positive_of_its_sample_alone(variant: str, mask: Tensor, seed: int) -> None:
    rows = random_rows(seed)
    found = terms_of(rows, mask, variant)
    for term in VARIANTS[variant]:
        expected = plain_softmax(rows, mask, SCALE, term)
        assert found[term.name].item() == pytest.approx(expected, rel=1e-9, abs=1e-12), term.name
    sigmoid = terms_of(rows, mask, variant, contrast="sigmoid", logit_bias=BIAS)
    for term in pairs_of(variant):
        expected = plain_sigmoid(rows, mask, SCALE, BIAS, term)
        assert sigmoid[term.name].item() == pytest.approx(expected, rel=1e-7, abs=1e-12), term.name
    for total in (sum(found.values()), sum(sigmoid.values())):
        assert isinstance(total, Tensor)
        gradients = torch.autograd.grad(total, list(rows.values()), allow_unused=True)
        assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("contrast", ["softmax", "sigmoid"])
@pytest.mark.parametrize("variant", ["a", "b", "c", "d", "V-C"])
def test_one_caption_each_is_the_loss_as_it_is(variant: str, contrast: str) -> None:
    """Also where there is room for more; and absent ones get no gradient, be they no numbers."""
    rows = random_rows(3)
    more: dict[str, Any] = {"contrast": contrast} | ({"logit_bias": BIAS} if contrast == "sigmoid" else {})
    has_one = torch.tensor([True, True, False, True, True])
    places = torch.tensor([0, 2, 0, 1, 0])  # where its caption stands
    mask = F.one_hot(places, SEVERAL).bool() & has_one[:, None]
    single = rows | {"C": rows["C"][torch.arange(SIZE), places]}
    expected = terms_of(single, has_one, variant, **more)
    with torch.no_grad():
        rows["C"][~mask] = math.nan
    found = terms_of(rows, mask, variant, **more)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert value.item() == pytest.approx(expected[name].item(), rel=1e-12), name
    (gradient,) = torch.autograd.grad(sum(found.values()), rows["C"])  # type: ignore[arg-type]
    assert gradient[~mask].abs().sum() == 0
    assert gradient[mask].abs().sum() > 0


@pytest.mark.parametrize("contrast", ["softmax", "sigmoid"])
def test_rows_in_parts_give_the_same(contrast: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0], [1, 1, 0]]).bool()
    more: dict[str, Any] = {"contrast": contrast} | ({"logit_bias": BIAS} if contrast == "sigmoid" else {})

    def value_and_gradients() -> list[Tensor]:
        rows = random_rows(8)
        loss = torch.stack(list(terms_of(rows, mask, "d", **more).values())).sum()
        return [loss, *torch.autograd.grad(loss, [rows[letter] for letter in "VSFC"])]

    expected = value_and_gradients()
    monkeypatch.setattr(losses, "_ROWS_PER_CHUNK", 2)
    for found, value in zip(value_and_gradients(), expected, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-12, atol=1e-14)


def test_an_own_caption_is_no_negative() -> None:
    """Of one sample with captions that agree with nothing there is nothing to tell it from."""
    rows = random_rows(1, size=1)
    found = terms_of(rows, None, "d")
    assert all(value.item() == pytest.approx(0.0, abs=1e-12) for value in found.values())
