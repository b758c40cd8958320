"""SigLIP's towers for video: SigLIP's own modules, with proxies and temporal positions beside its patches.

SigLIP has no class token that proxies could go on from: its feature is what a head finds in the patches by
attention. So proxies come in beside what is there, by gates that are zero at the start (as the prompts of
LLaMA-Adapter, arXiv 2303.16199): the patches of a frame see each other as in SigLIP, plus a gate times what
they see in the proxies; the head likewise. A start so gives SigLIP's own embedding of one frame, exactly.
Letters: B batch, H heads, T frames, N patches per frame, M proxies, K head width.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SiglipTextConfig, SiglipVisionConfig
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.clip.modeling_clip import CLIPEncoder
from transformers.models.siglip.modeling_siglip import (
    SiglipMultiheadAttentionPoolingHead,
    SiglipTextEmbeddings,
    SiglipVisionEmbeddings,
)

from clipvip.model.attention import attend
from clipvip.model.config import ClipVipConfig
from clipvip.model.encoder import embed_patches, interpolate_frames
from clipvip.model.layer import TransformerLayer, project, use_fast_layers
from clipvip.model.seen import EVERYTHING, Seen

# A gate is its parameter times this. Adam moves every parameter by about the learning rate in a step, 5e-6
# in post-pretraining, in which a gate of its own size would stay at zero.
GATE_SPEED = 100.0
# Of the proxies, after which each layer normalises.
_PROXY_STD = 1.0


class SiglipVideoEmbeddings(SiglipVisionEmbeddings):
    """Patches with spatial and temporal positions, behind M proxies, which have neither."""

    def __init__(self, config: SiglipVisionConfig, *, num_proxies: int, temporal_size: int) -> None:
        super().__init__(config)
        self.proxies = nn.Parameter(torch.randn(num_proxies, self.embed_dim))
        self.temporal_embedding = nn.Parameter(torch.zeros(1, temporal_size, self.embed_dim))

    def forward(  # type: ignore[override]
        self, pixel_values: Tensor, *, seen: Seen = EVERYTHING
    ) -> Tensor:
        """(batch, frames, 3, height, width) -> (batch, proxies + frames * patches, width)."""
        batch, num_frames = pixel_values.shape[:2]
        patches = embed_patches(pixel_values, self.patch_embedding) + self.position_embedding.weight
        temporal = interpolate_frames(self.temporal_embedding, seen.num_frames or num_frames)
        patches = seen.of_patches(patches + seen.of_frames(temporal)[:, :, None])
        return torch.cat([self.proxies.expand(batch, -1, -1), patches.flatten(1, 2)], dim=1)


class GatedLayer(TransformerLayer):
    """A layer of SigLIP's image tower over proxies and patches; its gates are by head."""

    proxy_gate: nn.Parameter

    def forward(  # type: ignore[override]
        self, hidden_states: Tensor, *, num_proxies: int, num_frames: int, **_: Any
    ) -> Tensor:
        """(batch, proxies + frames * patches, width) -> the same; patches see those of their own frame."""
        attention = self.self_attn
        how = {"scale": attention.scale, "dropout": self._dropout()}
        query, key, value = project(attention, self.layer_norm1(hidden_states)).unbind(-3)

        def frames(x: Tensor) -> Tensor:  # (B, M + T*N, H, K) -> (B*T, N, H, K)
            return x[:, num_proxies:].unflatten(1, (num_frames, -1)).flatten(0, 1)

        of_proxies, of_patches = query.split([num_proxies, query.shape[1] - num_proxies], dim=1)
        for_proxies = attend(of_proxies, key, value, **how)
        within = attend(frames(query), frames(key), frames(value), **how).reshape_as(of_patches)
        across = attend(of_patches, key[:, :num_proxies], value[:, :num_proxies], **how)
        for_patches = within + GATE_SPEED * self.proxy_gate[:, None] * across
        mixed = torch.cat([for_proxies, for_patches.to(for_proxies.dtype)], dim=1)
        hidden_states = hidden_states + attention.out_proj(mixed.flatten(2))
        return hidden_states + self.mlp(self.layer_norm2(hidden_states))


