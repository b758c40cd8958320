"""Sentence-embedding models in transformers layout: a transformer, and how its tokens become one vector.

Where sentence-transformers wrote the folder, its `modules.json` says how; else the architecture does. Of a
name on the hub the same files are fetched. Code that a model brings along is never run.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForTextEncoding, PreTrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
)
from transformers.utils.hub import cached_file

from clipvip.model.preprocess import load_tokenizer
from clipvip.pipeline.runtime.errors import UserError
from clipvip.shards.files.text import parse_json

MODULES_NAME = "modules.json"
_LENGTH_NAME = "sentence_bert_config.json"
_PROMPTS_NAME = "config_sentence_transformers.json"
# In the order in which sentence-transformers puts several beside each other.
_MODES = (
    "cls_token",
    "max_tokens",
    "mean_tokens",
    "mean_sqrt_len_tokens",
    "weightedmean_tokens",
    "lasttoken",
)
_SHORT_MODES = {"cls": _MODES[0], "max": _MODES[1], "mean": _MODES[2], "mean_sqrt_len_tokens": _MODES[3],
                "weightedmean": _MODES[4], "lasttoken": _MODES[5]}  # fmt: skip
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "Identity": nn.Identity, "Tanh": nn.Tanh, "ReLU": nn.ReLU, "GELU": nn.GELU, "Sigmoid": nn.Sigmoid,
    "SiLU": nn.SiLU,
}  # fmt: skip
# Their positions begin behind the padding token's number.
_LATE_POSITIONS = ("roberta", "camembert", "xlm-roberta", "mpnet")
_UNLIMITED = 1 << 20

Fields = Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class _Reading:
    """How texts become tokens: cut to so many, behind a prompt, in small letters or not."""

    max_tokens: int
    prompt: str = ""
    lowers: bool = False


class SentenceModel(nn.Module):
    """Texts -> embeddings; `settings` says all that they depend on beside weights and tokenizer."""

    def __init__(
        self, transformer: nn.Module, tokenizer: Any, reading: _Reading, steps: list[nn.Module]
    ) -> None:
        super().__init__()
        self.transformer, self.steps = transformer, nn.ModuleList(steps)
        self.tokenizer, self._reading = tokenizer, reading
        self.settings = json.dumps([str(reading), str(self.steps)])

    def embed(self, texts: list[str]) -> Tensor:
        """Of texts that are computed at once: (n, dim)."""
        reading = self._reading
        texts = [reading.prompt + (text.lower() if reading.lowers else text) for text in texts]
        tokens = self.tokenizer(
            texts, padding=True, truncation=True, max_length=reading.max_tokens, return_tensors="pt"
        ).to(next(self.parameters()).device)
        values = self.transformer(**tokens).last_hidden_state
        pooling, *others = self.steps
        values = pooling(values, tokens["attention_mask"])
        for step in others:
            values = step(values)
        return values


class Pooling(nn.Module):
    """Tokens' vectors (n, tokens, width) -> (n, width for each mode); masked ones do not count."""

    def __init__(self, modes: tuple[str, ...]) -> None:
        super().__init__()
        self.modes = modes

    def extra_repr(self) -> str:
        return ", ".join(self.modes)

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        return torch.cat(
            [_POOLINGS[mode](values, mask[..., None].to(values.dtype)) for mode in self.modes], dim=1
        )


def _max(values: Tensor, mask: Tensor) -> Tensor:
    return values.masked_fill(mask == 0, -1e9).amax(dim=1)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9)


def _mean_by_root(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9).sqrt()


def _weighted_mean(values: Tensor, mask: Tensor) -> Tensor:
    weights = torch.arange(1, values.shape[1] + 1, device=values.device, dtype=values.dtype)[None, :, None]
    return _mean(values, mask * weights)


def _last(values: Tensor, mask: Tensor) -> Tensor:
    places = torch.arange(values.shape[1], device=values.device)[None, :, None]
    last = (places * (mask > 0)).amax(dim=1)[:, 0]
    return values[torch.arange(len(values), device=values.device), last]


_POOLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = dict(
    zip(
        _MODES,
        (lambda values, _: values[:, 0], _max, _mean, _mean_by_root, _weighted_mean, _last),
        strict=True,
    )
)


class Normalize(nn.Module):
    """Rows of unit length."""

    def forward(self, values: Tensor) -> Tensor:
        return nn.functional.normalize(values, dim=-1)


def is_text_model(name: str, model_type: str) -> bool:
    """Whether `name` is a sentence-embedding model, or a model of texts of which one can be made."""
    known = (
        MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    )
    return any(model_type in names for names in known) or _file(name, MODULES_NAME) is not None


def load_sentence_model(name: str, config: PreTrainedConfig) -> SentenceModel:
    """The model of a folder or a name on the hub, in float32.

    Raises:
        UserError: it does what cannot be done here, or lacks weights.
        OSError, ValueError and others that libraries raise: it does not load.
    """
    modules = _modules(name)
    inside = next((path for kind, path in modules if kind == "Transformer"), "")
    transformer = _transformer(name, inside, config.model_type)
    tokenizer = load_tokenizer(name, required=True, **({"subfolder": inside} if inside else {}))
    reading = _reading(name, inside, transformer.config, tokenizer)
    if not modules:
        is_causal = config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
        is_causal &= config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        mode = "lasttoken" if is_causal else "mean_tokens"
        return SentenceModel(transformer, tokenizer, reading, [Pooling((mode,))])
    kinds = [kind for kind, _ in modules]
    if kinds[:2] != ["Transformer", "Pooling"]:
        raise UserError(
            f"{name}: {MODULES_NAME} lists {', '.join(kinds)}; Transformer and Pooling must come first"
        )
    steps = [_STEPS[kind](name, path, reading) for kind, path in modules[1:]]
    return SentenceModel(transformer, tokenizer, reading, steps)


