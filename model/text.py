"""CLIP's text tower that never waits for the device; transformers' looks into the mask that it is given."""

from typing import Any, cast

import torch
from torch import Tensor
from transformers import CLIPTextConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.clip.modeling_clip import CLIPTextModel

from clipvip.model.config import END_IS_HIGHEST
from clipvip.model.layer import use_fast_layers


class TextTransformer(CLIPTextModel):
    """A causal transformer over tokens; a text's feature is what is at its first end token."""

    def __init__(self, config: CLIPTextConfig) -> None:
        super().__init__(config)
        use_fast_layers(self.encoder)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> BaseModelOutputWithPooling:
        """Encode (batch, tokens).

        Args:
            attention_mask: (batch, tokens), 0 where a token is not to be seen. None where only the end is
                padded: no token sees what comes after it, so the feature is the same, for less.

        Raises:
            ValueError: more tokens than positions.
        """
        num_tokens, most = input_ids.shape[1], self.config.max_position_embeddings
        if num_tokens > most:
            raise ValueError(f"{num_tokens} tokens, but the text tower has {most} positions")
        embeddings = self.embeddings
        hidden = embeddings.token_embedding(input_ids) + embeddings.position_embedding.weight[:num_tokens]
        mask = None if attention_mask is None else _causal_mask(attention_mask)
        for layer in self.encoder.layers:
            hidden = layer(hidden, mask, is_causal=mask is None)
        hidden = self.final_layer_norm(hidden)
        end = self.eos_token_id
        ends = input_ids if end == END_IS_HIGHEST else torch.eq(input_ids, cast(int, end)).int()
        # Gathering, unlike indexing, does not sort for the gradient.
        feature = torch.take_along_dim(hidden, ends.argmax(dim=-1)[:, None, None], dim=1)[:, 0]
        return BaseModelOutputWithPooling(last_hidden_state=hidden, pooler_output=feature)


def _causal_mask(attention_mask: Tensor) -> Tensor:
    """(batch, tokens) -> boolean (batch, 1, tokens, tokens), True where query sees key."""
    num_tokens = attention_mask.shape[1]
    before = torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=attention_mask.device).tril()
    return before & attention_mask.bool()[:, None, None, :]