class GatedHead(SiglipMultiheadAttentionPoolingHead):
    """SigLIP's head, which pools patches by attention, and by a gate what it finds in the proxies."""

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__(config)
        self.proxy_gate = nn.Parameter(torch.zeros(()))

    def forward(self, proxies: Tensor, patches: Tensor) -> Tensor:  # type: ignore[override]
        """(batch, proxies, width), (batch, frames * patches, width) -> (batch, width)."""
        probe = self.probe.expand(len(patches), -1, -1)
        found = self._attend(probe, patches)
        found = found + GATE_SPEED * self.proxy_gate * self._attend(probe, proxies)
        feature: Tensor = (found + self.mlp(self.layernorm(found)))[:, 0]
        return feature

    def _attend(self, probe: Tensor, tokens: Tensor) -> Tensor:
        """`self.attention` without the bias of its keys, which moves no softmax: its gradient is rounding."""
        attention = self.attention
        weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
        inputs = (probe, tokens, tokens)
        parts = zip(inputs, weights, (biases[0], None, biases[2]), strict=True)
        heads = (F.linear(*part).unflatten(-1, (attention.num_heads, -1)) for part in parts)
        query, key, value = heads
        mixed: Tensor = attention.out_proj(attend(query, key, value).flatten(2))
        return mixed


class SiglipVideoTransformer(nn.Module):
    """SigLIP's image tower over all tokens of a video; names of submodules are SigLIP's."""

    def __init__(self, config: ClipVipConfig) -> None:
        super().__init__()
        vision: Any = config.vision_config
        self.num_proxies = config.num_proxies
        self.is_by_frame = config.encoder == "vip"
        self.embeddings = SiglipVideoEmbeddings(
            vision, num_proxies=config.num_proxies, temporal_size=config.temporal_size
        )
        self.encoder = CLIPEncoder(vision)  # whose layers have SigLIP's parameters and names
        for layer in self.encoder.layers:
            layer.__class__ = GatedLayer
            layer.proxy_gate = nn.Parameter(torch.zeros(vision.num_attention_heads))
        self.post_layernorm = nn.LayerNorm(vision.hidden_size, eps=vision.layer_norm_eps)
        self.head = GatedHead(vision)

    def forward(
        self, pixel_values: Tensor, *, feature_only: bool = False, seen: Seen = EVERYTHING
    ) -> tuple[Tensor | None, Tensor]:
        """As `VideoTransformer`, whose arguments and results these are."""
        hidden = self.embeddings(pixel_values, seen=seen)
        num_frames = pixel_values.shape[1] if self.is_by_frame else 1
        for layer in self.encoder.layers:
            hidden = layer(hidden, num_proxies=self.num_proxies, num_frames=num_frames)
        normed = self.post_layernorm(hidden)
        feature = self.head(normed[:, : self.num_proxies], normed[:, self.num_proxies :])
        return None if feature_only else hidden, feature


class SiglipTextTransformer(nn.Module):
    """SigLIP's text tower: texts are padded to the whole table, and padding is seen, as in its training."""

    def __init__(self, config: SiglipTextConfig) -> None:
        super().__init__()
        sizes: Any = config
        self.config = config
        self.embeddings = SiglipTextEmbeddings(config)
        self.encoder = CLIPEncoder(sizes)
        use_fast_layers(self.encoder)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.head = nn.Linear(config.hidden_size, sizes.projection_size)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> BaseModelOutputWithPooling:
        """Encode (batch, tokens), padded at the end or not; a mask has no influence.

        Raises:
            ValueError: more tokens than positions.
        """
        num_tokens, most = input_ids.shape[1], self.config.max_position_embeddings
        if num_tokens > most:
            raise ValueError(f"{num_tokens} tokens, but the text tower has {most} positions")
        padded = F.pad(input_ids, (0, most - num_tokens), value=self.config.pad_token_id)
        hidden = self.embeddings.token_embedding(padded) + self.embeddings.position_embedding.weight
        for layer in self.encoder.layers:
            hidden = layer(hidden)
        hidden = self.final_layer_norm(hidden)
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden[:, :num_tokens], pooler_output=self.head(hidden[:, -1])
        )


@torch.no_grad()
def start_siglip(model: nn.Module) -> None:
    """Draw the parameters at random; gates and temporal positions are zero."""
    for name, parameter in model.named_parameters():
        if not name.startswith(("text_model.", "vision_model.")):
            continue
        if name.endswith(("proxy_gate", "temporal_embedding", "bias")):
            init.zeros_(parameter)
        elif name.endswith("embeddings.proxies"):
            init.normal_(parameter, std=_PROXY_STD)
        elif parameter.ndim == 1:  # a LayerNorm's
            init.ones_(parameter)
        else:  # of products by their inputs, of positions and tokens by the width
            init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    for part in model.modules():
        if isinstance(part, SiglipVisionEmbeddings | SiglipTextEmbeddings):  # not among the weights
            init.copy_(part.position_ids, torch.arange(part.position_ids.shape[-1])[None])
