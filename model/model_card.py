"""The README.md of a model folder, its card on the hub. What a user wrote there is never touched."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from clipvip.model.config import ClipVipConfig

CARD_NAME = "README.md"
# By this a card of ours is known, and may be written again.
_MARK = "<!-- written by clipvip; remove this line to keep your changes -->"

_WHAT = """A CLIP that embeds videos and sentences into one space, by the method of
[CLIP-ViP](https://arxiv.org/abs/2209.06430)."""
_CAUTION = (
    "It has the biases of the texts and pictures that it and its base model were trained on. It was made to "
    "compare videos\nwith sentences, not to recognise people."
)
# What nobody but the owner of a model knows, and what is not known yet.
_NO_LICENCE = (
    "*To be filled in: the licence of these weights, here and as `license` in the header. Those of the base "
    "model and of the\ntraining data hold besides; that of the code, Apache-2.0, is not theirs.*"
)
_NO_DATA = "*To be filled in: which videos, subtitles and captions, where they are from, and on what terms.*"
_NO_TRAINING = "*To be filled in: from which model, with which recipe.*"
_NO_SCORES = "*To be filled in: what `clipvip-eval retrieval` prints, and on which test split.*"
_TAGS = ("clip", "clip-vip", "video", "text-to-video-retrieval")
_USE = """```python
from clipvip.model import ClipVip
model = ClipVip.from_pretrained("path/to/this/folder")
video = model.encode_video(["clip.mp4"])
texts = model.encode_text(["a cat jumps off a table", "two men talk"])
print(texts @ video.T)
```"""


def write_card(
    folder: Path,
    config: ClipVipConfig,
    *,
    training: Mapping[str, str] | None = None,
    recipe: str = "",
    scores: str = "",
    tags: Sequence[str] = (),
) -> None:
    """Write `folder`/README.md, unless there is one that is not ours; it asks to fill in what is not given.

    Args:
        training: how it was trained, by name; `base_model` also goes into the header.
        recipe: settings of the training, as YAML.
        scores: a table of results, as text.
        tags: more words for the hub to find it by.

    Raises:
        OSError: it cannot be written.
    """
    path = folder / CARD_NAME
    if path.exists() and not is_ours(path):
        return
    training = training or {}
    header = {
        "library_name": "clipvip",
        "pipeline_tag": "feature-extraction",
        "tags": list(dict.fromkeys([*_TAGS, *tags])),
        **({"base_model": training["base_model"]} if training.get("base_model") else {}),
    }
    vision = config.vision_config
    what = {
        "encoder": config.encoder,
        "images": f"{vision.image_size} pixels, patches of {vision.patch_size}",
        "frames": f"{config.scored_frames} of a clip; temporal positions for {config.temporal_size}",
        "texts": f"{config.scored_text_tokens} tokens at most",
        "video proxy tokens": str(config.num_proxies),
        "embeddings": f"{config.projection_dim} dimensions, L2-normalised",
    }
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---",
        _MARK,
        "# CLIP-ViP",
        _WHAT,
        _table(what),
        "## Use",
        _USE,
        "## Training",
        _table(training) if training else _NO_TRAINING,
        *([f"```yaml\n{recipe.strip()}\n```"] if recipe else []),
        "## Training data",
        _NO_DATA,
        "## Results",
        f"```\n{scores}\n```" if scores else _NO_SCORES,
        "## Licence",
        _NO_LICENCE,
        "## Before you use it",
        _CAUTION,
    ]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def is_ours(path: Path) -> bool:
    """Whether the card at `path` is one that `write_card` wrote and may write again."""
    return _MARK in path.read_text(encoding="utf-8", errors="replace")


def _table(rows: Mapping[str, str]) -> str:
    lines = [f"| {name.replace('_', ' ')} | {str(value).replace('|', ' ')} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines])
