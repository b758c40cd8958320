"""OFA for inference with one prompt: what the loaded model computes, in fewer and larger kernels.

Never saved. BatchNorm is in the convolutions, the factors of heads in the products after them, queries, keys
and values are one product, and all that depends on positions alone is computed once: the image's grid, the
prompt and the greatest length are fixed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipvip.model.linear import Linear, linear
from clipvip.model.ofa.attention import Attention, position_bias, split_heads
from clipvip.model.ofa.decoder import DecoderLayer, OfaDecoder
from clipvip.model.ofa.encoder import EncoderLayer, OfaEncoder, add_relative
from clipvip.model.ofa.folded_resnet import FoldedResNet
from clipvip.model.ofa.model import OfaForConditionalGeneration
from clipvip.model.ofa.positions import image_buckets, token_buckets

# A GPU's attention reads rows of biases in steps of so many numbers, and copies biases that are not so.
_ALIGNED = 8
# Rows of the vocabulary's table: products of an odd size leave the fast kernels of a GPU.
_VOCABULARY_STEP = 64


def aligned(size: int, step: int = _ALIGNED) -> int:
    """`size` or the next multiple of `step`."""
    return -(-size // step) * step


def product(weight: Tensor, bias: Tensor) -> Linear:
    """A linear layer of given weights (out, in)."""
    with torch.device("meta"):
        layer = Linear(weight.shape[1], weight.shape[0])
    layer.weight = nn.Parameter(weight, requires_grad=False)
    layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer


class Products(nn.Module):
    """Several layers with the same input, `fused` into one product.

    That copies their weights, so on a CPU, which gains nothing by it, they stay apart.
    """

    def __init__(self, *layers: nn.Linear, fused: bool) -> None:
        super().__init__()
        self.number = len(layers)
        if fused and len(layers) > 1:
            weight = torch.cat([layer.weight.data for layer in layers])
            self.layers = nn.ModuleList([product(weight, torch.cat([layer.bias.data for layer in layers]))])
        else:
            self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Sequence[Tensor]:
        """The output (..., width) of each."""
        if len(self.layers) == self.number:
            return [layer(x) for layer in self.layers]
        outputs: Sequence[Tensor] = self.layers[0](x).chunk(self.number, dim=-1)
        return outputs


def out_product(attention: Attention) -> nn.Linear:
    """The product after attention, with the factors of the heads in it: in place, which copies nothing."""
    weight = attention.out_proj.weight.data
    weight *= attention.c_attn.data.repeat_interleave(weight.shape[1] // attention.num_heads)
    return attention.out_proj


class FoldedFeedForward(nn.Module):
    """The last part of a layer."""

    def __init__(self, layer: EncoderLayer | DecoderLayer) -> None:
        super().__init__()
        self.norm, self.inner_norm = layer.final_layer_norm, layer.ffn_layer_norm
        self.fc1, self.fc2 = layer.fc1, layer.fc2

    def forward(self, x: Tensor) -> Tensor:
        """What to add to `x`."""
        added: Tensor = self.fc2(self.inner_norm(torch.ops.aten.gelu_(self.fc1(self.norm(x)))))
        return added


class FoldedEncoderLayer(nn.Module):
    def __init__(self, layer: EncoderLayer, *, fused: bool) -> None:
        super().__init__()
        attention = layer.self_attn
        self.num_heads, self.scale = attention.num_heads, attention.scale
        self.norm, self.mid_norm = layer.self_attn_layer_norm, layer.self_attn_mid_layer_norm
        self.qkv = Products(attention.q_proj, attention.k_proj, attention.v_proj, fused=fused)
        self.out = out_product(attention)
        self.feed_forward = FoldedFeedForward(layer)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """(batch, S, width) -> the same, in place."""
        queries, keys, values = (split_heads(part, self.num_heads) for part in self.qkv(self.norm(x)))
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias, scale=self.scale)
        x += self.mid_norm(self.out(attended.transpose(1, 2).flatten(2)))
        x += self.feed_forward(x)
        return x


class FoldedEncoder(nn.Module):
    """Images of one size, each with the same prompt, to (batch, S, width). S is cells + tokens."""

    def __init__(
        self, encoder: OfaEncoder, prompt: Tensor, image_size: int, *, for_gpu: bool, dtype: torch.dtype
    ) -> None:
        super().__init__()
        side = -(-image_size // 16)
        self.grid, num_tokens = torch.Size((side, side)), prompt.shape[1]
        self.num_positions = side * side + num_tokens
        self.resnet = FoldedResNet(encoder.embed_images)
        # The type of cells is a constant after a product, so it goes into the product's.
        self.cells = product(
            encoder.image_proj.weight.data,
            encoder.image_proj.bias.data + encoder.type_embedding.weight.data[1],
        )
        self.cell_norm = encoder.patch_layernorm_embedding
        self.norm = encoder.layer_norm
        tokens = encoder.layernorm_embedding(encoder.embed_tokens(prompt) + encoder.type_embedding.weight[0])
        self.tokens = nn.Buffer(tokens)
        self.biases = EncoderBiases(encoder, self.grid, num_tokens, kept=for_gpu, dtype=dtype)
        self.layers = nn.ModuleList(
            FoldedEncoderLayer(cast(EncoderLayer, layer), fused=for_gpu) for layer in encoder.layers
        )

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, image_size, image_size), normalised."""
        features = self.resnet(images)
        cells = self.cell_norm(self.cells(features.flatten(2).transpose(1, 2)))
        x = torch.cat([cells, self.tokens.expand(len(images), -1, -1)], dim=1)
        for index, layer in enumerate(self.layers):
            x = layer(x, self.biases(index))
        normed: Tensor = self.norm(x)
        return normed


