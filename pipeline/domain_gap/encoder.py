"""Text towers and sentence-embedding models: load one, name it by its content, run it."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, CLIPTextModelWithProjection, PretrainedConfig, SiglipTextModel
from transformers.utils import logging as transformers_logging

from clipvip.hub_errors import hub_problem
from clipvip.media.errors import one_line
from clipvip.model.checkpoint_file import require_no_file
from clipvip.model.errors import CheckpointError
from clipvip.model.preprocess import check_tokenizer, load_tokenizer
from clipvip.model.weights import LOADING_ERRORS
from clipvip.pipeline.domain_gap.sentence_model import is_text_model, load_sentence_model
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.models import model_at_hand

_CLIP_TYPES = {"clip", "clip_text_model"}
_SIGLIP_TYPES = {"siglip", "siglip_text_model"}
_SIGLIP2_TYPES = {"siglip2", "siglip2_text_model"}


@dataclass(frozen=True)
class TextEncoder:
    """Texts -> features, (n, dim) float32 of unit length.

    `fingerprint` is a hash of the weights and the tokenizer: equal ones make equal features.
    """

    embed: Callable[[list[str]], torch.Tensor]
    fingerprint: str

    def encode(
        self, texts: Sequence[str], *, batch_size: int, on_done: Callable[[int], None] = lambda _: None
    ) -> np.ndarray:
        """Features of `texts`, cut to what the model takes; `on_done` is told each batch's size."""
        batches, places = in_batches(texts, batch_size)
        parts = []
        for batch in batches:
            parts.append(self.encode_batch(batch))
            on_done(len(batch))
        return np.concatenate(parts)[places]

    def encode_batch(self, texts: Sequence[str]) -> np.ndarray:
        """Features of texts that are computed at once."""
        with torch.inference_mode():
            embeds = torch.nn.functional.normalize(self.embed(list(texts)).float(), dim=-1)
        return embeds.cpu().numpy()


def in_batches(texts: Sequence[str], batch_size: int) -> tuple[list[tuple[str, ...]], np.ndarray]:
    """`texts` in batches of like length, which need little padding, and where each text is among these.

    Of "ccc", "a", "bb" in twos: ("a", "bb"), ("ccc",) and the places 2, 0, 1.
    """
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    firsts = range(0, len(texts), batch_size)
    batches = [tuple(texts[index] for index in order[first : first + batch_size]) for first in firsts]
    return batches, np.argsort(order)


def load_text_encoder(name: str, *, device: torch.device) -> TextEncoder:
    """A text encoder: a folder, also of a store, or a name on the hub.

    It is the text tower of a CLIP, CLIP-ViP or SigLIP, or a sentence-embedding model in transformers layout.

    Raises:
        UserError: nothing is there, it is another kind of model, or its weights are damaged.
    """
    with model_at_hand(name) as folder_or_name:
        return _load(folder_or_name, device)


def _load(name: str, device: torch.device) -> TextEncoder:
    model_type = _model_type(name)
    # It would list every weight of the image tower as unexpected.
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        if model_type in _CLIP_TYPES:
            return _clip(name, device)
        if model_type in _SIGLIP_TYPES | _SIGLIP2_TYPES:
            return _siglip(name, model_type, device)
        from clipvip.model import ClipVip  # the whole model is needed for its own folders only

        if model_type == ClipVip.config_class.model_type:
            model = ClipVip.from_pretrained(name).float().eval().to(device)
            fingerprint = model_fingerprint(model, model.tokenizer)
            # Features depend on it; a model that says nothing of it keeps the fingerprint that it had.
            if (limit := model.config.max_text_tokens) is not None:
                fingerprint = hashlib.sha256(f"{fingerprint} {limit}".encode()).hexdigest()
            return TextEncoder(model.encode_text, fingerprint)
        if is_text_model(name, model_type):
            return _sentence_model(name, device)
    except (CheckpointError, UserError):
        raise
    except LOADING_ERRORS as error:
        of_hub = "" if Path(name).exists() else hub_problem(name, error)
        reason = f"{name}: the text tower does not load ({one_line(error, most=200)})"
        raise UserError(of_hub or reason) from error
    raise UserError(
        f"{name}: a model of type {model_type!r}; give a CLIP, CLIP-ViP, SigLIP or sentence-embedding model"
    )


def _model_type(name: str) -> str:
    require_no_file(name)
    try:
        config, _ = PretrainedConfig.get_config_dict(name)
    except LOADING_ERRORS as error:
        if not Path(name).exists() and (problem := hub_problem(name, error)):
            raise UserError(problem) from error
        config = {}
    if "model_type" in config:
        return str(config["model_type"])
    if Path(name).exists():
        raise UserError(f"{name}: not a model folder, its config.json is missing or damaged")
    raise UserError(f"{name}: no such folder, and no such model in the hub or its local cache; check --model")


def _clip(name: str, device: torch.device) -> TextEncoder:
    load: Any = CLIPTextModelWithProjection.from_pretrained
    model, loading = load(name, dtype=torch.float32, output_loading_info=True)
    if loading["missing_keys"]:
        raise UserError(f"{name}: lacks weights of the text tower, such as {min(loading['missing_keys'])}")
    tokenizer = load_tokenizer(name, required=True)
    check_tokenizer(tokenizer, model.config)
    model = model.eval().to(device)
    max_tokens = model.config.max_position_embeddings

    def embed(texts: list[str]) -> torch.Tensor:
        tokens = tokenizer(texts, padding=True, truncation=True, max_length=max_tokens, return_tensors="pt")
        tokens = tokens.to(device)
        return model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).text_embeds

    return TextEncoder(embed, model_fingerprint(model, tokenizer))


def _siglip(name: str, model_type: str, device: torch.device) -> TextEncoder:
    """SigLIP reads the last position, so texts are padded to the full length, and nothing is masked."""
    load: Any = SiglipTextModel.from_pretrained
    if model_type in _SIGLIP2_TYPES:
        from transformers import Siglip2TextModel

        load = Siglip2TextModel.from_pretrained
    model, loading = load(name, dtype=torch.float32, output_loading_info=True)
    if loading["missing_keys"]:
        raise UserError(f"{name}: lacks weights of the text tower, such as {min(loading['missing_keys'])}")
    tokenizer = load_tokenizer(name, required=True)
    model = model.eval().to(device)
    length = model.config.max_position_embeddings
    padding: dict[str, Any] = {"padding": "max_length", "padding_side": "right", "truncation": True}

    def embed(texts: list[str]) -> torch.Tensor:
        # Its tokenizers give no mask.
        tokens = tokenizer(texts, **padding, max_length=length, return_tensors="pt")
        return model(input_ids=tokens["input_ids"].to(device)).pooler_output

    return TextEncoder(embed, model_fingerprint(model, tokenizer))


def _sentence_model(name: str, device: torch.device) -> TextEncoder:
    model = load_sentence_model(name, AutoConfig.from_pretrained(name)).eval().to(device)
    content = f"{model_fingerprint(model, model.tokenizer)} {model.settings}"
    return TextEncoder(model.embed, hashlib.sha256(content.encode()).hexdigest())


def model_fingerprint(model: torch.nn.Module, tokenizer: object) -> str:
    """A hash of the parameters and the tokenizer, which may be None to leave it out."""
    digest = hashlib.sha256()
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    backend = getattr(tokenizer, "backend_tokenizer", None)
    digest.update(backend.to_str().encode() if backend is not None else repr(tokenizer).encode())
    return digest.hexdigest()
