"""OFA's encoder: image cells, then text tokens, through one transformer."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

from clipvip.model.ofa.attention import Attention, FeedForward, attention_scale, position_bias
from clipvip.model.ofa.config import OfaConfig
from clipvip.model.ofa.positions import image_buckets, image_position_ids, token_buckets
from clipvip.model.ofa.resnet import ResNet


@dataclass
class OfaEncoderOutput(ModelOutput):
    """What the decoder needs of the encoder. S is cells + tokens.

    last_hidden_state: (batch, S, width), after the last LayerNorm.
    padding_mask: (batch, S) bool, true where a text token is padding.
    key_mask: the same to be added to logits, (batch, 1, 1, S); None where nothing is padding.
    position_embedding: (1, S, width), normalised; the same for all samples.
    hidden_states: if asked for, embeddings and the output of each layer.
    cross_keys, cross_values, cross_position_keys: kept by the decoder for the next token: (batch, layers,
        heads, S, head width) twice, and (1, S, width).
    """

    last_hidden_state: Tensor | None = None
    padding_mask: Tensor | None = None
    key_mask: Tensor | None = None
    position_embedding: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    cross_keys: Tensor | None = None
    cross_values: Tensor | None = None
    cross_position_keys: Tensor | None = None


class EncoderLayer(FeedForward):
    """Self-attention and feed-forward with a LayerNorm before and one inside each (normformer)."""

    def __init__(self, config: OfaConfig) -> None:
        super().__init__()
        width = config.d_model
        self.self_attn = Attention(width, config.encoder_attention_heads, config.attn_scale_factor)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.self_attn_mid_layer_norm = nn.LayerNorm(width)
        self.add_feed_forward(width, config.encoder_ffn_dim, config.dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        normed = self.self_attn_layer_norm(x)
        keys, values = self.self_attn.keys_and_values(normed)
        x = x + self.dropout(self.self_attn_mid_layer_norm(self.self_attn(normed, keys, values, bias)))
        return self.feed_forward(x)


class OfaEncoder(nn.Module):
    """Encode images and a text each."""

    main_input_name = "input_ids"

    def __init__(self, config: OfaConfig) -> None:
        super().__init__()
        self.config = config
        width, heads = config.d_model, config.encoder_attention_heads
        cells = config.image_bucket_size**2 + 1
        self.embed_tokens = nn.Embedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        self.layernorm_embedding = nn.LayerNorm(width)
        self.type_embedding = nn.Embedding(2, width)
        self.embed_images = ResNet(config)
        self.image_proj = nn.Linear(16 * config.resnet_width, width)
        self.patch_layernorm_embedding = nn.LayerNorm(width)
        self.embed_positions = nn.Embedding(config.max_position_embeddings + 2, width)
        self.embed_image_positions = nn.Embedding(cells, width)
        self.pos_ln = nn.LayerNorm(width)
        self.image_pos_ln = nn.LayerNorm(width)
        self.pos_q_linear = nn.Linear(width, width)
        self.pos_k_linear = nn.Linear(width, width)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.attention_scale = attention_scale(width, heads, config.attn_scale_factor)
        self.layer_norm = nn.LayerNorm(width)
        token_distances, image_distances = config.num_distances
        self.token_rel_pos_table_list = relative_tables(token_distances, heads, len(self.layers))
        self.image_rel_pos_table_list = relative_tables(image_distances, heads, len(self.layers))

    def forward(
        self,
        input_ids: Tensor,
        patch_images: Tensor,
        patch_masks: Tensor | None = None,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool = False,
        **_: object,
    ) -> OfaEncoderOutput:
        """Encode (batch, tokens) ids and (batch, 3, height, width) images.

        `patch_masks` changes nothing, as in the published model, whose callers pass it. `attention_mask`
        (batch, tokens) is by default true where the id is not the padding's.

        Raises:
            ValueError: the image is larger than the model's grid.
        """
        features = self.embed_images(patch_images)
        grid = features.shape[-2:]
        text_padding = (
            input_ids == self.config.pad_token_id if attention_mask is None else attention_mask == 0
        )
        padding = F.pad(text_padding, (grid.numel(), 0), value=False)

        cells = self.image_proj(features.flatten(2).transpose(1, 2)) + self.type_embedding.weight[1]
        tokens = self.layernorm_embedding(self.embed_tokens(input_ids) + self.type_embedding.weight[0])
        tokens = self.dropout(tokens).masked_fill(text_padding[..., None], 0.0)
        x = torch.cat([self.dropout(self.patch_layernorm_embedding(cells)), tokens], dim=1)

        positions = self.positions(grid, input_ids.shape[1])
        heads = self.config.encoder_attention_heads
        absolute = position_bias(
            self.pos_q_linear(positions), self.pos_k_linear(positions), heads, self.attention_scale
        )
        sizes, num_tokens, device = self.config, input_ids.shape[1], x.device
        of_cells = image_buckets(grid[0], grid[1], sizes.image_bucket_size, device=device)
        of_tokens = token_buckets(num_tokens, num_tokens, sizes.token_bucket_size, device=device)
        key_mask = None
        if padding.any():
            none = torch.zeros_like(padding, dtype=x.dtype)
            key_mask = none.masked_fill(padding, torch.finfo(x.dtype).min)[:, None, None, :]
        states = [x]
        for index, layer in enumerate(self.layers):
            cells, tokens = self.image_rel_pos_table_list[index], self.token_rel_pos_table_list[index]
            bias = add_relative(absolute, cells(of_cells), tokens(of_tokens))
            x = layer(x, bias if key_mask is None else bias + key_mask)
            states.append(x)
        return OfaEncoderOutput(
            last_hidden_state=self.layer_norm(x),
            padding_mask=padding,
            key_mask=key_mask,
            position_embedding=positions,
            hidden_states=tuple(states) if output_hidden_states else None,
        )

    def positions(self, grid: torch.Size, num_tokens: int) -> Tensor:
        """Normalised position vectors of cells and tokens: (1, S, width)."""
        device = self.pos_ln.weight.device
        ids = image_position_ids(grid[0], grid[1], self.config.image_bucket_size, device=device)
        cells = self.image_pos_ln(self.embed_image_positions(ids))
        tokens = self.pos_ln(self.embed_positions.weight[:num_tokens])
        return torch.cat([cells, tokens])[None]


def add_relative(absolute: Tensor, of_cells: Tensor, of_tokens: Tensor) -> Tensor:
    """(1, heads, S, S) of positions, and on it what pairs of cells and pairs of tokens add.

    These are (cells, cells, heads) and (tokens, tokens, heads); between the two kinds nothing is added.
    """
    bias, num_cells = absolute.clone(), len(of_cells)
    bias[..., :num_cells, :num_cells] += of_cells.permute(2, 0, 1)
    bias[..., num_cells:, num_cells:] += of_tokens.permute(2, 0, 1)
    return bias


def relative_tables(num_buckets: int, num_heads: int, num_layers: int) -> nn.ModuleList:
    """One table of biases per layer."""
    return nn.ModuleList(nn.Embedding(num_buckets, num_heads) for _ in range(num_layers))
