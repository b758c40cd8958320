"""What a run starts from: the model, its tokenizer and its optimizer, as the recipe says."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import click
import torch
from transformers.utils.logging import disable_progress_bar

from clipvip.model import ClipVip, ClipVipConfig
from clipvip.model.config import SIGLIP_BIAS
from clipvip.model.losses import MAX_LOGIT_SCALE
from clipvip.model.optim import freeze, freeze_key_biases, parameter_groups, rate_factors
from clipvip.model.positions import resized_vision
from clipvip.model.precision import choose_precision, has_native_bf16
from clipvip.model.preprocess import check_tokenizer, load_tokenizer
from clipvip.model.starts import changed_config, read_config
from clipvip.model.variants import Precision
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.models import model_at_hand
from clipvip.pipeline.runtime.report import counted
from clipvip.pipeline.train.distributed import Place
from clipvip.pipeline.train.recipe import Recipe


def check_init(recipe: Recipe) -> None:
    """Check that `model.init` is a CLIP or CLIP-ViP model with a tokenizer that fits; weights are not read.

    A UserError where there is none, or no tokenizer; a CheckpointError where it is another kind, or they do
    not fit.
    """
    init = recipe.model.init
    if not init:
        raise UserError("nothing to start from: give --init with a CLIP model, a folder or a name on the hub")
    with model_at_hand(init) as name:
        _check_init(recipe, name)


def _check_init(recipe: Recipe, init: str) -> None:
    config = read_config(init)
    tokenizer = load_tokenizer(init)
    if tokenizer is None:
        raise UserError(f"{init}: has no tokenizer files beside its weights; add them")
    check_tokenizer(tokenizer, config.text_config)
    if recipe.model.image_size is not None:
        try:
            resized_vision(config.vision_config, recipe.model.image_size)
        except ValueError as error:
            raise UserError(f"model.image_size: {error}") from error
    data, limit = recipe.data, config.text_config.max_position_embeddings
    if data.max_text_tokens > limit:
        raise UserError(
            f"data.max_text_tokens is {data.max_text_tokens}, {init} takes {limit} at most; "
            f"give --set data.max_text_tokens={limit}"
        )
    if (recipe.model.encoder or config.encoder) == "seq_transformer" and data.num_frames > limit:
        raise UserError(
            f"data.num_frames is {data.num_frames}, the seq_transformer of {init} takes {limit} at most"
        )
    try:
        changed = changed_config(config, _changes(recipe, config))
    except ValueError as error:
        raise UserError(f"{init}: does not go with model.{error}") from error
    if recipe.optim.multipliers:  # for their names, before anything is read or written
        with torch.device("meta"):
            _rate_factors(recipe, ClipVip(changed))


def _changes(recipe: Recipe, config: ClipVipConfig) -> dict[str, str | int | float]:
    """What the recipe changes in the configuration of the model that it starts from."""
    names = (
        "encoder", "num_proxies", "temporal_size", "proxy_start", "temporal_start", "num_frame_layers",
        "image_size",
    )  # fmt: skip
    asked = {name: value for name in names if (value := getattr(recipe.model, name)) is not None}
    if recipe.loss.contrast == "sigmoid" and config.logit_bias_init_value is None:
        asked["logit_bias_init_value"] = SIGLIP_BIAS
    return asked


def chosen_device(recipe: Recipe) -> str:
    """ "cuda" or "cpu": what the recipe says, and for `auto` what this machine has."""
    found = "cuda" if torch.cuda.is_available() else "cpu"
    return found if recipe.run.device == "auto" else recipe.run.device


def resizes_on_device(recipe: Recipe, device: torch.device) -> bool:
    """Whether frames are resized where the model is, and not by the processes that load them."""
    return recipe.data.resize == "device" or (recipe.data.resize == "auto" and device.type == "cuda")


def chosen_precision(recipe: Recipe, place: Place) -> Precision:
    """The number format to train in, told where it is not the usual one; a UserError: the GPU lacks it."""
    try:
        precision, remark = choose_precision(
            recipe.optim.precision, on_gpu=place.device.type == "cuda", has_bf16=has_native_bf16()
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    if remark and place.is_first:
        click.echo(remark, err=True)
    return precision


def chosen_compile(recipe: Recipe, place: Place) -> bool:
    """Whether the encoders' layers are compiled; said where a GPU's are not, for want of a compiler."""
    if recipe.run.compile is not None:
        return recipe.run.compile
    if place.device.type != "cuda":
        return False
    missing = _missing_for_compiling()
    if missing and place.is_first:
        click.echo(
            f"training without torch.compile, which is slower: there is no {' and no '.join(missing)} here; "
            "install it, or set run.compile=false",
            err=True,
        )
    return not missing


def _missing_for_compiling() -> list[str]:
    """What torch.compile needs for a GPU and this machine does not have."""
    compilers = [os.environ["CC"]] if os.environ.get("CC") else ["gcc", "clang"]  # as Triton looks for one
    has_compiler = any(shutil.which(name) for name in compilers)
    missing = [] if has_compiler else [f"C compiler ({' or '.join(compilers)})"]
    return missing if find_spec("triton") else [*missing, "package triton"]


def check_device(recipe: Recipe) -> None:
    """UserError where the recipe asks for more GPUs than there are."""
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if chosen_device(recipe) == "cuda" and recipe.run.processes > found:
        raise UserError(
            f"--gpus {recipe.run.processes}: torch finds {counted(found, 'GPUs')} on this machine; give "
            "fewer, or train on the CPU with --gpus 0"
        )


def start_model(recipe: Recipe) -> ClipVip:
    """The model at step 0, with its tokenizer. New parameters are drawn from the recipe's seed."""
    disable_progress_bar()  # of transformers: it would run into ours
    with model_at_hand(recipe.model.init) as init:
        _check_init(recipe, init)
        torch.manual_seed(recipe.seed)
        model = ClipVip.from_clip(init, **_changes(recipe, read_config(init))).float()
    if recipe.model.from_scratch:
        tokenizer, model = model.tokenizer, ClipVip(model.config)
        model.tokenizer = tokenizer
    if recipe.model.logit_scale is not None:
        with torch.no_grad():
            model.logit_scale.fill_(recipe.model.logit_scale)
    if not model.logit_scale.item() <= MAX_LOGIT_SCALE:
        raise UserError(
            f"{recipe.model.init}: its logit_scale is {model.logit_scale.item():g}, which is not the "
            "logarithm of an inverse temperature; give model.logit_scale"
        )
    # What the model is trained on is what it is scored on, unless told otherwise.
    model.config.num_frames = recipe.data.num_frames
    model.config.max_text_tokens = recipe.data.max_text_tokens
    if recipe.run.checkpoint_activations:
        # transformers renamed this; the older versions have only the older name.
        getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    return model


def start_optimizer(recipe: Recipe, model: torch.nn.Module) -> torch.optim.Optimizer:
    """AdamW over what is trained; the rest is frozen. Biases and the temperature are not decayed.

    A UserError where the recipe's multipliers do not fit the model.
    """
    optim = recipe.optim
    factors = _rate_factors(recipe, model)
    freeze(model, factors)
    freeze_key_biases(model)
    return torch.optim.AdamW(
        parameter_groups(model, weight_decay=optim.weight_decay, factors=factors),
        lr=optim.learning_rate,
        betas=(optim.beta1, optim.beta2),
        eps=optim.epsilon,
        fused=True,
    )


def _rate_factors(recipe: Recipe, model: torch.nn.Module) -> dict[str, float]:
    optim = recipe.optim
    try:
        return rate_factors(model, multipliers=optim.multipliers, layer_decay=optim.layer_decay)
    except ValueError as error:
        raise UserError(f"optim.multipliers: {error}") from error


def save_model(model: ClipVip, folder: Path) -> None:
    """Write weights, config and tokenizer in Hugging Face layout, all or nothing."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        model.save_pretrained(partial)
        for path in partial.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
