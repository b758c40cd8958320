"""Where weights come from: model folders, and the reference's own checkpoints. Starts are in `starts`."""

import os
import pickle
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from huggingface_hub.errors import HFValidationError, StrictDataclassError
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars
from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

from clipvip.hub_errors import hub_problem
from clipvip.media.errors import one_line
from clipvip.model.checkpoint_file import read_checkpoint, require_no_file, weights_problem
from clipvip.model.config import ClipVipConfig
from clipvip.model.errors import CheckpointError
from clipvip.model.preprocess import load_tokenizer
from clipvip.model.writing import writing

if TYPE_CHECKING:
    from clipvip.model.clip_vip import ClipVip

# What `from_pretrained` raises where files are missing, broken, or of another kind.
LOADING_ERRORS = (
    OSError,
    TypeError,  # a config.json that is a list, up to transformers 5.17 at least
    KeyError,  # an index of weights without its fields
    RecursionError,  # a config.json nested too deep
    ValueError,
    RuntimeError,
    pickle.UnpicklingError,
    SafetensorError,
    StrictDataclassError,
)
# Types of models that a ClipVip is loaded from, or starts from.
KINDS = ("clip", "clip_vip", "siglip")
# Options of `from_pretrained` that say where a name is looked up.
HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")
RELEASED_PREFIX = "clipmodel."
# Every published CLIP has heads of this width.
_HEAD_WIDTH = 64
_MAX_LISTED = 8
ADDED_PROXIES = "vision_model.embeddings.added_cls"
TEMPORAL = "vision_model.embeddings.temporal_embedding"
# The tensors that tell a released model's sizes, and their numbers of dimensions.
_SIZES_FROM = {
    "vision_model.embeddings.patch_embedding.weight": 4,
    "vision_model.embeddings.position_embedding.weight": 2,
    ADDED_PROXIES: 2,
    TEMPORAL: 3,
    "text_model.embeddings.token_embedding.weight": 2,
    "text_model.embeddings.position_embedding.weight": 2,
    "visual_projection.weight": 2,
    "vision_model.encoder.layers.0.mlp.fc1.weight": 2,
    "text_model.encoder.layers.0.mlp.fc1.weight": 2,
}


def model_type(folder_or_name: str, **where: Any) -> str:
    """The model type that config.json names, "none" where it names none. `where`: HUB_OPTIONS.

    Raises:
        CheckpointError: no such folder, or no config.json that can be read.
    """
    require_no_file(folder_or_name)
    if folder_or_name.startswith(("/", ".", "~")) and not Path(folder_or_name).is_dir():
        raise CheckpointError(f"{folder_or_name}: no such model folder")
    other = _other_content(folder_or_name)
    absent = f"{folder_or_name}: no model configuration (config.json) there{other}"
    try:
        content, _ = PreTrainedConfig.get_config_dict(folder_or_name, **where)
    except (*LOADING_ERRORS, HFValidationError) as error:
        reason = "" if other else f": {one_line(error)}"
        problem = hub_problem(folder_or_name, error) or absent + reason
        raise CheckpointError(problem) from error
    if not content:
        raise CheckpointError(absent)
    return str(content.get("model_type", "none"))


def _other_content(folder: str) -> str:
    """What a folder without config.json holds instead, where that is known, and what to do."""
    if Path(folder, "model", "config.json").is_file():
        return f"; it is the folder of a training run: give {Path(folder, 'model')}"
    if Path(folder, "tensors-00000.safetensors").is_file():
        run = Path(folder).resolve().parents[1]
        written = Path(run, "model", "config.json").is_file()
        when = (
            "" if written else ", which is written when training ends, or one of run.keep_models_every_steps"
        )
        return f"; it is a checkpoint, from which training goes on: give {Path(run, 'model')}{when}"
    if Path(folder, "open_clip_config.json").is_file():
        return "; it is a model of OpenCLIP: 'clipvip-data convert-openclip' makes a CLIP of it"
    return ""


