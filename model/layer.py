"""CLIP's transformer layer with fewer passes over memory: transformers' parameters and results."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.clip.modeling_clip import CLIPMLP, CLIPAttention, CLIPEncoderLayer

from clipvip.model.attention import attend, by_frame, proxy_guided_attention
from clipvip.model.frame_attention import frame_attention, has_kernel
from clipvip.model.linear import linear, prefers_convolution


class TransformerLayer(CLIPEncoderLayer):
    """A layer of CLIP that takes queries, keys and values out of one product.

    Under autocast what a LayerNorm gives is so cast once, not for each of three products, and its gradient
    is one product, not a sum of three.
    """

    # Where proxy-guided attention takes all frames in one kernel. A processor can, but two pieces are faster.
    frame_kernel_on: tuple[str, ...] = ("cuda", "meta")

    def forward(  # type: ignore[override]
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        *,
        is_causal: bool = False,
        num_proxies: int = 0,
        num_frames: int = 0,
        **_: Any,
    ) -> Tensor:
        """(batch, tokens, width) -> the same.

        Args:
            attention_mask: boolean, broadcast to (batch, heads, tokens, tokens), True where query sees key.
            is_causal: a token sees none that come after it; not with `attention_mask`.
            num_proxies, num_frames: tokens are those of a video, under the mask of Eq. 2.
        """
        attention, layout = self.self_attn, {"num_proxies": num_proxies, "num_frames": num_frames}
        how = {"scale": attention.scale, "dropout": self._dropout()}
        normed = self.layer_norm1(hidden_states)
        if num_frames > 1 and self._takes_frames_at_once(normed):
            hidden_states = hidden_states + self.by_frame(normed, **layout)
            return hidden_states + self.mlp(self.layer_norm2(hidden_states))
        query, key, value = project(attention, normed).unbind(-3)
        del normed  # without gradients its memory is used again
        if num_frames:
            mixed = proxy_guided_attention(query, key, value, **layout, **how)
        else:
            mixed = attend(query, key, value, mask=attention_mask, is_causal=is_causal, **how)
        del query, key, value
        hidden_states = hidden_states + attention.out_proj(mixed.flatten(2))
        del mixed
        return hidden_states + self.mlp(self.layer_norm2(hidden_states))

    def by_frame(self, normed: Tensor, *, num_proxies: int, num_frames: int) -> Tensor:
        """Proxy-guided attention of all frames in one kernel: (batch, tokens, width) -> the same."""
        attention, out = self.self_attn, self.self_attn.out_proj
        device = "cuda" if normed.is_meta else normed.device.type  # of which torch knows no autocast
        if torch.is_autocast_enabled(device):  # before it is copied
            normed = normed.to(torch.get_autocast_dtype(device))
        heads = project(attention, by_frame(normed, num_proxies, num_frames))
        return frame_attention(
            heads,
            out.weight.to(heads.dtype),
            out.bias.to(heads.dtype),
            num_proxies=num_proxies,
            num_frames=num_frames,
            scale=attention.scale,
        )

    def first_token(self, hidden_states: Tensor) -> Tensor:
        """What becomes of token 0, where it sees all: (batch, tokens, width) -> (batch, width)."""
        attention = self.self_attn
        normed = self.layer_norm1(hidden_states)
        query = split_heads(attention, attention.q_proj(normed[:, :1]))
        key, value = project(attention, normed, ("k_proj", "v_proj")).unbind(-3)
        mixed = attend(query, key, value, scale=attention.scale, dropout=self._dropout())
        token = hidden_states[:, 0] + attention.out_proj(mixed.flatten(1))
        return token + self.mlp(self.layer_norm2(token))

    def _takes_frames_at_once(self, normed: Tensor) -> bool:
        is_there = normed.device.type in self.frame_kernel_on and has_kernel(normed, self.self_attn.head_dim)
        return is_there and not self._dropout()

    def _dropout(self) -> float:
        return float(self.self_attn.dropout or 0.0) if self.training else 0.0


def project(
    attention: CLIPAttention, hidden: Tensor, names: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
) -> Tensor:
    """(batch, tokens, width) -> (batch, tokens, names, heads, head width)."""
    parts = [getattr(attention, name) for name in names]
    weight, bias = (torch.cat([getattr(part, kind) for part in parts]) for kind in ("weight", "bias"))
    return linear(hidden, weight, bias).unflatten(-1, (len(parts), -1, attention.head_dim))


def split_heads(attention: CLIPAttention, x: Tensor) -> Tensor:
    """(..., width) -> (..., heads, head width)."""
    return x.unflatten(-1, (attention.num_heads, attention.head_dim))


class QuickGeluMLP(CLIPMLP):
    """CLIP's MLP with its activation h * sigmoid(1.702 h), written silu(1.702 h) / 1.702.

    The factors go into the weights, or are multiplied where the tensor is narrow: one pass over the inner
    tensor instead of three, and the gradient keeps two inner tensors instead of three.
    """

    FACTOR = 1.702

    def forward(self, hidden_states: Tensor) -> Tensor:
        rows = hidden_states.flatten(0, -2)
        compute = self.on_processor if rows.device.type == "cpu" else self.with_folded_factors
        return compute(rows).view_as(hidden_states)

    def on_processor(self, rows: Tensor) -> Tensor:
        """(n, width) -> (n, width), the weights as they are."""
        if prefers_convolution(rows, self.fc1.weight):
            inner = linear(rows * self.FACTOR, self.fc1.weight, self.fc1.bias * self.FACTOR)
            # Without gradients nobody needs what it is made of.
            outer = linear(F.silu(inner, inplace=not inner.requires_grad), self.fc2.weight)
            return torch.add(self.fc2.bias, outer, alpha=1 / self.FACTOR)
        inner = torch.addmm(self.fc1.bias, rows, self.fc1.weight.T, beta=self.FACTOR, alpha=self.FACTOR)
        return torch.addmm(self.fc2.bias, F.silu(inner), self.fc2.weight.T, alpha=1 / self.FACTOR)

    def with_folded_factors(self, rows: Tensor) -> Tensor:
        """The same for GPUs, where a product's own factor costs its gradient a pass over the inner tensor."""
        inner = F.linear(rows, self.fc1.weight * self.FACTOR, self.fc1.bias * self.FACTOR)
        return F.linear(F.silu(inner), self.fc2.weight * (1 / self.FACTOR), self.fc2.bias)


def use_fast_layers(module: nn.Module) -> None:
    """Let every plain layer of CLIP in `module` compute as above; names and parameters stay."""
    for part in module.modules():
        if type(part) is CLIPEncoderLayer:
            part.__class__ = TransformerLayer
            if part.self_attn.config.hidden_act == "quick_gelu":
                part.mlp.__class__ = QuickGeluMLP
