"""The picture of README and of the documentation's first page, drawn from what `make demo` leaves behind.

python docs/front_picture.py demo-out docs/assets/front.png

Two queries that differ in the motion alone; the frames of the clip that the demo's trained model finds for
each; and the caption of that clip's middle frame, by the demo's captioner.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

import clipvip
from clipvip.experiments.demo.corpus import read_truth
from clipvip.experiments.demo.found import find, twins_of
from clipvip.shards import list_shards, read_captions, read_shard

NUM_FRAMES = 4
MODELS = Path(clipvip.experiments.demo.__file__).parent / "weights"
INK, QUIET, PAPER = "#1f2933", "#52606d", "#ffffff"
_QUERY, _CAPTION = FontProperties(size=17.5, weight="bold"), FontProperties(size=17)
_WIDTH, _LINE, _FRAMES, _GAP = 8.0, 0.4, 1.4, 0.3  # inches


def draw(demo: Path) -> Figure:
    """The figure for the demo's folder."""
    shards = demo / "shards-test"
    found = find(demo / "tuned" / "model", shards)
    twins = twins_of(found.keys, read_truth(demo / "corpus"))
    query = _clearest(found.similarity, twins)
    frames, captions = _frames(shards), _captions(shards)
    rows = []
    for number in (query, int(twins[query])):
        key = found.keys[found.first(number, 1)[0]]
        rows.append((found.texts[number], frames[key], captions[key]))
    return draw_rows(rows)


def draw_rows(rows: Sequence[tuple[str, np.ndarray, str]]) -> Figure:
    """The figure of queries, the frames of what each finds, and its caption.

    Its texts can be read where a phone makes it 368 pixels wide.
    """
    texts = [(_lines(f"“{query}”", _QUERY), frames, _lines(f"caption: {caption}", _CAPTION))
             for query, frames, caption in rows]  # fmt: skip
    heights = [_LINE * (len(query) + len(caption)) + _FRAMES + _GAP for query, _, caption in texts]
    figure = Figure(figsize=(_WIDTH, sum(heights)), facecolor=PAPER)
    FigureCanvasAgg(figure)
    top = sum(heights) - _GAP / 2
    for height, (query, frames, caption) in zip(heights, texts, strict=True):
        _draw_row(figure, top, query, frames, caption)
        top -= height
    return figure


def _lines(text: str, style: FontProperties) -> list[str]:
    """The text in lines that the figure has room for."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if TextPath((0, 0), longer, prop=style).get_extents().width / 72 <= 0.95 * _WIDTH:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _clearest(similarity: np.ndarray, twins: np.ndarray) -> int:
    """The clip that is told from its reverse most clearly, both being found at the first place."""
    own = np.arange(len(twins))
    is_found = similarity.argmax(1) == own
    margins = similarity[own, own] - similarity[own, twins]
    both = np.where(is_found & is_found[twins], np.minimum(margins, margins[twins]), -np.inf)
    return int(both.argmax())


def _frames(shards: Path) -> dict[str, np.ndarray]:
    """Evenly spread frames of each clip: uint8 (NUM_FRAMES, height, width, 3)."""
    return {clip.key: clip.frames(NUM_FRAMES) for path in list_shards(shards) for clip in read_shard(path)}


def _captions(shards: Path) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        clipvip.caption(shards=shards, model=MODELS / "ofa", out=folder, gpus=0)
        paths = list_shards(shards)
        return {key: text for path in paths for key, text in read_captions(folder, path.stem).items()}


def _draw_row(figure: Figure, top: float, query: list[str], frames: np.ndarray, caption: list[str]) -> None:
    """The lines of a query, the frames of what it finds, and the lines of its caption, from `top` down."""
    height = figure.get_figheight()
    for line in query:
        top -= _LINE
        figure.text(0.02, (top + 0.3 * _LINE) / height, line, fontproperties=_QUERY, color=INK)
    top -= _FRAMES
    for number, frame in enumerate(frames):
        axes: Axes = figure.add_axes((0.02 + 0.242 * number, top / height, 0.234, _FRAMES / height))
        axes.imshow(frame, aspect="auto", interpolation="nearest")
        axes.set_axis_off()
    for line in caption:
        top -= _LINE
        figure.text(0.02, (top + 0.2 * _LINE) / height, line, fontproperties=_CAPTION, color=QUIET)


if __name__ == "__main__":
    draw(Path(sys.argv[1])).savefig(sys.argv[2], dpi=150, metadata={"Software": None})
