"""Floating-point operations of a forward pass by formula, for utilisation figures.

Multiply-accumulates of matrix products and the patch convolution count twice, all else not at all.
"""

from clipvip.model.config import ClipVipConfig


def video_flops(
    config: ClipVipConfig, num_frames: int, *, embeds_only: bool = False, num_patches: int | None = None
) -> int:
    """FLOPs to encode one video of `num_frames` frames; `embeds_only` as in `ClipVip.forward`.

    Of each frame `num_patches` are seen, None: all. Dropped ones are embedded before they are left out.
    Copies of proxies, with which GPUs compute (`frame_attention`), are not counted: they are no use.
    """
    vision = config.vision_config
    width, inner, layers = vision.hidden_size, vision.intermediate_size, vision.num_hidden_layers
    is_joint = config.encoder in {"vip", "full_attention"}
    patches = config.num_patches if num_patches is None else num_patches
    per_token = 4 * width * width + 2 * width * inner
    if is_joint:
        proxies = config.num_proxies
        tokens = proxies + num_frames * patches
        pairs = num_frames * patches * (proxies + patches) + proxies * tokens
        if config.encoder == "full_attention":
            pairs = tokens * tokens
    else:
        tokens = num_frames * (patches + 1)
        pairs = num_frames * (patches + 1) ** 2
    macs = num_frames * config.num_patches * 3 * vision.patch_size**2 * width
    macs += layers * (tokens * per_token + 2 * width * pairs)
    if embeds_only and is_joint:
        # Of the last layer: keys and values of all tokens, everything else of one.
        macs -= (tokens - 1) * (per_token - 2 * width * width) + 2 * width * (pairs - tokens)
    macs += (1 if is_joint else num_frames) * width * config.projection_dim
    if config.encoder == "seq_transformer":
        dim = config.projection_dim
        macs += config.num_frame_layers * (12 * num_frames * dim * dim + 2 * dim * num_frames**2)
    return 2 * macs


def text_flops(config: ClipVipConfig, num_tokens: int) -> int:
    """FLOPs to encode one text padded to `num_tokens`."""
    text = config.text_config
    width, inner = text.hidden_size, text.intermediate_size
    per_layer = num_tokens * (4 * width * width + 2 * width * inner) + 2 * width * num_tokens**2
    return 2 * (text.num_hidden_layers * per_layer + width * config.projection_dim)
