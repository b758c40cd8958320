"""`OfaForConditionalGeneration`: OFA as a transformers model, so that `generate` decodes it."""

from dataclasses import fields
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, EncoderDecoderCache, GenerationConfig, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import Seq2SeqLMOutput

from clipvip.model.checkpoint_file import require_no_file
from clipvip.model.linear import use_fast_linear
from clipvip.model.ofa.attention import Attention
from clipvip.model.ofa.config import OfaConfig
from clipvip.model.ofa.decoder import OfaDecoder
from clipvip.model.ofa.encoder import OfaEncoder, OfaEncoderOutput
from clipvip.model.weights import load_with_info

# The cache's name in a model's output, and where `generate` gives it: transformers 5.24 renamed it.
CACHE = next(name for one in fields(Seq2SeqLMOutput) if (name := one.name) in ("cache", "past_key_values"))


class OfaForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """OFA (Wang et al., 2022) for text from an image and a prompt. Parameters have the published names.

    Examples:
        >>> from clipvip.model.ofa import OfaForConditionalGeneration
        >>> OfaForConditionalGeneration.from_pretrained("OFA-Sys/ofa-base").config.model_type
        'ofa'
    """

    config_class = OfaConfig
    config: OfaConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = False
    _supports_sdpa = True
    _tied_weights_keys = {  # noqa: RUF012 (transformers declares it so)
        "decoder.embed_tokens.weight": "encoder.embed_tokens.weight",
        "decoder.output_projection.weight": "encoder.embed_tokens.weight",
    }
    # Tables of position buckets, which published files store and this code computes.
    _keys_to_ignore_on_load_unexpected = [  # noqa: RUF012
        r"(token_rp_bucket|image_rp_bucket|image_position_idx)$"
    ]

    def __init__(self, config: OfaConfig) -> None:
        super().__init__(config)
        self.encoder = OfaEncoder(config)
        self.decoder = OfaDecoder(config)
        use_fast_linear(self)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Attention):
            init.ones_(module.c_attn)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a folder in Hugging Face layout, or a name on the hub such as `OFA-Sys/ofa-base`.

        Raises:
            CheckpointError: files are missing, or tensors are missing, unexpected or of another shape.
        """
        source = str(pretrained_model_name_or_path)
        require_no_file(source)
        wants_info = kwargs.pop("output_loading_info", False)
        what = "no OFA model that loads"
        model, info = load_with_info(super().from_pretrained, source, *args, what=what, **kwargs)
        # Published files name a wrong start token, no cache and forced ends: how to search is the caller's.
        model.generation_config = GenerationConfig.from_model_config(model.config)
        return (model, info) if wants_info else model

    def get_input_embeddings(self) -> nn.Module:
        return self.encoder.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.encoder.embed_tokens = cast(nn.Embedding, value)

    def get_output_embeddings(self) -> nn.Module:
        return self.decoder.output_projection

    @staticmethod
    def _expand_inputs_for_generation(  # type: ignore[override]
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: Tensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[Tensor | None, dict[str, Any]]:
        """Repeat only the tokens for each beam: all beams of an image share what the encoder gave."""
        for name in ("patch_images", "patch_masks", "attention_mask"):
            model_kwargs.pop(name, None)
        if input_ids is not None and expand_size > 1:
            input_ids = input_ids.repeat_interleave(expand_size, dim=0)
        return input_ids, model_kwargs

    def forward(
        self,
        input_ids: Tensor | None = None,
        patch_images: Tensor | None = None,
        patch_masks: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        encoder_outputs: OfaEncoderOutput | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        cache: EncoderDecoderCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        **_: Any,
    ) -> Seq2SeqLMOutput:
        """Logits (rows, length, vocabulary) of a text given images and prompts.

        Args:
            input_ids: (batch, tokens), the prompt.
            patch_images: (batch, 3, height, width), normalised.
            decoder_input_ids: (rows, length); from `labels` where absent.
            past_key_values, cache: of earlier tokens, by transformers' name before 5.24 and since.
            encoder_outputs: instead of the inputs above, what the encoder made of them.
            labels: (batch, length), the text without a start token and with </s>; elsewhere padding or -100.
                Gives the mean cross-entropy as `loss`.

        Raises:
            ValueError: neither decoder_input_ids nor labels.
        """
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_ids, patch_images, patch_masks, attention_mask, bool(output_hidden_states)
            )
        if decoder_input_ids is None:
            if labels is None:
                raise ValueError("give decoder_input_ids or labels")
            shifted = F.pad(labels[:, :-1], (1, 0), value=self.config.bos_token_id)
            decoder_input_ids = shifted.masked_fill(shifted == -100, self.config.pad_token_id)
        cache = past_key_values if cache is None else cache
        logits, states = self.decoder(
            decoder_input_ids,
            encoder_outputs,
            cache=cache if use_cache is not False else None,
            output_hidden_states=bool(output_hidden_states),
        )
        loss = None
        if labels is not None:
            targets = labels.masked_fill(labels == self.config.pad_token_id, -100)
            loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
        kept: dict[str, Any] = {CACHE: cache}
        return Seq2SeqLMOutput(
            loss=loss,
            logits=logits,
            **kept,
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
            encoder_hidden_states=encoder_outputs.hidden_states,
            decoder_hidden_states=states,
        )


AutoConfig.register("ofa", OfaConfig)