def require_kind(folder_or_name: str, **where: Any) -> str:
    """The model type that config.json names; CheckpointError unless one of KINDS. `where`: HUB_OPTIONS."""
    found = model_type(folder_or_name, **where)
    if found not in KINDS:
        hint = ""
        if found == "siglip2":
            hint = "; it is a NaFlex model, for images of any shape: give a SigLIP 2 of a fixed resolution"
        raise CheckpointError(
            f"{folder_or_name}: holds a model of type {found!r}, expected {' or '.join(KINDS)}{hint}"
        )
    return found


def load_checked(load: Callable[..., Any], source: Any, *args: Any, **kwargs: Any) -> Any:
    """`load_with_info`; also CheckpointError for weights that are not finite, with which no embedding is."""
    model, _ = load_with_info(load, source, *args, **kwargs)
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise CheckpointError(
                f"{source}: holds weights that are not finite numbers (such as {name}); give another"
            )
    return model


@contextmanager
def _no_bar_of_a_folder(source: str) -> Iterator[None]:
    """No progress bar while a folder is read, a moment's work; a download keeps its bars."""
    was_shown, hub_was_shown = is_progress_bar_enabled(), not are_progress_bars_disabled()
    if not (was_shown and Path(source).is_dir()):
        yield
        return
    disable_progress_bar()  # also those of huggingface_hub, as enabling does
    try:
        yield
    finally:
        enable_progress_bar()
        if not hub_was_shown:
            disable_progress_bars()


def load_with_info(
    load: Callable[..., Any],
    source: Any,
    *args: Any,
    what: str = "does not load",
    unused_are_left: bool = False,
    **kwargs: Any,
) -> tuple[Any, dict[str, Any]]:
    """Call a `from_pretrained`; the model, and what the library says of its tensors.

    `unused_are_left`: tensors that the model has no place for are no fault, as in many published ones.

    Raises:
        CheckpointError: files are missing or damaged, or tensors do not fit the configuration.
    """
    # Asked to ignore them, the library names the tensors of another shape instead of printing a table.
    kwargs |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
    try:
        with _no_bar_of_a_folder(str(source)):
            model, info = load(source, *args, **kwargs)
    except Exception as error:
        raise not_loaded(source, error, what) from error
    shapes = {
        name: f"{name} {tuple(found)} instead of {tuple(needed)}"
        for name, found, needed in info["mismatched_keys"]
    }
    require_fit(
        f"{source}: tensors do not fit the configuration",
        {
            "missing": set(info["missing_keys"]) - set(shapes),
            "unexpected": () if unused_are_left else info["unexpected_keys"],
            "of another shape": shapes.values(),
        },
    )
    return model, info


def not_loaded(source: Any, error: Exception, what: str = "does not load") -> CheckpointError:
    """What to raise where a `from_pretrained` raised `error`: naming the file that is damaged, if one is.

    Of a damaged pickle anything may come. Raises `error` itself where no file is to blame.
    """
    problem = weights_problem(Path(source))
    if not problem and not isinstance(error, LOADING_ERRORS):
        raise error
    if not problem and not Path(source).exists() and (of_hub := hub_problem(str(source), error)):
        return CheckpointError(of_hub)
    return CheckpointError(f"{source}: {what} ({problem or one_line(error, most=400)})")


def require_fit(message: str, problems: Mapping[str, Iterable[str]]) -> None:
    """CheckpointError of `message` and the tensors with `problems`, such as {"missing": names}, if any."""
    told = []
    for what, names in problems.items():
        if names := sorted(names):
            more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
            told.append(f"{len(names)} {what}: {', '.join(names[:_MAX_LISTED])}{more}")
    if told:
        raise CheckpointError(f"{message}; {'; '.join(told)}")