class EncoderBiases(nn.Module):
    """What positions add to the encoder's attention, layer by layer: (1, heads, S, S).

    `kept`: computed once, in aligned rows of `dtype`. Else once a batch, which a CPU hardly notices and which
    needs less memory.
    """

    def __init__(
        self, encoder: OfaEncoder, grid: torch.Size, num_tokens: int, *, kept: bool, dtype: torch.dtype
    ) -> None:
        super().__init__()
        config, positions = encoder.config, encoder.positions(grid, num_tokens)
        device, self.length = positions.device, positions.shape[1]
        query, key = encoder.pos_q_linear(positions), encoder.pos_k_linear(positions)
        self.absolute = nn.Buffer(
            position_bias(query, key, config.encoder_attention_heads, encoder.attention_scale)
        )
        of_cells = image_buckets(grid[0], grid[1], config.image_bucket_size, device=device)
        of_tokens = token_buckets(num_tokens, num_tokens, config.token_bucket_size, device=device)
        self.of_cells, self.of_tokens = nn.Buffer(of_cells), nn.Buffer(of_tokens)
        self.cells, self.tokens = encoder.image_rel_pos_table_list, encoder.token_rel_pos_table_list
        self.kept = nn.ParameterList()
        if kept:
            padding = (0, aligned(self.length) - self.length)
            biases = (F.pad(self._compute(index).to(dtype), padding) for index in range(len(encoder.layers)))
            self.kept.extend(nn.Parameter(bias, requires_grad=False) for bias in biases)
            del self.absolute, self.of_cells, self.of_tokens, self.cells, self.tokens

    def forward(self, layer: int) -> Tensor:
        return self.kept[layer][..., : self.length] if len(self.kept) else self._compute(layer)

    def _compute(self, layer: int) -> Tensor:
        cells, tokens = self.cells[layer](self.of_cells), self.tokens[layer](self.of_tokens)
        return add_relative(self.absolute, cells, tokens)


@dataclass(frozen=True)
class Memory:
    """What the decoder reads and writes, allocated once for all steps.

    own: of each layer (batch, slots, 2, heads, head width): keys and values of the tokens so far. The step
        `t` writes the slots from t * beams on, and none is ever moved: a mask says which a beam may read.
    cross: of each layer (batch, S, 2, heads, head width): keys and values of the encoder, one for all beams.
    """

    own: list[Tensor]
    cross: list[Tensor]


