"""A BLIP of some ten thousand weights and a dozen words, for the captioner of examples/plugins."""

from pathlib import Path

import torch
from transformers import BlipConfig, BlipForConditionalGeneration

IMAGE_SIZE = 32
_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["a", "the", "dog", "cat", "man", "runs", "sits", "on", "red", "blue", "car", "tree"]


def make_blip(folder: Path, *, seed: int = 0) -> Path:
    """A model folder in Hugging Face layout.

    Captions begin, as published ones, with a token outside the vocabulary.
    """
    folder.mkdir(parents=True)
    tokens = _SPECIALS + WORDS
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens))
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {
        **tower,
        "encoder_hidden_size": 32,
        "projection_dim": 32,
        "max_position_embeddings": 32,
        "vocab_size": len(tokens) + 1,
        "bos_token_id": len(tokens),
        "eos_token_id": 3,
        "sep_token_id": 3,
        "pad_token_id": 0,
    }
    vision = {**tower, "image_size": IMAGE_SIZE, "patch_size": 16}
    torch.manual_seed(seed)
    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(std=2 * parameter.shape[-1] ** -0.5)
        # Words rather than special tokens.
        model.text_decoder.cls.predictions.bias[: len(_SPECIALS)] -= 2.0
        model.text_decoder.cls.predictions.bias[-1] -= 100.0
    model.save_pretrained(folder)
    return folder
