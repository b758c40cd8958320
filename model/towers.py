"""The two towers of a model, of CLIP's kind or SigLIP's, and what brings their features into one space."""

from typing import Any, NamedTuple

from torch import nn
from transformers import CLIPVisionModel, SiglipVisionModel

from clipvip.model.config import ClipVipConfig
from clipvip.model.encoder import VideoTransformer
from clipvip.model.layer import use_fast_layers
from clipvip.model.siglip import SiglipTextTransformer, SiglipVideoTransformer
from clipvip.model.text import TextTransformer
from clipvip.model.variants import JOINT_ENCODERS


class Towers(NamedTuple):
    """`vision` encodes videos where the encoder is one of JOINT_ENCODERS, else images."""

    text: nn.Module
    vision: nn.Module
    visual_projection: nn.Module
    text_projection: nn.Module


def towers_of(config: ClipVipConfig) -> Towers:
    """The towers that a configuration asks for. SigLIP's heads give features in the shared space already."""
    text: Any = config.text_config
    vision: Any = config.vision_config
    is_joint = config.encoder in JOINT_ENCODERS
    # In this order, by which random numbers are drawn.
    if config.is_siglip:
        texts: nn.Module = SiglipTextTransformer(text)
        images: nn.Module = (
            SiglipVideoTransformer(config) if is_joint else SiglipVisionModel._from_config(vision)
        )
        return Towers(texts, images, nn.Identity(), nn.Identity())
    texts = TextTransformer._from_config(text)
    images = VideoTransformer(config) if is_joint else CLIPVisionModel._from_config(vision)
    use_fast_layers(images)
    return Towers(
        texts,
        images,
        nn.Linear(vision.hidden_size, config.projection_dim, bias=False),
        nn.Linear(text.hidden_size, config.projection_dim, bias=False),
    )