class FoldedDecoderLayer(nn.Module):
    def __init__(self, layer: DecoderLayer, *, fused: bool) -> None:
        super().__init__()
        own, cross = layer.self_attn, layer.cross_attn
        self.num_heads, self.scale = own.num_heads, own.scale
        self.own_norm, self.own_mid_norm = layer.self_attn_layer_norm, layer.self_attn_mid_layer_norm
        self.own_qkv = Products(own.q_proj, own.k_proj, own.v_proj, fused=fused)
        self.own_out = out_product(own)
        self.cross_norm, self.cross_mid_norm = layer.cross_attn_layer_norm, layer.cross_attn_mid_layer_norm
        self.cross_q = cross.q_proj
        self.fused = fused
        self.cross_kv = Products(cross.k_proj, cross.v_proj, fused=fused)
        self.cross_out = out_product(cross)
        self.feed_forward = FoldedFeedForward(layer)

    def forward(
        self, x: Tensor, own: Tensor, first: int, own_bias: Tensor, cross: Tensor, cross_bias: Tensor
    ) -> Tensor:
        """(batch, beams, width) of one step -> the same, in place; `first` is the first slot to write."""
        queries = self._own(self.own_norm(x), own[:, first : first + x.shape[1]])
        attended = self._attend(queries, own[:, : own_bias.shape[-1]], own_bias)
        x += self.own_mid_norm(self.own_out(attended))
        queries = self.cross_q(self.cross_norm(x)).unflatten(-1, (self.num_heads, -1))
        x += self.cross_mid_norm(self.cross_out(self._attend(queries, cross, cross_bias)))
        x += self.feed_forward(x)
        return x

    def _own(self, x: Tensor, slots: Tensor) -> Tensor:
        """The queries of a step; its keys and values go to `slots` (batch, beams, 2, heads, head width)."""
        if self.fused:  # both in one kernel
            qkv = self.own_qkv.layers[0](x).unflatten(-1, (3, self.num_heads, -1))
            slots.copy_(qkv[:, :, 1:])
            return qkv[:, :, 0]
        queries, *others = (part.unflatten(-1, (self.num_heads, -1)) for part in self.own_qkv(x))
        for number, part in enumerate(others):
            slots[:, :, number] = part
        return queries

    def remember(self, states: Tensor, cross: Tensor) -> None:
        """Write the keys and values of the encoder's (batch, S, width)."""
        if self.fused:
            joint = cast(nn.Linear, self.cross_kv.layers[0])
            out = cross.flatten(2).flatten(0, 1)
            torch.addmm(joint.bias, states.flatten(0, 1), joint.weight.t(), out=out)
            return
        for number, part in enumerate(self.cross_kv(states)):
            cross[:, :, number] = part.unflatten(-1, (self.num_heads, -1))

    def _attend(self, queries: Tensor, keys_values: Tensor, bias: Tensor) -> Tensor:
        keys, values = keys_values.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(
            queries.transpose(1, 2), keys, values, attn_mask=bias, scale=self.scale
        )
        return attended.transpose(1, 2).flatten(2)


