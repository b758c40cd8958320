"""The settings of a ClipVip model: a CLIP of any size, and how its image encoder reads video."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

from transformers import (
    CLIPTextConfig,
    CLIPVisionConfig,
    PreTrainedConfig,
    SiglipTextConfig,
    SiglipVisionConfig,
)

from clipvip.model.variants import ENCODERS, ProxyStart, TemporalStart, check_temporal_start

# Post-pretraining pads and cuts texts to this many tokens (section 5.1 of the paper; CLIP itself has 77).
MAX_TEXT_TOKENS = 70

# With this id transformers' CLIP, as the reference, takes a text's feature at its highest token, the end.
END_IS_HIGHEST = 2
# Of CLIP's training images: openai/CLIP and most checkpoints derived from it.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# Where SigLIP's training begins with its logit bias.
SIGLIP_BIAS = -10.0
# The start, a token, and the end.
FEWEST_TEXT_TOKENS = 3


@dataclass(frozen=True)
class Normalization:
    """The mean and deviation of each colour, in 0 to 1, that pixels are normalised by; CLIP's by default."""

    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD


CLIP_NORMALIZATION = Normalization()


class ClipVipConfig(PreTrainedConfig):
    """Configuration of `ClipVip`.

    Args:
        text_config, vision_config: CLIP's own configurations, or SigLIP's, as objects or dictionaries
            (SigLIP's with their `model_type`). An `eos_token_id` of CLIP's outside the vocabulary stands for
            the highest id of a text.
        projection_dim: width of the shared space.
        logit_scale_init_value: logarithm of the inverse temperature.
        logit_bias_init_value: what is added to logits in the sigmoid loss; None for a model without it.
        encoder: a row of Table 2: `vip`, `mean_pool`, `seq_transformer` or `full_attention`; or a plug-in's.
        num_proxies: video proxy tokens M, the class token included (paper: 4).
        temporal_size: frames of the temporal position table (paper: 12), else interpolated.
        proxy_start: how proxies that CLIP does not have begin: `random`, normal of deviation 1, as in the
            released code; `class`, copies of CLIP's class embedding plus noise of deviation 0.02.
        temporal_start: how the temporal table begins: `zero`, as in the released code, or normal of this
            deviation. Both are of a start without these parameters; docs/method.md says what they do.
        num_frame_layers, num_frame_heads: of the sequence transformer over frames (CLIP4Clip: 4 and 8).
        num_frames: frames of a clip in training, and so in scoring; None for `temporal_size`.
        max_text_tokens: tokens that texts were cut to in training, and so are in scoring; None for 70, or for
            all of a shorter table. `scored_frames` and `scored_text_tokens` fill the defaults in.
        image_mean, image_std: of the colours, in 0 to 1, by which pixels are normalised; None for CLIP's.
            `normalization` fills the defaults in.

    Raises:
        ValueError: an unknown encoder or start, fewer than one proxy or frame, or texts longer than their
            table.

    Examples:
        >>> from clipvip.model import ClipVip, ClipVipConfig
        >>> config = ClipVipConfig(num_proxies=4, temporal_size=12)
        >>> config.encoder, config.scored_frames
        ('vip', 12)
    """

    model_type = "clip_vip"
    sub_configs: ClassVar[dict[str, Any]] = {"text_config": CLIPTextConfig, "vision_config": CLIPVisionConfig}

    def __init__(
        self,
        text_config: CLIPTextConfig | dict[str, Any] | None = None,
        vision_config: CLIPVisionConfig | dict[str, Any] | None = None,
        *,
        projection_dim: int = 512,
        logit_scale_init_value: float = 4.60,
        logit_bias_init_value: float | None = None,
        encoder: str = "vip",
        num_proxies: int = 4,
        temporal_size: int = 12,
        proxy_start: ProxyStart = "random",
        temporal_start: TemporalStart = "zero",
        num_frame_layers: int = 4,
        num_frame_heads: int = 8,
        num_frames: int | None = None,
        max_text_tokens: int | None = None,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        if encoder not in ENCODERS:
            raise ValueError(ENCODERS.refusal("encoder", encoder))
        if num_proxies < 1 or temporal_size < 1:
            raise ValueError(f"{num_proxies = } and {temporal_size = } must be at least 1")
        self.text_config = _as_config(_tower_kind(text_config, CLIPTextConfig), _with_end_token(text_config))
        self.vision_config = _as_config(_tower_kind(vision_config, CLIPVisionConfig), vision_config)
        if self.is_siglip != isinstance(self.text_config, SiglipTextConfig):
            raise ValueError(
                "text_config and vision_config: one is SigLIP's and the other CLIP's; give one kind"
            )
        if self.is_siglip and proxy_start == "class":
            raise ValueError("proxy_start = 'class': SigLIP has no class token to copy; give 'random'")
        self.projection_dim = projection_dim
        self.logit_scale_init_value = logit_scale_init_value
        self.logit_bias_init_value = logit_bias_init_value
        self.encoder = encoder
        self.num_proxies = num_proxies
        self.temporal_size = temporal_size
        if proxy_start not in get_args(ProxyStart):
            raise ValueError(f"{proxy_start = } must be one of {', '.join(get_args(ProxyStart))}")
        self.proxy_start = proxy_start
        self.temporal_start = check_temporal_start(temporal_start)
        self.num_frame_layers = num_frame_layers
        self.num_frame_heads = num_frame_heads
        self.num_frames = _at_least("num_frames", num_frames, 1)
        self.max_text_tokens = _at_least("max_text_tokens", max_text_tokens, FEWEST_TEXT_TOKENS)
        self.image_mean = _three("image_mean", image_mean)
        self.image_std = _three("image_std", image_std)
        most = self.text_config.max_position_embeddings
        if max_text_tokens is not None and max_text_tokens > most:
            raise ValueError(f"{max_text_tokens = } is more than the {most} of the model's table")
        self.initializer_factor = kwargs.pop("initializer_factor", 1.0)
        super().__init__(**kwargs)

    @property
    def temporal_std(self) -> float:
        """The deviation of the temporal table at the start."""
        return 0.0 if self.temporal_start == "zero" else float(self.temporal_start)

    @property
    def is_siglip(self) -> bool:
        """Whether the towers are SigLIP's."""
        return isinstance(self.vision_config, SiglipVisionConfig)

    @property
    def num_patches(self) -> int:
        """Patches of a frame."""
        vision: Any = self.vision_config
        return int(vision.image_size // vision.patch_size) ** 2

    @property
    def normalization(self) -> Normalization:
        """How pixels are normalised."""
        return Normalization(
            CLIP_MEAN if self.image_mean is None else tuple(self.image_mean),
            CLIP_STD if self.image_std is None else tuple(self.image_std),
        )

    @property
    def scored_frames(self) -> int:
        """Frames that are taken of a clip unless told otherwise."""
        return self.temporal_size if self.num_frames is None else self.num_frames

    @property
    def scored_text_tokens(self) -> int:
        """Tokens that texts are cut to unless told otherwise, the start and the end token included."""
        most: int = self.text_config.max_position_embeddings
        return min(MAX_TEXT_TOKENS, most) if self.max_text_tokens is None else self.max_text_tokens


def b32(**overrides: Any) -> ClipVipConfig:
    """CLIP-ViP B/32, as released; `overrides` are settings of `ClipVipConfig`."""
    return ClipVipConfig(**({"vision_config": {"patch_size": 32}} | overrides))


def b16(**overrides: Any) -> ClipVipConfig:
    """CLIP-ViP B/16, as released; `overrides` as for `b32`."""
    return ClipVipConfig(**({"vision_config": {"patch_size": 16}} | overrides))


def _with_end_token(value: CLIPTextConfig | dict[str, Any] | None) -> CLIPTextConfig | dict[str, Any] | None:
    """The same settings, where CLIP's own token ids lie outside a smaller vocabulary with ids that do not."""
    if value is None or _tower_kind(value, CLIPTextConfig) is SiglipTextConfig:
        return value  # SigLIP's feature is at the last token, whatever it is
    default = CLIPTextConfig()
    settings = value if isinstance(value, dict) else value.to_dict()
    vocabulary = settings.get("vocab_size", default.vocab_size)
    replaced = {}
    for name, instead in (("eos_token_id", END_IS_HIGHEST), ("bos_token_id", 0)):
        token = settings.get(name, getattr(default, name))
        if token is None or (isinstance(token, int) and token >= vocabulary):
            replaced[name] = instead
    if not replaced:
        return value
    return settings | replaced if isinstance(value, dict) else CLIPTextConfig(**(settings | replaced))


def _tower_kind(value: Any, otherwise: type) -> type:
    """The class of a tower's configuration: by its `model_type`."""
    name = value.get("model_type") if isinstance(value, dict) else getattr(value, "model_type", None)
    for kind in (SiglipTextConfig, SiglipVisionConfig):
        if name == kind.model_type:
            return kind
    return otherwise


def _at_least(name: str, value: int | None, least: int) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
        raise ValueError(f"{name} is {value!r}; it must be a whole number of at least {least}")
    return value


def _three(name: str, values: Sequence[float] | None) -> list[float] | None:
    if values is None:
        return None
    numbers = list(values) if isinstance(values, list | tuple) else []
    good = [isinstance(number, int | float) and math.isfinite(number) for number in numbers]
    if len(numbers) != 3 or not all(good) or (name == "image_std" and min(numbers) <= 0):
        above = ", each above 0" if name == "image_std" else ""
        raise ValueError(f"{name} is {values!r}; it must be three numbers{above}")
    return [float(number) for number in numbers]


def _as_config(kind: type, value: Any) -> Any:
    value = {} if value is None else value
    return kind(**value) if isinstance(value, dict) else value
