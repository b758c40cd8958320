"""The omnisource loss against the published code's values and the paper's formulas in plain loops."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clipvip.model import losses
from clipvip.model.losses import omnisource_loss, omnisource_terms
from goldens import assert_close, manifest, tensors

SETS = ["rand_t2.0", "rand_t4.6", "corr_t4.6", "b1_t2.0", "b7_t3.0"]
CLASSES = {
    "baseline": "NCELearnableTempLoss",
    "a": "VidImgDivideNCELearnableTempLoss",
    "b": "NCELearnableTempLoss_vs_vc",
    "c": "NCELearnableTempLoss_vs_vc_fc",
    "d": "NCELearnableTempLoss_vsc_fc",
}
NAMES = {"v": "video", "s": "subtitle", "f": "frame", "c": "caption"}
NEEDED = {"baseline": "vs", "a": "vsfc", "b": "vsc", "c": "vsfc", "d": "vsfc", "V-C": "vc"}


def golden_inputs(which: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Leaves v, s, f, c and temp; the temperature is the exact number, not its float32 neighbour."""
    golden = tensors("ocl_losses")
    rows = {name: golden[f"{which}/in/{name}"].to(dtype).clone().requires_grad_() for name in NAMES}
    temp = torch.tensor(manifest("ocl_losses")["sets"][which]["temp"], dtype=dtype)
    return rows | {"temp": temp.requires_grad_()}


def loss_of(rows: dict[str, Tensor], variant: str, **options: object) -> Tensor:
    given = {NAMES[letter]: rows[letter] for letter in NEEDED[variant]}
    return omnisource_loss(**given, logit_scale=rows["temp"], variant=variant, **options)


def random_rows(size: int, *, dim: int = 8, seed: int = 0, temp: float = 1.5) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = {
        name: F.normalize(torch.randn(size, dim, generator=generator, dtype=torch.float64), dim=-1)
        for name in NAMES
    }
    rows["temp"] = torch.tensor(temp, dtype=torch.float64)
    return {name: tensor.requires_grad_() for name, tensor in rows.items()}


