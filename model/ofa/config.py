"""The sizes of an OFA model, under the names that its published config.json files use."""

from typing import Any

from transformers import PreTrainedConfig

# Blocks in the three stages of the image tower, for the published values of `resnet_type`.
RESNET_BLOCKS = {
    "resnet18": (2, 2, 2),
    "resnet34": (3, 4, 6),
    "resnet50": (3, 4, 6),
    "resnet101": (3, 4, 23),
    "resnet152": (3, 8, 36),
}
_SIZES = ("vocab_size", "max_position_embeddings", "d_model", "encoder_layers", "encoder_ffn_dim",
          "decoder_layers", "decoder_ffn_dim", "resnet_width", "token_bucket_size", "image_bucket_size",
          "encoder_attention_heads", "decoder_attention_heads")  # fmt: skip
# d_model -> side in pixels that a model of this size was published for; captioning models use 480.
_PUBLISHED_IMAGE_SIZES = {256: 256, 512: 384, 768: 384, 1024: 480, 1280: 480}


class OfaConfig(PreTrainedConfig):
    """Configuration of `OfaForConditionalGeneration`; the defaults are ofa-base.

    Args:
        resnet_type: `resnet18` to `resnet152`, the depth of the image tower.
        resnet_blocks, resnet_width: blocks per stage and channels of the stem, for towers that have no
            published name; None and 64 are the published ones.
        token_bucket_size, image_bucket_size: extent of the relative positions of tokens and of the image
            grid (42 by 42 cells of 16 pixels, 672 pixels at most).
        image_size: side in pixels that images are resized to; None for what was published for this d_model.

    Raises:
        ValueError: a size that is none, or a setting that no published OFA uses and that is not implemented.

    Examples:
        >>> from clipvip.model.ofa import OfaConfig
        >>> OfaConfig().d_model
        768
    """

    model_type = "ofa"
    keys_to_ignore_at_inference = ("past_key_values", "cache")
    attribute_map = {  # noqa: RUF012 (transformers declares it so)
        "hidden_size": "d_model",
        "num_attention_heads": "encoder_attention_heads",
        "num_hidden_layers": "decoder_layers",
    }

    def __init__(
        self,
        *,
        vocab_size: int = 59457,
        max_position_embeddings: int = 1024,
        d_model: int = 768,
        encoder_layers: int = 6,
        encoder_ffn_dim: int = 3072,
        encoder_attention_heads: int = 12,
        decoder_layers: int = 6,
        decoder_ffn_dim: int = 3072,
        decoder_attention_heads: int = 12,
        dropout: float = 0.1,
        init_std: float = 0.02,
        resnet_type: str = "resnet101",
        resnet_blocks: tuple[int, int, int] | None = None,
        resnet_width: int = 64,
        token_bucket_size: int = 256,
        image_bucket_size: int = 42,
        attn_scale_factor: float = 2.0,
        image_size: int | None = None,
        pad_token_id: int = 1,
        bos_token_id: int = 0,
        eos_token_id: int = 2,
        **kwargs: Any,
    ) -> None:
        if resnet_blocks is None and resnet_type not in RESNET_BLOCKS:
            raise ValueError(f"resnet_type {resnet_type!r} is none of {', '.join(RESNET_BLOCKS)}")
        for name, needed in _FIXED.items():
            if kwargs.get(name, needed) != needed:
                raise ValueError(
                    f"{name}={kwargs[name]!r} is not implemented: every published OFA has {needed!r}"
                )
        self.vocab_size = vocab_size
        self.max_position_embeddings = max_position_embeddings
        self.d_model = d_model
        self.encoder_layers = encoder_layers
        self.encoder_ffn_dim = encoder_ffn_dim
        self.encoder_attention_heads = encoder_attention_heads
        self.decoder_layers = decoder_layers
        self.decoder_ffn_dim = decoder_ffn_dim
        self.decoder_attention_heads = decoder_attention_heads
        self.dropout = dropout
        self.init_std = init_std
        self.resnet_type = resnet_type
        self.resnet_blocks = tuple(resnet_blocks) if resnet_blocks is not None else None
        self.resnet_width = resnet_width
        self.token_bucket_size = token_bucket_size
        self.image_bucket_size = image_bucket_size
        self.attn_scale_factor = attn_scale_factor
        self.image_size = image_size
        for name in _SIZES:
            size = vars(self)[name]
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"{name}={size!r} is not a whole number above 0")
        for name in ("encoder_attention_heads", "decoder_attention_heads"):
            if d_model % vars(self)[name]:
                raise ValueError(f"d_model={d_model} is not a multiple of {name}={vars(self)[name]}")
        kwargs.setdefault("tie_word_embeddings", True)
        for generation_setting in ("forced_eos_token_id", "forced_bos_token_id", "num_beams"):
            kwargs.pop(generation_setting, None)  # belongs to the call of generate()
        kwargs |= {
            "is_encoder_decoder": True,
            "use_cache": True,  # published files say false, for want of a cache in their code
            "pad_token_id": pad_token_id,
            "bos_token_id": bos_token_id,
            "eos_token_id": eos_token_id,
            # Generation starts from <s>, also where an early config.json says otherwise.
            "decoder_start_token_id": bos_token_id,
        }
        super().__init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: Any, **kwargs: Any) -> Any:
        """What a config.json holds, with no `model_type` or OFA's; ValueError where it names another."""
        settings = config_dict if isinstance(config_dict, dict) else {"model_type": None}
        kind = settings.get("model_type", cls.model_type)
        if kind != cls.model_type:
            raise ValueError(f"its config.json is of a model of the type {kind!r}, not 'ofa'")
        return super().from_dict(config_dict, **kwargs)

    @property
    def num_distances(self) -> tuple[int, int]:
        """How many relative positions tokens have, and cells of the image."""
        return 2 * self.token_bucket_size - 1, (2 * self.image_bucket_size - 1) ** 2 + 3

    def resolution(self) -> int:
        """Side in pixels that images are resized to."""
        return self.image_size or _PUBLISHED_IMAGE_SIZES.get(self.d_model, 480)


# What published files state and the network below takes for granted.
_FIXED = {
    "activation_function": "gelu",
    "encoder_normalize_before": True,
    "decoder_normalize_before": True,
    "normformer": True,
    "layernorm_embedding": True,
    "patch_layernorm_embedding": True,
    "code_layernorm_embedding": True,
    "add_type_embedding": True,
    "share_decoder_input_output_embed": True,
    "scale_embedding": False,
    "entangle_position_embedding": False,
}
