"""A tiny CLIP checkpoint with its tokenizer, made on the spot with random weights."""

import json
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

IMAGE_SIZE = 32
MAX_TEXT_TOKENS = 20


def make_tokenizer_files(folder: Path) -> CLIPTokenizer:
    """Write and load a byte-level tokenizer without merges: a token a letter, and one a letter at a word's end."""
    # The 256 printable stand-ins for bytes of byte-level BPE.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(code) for code in printable]
    letters += [chr(256 + number) for number in range(256 - len(printable))]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer.model_max_length = MAX_TEXT_TOKENS
    return tokenizer


def make_clip_folder(folder: Path, *, seed: int = 0) -> Path:
    """Write a CLIP of about 100,000 parameters, images of 32 pixels in patches of 16, texts of 20 tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer_files(folder)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={
            **sizes,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": MAX_TEXT_TOKENS,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={**sizes, "image_size": IMAGE_SIZE, "patch_size": 16},
        projection_dim=16,
    )
    CLIPModel(config).save_pretrained(folder)
    return folder
