"""What a `ClipVip` is made of: a CLIP or SigLIP in Hugging Face layout, or a ClipVip with other settings.

A start of training has the parameters of its encoder besides; a plain CLIP as a baseline has none.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from clipvip.model.config import SIGLIP_BIAS, ClipVipConfig
from clipvip.model.errors import CheckpointError
from clipvip.model.positions import fit_positions, resized_vision
from clipvip.model.preprocess import load_tokenizer
from clipvip.model.weights import (
    ADDED_PROXIES,
    HUB_OPTIONS,
    LOADING_ERRORS,
    TEMPORAL,
    in_dtype,
    load_checked,
    load_state,
    not_loaded,
    require_kind,
)

if TYPE_CHECKING:
    from clipvip.model.clip_vip import ClipVip

# What a model may be started without: no part of CLIP or SigLIP, or only of the latter.
_NEW_PARAMETERS = (ADDED_PROXIES, TEMPORAL, "vision_model.embeddings.proxies", "logit_bias")
_GATES = ".proxy_gate"
# Of `seq_transformer`, and of plug-ins' encoders.
_HEADS = ("frame_transformer.", "frame_head.")
_SCALARS = ("logit_scale", "logit_bias")  # which SigLIP has as vectors of one


def load_plain(cls: "type[ClipVip]", source: str, *, dtype: Any = None, **options: Any) -> "ClipVip":
    """What `ClipVip.from_pretrained` does with a CLIP or SigLIP: a model that averages frames.

    It is MeanPool of the paper's Table 2, CLIP4Clip's meanP (see `mean_pool`), untrained. Texts are cut only
    to what the model itself takes. `options` may have HUB_OPTIONS but `subfolder`. Raises as there.
    """
    # transformers looks for the colours' mean and deviation in no subfolder.
    where = {name: options.pop(name) for name in HUB_OPTIONS if name in options and name != "subfolder"}
    if options:
        raise ValueError(
            f"{source} is a plain CLIP: it takes dtype, tokenizer and where it is looked up, not "
            f"{', '.join(sorted(options))}; ClipVip.from_clip takes settings"
        )
    model = load_clip(cls, source, {"encoder": "mean_pool"}, **where)
    model.config.max_text_tokens = model.config.text_config.max_position_embeddings
    return in_dtype(model, dtype)


def load_clip(
    cls: "type[ClipVip]", folder_or_name: str | Path, overrides: dict[str, Any], **where: Any
) -> "ClipVip":
    """What `ClipVip.from_clip` does; `where` may have HUB_OPTIONS. Raises as there."""
    from transformers import AutoModel

    overrides = dict(overrides)
    source = str(folder_or_name)
    is_ours = require_kind(source, **where) == "clip_vip"
    if is_ours and not overrides:
        return cls.from_pretrained(source, **where)
    model = cls(changed_config(read_config(source, **where), overrides))
    own = model.state_dict()
    # All tensors of a CLIP in Hugging Face layout, by CLIPModel's names.
    load = cls.from_pretrained if is_ours else partial(load_checked, AutoModel.from_pretrained)
    found = load(source, **where)
    state = {
        name: tensor.reshape(()) if name in _SCALARS else tensor
        for name, tensor in found.state_dict().items()
        if not name.endswith("position_ids") and (name in own or not _is_new(name))
    }
    if overrides.get("image_size") is not None:
        fit_positions(state, model.config)
    new = {name for name in set(own) - set(state) if _is_new(name) or name.startswith(_HEADS)}
    load_state(model, source, state, may_be_missing=new)
    if model.config.proxy_start == "class" and ADDED_PROXIES in new:
        embeddings: Any = model.vision_model.embeddings
        with torch.no_grad():
            embeddings.added_cls.copy_(embeddings.class_copies())
    if model.config.encoder == "seq_transformer" and new:
        model.frame_transformer.start_from_text_tower(model.text_model)
    model.tokenizer = load_tokenizer(source, **where)
    return model.eval()


def changed_config(known: ClipVipConfig, overrides: Mapping[str, Any]) -> ClipVipConfig:
    """The configuration with other settings, among which `image_size` is that of its vision tower.

    Raises ValueError where they do not fit it; the message begins with the name of a setting.
    """
    settings = known.to_dict() | {"text_config": known.text_config, "vision_config": known.vision_config}
    settings |= {name: value for name, value in overrides.items() if name != "image_size"}
    settings.pop("model_type", None)
    if (image_size := overrides.get("image_size")) is not None:
        settings["vision_config"] = resized_vision(known.vision_config, image_size)
    return ClipVipConfig(**settings)


def _is_new(name: str) -> bool:
    """Whether a model may be started without this parameter."""
    return name in _NEW_PARAMETERS or name.endswith(_GATES)


def is_plain(source: str) -> bool:
    """Whether a CLIP or SigLIP is there, and no CLIP-ViP; a CheckpointError where it is neither."""
    return not Path(source).is_file() and require_kind(source) != "clip_vip"


def read_config(source: str, **where: Any) -> ClipVipConfig:
    """The configuration of a CLIP-ViP, or the one that a CLIP or SigLIP starts with; else CheckpointError.

    `where` may have HUB_OPTIONS.
    """
    from transformers import AutoConfig
    from transformers.models.auto.image_processing_auto import get_image_processor_config

    kind = require_kind(source, **where)
    try:
        if kind == "clip_vip":
            return ClipVipConfig.from_pretrained(source, **where)
        plain: Any = AutoConfig.from_pretrained(source, **where)
        pixels = get_image_processor_config(source, **where)
        half = [0.5] * 3 if kind == "siglip" else None
        if half:
            settings = siglip_settings(source, plain, **where)
        else:
            settings = {"projection_dim": plain.projection_dim}
        return ClipVipConfig(
            plain.text_config,
            plain.vision_config,
            image_mean=pixels.get("image_mean", half),
            image_std=pixels.get("image_std", half),
            **settings,
        )
    except LOADING_ERRORS as error:
        if isinstance(error, CheckpointError):
            raise
        raise not_loaded(source, error) from error


def siglip_settings(source: str, config: Any, **where: Any) -> dict[str, Any]:
    """What a ClipVip of a SigLIP has of its own; CheckpointError for one that cannot be a start."""
    text, vision = config.text_config, config.vision_config
    if not getattr(vision, "vision_use_head", True):
        raise CheckpointError(
            f"{source}: is a SigLIP without a pooling head (vision_use_head), which cannot be used; give "
            "another"
        )
    if text.projection_size != vision.hidden_size:
        raise CheckpointError(
            f"{source}: its texts have {text.projection_size} dimensions, its images {vision.hidden_size}; "
            "give a model that has one size for both"
        )
    # Padding is seen by SigLIP's texts, so it must be the tokenizer's; what the configuration says of it is
    # the library's default, and another in SigLIP 2.
    if (tokenizer := load_tokenizer(source, **where)) is not None and tokenizer.pad_token_id is not None:
        text.pad_token_id = tokenizer.pad_token_id
    return {"projection_dim": vision.hidden_size, "logit_bias_init_value": SIGLIP_BIAS}