@pytest.mark.parametrize("variant", CLASSES)
@pytest.mark.parametrize("which", SETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_values_and_gradients(which: str, variant: str, dtype: torch.dtype) -> None:
    golden, rows = tensors("ocl_losses"), golden_inputs(which, dtype)
    loss = loss_of(rows, variant)
    loss.backward()
    exact = dtype == torch.float64
    suffix = "_f64" if exact else ""
    where = f"{which}/{CLASSES[variant]}"
    assert_close(
        loss, golden[f"{where}/value{suffix}"], rtol=1e-12 if exact else 1e-5, atol=1e-14 if exact else 1e-6
    )
    for name, leaf in rows.items():
        expected = golden[f"{where}/grad{suffix}/{name}"]
        if leaf.grad is None:
            assert not expected.any()
        else:
            largest = max(1.0, expected.abs().max().item())
            assert_close(
                leaf.grad, expected, rtol=1e-12 if exact else 1e-4, atol=largest * (1e-13 if exact else 2e-6)
            )


# --- the paper's formulas, without tensors' tricks ---


def plain(rows: dict[str, Tensor]) -> dict[str, list[list[float]]]:
    return {name: rows[name].tolist() for name in NAMES} | {"scale": math.exp(rows["temp"].item())}


def similarity(p: dict, x: str, i: int, y: str, j: int) -> float:
    return math.exp(p["scale"] * sum(a * b for a, b in zip(p[x][i], p[y][j], strict=True)))


def one_way(p: dict, x: str, y: str) -> float:
    """L_x2y of Eq. 3."""
    size = len(p[x])
    return (
        -sum(
            math.log(similarity(p, x, i, y, i) / sum(similarity(p, x, i, y, j) for j in range(size)))
            for i in range(size)
        )
        / size
    )


def both_ways(p: dict, x: str, y: str) -> float:
    return (one_way(p, x, y) + one_way(p, y, x)) / 2


def video_to_both(p: dict) -> float:
    """L_v2t of Eq. 4."""
    size, total = len(p["v"]), 0.0
    for own, other in (("s", "c"), ("c", "s")):
        for i in range(size):
            below = sum(similarity(p, "v", i, own, j) for j in range(size))
            below += sum(similarity(p, "v", i, other, j) for j in range(size) if j != i)
            total += math.log(similarity(p, "v", i, own, i) / below)
    return -total / (2 * size)


def paper_loss(p: dict, variant: str) -> float:
    pairs = {"baseline": ["vs"], "a": ["vs", "fc"], "b": ["vs", "vc"], "c": ["vs", "vc", "fc"], "V-C": ["vc"]}
    if variant in pairs:
        return sum(both_ways(p, x, y) for x, y in pairs[variant])
    back = one_way(p, "s", "v") + one_way(p, "c", "v")
    return (video_to_both(p) + back) / 2 + both_ways(p, "f", "c")


@pytest.mark.parametrize("variant", NEEDED)
@settings(max_examples=10, deadline=None)
@given(size=st.integers(1, 6), seed=st.integers(0, 1000), temp=st.floats(-1, 4.6))
def test_paper_weighting_is_the_paper(variant: str, size: int, seed: int, temp: float) -> None:
    rows = random_rows(size, seed=seed, temp=temp)
    expected = paper_loss(plain(rows), variant)
    assert loss_of(rows, variant, weighting="paper").item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(size=st.integers(1, 6), seed=st.integers(0, 1000))
def test_released_weighting_is_twice_the_paper(size: int, seed: int) -> None:
    """And for (d) twice (c) with larger denominators: code = 2 [F<->C + Eq. 4 + (s2v + c2v) / 2]."""
    rows = random_rows(size, seed=seed)
    p = plain(rows)
    for variant in ("baseline", "a", "b", "c", "V-C"):
        assert loss_of(rows, variant).item() == pytest.approx(2 * paper_loss(p, variant), abs=1e-9)
    identity = both_ways(p, "f", "c") + video_to_both(p) + (one_way(p, "s", "v") + one_way(p, "c", "v")) / 2
    assert loss_of(rows, "d").item() == pytest.approx(2 * identity, abs=1e-9)


def test_terms_have_names_and_add_up() -> None:
    rows = random_rows(5)
    terms = omnisource_terms(**{NAMES[k]: rows[k] for k in "vsfc"}, logit_scale=rows["temp"])
    assert list(terms) == ["V->S+C", "V->C+S", "S->V", "C->V", "F->C", "C->F"]
    assert sum(terms.values()).item() == pytest.approx(loss_of(rows, "d").item(), abs=1e-12)
    assert terms["S->V"].item() == pytest.approx(one_way(plain(rows), "s", "v"), abs=1e-9)


# --- samples without a caption ---


@pytest.mark.parametrize("variant", ["a", "b", "c", "V-C"])
@settings(max_examples=15, deadline=None)
@given(mask=st.lists(st.booleans(), min_size=1, max_size=7))
def test_without_captions_is_the_loss_of_those_that_have_one(variant: str, mask: list[bool]) -> None:
    """Terms of captions are those of the subset; terms of subtitles those of the whole batch."""
    rows = random_rows(len(mask), seed=3)
    has = torch.tensor(mask)
    masked = omnisource_terms(
        **{NAMES[k]: rows[k] for k in "vsfc"}, logit_scale=rows["temp"], variant=variant, caption_mask=has
    )
    subset = {name: rows[name][has] for name in NAMES} | {"temp": rows["temp"]}
    assert len(masked) >= 2
    for term, value in masked.items():
        whole = "S" in term
        x, y = term.lower().split("->")
        expected = one_way(plain(rows if whole else subset), x, y) if whole or any(mask) else 0.0
        assert value.item() == pytest.approx(expected, abs=1e-9), term


@settings(max_examples=15, deadline=None)
@given(mask=st.lists(st.booleans(), min_size=1, max_size=7))
def test_without_captions_in_the_larger_set_of_negatives(mask: list[bool]) -> None:
    """Eq. 4 where only some samples have a caption: no absent caption is positive or negative."""
    rows = random_rows(len(mask), seed=5)
    p, size = plain(rows), len(mask)
    found = omnisource_terms(
        **{NAMES[k]: rows[k] for k in "vsfc"}, logit_scale=rows["temp"], caption_mask=torch.tensor(mask)
    )
    to_subtitle = 0.0
    for i in range(size):
        below = sum(similarity(p, "v", i, "s", j) for j in range(size))
        below += sum(similarity(p, "v", i, "c", j) for j in range(size) if j != i and mask[j])
        to_subtitle -= math.log(similarity(p, "v", i, "s", i) / below) / size
    to_caption = 0.0
    for i in [i for i in range(size) if mask[i]]:
        below = sum(similarity(p, "v", i, "c", j) for j in range(size) if mask[j])
        below += sum(similarity(p, "v", i, "s", j) for j in range(size) if j != i)
        to_caption -= math.log(similarity(p, "v", i, "c", i) / below) / sum(mask)
    assert found["V->S+C"].item() == pytest.approx(to_subtitle, abs=1e-9)
    assert found["V->C+S"].item() == pytest.approx(to_caption, abs=1e-9)


def test_what_lies_in_absent_captions_does_not_matter() -> None:
    rows, has = random_rows(6), torch.tensor([True, False, True, True, False, False])
    other = {name: rows[name].detach().clone() for name in NAMES} | {"temp": rows["temp"].detach()}
    other["c"][~has] = float("nan")
    other["f"][~has] = float("nan")
    other = {name: tensor.requires_grad_() for name, tensor in other.items()}
    for variant in NEEDED:
        if variant == "baseline":
            continue
        first, second = (loss_of(r, variant, caption_mask=has) for r in (rows, other))
        assert second.item() == pytest.approx(first.item(), abs=1e-12)
    second.backward()
    assert not other["c"].grad[~has].any()


def test_no_caption_at_all_gives_a_finite_gradient() -> None:
    rows = random_rows(4)
    loss = loss_of(rows, "d", caption_mask=torch.zeros(4, dtype=torch.bool))
    loss.backward()
    p = plain(rows)
    assert loss.item() == pytest.approx(one_way(p, "v", "s") + one_way(p, "s", "v"), abs=1e-9)
    assert all(rows[name].grad.isfinite().all() for name in NAMES)
    assert not rows["c"].grad.any()


# --- memory ---


@pytest.mark.parametrize("variant", NEEDED)
@pytest.mark.parametrize("masked", [False, True])
def test_chunks_of_rows_change_nothing(variant: str, masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = torch.arange(11) % 3 != 1 if masked else None
    whole, parts = random_rows(11), random_rows(11)
    loss_of(whole, variant, caption_mask=mask).backward()
    monkeypatch.setattr(losses, "_ROWS_PER_CHUNK", 3)
    chunked = loss_of(parts, variant, caption_mask=mask)
    chunked.backward()
    assert chunked.item() == pytest.approx(loss_of(whole, variant, caption_mask=mask).item(), rel=1e-12)
    for name, leaf in whole.items():
        if leaf.grad is not None:
            torch.testing.assert_close(parts[name].grad, leaf.grad, rtol=1e-11, atol=1e-13)


def test_half_precision_is_left_at_the_door() -> None:
    """Under autocast the logits stay float32; rows in bfloat16 are taken for the numbers that they hold."""
    rows = {name: row.detach().float() for name, row in random_rows(6, temp=4.6).items()}
    expected = loss_of(rows, "d")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss_of(rows, "d"), expected)
    half = {name: row.bfloat16() for name, row in rows.items()}
    found = loss_of(half, "d")
    assert found.dtype == torch.float32
    assert torch.equal(found, loss_of({name: row.float() for name, row in half.items()}, "d"))


def test_what_is_missing_is_named() -> None:
    rows = random_rows(3)
    with pytest.raises(ValueError, match="variant 'd' needs caption"):
        omnisource_loss(video=rows["v"], subtitle=rows["s"], frame=rows["f"], logit_scale=rows["temp"])
    with pytest.raises(ValueError, match="variant 'e' is none of"):
        omnisource_loss(video=rows["v"], logit_scale=rows["temp"], variant="e")
    with pytest.raises(ValueError, match="weighting 'x'"):
        omnisource_loss(video=rows["v"], logit_scale=rows["temp"], weighting="x")


@pytest.mark.parametrize("wrong", [100.0, 14.2857, 10.5, math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("variant", NEEDED)
def test_what_is_no_logarithm_of_a_temperature_is_refused(wrong: float, variant: str) -> None:
    rows = random_rows(3)
    for scale in (wrong, torch.tensor(wrong), torch.tensor([wrong], dtype=torch.float64)):
        with pytest.raises(ValueError, match="give the logarithm of the inverse temperature") as caught:
            loss_of(rows | {"temp": scale}, variant)
        assert f"logit_scale is {wrong:g}:" in str(
            caught.value
        ) and "for a temperature of 0.01 it is 4.605" in str(caught.value)
    with pytest.raises(ValueError, match=r"logit_scale is of shape \(3,\)"):
        loss_of(rows | {"temp": torch.full((3,), 4.6)}, variant)


@given(scale=st.floats(-5, 10))
def test_a_number_does_as_well_as_a_tensor(scale: float) -> None:
    rows = random_rows(3)
    expected = loss_of(rows | {"temp": torch.tensor(scale, dtype=rows["v"].dtype)}, "d")
    assert torch.equal(loss_of(rows | {"temp": scale}, "d"), expected) and expected.isfinite()
    assert torch.equal(loss_of(rows | {"temp": torch.tensor([scale], dtype=rows["v"].dtype)}, "d"), expected)