def _modules(name: str) -> list[tuple[str, str]]:
    """(kind, folder) of what sentence-transformers puts one after another; none without its list."""
    path = _file(name, MODULES_NAME)
    if path is None:
        return []
    found = parse_json(path.read_bytes())
    modules = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    if not modules:
        raise UserError(f"{name}: {MODULES_NAME} is damaged: it must be a list of modules")
    kinds = [(str(one.get("type", "")).rpartition(".")[2], str(one.get("path", ""))) for one in modules]
    unknown = [kind for kind, _ in kinds if kind not in ("Transformer", *_STEPS)]
    if unknown:
        raise UserError(f"{name}: {MODULES_NAME} has a module {unknown[0]!r}, which cannot be computed here")
    return kinds


def _transformer(name: str, inside: str, model_type: str) -> Any:
    kind: Any = AutoModelForTextEncoding if model_type in MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES else AutoModel
    where = {"subfolder": inside} if inside else {}
    model, loading = kind.from_pretrained(name, dtype=torch.float32, output_loading_info=True, **where)
    # The first token's own layer is for other ends, and has random weights where the file has none of it.
    if isinstance(getattr(model, "pooler", None), nn.Module):
        model.pooler = None
    missing = {key for key in loading["missing_keys"] if not key.startswith("pooler.")}
    if missing:
        raise UserError(f"{name}: lacks weights of the text model, such as {min(missing)}")
    return model


def _reading(name: str, inside: str, config: Any, tokenizer: Any) -> _Reading:
    limits = [int(tokenizer.model_max_length), _positions(config), _UNLIMITED]
    settings = _fields(name, _LENGTH_NAME, inside)
    if isinstance(length := settings.get("max_seq_length"), int):
        limits.append(length)
    prompts = _fields(name, _PROMPTS_NAME)
    known, chosen = prompts.get("prompts"), prompts.get("default_prompt_name")
    prompt = known.get(str(chosen)) if isinstance(known, dict) and chosen is not None else None
    return _Reading(min(limits), str(prompt or ""), settings.get("do_lower_case") is True)


def _positions(config: Any) -> int:
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 1:  # relative ones have no end
        return _UNLIMITED
    is_late = config.model_type in _LATE_POSITIONS
    return positions - (int(config.pad_token_id or 0) + 1) * is_late


def _pooling(name: str, path: str, reading: _Reading) -> nn.Module:
    fields = _fields(name, "config.json", path)
    named = fields.get("pooling_mode")
    modes: tuple[str, ...]
    if isinstance(named, str):
        modes = (_SHORT_MODES.get(named, named),)
    else:
        modes = tuple(mode for mode in _MODES if fields.get(f"pooling_mode_{mode}") is True)
    if not modes or not set(modes) <= set(_MODES):
        raise UserError(f"{name}: {path}/config.json names no pooling that can be computed here")
    if reading.prompt and fields.get("include_prompt") is False:
        raise UserError(f"{name}: its pooling leaves the prompt out, which cannot be computed here")
    return Pooling(modes)


def _dense(name: str, path: str, reading: _Reading) -> nn.Module:
    fields = _fields(name, "config.json", path)
    kind = str(fields.get("activation_function", "Tanh")).rpartition(".")[2].removesuffix("()")
    if kind not in _ACTIVATIONS:
        raise UserError(
            f"{name}: {path}/config.json has the activation {kind!r}; known are {', '.join(_ACTIVATIONS)}"
        )
    if (weights := _file(name, "model.safetensors", path)) is not None:
        state = load_file(weights)
    elif (weights := _file(name, "pytorch_model.bin", path)) is not None:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    else:
        raise UserError(f"{name}: {path} has no weights")
    weight = state["linear.weight"]
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias="linear.bias" in state)
    linear.load_state_dict({key.removeprefix("linear."): value.float() for key, value in state.items()})
    return nn.Sequential(linear, _ACTIVATIONS[kind]())


_STEPS: dict[str, Callable[[str, str, _Reading], nn.Module]] = {
    "Pooling": _pooling,
    "Dense": _dense,
    "Normalize": lambda *_: Normalize(),
}


def _fields(name: str, file: str, inside: str = "") -> Fields:
    """The object in a JSON file of the model; empty where there is no such file."""
    path = _file(name, file, inside)
    fields = {} if path is None else parse_json(path.read_bytes())
    if not isinstance(fields, dict):
        raise UserError(f"{name}: {file} is damaged: it must be a JSON object")
    return fields


def _file(name: str, file: str, inside: str = "") -> Path | None:
    """A file of the model, fetched where the name is of the hub; None where the model has none.

    Raises OSError where that cannot be told: the hub does not answer, and its cache does not know.
    """
    found = cached_file(name, file, subfolder=inside, _raise_exceptions_for_missing_entries=False)
    return None if found is None else Path(found)
