"""OFA checkpoints of fairseq (one .pt file) -> a model folder in Hugging Face layout.

Nothing of fairseq is needed, and nothing but tensors and `argparse.Namespace` is unpickled.
"""

import argparse
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from clipvip.media.errors import one_line
from clipvip.model.checkpoint_file import read_checkpoint
from clipvip.model.errors import CheckpointError
from clipvip.model.ofa.config import RESNET_BLOCKS, OfaConfig
from clipvip.model.ofa.model import OfaForConditionalGeneration
from clipvip.model.weights import require_fit, whole_folder

VOCABULARY_FILES = ("vocab.json", "merges.txt")
# Side in pixels with which every published caption checkpoint was trained.
CAPTION_IMAGE_SIZE = 480

# (side of the network, part of fairseq's name, part of ours), in the order in which they apply.
_RENAMES = (
    ("decoder.", ".self_attn_ln.", ".self_attn_mid_layer_norm."),
    ("decoder.", ".cross_attn_ln.", ".cross_attn_mid_layer_norm."),
    ("decoder.", ".encoder_attn_layer_norm.", ".cross_attn_layer_norm."),
    ("decoder.", ".encoder_attn.", ".cross_attn."),
    ("encoder.", ".attn_ln.", ".self_attn_mid_layer_norm."),
    ("", ".ffn_layernorm.", ".ffn_layer_norm."),
)
# Counters, heads of other tasks, and positions, which the network computes.
_DROPPED = re.compile(
    r"(encoder|decoder)\.(version|token_rp_bucket|image_rp_bucket|image_position_idx)"
    r"|(.*\.)?classification_heads\..*|(.*\.)?_float_tensor"
)


def rename_fairseq_key(name: str) -> str | None:
    """The name under which a tensor of a fairseq OFA is kept; None if it is not."""
    name = name.removeprefix("model.")
    if _DROPPED.fullmatch(name):
        return None
    for side, theirs, ours in _RENAMES:
        if name.startswith(side):
            name = name.replace(theirs, ours)
    return name


def convert_fairseq(
    checkpoint: str | Path, folder: str | Path, *, vocabulary: str | Path, image_size: int | None = None
) -> OfaConfig:
    """Write the fairseq file `checkpoint` as the model folder `folder`, which must not exist yet or be empty.

    `vocabulary` is a folder with OFA's vocab.json and merges.txt, which are copied. `image_size` is the side
    in pixels that the model takes, by default the published caption models' 480. Returns the configuration.

    Raises:
        CheckpointError: the file is no OFA of fairseq, lacks tensors or has others, or the vocabulary is not
            OFA's.

    Examples:
        >>> import clipvip
        >>> config = clipvip.convert_ofa("caption_large_best_clean.pt", "ofa", vocabulary="ofa-base")
        >>> config.model_type
        'ofa'
    """
    checkpoint, vocabulary = Path(checkpoint), Path(vocabulary)
    with whole_folder(folder) as partial:
        vocab_size = _vocabulary_size(vocabulary)
        state = read_fairseq(checkpoint)
        config = infer_config(str(checkpoint), state)
        config.image_size = image_size or min(CAPTION_IMAGE_SIZE, 16 * config.image_bucket_size)
        if vocab_size > config.vocab_size:
            raise CheckpointError(
                f"{vocabulary}: has {vocab_size} tokens, the model's table {config.vocab_size}; give its own "
                "vocabulary"
            )
        model = OfaForConditionalGeneration(config)
        _load(model, str(checkpoint), state)
        model.save_pretrained(partial)
        for name in VOCABULARY_FILES:
            shutil.copyfile(vocabulary / name, partial / name)
    return config


def _vocabulary_size(folder: Path) -> int:
    lacking = [name for name in VOCABULARY_FILES if not (folder / name).is_file()]
    if lacking:
        raise CheckpointError(
            f"{folder}: has no {' and no '.join(lacking)}; name a folder with OFA's vocabulary"
        )
    try:
        return len(json.loads((folder / VOCABULARY_FILES[0]).read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{folder / VOCABULARY_FILES[0]}: is not a vocabulary ({error}); fetch it again"
        ) from error


def read_fairseq(path: Path) -> dict[str, Tensor]:
    """The tensors of a fairseq file under our names; CheckpointError where it is none."""
    content = read_checkpoint(path, allowed=[argparse.Namespace])
    tensors = content.get("model") if isinstance(content, dict) else None
    if not isinstance(tensors, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in tensors.items()
    ):
        raise CheckpointError(f"{path}: is no fairseq checkpoint, whose entry 'model' holds named tensors")
    renamed = ((rename_fairseq_key(name), tensor) for name, tensor in tensors.items())
    return {name: tensor for name, tensor in renamed if name is not None}


def infer_config(name: str, state: Mapping[str, Tensor]) -> OfaConfig:
    """The sizes of an OFA, read off its tensors (our names), or CheckpointError about `name`."""
    try:
        vocab_size, width = state["encoder.embed_tokens.weight"].shape
        token_distances, encoder_heads = state["encoder.token_rel_pos_table_list.0.weight"].shape
        decoder_heads = state["decoder.token_rel_pos_table_list.0.weight"].shape[1]
        cells = state["encoder.embed_image_positions.weight"].shape[0]
        first, second, third = (_count(state, f"encoder.embed_images.layer{n}") for n in (1, 2, 3))
        blocks = first, second, third
        names = [key for key, known in RESNET_BLOCKS.items() if known == blocks]
        return OfaConfig(
            vocab_size=vocab_size,
            max_position_embeddings=state["encoder.embed_positions.weight"].shape[0] - 2,
            d_model=width,
            encoder_layers=_count(state, "encoder.layers"),
            encoder_ffn_dim=state["encoder.layers.0.fc1.weight"].shape[0],
            encoder_attention_heads=encoder_heads,
            decoder_layers=_count(state, "decoder.layers"),
            decoder_ffn_dim=state["decoder.layers.0.fc1.weight"].shape[0],
            decoder_attention_heads=decoder_heads,
            # resnet34 and resnet50 are the same blocks here; published models say resnet50.
            resnet_type=names[-1] if names else "resnet101",
            resnet_blocks=None if names else blocks,
            resnet_width=state["encoder.embed_images.conv1.weight"].shape[0],
            token_bucket_size=(token_distances + 1) // 2,
            image_bucket_size=round((cells - 1) ** 0.5),
        )
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"{name}: is no OFA, since its tensors do not show the model's sizes ({one_line(error)})"
        ) from error


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered modules there are under `prefix`."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    return len({found[1] for found in map(pattern.match, state) if found})


def _load(model: OfaForConditionalGeneration, name: str, state: Mapping[str, Tensor]) -> None:
    """Load strictly; the three tied tables must be equal, or are a model that this code is not."""
    own = model.state_dict()
    misfits = {
        "missing": set(own) - set(state),
        "unexpected": set(state) - set(own),
        "of another shape": {k for k in own.keys() & state.keys() if own[k].shape != state[k].shape},
    }
    if not any(misfits.values()):
        tied, table = model._tied_weights_keys, state["encoder.embed_tokens.weight"]
        misfits["not equal to the encoder's table"] = {k for k in tied if not torch.equal(state[k], table)}
    require_fit(f"{name}: tensors do not fit an OFA of these sizes", misfits)
    model.load_state_dict(state)
