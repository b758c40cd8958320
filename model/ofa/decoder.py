"""OFA's text decoder: causal self-attention, attention to the encoder, tied output projection."""

from typing import cast

import torch
from torch import Tensor, nn
from transformers import EncoderDecoderCache

from clipvip.model.ofa.attention import Attention, FeedForward, attention_scale, position_bias
from clipvip.model.ofa.config import OfaConfig
from clipvip.model.ofa.encoder import OfaEncoderOutput, relative_tables
from clipvip.model.ofa.positions import token_buckets


class DecoderLayer(FeedForward):
    """Self-attention, cross-attention and feed-forward, each with a LayerNorm before and one inside."""

    def __init__(self, config: OfaConfig) -> None:
        super().__init__()
        width, heads = config.d_model, config.decoder_attention_heads
        self.self_attn = Attention(width, heads, config.attn_scale_factor)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.self_attn_mid_layer_norm = nn.LayerNorm(width)
        self.cross_attn = Attention(width, heads, config.attn_scale_factor)
        self.cross_attn_layer_norm = nn.LayerNorm(width)
        self.cross_attn_mid_layer_norm = nn.LayerNorm(width)
        self.add_feed_forward(width, config.decoder_ffn_dim, config.dropout)

    def forward(
        self,
        x: Tensor,
        *,
        index: int,
        cache: EncoderDecoderCache | None,
        self_bias: Tensor,
        cross: tuple[Tensor, Tensor],
        cross_bias: Tensor,
    ) -> Tensor:
        normed = self.self_attn_layer_norm(x)
        keys, values = self.self_attn.keys_and_values(normed)
        if cache is not None:
            keys, values = cache.self_attention_cache.update(keys, values, index)
        x = x + self.dropout(self.self_attn_mid_layer_norm(self.self_attn(normed, keys, values, self_bias)))
        attended = self.cross_attn(self.cross_attn_layer_norm(x), *cross, cross_bias)
        x = x + self.dropout(self.cross_attn_mid_layer_norm(attended))
        return self.feed_forward(x)


class OfaDecoder(nn.Module):
    """Text tokens to logits."""

    def __init__(self, config: OfaConfig) -> None:
        super().__init__()
        self.config = config
        width, heads = config.d_model, config.decoder_attention_heads
        self.heads = heads
        self.embed_tokens = nn.Embedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        self.layernorm_embedding = nn.LayerNorm(width)
        self.embed_positions = nn.Embedding(config.max_position_embeddings + 2, width)
        self.pos_ln = nn.LayerNorm(width)
        self.self_pos_q_linear = nn.Linear(width, width)
        self.self_pos_k_linear = nn.Linear(width, width)
        self.cross_pos_q_linear = nn.Linear(width, width)
        self.cross_pos_k_linear = nn.Linear(width, width)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.attention_scale = attention_scale(width, heads, config.attn_scale_factor)
        self.layer_norm = nn.LayerNorm(width)
        self.output_projection = nn.Linear(width, config.vocab_size, bias=False)
        token_distances, image_distances = config.num_distances
        self.token_rel_pos_table_list = relative_tables(token_distances, heads, len(self.layers))
        # Only for generating images as codes; part of every published checkpoint.
        self.embed_image_positions = nn.Embedding(config.image_bucket_size**2 + 1, width)
        self.image_pos_ln = nn.LayerNorm(width)
        self.code_layernorm_embedding = nn.LayerNorm(width)
        self.image_rel_pos_table_list = relative_tables(image_distances, heads, len(self.layers))

    def forward(
        self,
        input_ids: Tensor,
        encoder: OfaEncoderOutput,
        *,
        cache: EncoderDecoderCache | None = None,
        output_hidden_states: bool = False,
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """Logits (rows, length, vocabulary) of the tokens that follow each of `input_ids` (rows, length).

        `encoder` has one entry per image; rows are its beams, those of one image next to each other.
        """
        length = input_ids.shape[1]
        seen = cache.self_attention_cache.get_seq_length() if cache is not None else 0
        x = self.dropout(self.layernorm_embedding(self.embed_tokens(input_ids)))
        positions = self.pos_ln(self.embed_positions.weight[: seen + length])[None]
        self_bias = self._self_bias(positions, length)
        cross = self.cross_states(encoder)
        cross_bias = self._cross_bias(positions[:, seen:], encoder)
        buckets = token_buckets(length, seen + length, self.config.token_bucket_size, device=input_ids.device)
        states = [x]
        for index, layer in enumerate(self.layers):
            x = layer(
                x,
                index=index,
                cache=cache,
                self_bias=self_bias + self.token_rel_pos_table_list[index](buckets).permute(2, 0, 1),
                cross=(cross[0][:, index], cross[1][:, index]),
                cross_bias=cross_bias,
            )
            states.append(x)
        logits = self.output_projection(self.layer_norm(x))
        return logits, tuple(states) if output_hidden_states else None

    def cross_states(self, encoder: OfaEncoderOutput) -> tuple[Tensor, Tensor]:
        """Keys and values of all layers' cross-attention, kept in `encoder` for the next step."""
        if encoder.cross_keys is None or encoder.cross_values is None:
            states = cast(Tensor, encoder.last_hidden_state)
            pairs = [cast(DecoderLayer, layer).cross_attn.keys_and_values(states) for layer in self.layers]
            encoder["cross_keys"] = torch.stack([keys for keys, _ in pairs], dim=1)
            encoder["cross_values"] = torch.stack([values for _, values in pairs], dim=1)
            encoder["cross_position_keys"] = self.cross_pos_k_linear(encoder.position_embedding)
        assert encoder.cross_keys is not None and encoder.cross_values is not None
        return encoder.cross_keys, encoder.cross_values

    def _self_bias(self, positions: Tensor, length: int) -> Tensor:
        """(1, heads, length, keys): positions against positions, and no look ahead."""
        keys = positions.shape[1]
        queries = self.self_pos_q_linear(positions[:, keys - length :])
        bias = position_bias(queries, self.self_pos_k_linear(positions), self.heads, self.attention_scale)
        ahead = torch.ones(length, keys, dtype=torch.bool, device=bias.device).triu(keys - length + 1)
        return bias.masked_fill(ahead, torch.finfo(bias.dtype).min)

    def _cross_bias(self, positions: Tensor, encoder: OfaEncoderOutput) -> Tensor:
        """(1 or batch, heads, length, S): positions against the encoder's, and no padding."""
        keys = cast(Tensor, encoder.cross_position_keys)
        bias = position_bias(self.cross_pos_q_linear(positions), keys, self.heads, self.attention_scale)
        return bias if encoder.key_mask is None else bias + encoder.key_mask
