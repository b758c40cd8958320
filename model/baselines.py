"""The baselines of Table 2 that encode frames one by one: mean pooling, and a transformer over frames."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipvip.model.seen import EVERYTHING, Seen


def mean_pool(frames: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of the L2-normalised frame features, L2-normalised again.

    Args:
        frames: (batch, frames, dim).
        mask: (batch, frames), true where a frame is real; None where all are.

    Returns:
        (batch, dim).
    """
    frames = F.normalize(frames, dim=-1)
    if mask is None:
        return F.normalize(frames.mean(dim=1), dim=-1)
    weights = mask.to(frames.dtype)[..., None]
    return F.normalize((frames * weights).sum(dim=1) / weights.sum(dim=1), dim=-1)


class FrameTransformer(nn.Module):
    """CLIP4Clip's head: a small transformer over frame features with a residual around it (seqTransf)."""

    # CLIP4Clip's own LayerNorm, not CLIP's 1e-5.
    LAYER_NORM_EPS = 1e-12

    def __init__(self, width: int, *, num_layers: int, num_heads: int, max_frames: int) -> None:
        super().__init__()
        self.frame_position_embeddings = nn.Embedding(max_frames, width)
        self.blocks = nn.ModuleList(FrameBlock(width, num_heads) for _ in range(num_layers))

    def forward(self, frames: Tensor, mask: Tensor | None = None, *, seen: Seen = EVERYTHING) -> Tensor:
        """(batch, frames, width) -> (batch, frames, width); masked frames are never attended to.

        Frames have the positions that `seen` says.

        Computed in float32 also under autocast: a video has a dozen tokens here, and bfloat16 would double
        the error of all gradients behind it.

        Raises:
            ValueError: more frames than positions.
        """
        device = frames.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                return self.forward(frames.float(), mask, seen=seen)
        num_frames = seen.num_frames or frames.shape[1]
        self.check_length(num_frames)
        hidden = frames + seen.of_frames(self.frame_position_embeddings.weight[None, :num_frames])
        for block in self.blocks:
            hidden = block(hidden, mask)
        return hidden + frames

    def check_length(self, num_frames: int) -> None:
        """ValueError where there are more frames than positions."""
        most = self.frame_position_embeddings.num_embeddings
        if num_frames > most:
            raise ValueError(f"{num_frames} frames, but the frame transformer has {most} positions")

    @torch.no_grad()
    def start_from_text_tower(self, text_model: Any) -> None:
        """Start from CLIP's first text blocks and positions, as CLIP4Clip does where the widths agree."""
        embeddings = text_model.embeddings.position_embedding.weight
        if embeddings.shape[1] != self.frame_position_embeddings.weight.shape[1]:
            return
        count = min(len(embeddings), len(self.frame_position_embeddings.weight))
        self.frame_position_embeddings.weight[:count] = embeddings[:count]
        for block, layer in zip(self.blocks, text_model.encoder.layers, strict=False):
            cast(FrameBlock, block).start_from(layer)


class FrameBlock(nn.Module):
    """A pre-norm transformer block with CLIP's activation."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.ln_1 = nn.LayerNorm(width, eps=FrameTransformer.LAYER_NORM_EPS)
        self.ln_2 = nn.LayerNorm(width, eps=FrameTransformer.LAYER_NORM_EPS)
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        normed = self.ln_1(hidden)
        ignored = None if mask is None else ~mask.bool()
        attended, _ = self.attn(normed, normed, normed, key_padding_mask=ignored, need_weights=False)
        hidden = hidden + attended
        inner = self.c_fc(self.ln_2(hidden))
        return hidden + self.c_proj(inner * torch.sigmoid(1.702 * inner))

    def start_from(self, layer: Any) -> None:
        """Copy one of CLIP's transformer layers of the same width."""
        attention = layer.self_attn
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        self.attn.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        self.attn.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        self.attn.out_proj.load_state_dict(attention.out_proj.state_dict())
        self.ln_1.load_state_dict(layer.layer_norm1.state_dict())
        self.ln_2.load_state_dict(layer.layer_norm2.state_dict())
        if layer.mlp.fc1.weight.shape == self.c_fc.weight.shape:
            self.c_fc.load_state_dict(layer.mlp.fc1.state_dict())
            self.c_proj.load_state_dict(layer.mlp.fc2.state_dict())
