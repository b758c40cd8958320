"""Video encoders of one transformer: ViP (proxies, Eq. 1 and 2) and the full-attention row of Table 2.

Both are CLIP's own modules behind an embedding that adds proxies and temporal positions. Submodules have
CLIP's names, so that a CLIP checkpoint's image tower loads as it is.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPEncoder, CLIPVisionEmbeddings

from clipvip.model.config import ClipVipConfig
from clipvip.model.layer import TransformerLayer, use_fast_layers
from clipvip.model.seen import EVERYTHING, Seen

# Of what keeps proxies apart that begin as copies of the class embedding.
PROXY_NOISE = 0.02


class VideoEmbeddings(CLIPVisionEmbeddings):
    """Patches with spatial and temporal positions, behind M proxy tokens (Eq. 1).

    The first proxy is CLIP's class embedding. All proxies get CLIP's position 0 and no temporal position.
    """

    def __init__(self, config: CLIPVisionConfig, *, num_proxies: int, temporal_size: int) -> None:
        super().__init__(config)
        self.added_cls = nn.Parameter(torch.randn(num_proxies - 1, self.embed_dim))
        self.temporal_embedding = nn.Parameter(torch.zeros(1, temporal_size, self.embed_dim))

    def class_copies(self) -> Tensor:
        """Further proxies, each the class embedding with noise of its own: (proxies - 1, width)."""
        return self.class_embedding + PROXY_NOISE * torch.randn_like(self.added_cls)

    def forward(  # type: ignore[override]
        self, pixel_values: Tensor, *, seen: Seen = EVERYTHING
    ) -> Tensor:
        """(batch, frames, 3, height, width) -> (batch, proxies + frames * patches, width)."""
        batch, num_frames = pixel_values.shape[:2]
        patches = embed_patches(pixel_values, self.patch_embedding)
        positions = self.position_embedding.weight
        temporal = seen.of_frames(self.temporal_positions(seen.num_frames or num_frames))
        patches = seen.of_patches(patches + positions[1:] + temporal[:, :, None])
        proxies = torch.cat([self.class_embedding[None], self.added_cls]) + positions[0]
        return torch.cat([proxies.expand(batch, -1, -1), patches.flatten(1, 2)], dim=1)

    def temporal_positions(self, num_frames: int) -> Tensor:
        """(1, num_frames, width): the table, linearly interpolated; an image, one frame, gets its middle."""
        return interpolate_frames(self.temporal_embedding, num_frames)


def interpolate_frames(table: Tensor, num_frames: int) -> Tensor:
    """(1, frames, width) -> (1, num_frames, width), linearly interpolated."""
    if num_frames == table.shape[1]:
        return table
    return F.interpolate(table.transpose(1, 2), size=num_frames, mode="linear").transpose(1, 2)


def embed_patches(pixel_values: Tensor, convolution: nn.Conv2d) -> Tensor:
    """(batch, frames, 3, height, width) -> (batch, frames, patches, width).

    CLIP's convolution is a matrix product of each patch. On a GPU it is computed as one: for three channels
    cuDNN uses no tensor cores (28 of a step's 289 ms on an H100).
    """
    images = pixel_values.flatten(0, 1).to(convolution.weight.dtype)
    if images.device.type == "cpu":
        patches = convolution(images).flatten(2).transpose(1, 2)
    else:
        patches = patches_as_product(images, convolution.weight)
        if convolution.bias is not None:
            patches = patches + convolution.bias
    return patches.unflatten(0, pixel_values.shape[:2])


def patches_as_product(images: Tensor, weight: Tensor) -> Tensor:
    """A convolution by `weight` (width, 3, size, size) with stride `size`, as (n, patches, width)."""
    size = weight.shape[-1]
    # (n, 3, rows, size, columns, size) -> (n, rows, columns, 3, size, size)
    grid = images.unflatten(3, (-1, size)).unflatten(2, (-1, size)).permute(0, 2, 4, 1, 3, 5)
    return F.linear(grid.flatten(3).flatten(1, 2), weight.flatten(1))


class VideoTransformer(nn.Module):
    """CLIP's image transformer over all tokens of a video."""

    def __init__(self, config: ClipVipConfig) -> None:
        super().__init__()
        vision = config.vision_config
        self.is_proxy_guided = config.encoder == "vip"
        self.num_proxies = config.num_proxies
        self.embeddings = VideoEmbeddings(
            vision, num_proxies=config.num_proxies, temporal_size=config.temporal_size
        )
        self.pre_layrnorm = nn.LayerNorm(vision.hidden_size, eps=vision.layer_norm_eps)
        self.encoder = CLIPEncoder(vision)
        use_fast_layers(self.encoder)
        self.post_layernorm = nn.LayerNorm(vision.hidden_size, eps=vision.layer_norm_eps)

    def forward(
        self, pixel_values: Tensor, *, feature_only: bool = False, seen: Seen = EVERYTHING
    ) -> tuple[Tensor | None, Tensor]:
        """Encode (batch, frames, 3, height, width), of which `seen` says what is left out.

        Args:
            feature_only: leave out what the last layer makes of all tokens but the first: the same feature
                for 1/14 less in a model of 12 layers.

        Returns:
            All tokens before the last LayerNorm (batch, proxies + frames * patches, width), or None, and the
            video's feature, proxy 1 after it (batch, width).
        """
        hidden = self.pre_layrnorm(self.embeddings(pixel_values, seen=seen))
        layout = {"num_proxies": self.num_proxies, "num_frames": pixel_values.shape[1]}
        if not self.is_proxy_guided:
            layout = {}
        *layers, last = self.encoder.layers
        for layer in layers:
            hidden = layer(hidden, **layout)
        if feature_only:
            return None, self.post_layernorm(cast(TransformerLayer, last).first_token(hidden))
        hidden = last(hidden, **layout)
        return hidden, self.post_layernorm(hidden[:, 0])
