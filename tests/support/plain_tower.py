"""A plain image tower that is fed the kept tokens alone, one video at a time, by transformers' own layers."""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from clipvip.model import ClipVip
from clipvip.model.attention import proxy_guided_mask


def plain_embedding(
    model: ClipVip, pixels: Tensor, places: list[int], num_frames: int, kept: Tensor
) -> Tensor:
    """The embedding (dim,) of one video of CLIP's kind.

    `pixels` (frames, 3, size, size) are the frames at `places` of the `num_frames` of the video; `kept`
    (frames, kept) the patches that are seen of each.
    """
    config, tower = model.config, model.vision_model
    by_frame = [
        _tokens(model, frame, place, num_frames)[patches.long()]
        for frame, place, patches in zip(pixels, places, kept, strict=True)
    ]
    positions, cls = tower.embeddings.position_embedding.weight, tower.embeddings.class_embedding[None]
    if config.encoder in ("vip", "full_attention"):
        proxies = torch.cat([cls, tower.embeddings.added_cls]) + positions[0]
        mask = None
        if config.encoder == "vip":  # which frame a token is of, -1 for proxies, which see all and are seen
            whole = proxy_guided_mask(config.num_proxies, num_frames, config.num_patches)
            of_frames = [
                config.num_proxies + place * config.num_patches + patches.long()
                for place, patches in zip(places, kept, strict=True)
            ]
            rows = torch.cat([torch.arange(config.num_proxies), *of_frames])
            mask = whole[rows][:, rows]
        return _feature(model, torch.cat([proxies, *by_frame]), mask)
    features = torch.stack([_feature(model, torch.cat([cls + positions[0], one]), None) for one in by_frame])
    if config.encoder == "seq_transformer":
        head = model.frame_transformer
        hidden = features + head.frame_position_embeddings.weight[places]
        for block in head.blocks:
            hidden = block(hidden[None], None)[0]
        features = features + hidden
    return F.normalize(F.normalize(features, dim=-1).mean(0), dim=-1)


def _tokens(model: ClipVip, frame: Tensor, place: int, num_frames: int) -> Tensor:
    """All patches of a frame with their positions, (patches, width): a product for each of them."""
    embeddings = model.vision_model.embeddings
    weight = embeddings.patch_embedding.weight
    size = weight.shape[-1]
    crops = [
        frame[:, top : top + size, left : left + size].flatten()
        for top in range(0, frame.shape[1], size)
        for left in range(0, frame.shape[2], size)
    ]
    tokens = torch.stack(crops) @ weight.flatten(1).T + embeddings.position_embedding.weight[1:]
    if (table := getattr(embeddings, "temporal_embedding", None)) is not None:
        table = F.interpolate(table.transpose(1, 2), size=num_frames, mode="linear").transpose(1, 2)
        tokens = tokens + table[0, place]
    return tokens


def _feature(model: ClipVip, tokens: Tensor, mask: Tensor | None) -> Tensor:
    """(tokens, width) -> the projected first token (dim,), of unit length for encoders of all frames."""
    tower = model.vision_model
    hidden = tower.pre_layrnorm(tokens[None])
    for layer in tower.encoder.layers:
        layer.self_attn.config._attn_implementation = "sdpa"  # the other softmax is in float32
        hidden = CLIPEncoderLayer.forward(layer, hidden, None if mask is None else mask[None, None])
    feature = model.visual_projection(tower.post_layernorm(hidden[0, 0]))
    return F.normalize(feature, dim=-1) if model.config.encoder in ("vip", "full_attention") else feature