def load_released(
    cls: "type[ClipVip]",
    path_or_state_dict: str | Path | Mapping[str, Tensor],
    config: ClipVipConfig | None,
) -> "ClipVip":
    """What `ClipVip.from_released` does. Raises as there."""
    if isinstance(path_or_state_dict, Mapping):
        name, state = "state dict", dict(path_or_state_dict)
    else:
        name, state = str(path_or_state_dict), read_state_dict(Path(path_or_state_dict))
    state = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    foreign = [key for key in state if not key.startswith(RELEASED_PREFIX)]
    if foreign or not state:
        raise CheckpointError(
            f"{name}: not in the reference's layout, whose keys begin with {RELEASED_PREFIX!r} "
            f"(found {', '.join(sorted(foreign)[:3]) or 'no tensors'}); a CLIP is given as a folder in "
            "Hugging Face layout, which 'clipvip-data convert-openclip' makes of OpenCLIP's files"
        )
    state = {
        key.removeprefix(RELEASED_PREFIX): tensor
        for key, tensor in state.items()
        if not key.endswith("position_ids")
    }
    model = cls(config or infer_config(name, state))
    # Trained with `if_use_temporal_embed: 0`: the same as positions of zero.
    own = model.state_dict()
    if TEMPORAL in own and TEMPORAL not in state:
        state[TEMPORAL] = torch.zeros_like(own[TEMPORAL])
    # The mean-pool baseline's checkpoints carry an empty table of further proxies.
    state = {key: tensor for key, tensor in state.items() if tensor.numel() or key in own}
    load_state(model, name, state, may_be_missing=set())
    return model.eval()


def load_released_file(
    cls: "type[ClipVip]", path: str, *, config: ClipVipConfig | None = None, dtype: Any = None, **others: Any
) -> "ClipVip":
    """What `ClipVip.from_pretrained` does with a file. Raises as there."""
    if others:
        raise ValueError(
            f"{path} is a file: it takes config, dtype and tokenizer, not {', '.join(sorted(others))}; "
            "clipvip-data convert-released makes a folder of it"
        )
    return in_dtype(load_released(cls, path, config), dtype)


def in_dtype(model: "ClipVip", dtype: Any) -> "ClipVip":
    """The model in the number format that `from_pretrained` was asked for, a torch.dtype or its name."""
    if dtype in (None, "auto"):
        return model
    moved: Any = model
    return cast("ClipVip", moved.to(dtype=getattr(torch, dtype) if isinstance(dtype, str) else dtype))


