"""Dropped frames and patches: the embedding and its gradient are those of a model fed the rest alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import SiglipModel

from clipvip.media.sampling import random_subsets
from clipvip.model import ClipVip, ClipVipConfig
from clipvip.model.flops import video_flops
from clipvip.model.layer import TransformerLayer
from clipvip.model.seen import EVERYTHING, Seen, num_kept
from clipvip.model.siglip import GATE_SPEED
from plain_tower import plain_embedding
from resources import DEVICES
from tiny_clip import make_clip
from tiny_siglip import make_siglip

NUM_FRAMES, PATCHES, KEPT = 6, 9, 4  # of each frame, and those that are seen
PLACES = [[0, 2, 3, 5], [1, 2, 4, 5]]
ENCODERS = ["vip", "full_attention", "mean_pool", "seq_transformer"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("models") / "clip")


def model_of(clip: Path, encoder: str = "vip") -> ClipVip:
    """Trained-like, in float64: temporal positions are not zero. Nine patches of 16 pixels."""
    torch.manual_seed(1)
    model = ClipVip.from_clip(clip, encoder=encoder, image_size=48, temporal_size=5, num_proxies=3)
    for name, parameter in model.named_parameters():
        if "temporal_embedding" in name or "frame_position" in name or name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    return model.double()


def videos(num_frames: int = NUM_FRAMES, *, size: int = 48) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, num_frames, 3, size, size, dtype=torch.float64, generator=generator)


def kept_patches(num_frames: int) -> Tensor:
    drawn = random_subsets(PATCHES, KEPT, 2 * num_frames, np.random.default_rng(3))
    return torch.from_numpy(drawn).unflatten(0, (2, num_frames))


def gradients(model: ClipVip, embeds: Tensor) -> dict[str, Tensor]:
    weights = torch.randn(embeds.shape, dtype=embeds.dtype, generator=torch.Generator().manual_seed(7))
    model.zero_grad()
    (embeds * weights.to(embeds.device)).sum().backward()
    return {n: p.grad.cpu().clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys() and len(found) > 20
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: n + m)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("drops", ["patches", "frames", "both"])
def test_the_gradient_is_that_of_a_plain_tower_of_what_is_kept(
    clip: Path, encoder: str, drops: str, device: str
) -> None:
    model, whole = model_of(clip, encoder), videos()
    places = PLACES if drops != "patches" else [list(range(NUM_FRAMES))] * 2
    pixels = torch.stack([video[of] for video, of in zip(whole, places, strict=True)])
    kept = torch.arange(PATCHES).expand(2, len(places[0]), -1)
    seen = EVERYTHING
    if drops != "frames":
        kept = kept_patches(len(places[0]))
        seen = Seen(patches=kept)
    if drops != "patches":
        seen = Seen(torch.tensor(places, dtype=torch.int16), NUM_FRAMES, seen.patches)
    rows = zip(pixels, places, kept, strict=True)
    plain = [plain_embedding(model, frames, of, NUM_FRAMES, patches) for frames, of, patches in rows]
    expected = torch.stack(plain)
    of_expected = gradients(model, expected)
    model, pixels, seen = model.to(device), pixels.to(device), seen.to(torch.device(device))
    found = model(pixel_values=pixels, embeds_only=True, seen=seen).video_embeds
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-11, atol=1e-13)
    assert_same(gradients(model, found), of_expected)
    # All tokens of the last layer, as without `embeds_only`.
    output = model(pixel_values=pixels, seen=seen)
    torch.testing.assert_close(output.video_embeds.cpu(), expected, rtol=1e-11, atol=1e-13)
    if encoder in ("vip", "full_attention"):
        assert output.vision_last_hidden_state.shape[1] == 3 + kept[0].numel()


@pytest.mark.parametrize("encoder", ENCODERS)
def test_all_that_there_is_is_as_if_nothing_were_said(clip: Path, encoder: str) -> None:
    model, pixels = model_of(clip, encoder), videos()
    places = torch.arange(NUM_FRAMES).expand(2, -1)
    seen = Seen(places, NUM_FRAMES, torch.arange(PATCHES).expand(2, NUM_FRAMES, -1))
    found, plain = (model(pixel_values=pixels, seen=what).video_embeds for what in (seen, EVERYTHING))
    assert torch.equal(found, plain)
    # Nothing is left of it for the next call, also where that was not come to an end.
    with pytest.raises(ValueError, match="are seen"):
        model(pixel_values=pixels, seen=Seen(patches=kept_patches(3)))
    assert torch.equal(model(pixel_values=pixels).video_embeds, plain)


@pytest.mark.parametrize("encoder", ["vip", "full_attention", "mean_pool"])
def test_siglip_of_what_is_kept(tmp_path: Path, encoder: str) -> None:
    """One image without gates is SigLIP's own of these patches; with gates, a video is its own alone."""
    make_siglip(tmp_path / "siglip")
    model = ClipVip.from_clip(tmp_path / "siglip", encoder=encoder, num_proxies=2).double()
    plain = SiglipModel.from_pretrained(tmp_path / "siglip").double().eval().vision_model
    pixels, kept = videos(1, size=32), torch.tensor([[[0, 3]], [[1, 2]]])
    expected = []
    for image, patches in zip(pixels, kept, strict=True):
        hidden = plain.encoder(inputs_embeds=plain.embeddings(image)[:, patches[0]]).last_hidden_state
        expected.append(F.normalize(plain.head(plain.post_layernorm(hidden)), dim=-1)[0])
    found = model(pixel_values=pixels, embeds_only=True, seen=Seen(patches=kept)).video_embeds
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-10, atol=1e-12)
    if encoder == "mean_pool":
        return
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("proxy_gate"):
                parameter.fill_(0.5 / GATE_SPEED)
        model.vision_model.embeddings.temporal_embedding.normal_()
    whole, places = videos(4, size=32), torch.tensor([[0, 2], [1, 3]])
    of_patches = torch.tensor([[[0, 3], [1, 2]], [[0, 1], [2, 3]]])
    seen = Seen(places, 4, of_patches)
    pixels = torch.stack([whole[0, places[0]], whole[1, places[1]]])
    found = model(pixel_values=pixels, seen=seen).video_embeds
    tower = model.vision_model
    for row in range(2):
        tokens = tower.embeddings(whole[row : row + 1])  # of all frames and patches
        rows = [2 + 4 * int(place) + patch for place, patch in zip(places[row], of_patches[row], strict=True)]
        hidden = tokens[:, torch.cat([torch.arange(2), *rows])]
        for layer in tower.encoder.layers:
            hidden = layer(hidden, num_proxies=2, num_frames=2 if encoder == "vip" else 1)
        normed = tower.post_layernorm(hidden)
        feature = F.normalize(tower.head(normed[:, :2], normed[:, 2:]), dim=-1)
        torch.testing.assert_close(found[row], feature[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("encoder", ENCODERS[:3])
@pytest.mark.parametrize("num_patches", [1, KEPT, None])
def test_flops_are_those_that_are_counted(
    encoder: str, num_patches: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TransformerLayer, "frame_kernel_on", ())  # whose copies of proxies are no use
    vision = {"hidden_size": 64, "num_attention_heads": 1, "num_hidden_layers": 3, "image_size": 48,
              "intermediate_size": 128, "patch_size": 16}  # fmt: skip
    config = ClipVipConfig(vision_config=vision, projection_dim=16, encoder=encoder)
    model = ClipVip(config).to("meta").eval()
    seen = EVERYTHING
    if num_patches is not None:
        seen = Seen(patches=torch.zeros(1, 5, num_patches, dtype=torch.int16, device="meta"))
    pixels = torch.empty(1, 5, 3, 48, 48, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(pixel_values=pixels, embeds_only=True, seen=seen)
    expected = video_flops(config, 5, embeds_only=True, num_patches=num_patches)
    assert counter.get_total_flops() == pytest.approx(expected, rel=1e-12)


def test_subsets_are_ascending_without_repeats_and_every_patch_has_its_chance() -> None:
    drawn = random_subsets(PATCHES, KEPT, 3000, np.random.default_rng(0))
    assert drawn.shape == (3000, KEPT) and (np.diff(drawn, axis=1) > 0).all()
    share = np.bincount(drawn.ravel(), minlength=PATCHES) / 3000
    assert np.abs(share - KEPT / PATCHES).max() < 0.04
    assert len({tuple(row) for row in drawn.tolist()}) == 126  # all there are of 4 of 9


@pytest.mark.parametrize(
    ("total", "dropped", "kept"),
    [(49, 0, 49), (49, 0.5, 25), (196, 0.5, 98), (196, 0.75, 49), (100, 0.29, 71), (1, 0.9, 1), (12, 0.99, 1),
     (12, 0.25, 9), (1, 0.5, 1)],
)  # fmt: skip
def test_how_many_are_kept(total: int, dropped: float, kept: int) -> None:
    assert num_kept(total, dropped) == kept
