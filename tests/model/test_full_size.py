"""Names, shapes and FLOPs of the published sizes; nothing of full size is computed."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.clip.modeling_clip import CLIPModel

from clipvip.model import ClipVip
from clipvip.model.config import b16, b32
from clipvip.model.flops import text_flops, video_flops
from clipvip.model.layer import TransformerLayer
from clipvip.model.variants import ENCODERS
from goldens import PREFIX, full_config, manifest

SIZES = ["B/32", "B/16"]


def meta_model(size: str, *, encoder: str = "vip") -> ClipVip:
    with torch.device("meta"):
        return ClipVip(full_config(size, encoder=encoder))


@pytest.mark.parametrize("size", SIZES)
def test_names_shapes_and_types(size: str) -> None:
    golden = manifest("full_size")["models"][size]
    model = meta_model(size)
    expected = {
        entry["name"]: (entry["shape"], entry["dtype"])
        for entry in golden["tensors"]
        if entry["kind"] == "parameter"
    }
    found = {
        PREFIX + name: (list(p.shape), str(p.dtype).removeprefix("torch."))
        for name, p in model.named_parameters()
    }
    assert found == expected
    assert sum(p.numel() for p in model.parameters()) == golden["n_parameters"]
    for module, count in golden["n_parameters_by_module"].items():
        part = getattr(model, module)
        sizes = [part.numel()] if module == "logit_scale" else [p.numel() for p in part.parameters()]
        assert sum(sizes) == count


def test_presets() -> None:
    for preset, patch_size in ((b32, 32), (b16, 16)):
        full = full_config(f"B/{patch_size}")
        assert preset().to_dict() == full.to_dict()
        assert preset(num_proxies=8, encoder="full_attention").num_proxies == 8
        assert preset().vision_config.patch_size == patch_size


@pytest.mark.parametrize("size", SIZES)
def test_a_released_file_of_this_size_fits(size: str) -> None:
    """With both tables of positions, which are buffers there and here part of no checkpoint."""
    entries = manifest("full_size")["models"][size]["tensors"]
    state = {
        e["name"]: torch.empty(e["shape"], dtype=getattr(torch, e["dtype"]), device="meta") for e in entries
    }
    assert [e["name"].split(".")[-1] for e in entries if e["kind"] == "buffer"] == ["position_ids"] * 2
    with torch.device("meta"):
        model = ClipVip.from_released(state)
    ours = {PREFIX + name for name, _ in model.named_parameters()}
    assert ours == {e["name"] for e in entries if e["kind"] == "parameter"}
    config = model.config
    assert (config.vision_config.patch_size, config.vision_config.image_size) == (int(size[2:]), 224)
    assert (config.vision_config.num_attention_heads, config.text_config.num_attention_heads) == (12, 8)
    assert (config.num_proxies, config.temporal_size, config.projection_dim) == (4, 12, 512)
    full = full_config(size)
    for ours_, theirs in ((config.vision_config, full.vision_config), (config.text_config, full.text_config)):
        for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "hidden_act", "layer_norm_eps"):
            assert getattr(ours_, name) == getattr(theirs, name)


@pytest.mark.parametrize("size", SIZES)
def test_a_plain_clip_lacks_only_proxies_and_temporal_positions(size: str) -> None:
    golden = manifest("full_size")["models"][size]
    model = meta_model(size)
    with torch.device("meta"):
        from transformers import CLIPConfig

        config = full_config(size)
        clip = CLIPModel(CLIPConfig(text_config=config.text_config, vision_config=config.vision_config))
    ours, theirs = ({n for n, _ in m.named_parameters()} for m in (model, clip))
    assert sorted(PREFIX + name for name in ours - theirs) == sorted(golden["keys_absent_from_plain_CLIP"])
    assert not theirs - ours
    assert {n for n, _ in meta_model(size, encoder="mean_pool").named_parameters()} == theirs


@pytest.mark.parametrize("size", SIZES)
def test_flops(size: str) -> None:
    golden = manifest("full_size")["models"][size]["flops"]
    vip = full_config(size)
    for name, num_frames in (("video_T12", 12), ("one_frame_T1", 1), ("video_T32", 32)):
        assert video_flops(vip, num_frames) == golden[name]["flops_total"]
    for length in (50, 70, 77):
        assert text_flops(vip, length) == golden[f"text_L{length}"]["flops_total"]
    others = golden["for_comparison"]
    mean_pool = full_config(size, encoder="mean_pool")
    full = full_config(size, encoder="full_attention")
    assert video_flops(mean_pool, 12) == 2 * others["meanpool_T12_macs"]["total"]
    assert video_flops(full, 12) == 2 * others["joint_full_attention_T12_macs"]["total"]


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("embeds_only", [False, True])
def test_flops_are_those_that_torch_counts(
    encoder: str, embeds_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the two-piece way, which computes nothing twice."""
    monkeypatch.setattr(TransformerLayer, "frame_kernel_on", ())
    config = b16(encoder=encoder)
    with torch.device("meta"):
        model, pixels = ClipVip(config).eval(), torch.zeros(1, 5, 3, 224, 224)
    # Torch's fast path of its own attention layer hides from its counter; the others have none.
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        model(pixels, embeds_only=embeds_only)
    assert counter.get_total_flops() == video_flops(config, 5, embeds_only=embeds_only)
