"""Draw the figures of docs/method.md from the package's own functions.

python docs/figures.py             # writes docs/figures/*.svg
"""

import io
import itertools
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from clipvip.model import ClipVipConfig
from clipvip.model.attention import proxy_guided_mask
from clipvip.model.encoder import VideoEmbeddings
from clipvip.model.variants import VARIANTS, Term

GREEN, GREY, BLUE, RED = "#2a9d8f", "#b0bec5", "#457b9d", "#e76f51"
PANELS_IN_A_ROW = 4  # more would be too small to read


def new_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure


def attention_pattern() -> Figure:
    """M_ViP for 3 proxies and 4 frames of 5 patches."""
    num_proxies, num_frames, num_patches = 3, 4, 5
    mask = proxy_guided_mask(num_proxies, num_frames, num_patches).numpy()
    figure = new_figure(5.1, 4.9)
    axes = figure.add_subplot()
    colours = np.where(mask[..., None], np.array([0.16, 0.61, 0.56]), np.array([0.93, 0.94, 0.95]))
    axes.imshow(colours)
    edges = [0, *(num_proxies + frame * num_patches for frame in range(num_frames + 1))]
    for edge in edges:
        axes.axhline(edge - 0.5, color="white", linewidth=2)
        axes.axvline(edge - 0.5, color="white", linewidth=2)
    middles = [(start + stop - 1) / 2 for start, stop in itertools.pairwise(edges)]
    names = ["proxies", *(f"frame {frame + 1}" for frame in range(num_frames))]
    axes.set_xticks(middles, names)
    axes.set_yticks(middles, names)
    axes.tick_params(length=0)
    axes.set_xlabel("key: what is looked at")
    axes.set_ylabel("query: who looks")
    return figure


def temporal_interpolation() -> Figure:
    """One channel of a table of 12 temporal positions, and what 4, 1 and 32 frames get of it."""
    config = ClipVipConfig(vision_config={"hidden_size": 12, "image_size": 32, "patch_size": 16})
    embeddings = VideoEmbeddings(config.vision_config, num_proxies=1, temporal_size=12)
    table = torch.sin(torch.linspace(0.3, 5.2, 12)) * torch.linspace(1.0, 0.4, 12)
    with torch.no_grad():
        embeddings.temporal_embedding[0, :, 0] = table
        figure = new_figure(5.1, 3.4)
        axes = figure.add_subplot()
        axes.plot(
            np.arange(12) + 0.5, table, "o-", color=GREY, markerfacecolor="black", label="table, T = 12"
        )
        for num_frames, colour in ((32, BLUE), (4, GREEN), (1, RED)):
            values = embeddings.temporal_positions(num_frames)[0, :, 0]
            places = (np.arange(num_frames) + 0.5) * 12 / num_frames
            axes.plot(
                places, values, "D" if num_frames < 32 else ".", color=colour, label=f"T = {num_frames}"
            )
    axes.set_xlabel("place in the video, in frames of the table")
    axes.set_ylabel("one channel of the embedding")
    axes.legend()
    return figure


def loss_matrix(variant: str, batch: int = 4) -> Figure:
    """For each term of a loss, which similarities are positives and which are negatives."""
    terms = VARIANTS[variant]
    widths = [2 if term.negatives else 1 for term in terms]
    columns = min(sum(widths), PANELS_IN_A_ROW)
    rows = -(-sum(widths) // columns)
    figure = new_figure(1.27 * columns, 1.55 * rows)
    grid = figure.add_gridspec(rows, columns)
    for term, width, end in zip(terms, widths, itertools.accumulate(widths), strict=True):
        row, column = divmod(end - width, columns)
        axes = figure.add_subplot(grid[row, column : column + width])
        cells = term_cells(term, batch)
        palette = {0: (1, 1, 1), 1: (0.93, 0.94, 0.95), 2: (0.16, 0.61, 0.56)}
        axes.imshow(np.array([[palette[cell] for cell in row] for row in cells]))
        axes.set_xticks([batch / 2 - 0.5], [term.positives])
        if term.negatives:
            axes.set_xticks([batch / 2 - 0.5, 1.5 * batch - 0.5], [term.positives, term.negatives])
        axes.set_yticks([batch / 2 - 0.5], [term.anchor])
        for edge in range(2 * batch + 1):
            axes.axvline(edge - 0.5, color="white", linewidth=1)
            axes.axhline(min(edge, batch) - 0.5, color="white", linewidth=1)
        axes.set_xlim(-0.5, cells.shape[1] - 0.5)
        axes.tick_params(length=0)
        axes.set_title(term.name, fontsize=10)
    return figure


def term_cells(term: Term, batch: int) -> np.ndarray:
    """2 where a column is the row's positive, 1 where it is a negative, 0 where it is left out."""
    own = np.eye(batch, dtype=int)
    cells = 1 + own
    return cells if term.negatives is None else np.hstack([cells, 1 - own])


FIGURES = {
    "attention": attention_pattern,
    "temporal": temporal_interpolation,
    "loss-baseline": lambda: loss_matrix("baseline"),
    "loss-d": lambda: loss_matrix("d"),
}


def svg(figure: Figure) -> str:
    """As text, always the same: letters stay letters, and ids are hashes of what they stand for."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "clipvip", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


if __name__ == "__main__":
    folder = Path(__file__).with_suffix("")
    folder.mkdir(exist_ok=True)
    for name, draw in FIGURES.items():
        (folder / f"{name}.svg").write_text(svg(draw()))
