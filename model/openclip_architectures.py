"""OpenCLIP's architectures as data: its names, its model configurations, and what CLIP's layout can carry."""

import difflib
import json
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from clipvip.media.errors import one_line
from clipvip.model.config import CLIP_MEAN, CLIP_STD
from clipvip.model.errors import CheckpointError

Size = Annotated[int, Field(ge=1)]
Three = tuple[float, float, float]
_CHECKED = ConfigDict(extra="ignore", allow_inf_nan=False)
_QUICK_GELU = "-quickgelu"
# Settings that change nothing in what a trained network computes.
_OF_TRAINING = ("patch_dropout", "output_tokens", "pad_id", "attn_pooler_heads", "attn_pooler_queries")
_TIMM = ("timm_pool", "timm_proj", "timm_proj_bias", "timm_drop", "timm_drop_path", "timm_model_pretrained")
# Where a setting has another value than none, that which CLIP's layout has.
_AS_IN_CLIP = {"pos_embed_type": "learnable", "proj_type": "linear", "block_type": "default"}
# What a setting of settings may hold.
_NESTED = {"norm_kwargs": "eps", "act_kwargs": "approximate"}
# Of OpenCLIP's names: those of other networks, and what they are.
_OTHERS = {
    r"RN\d": "a ResNet",
    r"convnext": "a ConvNeXt",
    r"coca": "a CoCa, which pools by attention",
    r"EVA|ViTamin|PE-Core|MobileCLIP|swin|vit_": "an image tower of timm",
    r"ViT-M-16-alt": "a network with layer scale",
    r"nllb|.*SigLIP": "a SigLIP with towers of timm (SigLIP itself is read in transformers' layout)",
    r".*CLIPA": "a CLIPA, which averages patches",
    r".*worldwide": "a MetaCLIP 2 with another tokenizer than CLIP's",
    r".*roberta|mt5": "a text tower of transformers",
}


