"""Small OpenCLIP models: their architectures, and goldens of what OpenCLIP computes with random weights.

python tests/support/openclip_models.py    writes tests/goldens/openclip_tiny.safetensors anew; it needs
                                           open_clip_torch with a torchvision of the same build as torch
"""

import json
from pathlib import Path

import torch
from torch import Tensor

GOLDENS = Path(__file__).resolve().parents[1] / "goldens"
NAME = "openclip_tiny"

_TEXT = {"context_length": 12, "vocab_size": 40, "width": 8, "heads": 2, "layers": 2}
_VISION = {"image_size": 16, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8}
# What OpenCLIP's own architectures differ in.
ARCHITECTURES: dict[str, dict] = {
    "exact_gelu": {"embed_dim": 12, "vision_cfg": _VISION, "text_cfg": _TEXT},
    "quick_gelu": {"embed_dim": 12, "quick_gelu": True, "vision_cfg": _VISION, "text_cfg": _TEXT},
    "head_width_and_mlp_ratio": {
        "embed_dim": 20,
        "vision_cfg": _VISION | {"head_width": 4, "mlp_ratio": 3.7362, "image_size": [24, 24]},
        "text_cfg": _TEXT | {"heads": 4, "mlp_ratio": 2.5},
    },
    "one_head_of_odd_patches": {
        "embed_dim": 8,
        "vision_cfg": _VISION | {"head_width": 16, "patch_size": 6, "image_size": 20},
        "text_cfg": _TEXT | {"context_length": 5},
    },
    "tanh_and_epsilon": {
        "embed_dim": 16,
        "vision_cfg": _VISION | {"norm_kwargs": {"eps": 1e-3}, "act_kwargs": {"approximate": "tanh"}},
        "text_cfg": _TEXT | {"norm_kwargs": {"eps": 1e-2}, "act_kwargs": {"approximate": "tanh"}},
    },
    "feature_at_the_end_token": {
        "embed_dim": 12,
        "custom_text": True,
        "vision_cfg": _VISION,
        "text_cfg": _TEXT | {"pool_type": "eos", "eos_id": 7},
    },
}


def inputs(config: dict) -> tuple[Tensor, Tensor]:
    """Random pictures and texts for an architecture: (3, 3, size, size), (3, context length)."""
    size = config["vision_cfg"]["image_size"]
    size = size if isinstance(size, int) else size[0]
    text = config["text_cfg"]
    texts = torch.randint(0, text["vocab_size"], (3, text["context_length"]))
    texts[:, -1] = text.get("eos_id", text["vocab_size"] - 1)
    return torch.randn(3, 3, size, size), texts


def random_model(config: dict, *, seed: int = 0) -> torch.nn.Module:
    """OpenCLIP's own model with random weights, biases and gains too."""
    import open_clip

    torch.manual_seed(seed)
    settings = json.loads(json.dumps(config))
    kind = open_clip.CustomTextCLIP if settings.pop("custom_text", False) else open_clip.CLIP
    model = kind(**settings).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "logit_scale":
                scale = 0.5 * parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.2
                parameter.add_(scale * torch.randn_like(parameter))
    return model


def main() -> None:
    from safetensors.torch import save_file

    tensors = {}
    for name, config in ARCHITECTURES.items():
        model = random_model(config)
        pictures, texts = inputs(config)
        with torch.no_grad():
            answers = {"image": model.encode_image(pictures), "text": model.encode_text(texts)}
        tensors |= {f"{name}/weights/{key}": value.contiguous() for key, value in model.state_dict().items()}
        tensors |= {f"{name}/in/pictures": pictures, f"{name}/in/texts": texts}
        tensors |= {f"{name}/out/{key}": value.contiguous() for key, value in answers.items()}
    save_file(tensors, GOLDENS / f"{NAME}.safetensors")


if __name__ == "__main__":
    main()
