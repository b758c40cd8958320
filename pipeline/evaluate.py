"""`clipvip-eval`: how well a model finds clips by text and texts by clip.

Options and output; the metrics are `clipvip.analysis.retrieval`, reading and encoding the clips `clip_embeddings`.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from clipvip import __version__
from clipvip.analysis.rescoring import dual_softmax, querybank_norm
from clipvip.analysis.retrieval import RECALLS_AT, Direction, embedding_ranks, retrieval_metrics
from clipvip.pipeline.runtime.errors import StageCommand, UserError
from clipvip.pipeline.runtime.report import Report
from clipvip.shards.atomic import write_json
from clipvip.shards.reader import list_shards

if TYPE_CHECKING:
    from clipvip.pipeline.clip_embeddings import PairEmbeddings

RESULT_NAME = "retrieval.json"
DIRECTIONS: tuple[Direction, Direction] = ("text_to_video", "video_to_text")
RESCORED_NOTE = "uses all queries of the set at once: not comparable with a search that sees one at a time"
# DSL and QB-Norm hold the whole matrix, and a few copies of it: 2 GiB of float32 each.
_MAX_RESCORED_SCORES = 2**29

Metrics = dict[str, float]


@click.group()
@click.version_option(__version__, package_name="clipvip")
def main() -> None:
    """Measure a model."""


@main.command(cls=StageCommand)
@click.option("--model", "model_name", required=True, metavar="FOLDER", help="A CLIP-ViP model.")
@click.option("--shards", required=True, type=click.Path(path_type=Path), help="Clips with their texts.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Write retrieval.json here.")
@click.option(
    "--captions", type=click.Path(path_type=Path), help="Search by these captions, not by subtitles."
)
@click.option("--dsl", is_flag=True, help="Also with the dual softmax, which uses all queries at once.")
@click.option("--qb-norm", is_flag=True, help="Also with QB-Norm, the queries being their own bank.")
@click.option(
    "--num-frames", type=click.IntRange(min=1), help="Frames per clip.  [default: as many as the model's]"
)
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=16, show_default=True, help="Clips at once."
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
def retrieval(
    model_name: str,
    shards: Path,
    out: Path | None,
    captions: Path | None,
    dsl: bool,
    qb_norm: bool,
    num_frames: int | None,
    batch_size: int,
    device: str,
) -> None:
    """Rank all clips for each text and all texts for each clip: R@1, R@5, R@10, median and mean rank.

    Clip i is the one right answer to text i. Frames are evenly spread, first to last. A tie with the right
    answer counts against recall and gives the middle rank.
    """
    started = time.monotonic()
    paths = list_shards(shards)
    if captions is not None and not captions.is_dir():
        raise UserError(f"--captions {captions}: no such folder; make it with 'clipvip-data caption'")
    # torch is imported from here on, so that mistakes above are told at once.
    from clipvip.pipeline.clip_embeddings import embed_pairs, load_clip_vip
    from clipvip.pipeline.runtime.device import torch_device

    model = load_clip_vip(model_name, device=torch_device(device))
    num_frames = num_frames or int(model.config.temporal_size)
    pairs = embed_pairs(model, paths, captions=captions, num_frames=num_frames, batch_size=batch_size)
    queries = "subtitles" if captions is None else "captions"
    if len(pairs.texts) == 0:
        raise UserError(f"{shards}: no clip can be used of {len(pairs.skips)}: {_reasons(pairs)}")
    result = {
        "queries": queries,
        "num_queries": len(pairs.texts),
        "num_skipped": len(pairs.skips),
        "num_distinct_texts": pairs.num_distinct_texts,
        "num_frames": num_frames,
        "metrics": all_metrics(pairs.texts, pairs.videos, dsl=dsl, qb_norm=qb_norm),
        "chance": chance(len(pairs.texts)),
    }
    click.echo(_table(result))
    if pairs.skips:
        click.echo(f"passed over {len(pairs.skips):,}: {_reasons(pairs)}")
    if out is not None:
        options = {"model": model_name, "shards": str(shards), "queries": queries, "num_frames": num_frames}
        _write(out, options, result, pairs, seconds=time.monotonic() - started)


def all_metrics(texts: np.ndarray, videos: np.ndarray, *, dsl: bool, qb_norm: bool) -> dict[str, Any]:
    """Both directions' metrics of paired embeddings (n, dim), plain and with what is asked for.

    Raises:
        UserError: an embedding that is no number, or too many pairs for rescoring.
    """
    try:
        found: dict[str, Any] = {
            "plain": {name: embedding_ranks(texts, videos, direction=name).metrics() for name in DIRECTIONS}
        }
    except ValueError as error:
        raise UserError(f"{error}; the model's weights may be damaged") from error
    if not (dsl or qb_norm):
        return found
    if len(texts) * len(videos) > _MAX_RESCORED_SCORES:
        limit = int(_MAX_RESCORED_SCORES**0.5)
        raise UserError(
            f"--dsl and --qb-norm hold all scores at once, for {limit:,} clips at most; leave them out"
        )
    similarity = texts @ videos.T
    if dsl:
        # One matrix for both directions, as the released code has it.
        rescored = dual_softmax(similarity)
        found["dsl"] = {name: retrieval_metrics(rescored, direction=name) for name in DIRECTIONS}
    if qb_norm:
        found["qb_norm"] = {
            "text_to_video": retrieval_metrics(querybank_norm(similarity)),
            "video_to_text": retrieval_metrics(querybank_norm(similarity.T)),
        }
    for name in found.keys() - {"plain"}:
        found[name]["note"] = RESCORED_NOTE
    return found


def chance(num_queries: int) -> Metrics:
    """The expected metrics of a random order."""
    recalls = {f"r{k}": min(1.0, k / num_queries) for k in RECALLS_AT}
    return {**recalls, "median_rank": (num_queries + 1) / 2, "mean_rank": (num_queries + 1) / 2}


def _reasons(pairs: "PairEmbeddings") -> str:
    report = Report("retrieval", {}, skips=pairs.skips)
    return ", ".join(f"{reason} {count:,}" for reason, count in report.skipped_by_reason().items())


def _write(
    out: Path, options: dict[str, Any], result: dict[str, Any], pairs: "PairEmbeddings", *, seconds: float
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / RESULT_NAME, {"schema": 1, "stage": "retrieval", "options": options, **result})
    report = Report("retrieval", options, counts={"clips": len(pairs.texts)}, skips=pairs.skips)
    report.write(out, seconds=seconds, done_now=len(pairs.texts), unit="clips")
    click.echo(report.summary(out))


def _table(result: dict[str, Any]) -> str:
    """Recalls in percent, as papers have them; ranks from 1."""
    num_queries = result["num_queries"]
    lines = [
        f"{num_queries:,} clips, searched by their {result['queries']}, {result['num_frames']} frames each"
    ]
    if result["num_distinct_texts"] < num_queries:
        lines.append(f"({num_queries - result['num_distinct_texts']:,} of the texts repeat another)")
    lines.append(f"{'':<24}{'R@1':>7}{'R@5':>7}{'R@10':>7}{'MdR':>9}{'MeanR':>10}")
    for name, directions in result["metrics"].items():
        suffix = {"plain": "", "dsl": ", DSL*", "qb_norm": ", QB-Norm*"}[name]
        for direction in DIRECTIONS:
            lines.append(_row(direction.replace("_", " ") + suffix, directions[direction]))
    lines.append(_row("chance", result["chance"]))
    if len(result["metrics"]) > 1:
        lines.append(f"* {RESCORED_NOTE}")
    return "\n".join(lines)


def _row(name: str, metrics: Metrics) -> str:
    recalls = "".join(f"{100 * metrics[f'r{k}']:7.1f}" for k in RECALLS_AT)
    return f"{name:<24}{recalls}{metrics['median_rank']:9.1f}{metrics['mean_rank']:10.1f}"


if __name__ == "__main__":
    main()
