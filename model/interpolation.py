"""Weights between a start and what was fine-tuned from it: WiSE-FT (Wortsman et al., arXiv 2109.01903)."""

from collections.abc import Iterable
from operator import attrgetter
from pathlib import Path

import torch
from torch import Tensor

from clipvip.model.clip_vip import ClipVip
from clipvip.model.config import ClipVipConfig
from clipvip.model.errors import CheckpointError
from clipvip.model.starts import read_config
from clipvip.model.weights import require_kind

# What makes an architecture, in the order in which it is compared: settings of the whole, then of each tower.
_SETTINGS = ("encoder", "projection_dim", "num_proxies", "temporal_size", "normalization")
_TOWER = (
    "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "hidden_act", "layer_norm_eps",
)  # fmt: skip
_OF_IMAGES = ("patch_size", "image_size")
_OF_TEXTS = ("vocab_size", "max_position_embeddings")
# What a CLIP takes over from the model that was trained from it; `image_size` besides.
_TAKEN_OVER = (
    "encoder", "num_proxies", "temporal_size", "proxy_start", "temporal_start", "num_frame_layers",
    "num_frame_heads", "num_frames", "max_text_tokens", "image_mean", "image_std", "logit_bias_init_value",
)  # fmt: skip


class Interpolation:
    """The line from the weights of `start` (alpha 0) to those of `end` (alpha 1), in float32.

    `end` itself is what gets the weights of each point. Three models are held in memory, where `end` is.

    Raises:
        CheckpointError: the two have other tensors.
    """

    def __init__(self, start: ClipVip, end: ClipVip) -> None:
        self.model = end.float()
        self._own = self.model.state_dict()
        self._end = {name: tensor.clone() for name, tensor in self._own.items()}
        self._start = {name: tensor.to(end.device) for name, tensor in start.float().state_dict().items()}
        for name in dict.fromkeys([*self._start, *self._end]):
            shapes = [
                tuple(state[name].shape) if name in state else None for state in (self._start, self._end)
            ]
            if shapes[0] != shapes[1]:
                one, other = ("absent" if shape is None else str(shape) for shape in shapes)
                raise CheckpointError(f"the two models differ in tensor {name}: {one} and {other}")

    @torch.no_grad()
    def put(self, alpha: float) -> None:
        """Give the model the weights (1 - alpha) * start + alpha * end; at 0 and 1 these are exact."""
        for name, tensor in self._own.items():
            if tensor.is_floating_point():
                tensor.copy_(torch.lerp(self._start[name], self._end[name], alpha))


def _shape(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else str(tuple(tensor.shape))


def load_start(folder_or_name: str, config: ClipVipConfig, *, name: str, end: str, seed: int) -> ClipVip:
    """What a model of this configuration was trained from: a ClipVip, or what `from_clip` makes of a CLIP.

    A ClipVip may be a released file.

    Args:
        name, end: what messages call this model, and the other.
        seed: of the training, by which parameters were drawn that the CLIP does not have.

    Raises:
        CheckpointError: no such model, it does not load, or is of another architecture.
    """
    is_file = Path(folder_or_name).is_file()  # a released one, whose sizes are those of its tensors
    if is_file or require_kind(folder_or_name) == "clip_vip":
        model = ClipVip.from_pretrained(folder_or_name) if is_file else None
        found = read_config(folder_or_name) if model is None else model.config
        _require_alike(found, config, name, end, settings=_SETTINGS, of_images=_OF_IMAGES)
        return model or ClipVip.from_pretrained(folder_or_name)
    found = read_config(folder_or_name)
    vision, of_start = config.vision_config, found.vision_config
    _require_alike(found, config, name, end, settings=("projection_dim",), of_images=("patch_size",))
    overrides = {setting: getattr(config, setting) for setting in _TAKEN_OVER}
    if vision.image_size != of_start.image_size:
        overrides["image_size"] = vision.image_size
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return ClipVip.from_clip(folder_or_name, **overrides)


def _require_alike(
    start: ClipVipConfig,
    config: ClipVipConfig,
    name: str,
    end: str,
    *,
    settings: Iterable[str],
    of_images: Iterable[str],
) -> None:
    """CheckpointError, which names the first difference, unless the two are of one architecture."""
    if "encoder" in settings and config.encoder == start.encoder == "seq_transformer":
        settings = (*settings, "num_frame_layers", "num_frame_heads")
    compared = [
        *settings,
        *(f"vision_config.{one}" for one in (*_TOWER, *of_images)),
        *(f"text_config.{one}" for one in (*_TOWER, *_OF_TEXTS)),
    ]
    for path in compared:
        one, other = (attrgetter(path)(model) for model in (start, config))
        if one != other:
            raise CheckpointError(
                f"{name} and {end} are of different architectures, {path} is {one!r} and {other!r}: "
                "give a model and what was fine-tuned from it"
            )
