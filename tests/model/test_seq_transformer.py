"""The baselines' heads over frame features against CLIP4Clip's."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clipvip.model import ClipVip, ClipVipConfig
from clipvip.model.baselines import FrameTransformer, mean_pool
from clipvip.model.losses import omnisource_loss
from goldens import assert_close, manifest, tensors

NAME = "clip4clip_seqtransf"


def our_name(theirs: str) -> str:
    return theirs.replace("transformerClip.resblocks.", "blocks.").replace(".mlp.", ".")


def head() -> FrameTransformer:
    sizes = manifest(NAME)["config"]
    model = FrameTransformer(
        sizes["width"],
        num_layers=sizes["layers"],
        num_heads=sizes["heads"],
        max_frames=sizes["max_positions"],
    )
    weights = tensors(f"{NAME}.weights")
    model.load_state_dict({our_name(name): tensor for name, tensor in weights.items()}, strict=True)
    return model


def logits_and_loss(videos: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
    scale = torch.tensor(manifest(NAME)["config"]["logit_scale_log"])
    texts = F.normalize(texts, dim=-1)
    return scale.exp() * texts @ videos.T, omnisource_loss(
        video=videos, subtitle=texts, logit_scale=scale, variant="baseline"
    )


@pytest.mark.parametrize("mask_name", ["full", "ragged"])
@pytest.mark.parametrize("kind", ["seqTransf", "meanP"])
def test_outputs_and_gradients(kind: str, mask_name: str) -> None:
    golden = tensors(f"{NAME}.io")
    frames = golden["in/frames"].clone().requires_grad_()
    mask = golden[f"in/mask_{mask_name}"]
    model = head()
    after = model(frames, mask) if kind == "seqTransf" else frames
    videos = mean_pool(after, mask)
    logits, loss = logits_and_loss(videos, golden["in/text"])

    where = f"{mask_name}/{kind}"
    if kind == "seqTransf":
        real = mask.bool()
        assert_close(after[real], golden[f"{where}/out/frames_after_residual"][real], atol=1e-5)
        assert_close((after - frames)[real], golden[f"{where}/out/transformer_output"][real], atol=1e-5)
    assert_close(videos, golden[f"{where}/out/video_embeds"], atol=1e-6)
    assert_close(logits, golden[f"{where}/out/logits"], atol=1e-5)
    assert_close(loss, golden[f"{where}/out/loss_sum_of_both_directions"], rtol=1e-5)

    loss.backward()
    expected = {
        k.removeprefix(f"{where}/grad/"): g for k, g in golden.items() if k.startswith(f"{where}/grad/")
    }
    found = {"frames": frames.grad} | {name: p.grad for name, p in model.named_parameters()}
    assert len(expected) == (1 if kind == "meanP" else 1 + len(list(model.parameters())))
    for name, gradient in expected.items():
        assert_close(found[our_name(name)], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mask_name", ["full", "ragged"])
def test_float64(mask_name: str) -> None:
    """Tells LayerNorm's epsilon of 1e-12 from CLIP's 1e-5, which moves outputs by 2e-6."""
    golden, model = tensors(f"{NAME}.io"), head().double()
    mask = golden[f"in/mask_{mask_name}"]
    with torch.no_grad():
        videos = mean_pool(model(golden["in/frames"].double(), mask), mask)
        plain = mean_pool(golden["in/frames"].double(), mask)
    assert_close(videos, golden[f"{mask_name}/seqTransf/out_f64/video_embeds"], atol=1e-10)
    assert_close(plain, golden[f"{mask_name}/meanP/out_f64/video_embeds"], atol=1e-10)


def test_frames_behind_the_mask_do_not_matter() -> None:
    golden, model = tensors(f"{NAME}.io"), head()
    mask = golden["in/mask_ragged"]
    frames = golden["in/frames"].clone()
    with torch.no_grad():
        before = mean_pool(model(frames, mask), mask)
        frames[mask == 0] = 99.0
        assert_close(mean_pool(model(frames, mask), mask), before, atol=0)


def test_more_frames_than_positions() -> None:
    with pytest.raises(ValueError, match="21 frames, but the frame transformer has 20 positions"):
        head()(torch.zeros(1, 21, 32))


def test_starts_from_the_text_tower() -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 3}
    config = ClipVipConfig(
        # The norms' epsilon is that of the frame transformer, so that layers differ by rounding alone.
        text_config={
            **sizes,
            "vocab_size": 50,
            "max_position_embeddings": 16,
            "layer_norm_eps": FrameTransformer.LAYER_NORM_EPS,
        },
        vision_config={**sizes, "image_size": 16, "patch_size": 8},
        projection_dim=32,
        encoder="seq_transformer",
        num_frame_layers=2,
        num_frame_heads=4,
    )
    model = ClipVip(config).eval()
    model.frame_transformer.start_from_text_tower(model.text_model)
    layer = model.text_model.encoder.layers[1]
    block = model.frame_transformer.blocks[1]
    x = torch.randn(2, 5, 32)
    with torch.no_grad():
        # One position sees itself alone, as in the text tower's first token.
        assert_close(block(x[:, :1], None), layer(x[:, :1], None), atol=1e-5)
        assert model(torch.randn(2, 7, 3, 16, 16)).video_embeds.shape == (2, 32)
