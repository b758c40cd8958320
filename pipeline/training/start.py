"""What a run starts from: the model, its tokenizer and its optimizer, as the recipe says."""

import json
import os
import shutil
from pathlib import Path

import torch
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from clipvip.model import ClipVip
from clipvip.model.optim import parameter_groups
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.training.recipe import Recipe


def check_init(recipe: Recipe) -> str:
    """The model type of `model.init`: "clip" for plain CLIP, else CLIP-ViP's own.

    Raises:
        UserError: nothing is there, or something that is not a CLIP model.
    """
    init = recipe.model.init
    if not init:
        raise UserError(
            "nothing to start from: give --init with a CLIP model (a folder, or a name on the hub)"
        )
    try:
        config, _ = PretrainedConfig.get_config_dict(init)
    except (OSError, json.JSONDecodeError) as error:
        if Path(init).exists():
            raise UserError(f"{init}: not a model folder, its config.json is missing or damaged") from error
        raise UserError(
            f"{init}: no such folder, and no such model in the hub or its local cache; check --init"
        ) from error
    model_type = str(config.get("model_type", "unknown"))
    if model_type not in {"clip", ClipVip.config_class.model_type}:
        raise UserError(
            f"{init}: holds a model of type {model_type!r}; training starts from CLIP or CLIP-ViP"
        )
    return model_type


def chosen_device(recipe: Recipe) -> str:
    """ "cuda" or "cpu": what the recipe says, and for `auto` what this machine has."""
    if recipe.run.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return recipe.run.device


def check_device(recipe: Recipe) -> None:
    """UserError where the recipe asks for more GPUs than there are."""
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if chosen_device(recipe) == "cuda" and recipe.run.processes > found:
        raise UserError(
            f"asked for {recipe.run.processes} GPUs, this machine has {found}; lower --gpus, or train on the "
            "processor with --set run.device=cpu"
        )


def start_model(recipe: Recipe) -> tuple[ClipVip, PreTrainedTokenizerBase]:
    """The model at step 0 and its tokenizer. New parameters are drawn from the recipe's seed."""
    torch.manual_seed(recipe.seed)
    if check_init(recipe) == "clip":
        model = ClipVip.from_clip(recipe.model.init, **recipe.model.overrides)
    else:
        model = ClipVip.from_pretrained(recipe.model.init, **recipe.model.overrides)
    model.float()
    if recipe.model.logit_scale is not None:
        with torch.no_grad():
            model.logit_scale.fill_(recipe.model.logit_scale)
    tokenizer = AutoTokenizer.from_pretrained(recipe.model.init)
    limit = model.config.text_config.max_position_embeddings
    if recipe.data.max_text_tokens > limit:
        raise UserError(
            f"data.max_text_tokens is {recipe.data.max_text_tokens}, {recipe.model.init} takes {limit} at most"
        )
    return model, tokenizer


def start_optimizer(recipe: Recipe, model: torch.nn.Module) -> torch.optim.Optimizer:
    """AdamW with the reference's groups: biases and the temperature are not decayed."""
    optim = recipe.optim
    return torch.optim.AdamW(
        parameter_groups(model, weight_decay=optim.weight_decay),
        lr=optim.learning_rate,
        betas=(optim.beta1, optim.beta2),
        eps=optim.epsilon,
        fused=True,
    )


def save_model(model: ClipVip, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write weights, config and tokenizer in Hugging Face layout, all or nothing."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    for path in partial.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