class FoldedDecoder(nn.Module):
    """The logits of the next token of every beam, step by step, for at most `num_steps` steps."""

    def __init__(
        self,
        decoder: OfaDecoder,
        positions: Tensor,
        *,
        num_steps: int,
        num_beams: int,
        for_gpu: bool,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.num_steps, self.num_beams = num_steps, num_beams
        self.num_slots = aligned(num_steps * num_beams)
        table = decoder.embed_tokens.weight.data
        self.num_tokens = len(table)
        padding = aligned(len(table), _VOCABULARY_STEP) - len(table) if for_gpu else 0
        self.table = nn.Buffer(F.pad(table, (0, 0, 0, padding)) if padding else table)
        never = torch.full((padding,), -torch.inf, device=table.device)
        self.never = nn.Buffer(torch.cat([table.new_zeros(len(table)), never])) if padding else None
        self.embedding_norm, self.norm = decoder.layernorm_embedding, decoder.layer_norm
        self.num_heads = decoder.heads
        own, cross = _decoder_biases(decoder, positions, num_steps, num_beams)
        self.own_bias, self.cross_bias = nn.Buffer(own.to(dtype)), nn.Buffer(cross.to(dtype))
        self.num_positions = positions.shape[1]
        self.layers = nn.ModuleList(
            FoldedDecoderLayer(cast(DecoderLayer, layer), fused=for_gpu) for layer in decoder.layers
        )

    def memory(self, batch_size: int) -> Memory:
        """Room for `batch_size` images, on the decoder's device and in its format."""
        width = self.table.shape[1]
        tail = (2, self.num_heads, width // self.num_heads)
        return Memory(
            # Slots that are not written yet are masked, and must still be numbers.
            own=[self.table.new_zeros(batch_size, self.num_slots, *tail) for _ in self.layers],
            cross=[self.table.new_empty(batch_size, self.num_positions, *tail) for _ in self.layers],
        )

    def remember(self, states: Tensor, memory: Memory) -> None:
        """Write the keys and values of the encoder's (batch, S, width)."""
        for layer, cross in zip(self.layers, memory.cross, strict=True):
            cast(FoldedDecoderLayer, layer).remember(states, cross)

    def forward(self, tokens: Tensor, step: int, mask: Tensor, memory: Memory) -> Tensor:
        """(batch, beams) tokens of the step `step`, from 0 -> (batch * beams, padded vocabulary).

        `mask` (batch, beams, slots) is added to the logits of attention: -inf at slots of other beams.
        """
        x = self.embedding_norm(F.embedding(tokens, self.table))
        slots = mask.shape[-1]
        own_bias = self.own_bias[:, step, None, :, None, :slots] + mask[:, None]
        of_step = self.cross_bias[None, step, :, None, : self.num_positions]
        cross_bias = of_step.expand(-1, -1, tokens.shape[1], -1)
        for index, layer in enumerate(self.layers):
            own, cross = memory.own[index], memory.cross[index]
            x = layer(x, own, step * self.num_beams, own_bias[index], cross, cross_bias)
        return linear(self.norm(x).flatten(0, 1), self.table, self.never)


def _decoder_biases(
    decoder: OfaDecoder, positions: Tensor, num_steps: int, num_beams: int
) -> tuple[Tensor, Tensor]:
    """(layers, steps, heads, slots) of tokens so far, and (steps, heads, S) of the encoder's positions."""
    heads, scale = decoder.heads, decoder.attention_scale
    own = decoder.pos_ln(decoder.embed_positions.weight[:num_steps])[None]
    query, key = decoder.self_pos_q_linear(own), decoder.self_pos_k_linear(own)
    absolute = position_bias(query, key, heads, scale)[0]
    size = decoder.config.token_bucket_size
    buckets = token_buckets(num_steps, num_steps, size, device=own.device)
    relative = [table(buckets).permute(2, 0, 1) for table in decoder.token_rel_pos_table_list]
    biases = (absolute + torch.stack(relative)).transpose(1, 2).repeat_interleave(num_beams, dim=-1)
    query, key = decoder.cross_pos_q_linear(own), decoder.cross_pos_k_linear(positions)
    cross = position_bias(query, key, heads, scale)[0].transpose(0, 1)
    rows = [F.pad(table, (0, aligned(table.shape[-1]) - table.shape[-1])) for table in (biases, cross)]
    return rows[0], rows[1]


class FoldedOfa(nn.Module):
    """Encoder and decoder for one prompt, image size, width of the search and number of steps.

    Args:
        model: in float32 and on the CPU, in which all folding is computed. Its parts are taken over: it is
            not to be used any more.
        prompt: (1, tokens) ids, without padding.
        num_steps: the most tokens that the decoder is asked for.
        for_gpu: with sizes padded to those that a GPU's kernels are fast with, and all biases kept.
    """

    def __init__(
        self,
        model: OfaForConditionalGeneration,
        prompt: Tensor,
        *,
        image_size: int,
        num_steps: int,
        num_beams: int,
        dtype: torch.dtype,
        for_gpu: bool,
    ) -> None:
        super().__init__()
        with torch.no_grad():
            encoder = FoldedEncoder(model.encoder, prompt, image_size, for_gpu=for_gpu, dtype=dtype)
            positions = model.encoder.positions(encoder.grid, prompt.shape[1])
            decoder = FoldedDecoder(
                model.decoder,
                positions,
                num_steps=num_steps,
                num_beams=num_beams,
                for_gpu=for_gpu,
                dtype=dtype,
            )
        self.encoder, self.decoder = encoder, decoder
        self.eval().requires_grad_(False).to(dtype)
        for part in encoder.resnet.modules():
            if for_gpu and isinstance(part, nn.Conv2d):  # a CPU's library orders them for itself anyway
                part.weight.data = part.weight.data.contiguous(memory_format=torch.channels_last)
