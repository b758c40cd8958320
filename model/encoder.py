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

    def forward(self, pixel_values: Tensor, interpolate_pos_encoding: bool = False) -> Tensor:
        """(batch, frames, 3, height, width) -> (batch, proxies + frames * patches, width)."""
        batch, num_frames = pixel_values.shape[:2]
        images = pixel_values.flatten(0, 1).to(self.patch_embedding.weight.dtype)
        patches = self.embed_patches(images).unflatten(0, (batch, num_frames))
        positions = self.position_embedding.weight
        patches = patches + positions[1:] + self.temporal_positions(num_frames)[:, :, None]
        proxies = torch.cat([self.class_embedding[None], self.added_cls]) + positions[0]
        return torch.cat([proxies.expand(batch, -1, -1), patches.flatten(1, 2)], dim=1)

    def embed_patches(self, images: Tensor) -> Tensor:
        """(n, 3, height, width) -> (n, patches, width).

        CLIP's convolution is a matrix product of each patch. On a GPU it is computed as one: for three
        channels cuDNN uses no tensor cores (28 of a step's 289 ms on an H100).
        """
        if images.device.type == "cpu":
            return self.patch_embedding(images).flatten(2).transpose(1, 2)
        return patches_as_product(images, self.patch_embedding.weight)

    def temporal_positions(self, num_frames: int) -> Tensor:
        """(1, num_frames, width): the table, linearly interpolated; an image, one frame, gets its middle."""
        return interpolate_frames(self.temporal_embedding, num_frames)


def interpolate_frames(table: Tensor, num_frames: int) -> Tensor:
    """(1, frames, width) -> (1, num_frames, width), linearly interpolated."""
    if num_frames == table.shape[1]:
        return table
    return F.interpolate(table.transpose(1, 2), size=num_frames, mode="linear").transpose(1, 2)


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

    def forward(self, pixel_values: Tensor, *, feature_only: bool = False) -> tuple[Tensor | None, Tensor]:
        """Encode (batch, frames, 3, height, width).

        Args:
            feature_only: leave out what the last layer makes of all tokens but the first: the same feature
                for 1/14 less in a model of 12 layers.

        Returns:
            All tokens before the last LayerNorm (batch, proxies + frames * patches, width), or None, and the
            video's feature, proxy 1 after it (batch, width).
        """
        hidden = self.pre_layrnorm(self.embeddings(pixel_values))
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