def load_state(model: "ClipVip", name: str, state: dict[str, Tensor], *, may_be_missing: set[str]) -> None:
    """Put the tensors into the model; CheckpointError, which names them by `name`, where they do not fit."""
    own = model.state_dict()
    shapes = [
        f"{key} {tuple(tensor.shape)} instead of {tuple(own[key].shape)}"
        for key, tensor in state.items()
        if key in own and own[key].shape != tensor.shape
    ]
    missing, unexpected = set(own) - set(state) - may_be_missing, set(state) - set(own)
    require_fit(
        f"{name}: tensors do not fit the configuration",
        {"missing": missing, "unexpected": unexpected, "of another shape": shapes},
    )
    model.load_state_dict(state, strict=False)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pt` or `.safetensors` file; CheckpointError where it is none or holds more."""
    content = read_checkpoint(path)
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise CheckpointError(f"{path}: holds more than named tensors; save the model's state_dict alone")
    return content


def infer_config(name: str, state: Mapping[str, Tensor]) -> ClipVipConfig:
    """Read the sizes of a released ViP model off its tensors, names without prefix; else CheckpointError."""
    # The reference can be told to leave the temporal table out.
    if TEMPORAL not in state and (proxies := state.get(ADDED_PROXIES)) is not None and proxies.numel():
        width = proxies.shape[-1]
        state = {**state, TEMPORAL: torch.zeros(1, ClipVipConfig().temporal_size, width)}
    missing = [key for key in _SIZES_FROM if key not in state]
    if missing:
        raise CheckpointError(f"{name}: is no released CLIP-ViP model, it has no tensor {', '.join(missing)}")
    shapes = [
        f"{key} {tuple(state[key].shape)}"
        for key, dimensions in _SIZES_FROM.items()
        if state[key].ndim != dimensions or (not state[key].numel() and key != ADDED_PROXIES)
    ]
    if shapes:
        raise CheckpointError(
            f"{name}: no sizes can be read off {', '.join(shapes)}; give the model's config"
        )
    patch, positions, proxies, temporal, tokens, text_positions, projection, *_ = (
        state[key] for key in _SIZES_FROM
    )
    return ClipVipConfig(
        text_config={
            **_tower_sizes(state, "text_model"),
            "vocab_size": tokens.shape[0],
            "max_position_embeddings": text_positions.shape[0],
            "projection_dim": projection.shape[0],
            # CLIP's old configuration: the text's feature is at the highest token id, its end token.
            "bos_token_id": 0,
            "eos_token_id": 2,
        },
        vision_config={
            **_tower_sizes(state, "vision_model"),
            "patch_size": patch.shape[-1],
            "image_size": round((positions.shape[0] - 1) ** 0.5) * patch.shape[-1],
            "projection_dim": projection.shape[0],
        },
        projection_dim=projection.shape[0],
        num_proxies=1 + proxies.shape[0],
        temporal_size=temporal.shape[1],
    )


def _tower_sizes(state: Mapping[str, Tensor], tower: str) -> dict[str, int]:
    layers = {key.split(".")[3] for key in state if key.startswith(f"{tower}.encoder.layers.")}
    inner, width = state[f"{tower}.encoder.layers.0.mlp.fc1.weight"].shape
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": len(layers),
        "num_attention_heads": max(1, width // _HEAD_WIDTH),
    }


def convert_released(path: str | Path, folder: str | Path, *, tokenizer: str | Path | None = None) -> None:
    """Write a released checkpoint as a folder in Hugging Face layout, with the tokenizer of a CLIP if named.

    `folder` must not exist yet or be empty (see `whole_folder`).

    Raises:
        CheckpointError: `path` is no checkpoint of the reference, `folder` holds something, or the tokenizer
            is missing or does not fit.

    Examples:
        >>> import clipvip
        >>> tokenizer = "openai/clip-vit-base-patch32"
        >>> clipvip.convert_released("pretrain_clipvip_base_32.pt", "vip", tokenizer=tokenizer)
        >>> clipvip.ClipVip.from_pretrained("vip").config.model_type
        'clip_vip'
    """
    from clipvip.model.clip_vip import ClipVip

    with whole_folder(folder) as partial:
        model = load_released(ClipVip, path, None)
        if tokenizer is not None:
            model.tokenizer = load_tokenizer(str(tokenizer), required=True)
        model.save_pretrained(partial)


@contextmanager
def whole_folder(folder: str | Path) -> Iterator[Path]:
    """A folder to write a model to: it becomes `folder` at the end, or nothing of it is left.

    `folder` must not exist yet or be empty. It may be a mounted one: files are written inside of it under
    another name, and config.json, without which it is no model, gets its own last.

    Raises:
        CheckpointError: `folder` holds something.
    """
    folder = Path(folder)
    partial, existed = folder / ".partial", folder.is_dir()
    if folder.exists() and (not existed or any(entry != partial for entry in folder.iterdir())):
        raise CheckpointError(f"{folder}: already exists; give a new or empty folder to write to")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        with writing(folder):
            yield partial
        for file in sorted(partial.iterdir(), key=lambda file: file.name == "config.json"):
            os.replace(file, folder / file.name)
        partial.rmdir()
    except BaseException:
        shutil.rmtree(partial if existed else folder, ignore_errors=True)
        raise
