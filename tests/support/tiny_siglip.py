"""A SigLIP of a few thousand weights with the tokenizer of the tiny CLIP."""

from pathlib import Path

import torch
from transformers import SiglipConfig, SiglipModel

from tiny_clip import IMAGE_SIZE, MAX_TOKENS, tiny_tokenizer

WIDTH = 32


def make_siglip(folder: Path, *, seed: int = 0) -> Path:
    """As `make_clip`, with SigLIP's towers; its tokenizer pads with its end token."""
    tokenizer = tiny_tokenizer()
    tower = {
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    text = tower | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": MAX_TOKENS,
        "projection_size": WIDTH,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    vision = tower | {"image_size": IMAGE_SIZE, "patch_size": 16}
    torch.manual_seed(seed)
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                parameter.normal_(std=0.5 * parameter.shape[-1] ** -0.5)
            elif not name.startswith("logit"):
                parameter.add_(0.1 * torch.randn_like(parameter))
        model.logit_scale.fill_(2.0)
        model.logit_bias.fill_(-3.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
