"""Text encoders of a few thousand weights, as transformers and sentence-transformers save them."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

WORDS = [
    "a",
    "the",
    "man",
    "woman",
    "dog",
    "cat",
    "runs",
    "eats",
    "rides",
    "onion",
    "cuts",
    "and",
    "in",
    "park",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
TEXTS = ["a man cuts the onion", "the dog runs", "A CAT and a dog", "rides", "a woman eats in the park " * 3]


def word_tokenizer(max_tokens: int = 24) -> PreTrainedTokenizerFast:
    """A token a word in small letters, between [CLS] and [SEP]."""
    vocab = {token: number for number, token in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        eos_token="[SEP]",
        model_max_length=max_tokens,
    )


def make_text_model(folder: Path, kind: Any, config: Any, *, seed: int = 0) -> Any:
    """A `kind` of such a config with random weights and a tokenizer, saved in `folder`."""
    torch.manual_seed(seed)
    model = kind(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(std=0.5 * parameter.shape[-1] ** -0.5)
    model.save_pretrained(folder)
    tokenizer = word_tokenizer()
    if "siglip" in model.config.model_type:  # as those of SigLIP
        tokenizer.model_input_names = ["input_ids"]
    tokenizer.save_pretrained(folder)
    return model


def add_modules(folder: Path, *modules: tuple[str, dict[str, Any]]) -> None:
    """Write `modules.json`, and the settings of each (kind, settings) behind the transformer."""
    listed = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    for number, (kind, settings) in enumerate(modules, start=1):
        path = f"{number}_{kind}"
        listed.append(
            {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        )
        if settings:
            (folder / path).mkdir()
            (folder / path / "config.json").write_text(json.dumps(settings))
    (folder / "modules.json").write_text(json.dumps(listed))


def add_dense(
    folder: Path, number: int, *, wide: int, narrow: int, as_pickle: bool = False
) -> torch.nn.Linear:
    """The weights of a Dense module that `add_modules` listed."""
    linear = torch.nn.Linear(wide, narrow)
    state = {f"linear.{name}": value.detach().clone() for name, value in linear.state_dict().items()}
    place = folder / f"{number}_Dense"
    if as_pickle:
        torch.save(state, place / "pytorch_model.bin")
    else:
        save_file(state, place / "model.safetensors")
    return linear