@checked(frozen=True, config=_CHECKED)
class VisionSettings:
    """`vision_cfg`, with OpenCLIP's names and defaults."""

    layers: Size = 12
    width: Size = 768
    head_width: Size = 64
    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0
    patch_size: Size = 16
    image_size: Size = 224
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.image_size < self.patch_size:
            raise ValueError(f"image_size {self.image_size} is smaller than a patch")
        _require_divides(self.width, self.width // self.head_width)


@checked(frozen=True, config=_CHECKED)
class TextSettings:
    """`text_cfg`, with OpenCLIP's names and defaults."""

    context_length: Annotated[int, Field(ge=3)] = 77
    vocab_size: Annotated[int, Field(ge=3)] = 49408
    width: Size = 512
    heads: Size = 8
    layers: Size = 12
    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0
    eos_id: Annotated[int, Field(ge=0)] = 2
    pool_type: str = "argmax"
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        _require_divides(self.width, self.heads)


def _require_divides(width: int, heads: int) -> None:
    if heads < 1 or width % heads:
        raise ValueError(f"width {width} cannot be divided among {heads} heads")


@dataclass(frozen=True)
class Architecture:
    """An OpenCLIP model that CLIP's layout carries; `name` is what the user called it."""

    name: str
    embed_dim: int
    vision: VisionSettings
    text: TextSettings
    quick_gelu: bool = False
    vision_activation: str = "gelu"
    text_activation: str = "gelu"
    image_mean: Three = CLIP_MEAN
    image_std: Three = CLIP_STD
    interpolation: str = "bicubic"

    @classmethod
    def named(cls, name: str) -> Self:
        """One of `names()`, each also with `-quickgelu`. Raises as `read`."""
        plain = name.removesuffix(_QUICK_GELU)
        if plain not in _ROWS:
            for pattern, what in _OTHERS.items():
                if re.match(pattern, name):
                    raise CheckpointError(f"{name}: is {what}, which CLIP's layout cannot carry")
            near = "".join(f"did you mean {n}? " for n in difflib.get_close_matches(name, names(), n=1))
            raise CheckpointError(
                f"{name}: no architecture of OpenCLIP that is known here ({near}There are "
                f"{', '.join(names())}); or give its model configuration as a JSON file"
            )
        embed_dim, vision, text = _ROWS[plain]
        return cls(name, embed_dim, vision, text, quick_gelu=plain != name)

    @classmethod
    def read(cls, name_or_file: str) -> Self:
        """The architecture of a name such as ViT-B-32, or of a JSON file with OpenCLIP's configuration.

        That of a model repository (`open_clip_config.json`) also says how pixels are normalised.

        Raises:
            CheckpointError: no such name or file, damaged JSON, or another network than CLIP's.
        """
        path = Path(name_or_file)
        if path.suffix == ".json" or path.is_file():
            return cls._from_file(path)
        return cls.named(name_or_file.replace("/", "-"))

    @classmethod
    def _from_file(cls, path: Path) -> Self:
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{path}: is no JSON ({one_line(error, most=100)})") from error
        model = tree.get("model_cfg", tree) if isinstance(tree, dict) else None
        if not isinstance(model, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= set(model):
            raise CheckpointError(
                f"{path}: is no model configuration of OpenCLIP, which has embed_dim, vision_cfg and text_cfg"
            )
        pixels = tree.get("preprocess_cfg") or {}
        if not isinstance(pixels, dict):
            raise CheckpointError(f"{path}: preprocess_cfg is no mapping of settings")
        _refuse_others(path, model)

        def checked(name: str, kind: Any, value: Any) -> Any:
            try:
                return TypeAdapter(kind).validate_python(value)
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join([name, *map(str, first["loc"])])
                message = first["msg"].removeprefix("Value error, ")
                raise CheckpointError(f"{path}: {where}: {message}") from error

        return cls(
            str(path),
            checked("embed_dim", Size, model["embed_dim"]),
            checked("vision_cfg", VisionSettings, _flat(model["vision_cfg"])),
            checked("text_cfg", TextSettings, _flat(model["text_cfg"])),
            quick_gelu=checked("quick_gelu", bool, model.get("quick_gelu") or False),
            vision_activation=_activation(model["vision_cfg"]),
            text_activation=_activation(model["text_cfg"]),
            image_mean=checked("preprocess_cfg.mean", Three, pixels.get("mean", CLIP_MEAN)),
            image_std=checked("preprocess_cfg.std", Three, pixels.get("std", CLIP_STD)),
            interpolation=str(pixels.get("interpolation", "bicubic")),
        )


def names() -> list[str]:
    """The names that `Architecture.named` knows, without those that end in `-quickgelu`."""
    return list(_ROWS)


def _refuse_others(path: Path, model: dict[str, Any]) -> None:
    """CheckpointError where the configuration is of a network that CLIP's layout cannot carry."""
    if model.get("multimodal_cfg"):
        raise CheckpointError(f"{path}: is a CoCa (multimodal_cfg), which CLIP's layout cannot carry")
    if model.get("init_logit_bias") is not None:
        raise CheckpointError(f"{path}: has a logit bias (init_logit_bias), which CLIP's layout cannot carry")
    for section, kind in (("vision_cfg", VisionSettings), ("text_cfg", TextSettings)):
        settings = model[section]
        if not isinstance(settings, dict):
            raise CheckpointError(f"{path}: {section} is no mapping of settings")
        for name in ("norm_kwargs", "act_kwargs"):
            if not isinstance(settings.get(name) or {}, dict):
                raise CheckpointError(f"{path}: {section}.{name} is no mapping of settings")
        for name, value in settings.items():
            if not _is_carried(kind, settings, name):
                raise CheckpointError(
                    f"{path}: {section}.{name} is {json.dumps(value)}, which CLIP's layout cannot carry"
                )


def _is_carried(kind: Any, settings: dict[str, Any], name: str) -> bool:
    """Whether CLIP's layout has this setting, or this value of it."""
    value, is_text = settings[name], kind is TextSettings
    if name == "pool_type":
        # At the end token 2 transformers' CLIP takes the highest token instead.
        by_end = value == "eos" and settings.get("eos_id", 2) != 2
        return value == ("argmax" if is_text else "tok") or (is_text and by_end)
    if name == "layers":
        return isinstance(value, int)  # a ResNet has a number for each stage
    if name in ("image_size", "patch_size") and isinstance(value, list):
        return len(value) == 2 and value[0] == value[1]
    if name in _NESTED and isinstance(value, dict):
        return set(value) <= {_NESTED[name]}
    if value is None or value is False or value == _AS_IN_CLIP.get(name):
        return True
    return name in {field.name for field in fields(kind)} or name in (*_OF_TRAINING, *_TIMM)


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with what OpenCLIP nests in them, and sides of squares as one number."""
    squares = {
        name: settings[name][0]
        for name in ("image_size", "patch_size")
        if isinstance(settings.get(name), list)
    }
    eps = (settings.get("norm_kwargs") or {}).get("eps")
    return settings | squares | ({} if eps is None else {"norm_eps": eps})


def _activation(settings: dict[str, Any]) -> str:
    approximate = (settings.get("act_kwargs") or {}).get("approximate", "none")
    return "gelu_pytorch_tanh" if approximate == "tanh" else "gelu"


def _vit(
    layers: int, width: int, patch: int, image: int = 224, head: int = 64, ratio: float = 4.0
) -> VisionSettings:
    return VisionSettings(
        layers=layers, width=width, patch_size=patch, image_size=image, head_width=head, mlp_ratio=ratio
    )


def _text(width: int, heads: int, layers: int) -> TextSettings:
    return TextSettings(width=width, heads=heads, layers=layers)


_HUGE, _HUGE_TEXT = {"head": 80}, _text(1024, 16, 24)
# embed_dim, image tower, text tower.
_ROWS: dict[str, tuple[int, VisionSettings, TextSettings]] = {
    "ViT-S-32": (384, _vit(12, 384, 32), _text(384, 6, 12)),
    "ViT-S-16": (384, _vit(12, 384, 16), _text(384, 6, 12)),
    "ViT-S-32-alt": (256, _vit(12, 384, 32), _text(256, 4, 10)),
    "ViT-S-16-alt": (256, _vit(12, 384, 16), _text(256, 4, 10)),
    "ViT-M-32": (512, _vit(12, 512, 32), _text(512, 8, 12)),
    "ViT-M-16": (512, _vit(12, 512, 16), _text(512, 8, 12)),
    "ViT-M-32-alt": (384, _vit(12, 512, 32), _text(384, 6, 12)),
    "ViT-B-32": (512, _vit(12, 768, 32), _text(512, 8, 12)),
    "ViT-B-32-256": (512, _vit(12, 768, 32, 256), _text(512, 8, 12)),
    "ViT-B-32-plus-256": (640, _vit(12, 896, 32, 256), _text(640, 10, 12)),
    "ViT-B-16": (512, _vit(12, 768, 16), _text(512, 8, 12)),
    "ViT-B-16-plus": (640, _vit(12, 896, 16), _text(640, 10, 12)),
    "ViT-B-16-plus-240": (640, _vit(12, 896, 16, 240), _text(640, 10, 12)),
    "ViT-L-16": (768, _vit(24, 1024, 16), _text(768, 12, 12)),
    "ViT-L-16-320": (768, _vit(24, 1024, 16, 320), _text(768, 12, 12)),
    "ViT-L-14": (768, _vit(24, 1024, 14), _text(768, 12, 12)),
    "ViT-L-14-280": (768, _vit(24, 1024, 14, 280), _text(768, 12, 12)),
    "ViT-L-14-336": (768, _vit(24, 1024, 14, 336), _text(768, 12, 12)),
    "ViT-H-16": (1024, _vit(32, 1280, 16, **_HUGE), _HUGE_TEXT),
    "ViT-H-14": (1024, _vit(32, 1280, 14, **_HUGE), _HUGE_TEXT),
    "ViT-H-14-378": (1024, _vit(32, 1280, 14, 378, **_HUGE), _HUGE_TEXT),
    "ViT-g-14": (1024, _vit(40, 1408, 14, head=88, ratio=4.3637), _HUGE_TEXT),
    "ViT-bigG-14": (1280, _vit(48, 1664, 14, head=104, ratio=4.9231), _text(1280, 20, 32)),
    "ViT-e-14": (1280, _vit(56, 1792, 14, head=112, ratio=8.5715), _text(1280, 20, 36)),
}
