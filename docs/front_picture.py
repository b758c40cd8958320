"""The picture of README and of the documentation's first page, drawn from what `make demo` leaves behind.

python docs/front_picture.py demo-out docs/assets/front.png

Two queries that differ in the motion alone; the frames of the clip that the demo's trained model finds for
each; and the caption of that clip's middle frame, by the demo's captioner.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import clipvip
from clipvip.experiments.demo.corpus import read_truth
from clipvip.experiments.demo.found import find, twins_of
from clipvip.shards import list_shards, read_captions, read_shard

NUM_FRAMES = 4
MODELS = Path(clipvip.experiments.demo.__file__).parent / "weights"
INK, QUIET, PAPER = "#1f2933", "#52606d", "#ffffff"


def draw(demo: Path) -> Figure:
    """The figure for the demo's folder."""
    shards = demo / "shards-test"
    found = find(demo / "tuned" / "model", shards)
    twins = twins_of(found.keys, read_truth(demo / "corpus"))
    query = _clearest(found.similarity, twins)
    frames, captions = _frames(shards), _captions(shards)
    figure = Figure(figsize=(8, 5.2), facecolor=PAPER)
    FigureCanvasAgg(figure)
    for row, number in enumerate((query, int(twins[query]))):
        key = found.keys[found.first(number, 1)[0]]
        _draw_row(figure, 0.52 - 0.5 * row, found.texts[number], frames[key], captions[key])
    return figure


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


def _draw_row(figure: Figure, bottom: float, query: str, frames: np.ndarray, caption: str) -> None:
    """A query, the frames of what it finds, and the caption: 45% of the figure's height from `bottom` on."""
    figure.text(0.02, bottom + 0.395, f"“{query}”", fontsize=17, color=INK, weight="bold", va="center")
    for number, frame in enumerate(frames):
        axes: Axes = figure.add_axes((0.02 + 0.242 * number, bottom + 0.075, 0.234, 0.27))
        axes.imshow(frame, aspect="auto", interpolation="nearest")
        axes.set_axis_off()
    figure.text(0.02, bottom + 0.03, f"caption: {caption}", fontsize=15, color=QUIET, va="center")


if __name__ == "__main__":
    draw(Path(sys.argv[1])).savefig(sys.argv[2], dpi=150, metadata={"Software": None})
