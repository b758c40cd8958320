"""OFA's attention: a bias of positions on the logits, and a learned factor on each head's output."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(batch, length, width) -> (batch, heads, length, width / heads)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def position_bias(query: Tensor, key: Tensor, num_heads: int, scale: float) -> Tensor:
    """Logits of positions against positions: (1, queries, width) and (1, keys, width) to (1, heads, q, k)."""
    return (split_heads(query, num_heads) * scale) @ split_heads(key, num_heads).transpose(-1, -2)


def attention_scale(width: int, num_heads: int, scale_factor: float) -> float:
    """Factor on queries: 1 / sqrt(2 * head width), as positions are added to them."""
    return float((width // num_heads * scale_factor) ** -0.5)


class Attention(nn.Module):
    """Multi-head attention with a factor on each head."""

    def __init__(self, width: int, num_heads: int, scale_factor: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = attention_scale(width, num_heads, scale_factor)
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.c_attn = nn.Parameter(torch.ones(num_heads))

    def keys_and_values(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, length, width) -> two of (batch, heads, length, head width)."""
        keys, values = self.k_proj(states), self.v_proj(states)
        return split_heads(keys, self.num_heads), split_heads(values, self.num_heads)

    def forward(self, hidden: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """Attend from `hidden` (rows, length, width).

        `keys` and `values` may have fewer rows: then each serves as many consecutive rows of `hidden`, the
        beams of one image. `bias` is added to the logits and broadcasts to (batch, heads, length, keys).
        """
        rows, length, width = hidden.shape
        batch = keys.shape[0]
        # Beams become further queries, so that an image's keys are read once for all of them: the next token
        # of 8 images in 5 beams, (40, 1, width), asks as (8, heads, 5, head width).
        queries = split_heads(self.q_proj(hidden).reshape(batch, -1, width), self.num_heads)
        if rows != batch:
            bias = bias.repeat(1, 1, rows // batch, 1)
        output = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias, scale=self.scale)
        output = output * self.c_attn[:, None, None]
        return self.out_proj(output.transpose(1, 2).reshape(rows, length, width))


class FeedForward(nn.Module):
    """Not a submodule of its own in checkpoints: the layers below hold these parts under OFA's names."""

    def add_feed_forward(self, width: int, inner: int, dropout: float) -> None:
        self.dropout = nn.Dropout(dropout)
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)
        self.ffn_layer_norm = nn.LayerNorm(inner)
        self.final_layer_norm = nn.LayerNorm(width)

    def feed_forward(self, x: Tensor) -> Tensor:
        inner = self.ffn_layer_norm(F.gelu(self.fc1(self.final_layer_norm(x))))
        return x + self.dropout(self.fc2(inner))
