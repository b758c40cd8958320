"""`clipvip-data nmi`: texts of corpora -> CLIP features -> how far apart their language is (Table 1).

Options and output only: the measure is `clipvip.analysis.domain_gap`, reading and encoding the texts that it draws
is `text_corpora`.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from clipvip.analysis.domain_gap import DomainGap, Side, cluster_agreement, require_faiss
from clipvip.analysis.plots import heat_map
from clipvip.pipeline.pages.tables import Column, Table
from clipvip.pipeline.runtime.errors import StageCommand, UserError
from clipvip.pipeline.runtime.options import (
    LocalName,
    batch_size_option,
    device_option,
    json_option,
    print_result,
)
from clipvip.pipeline.runtime.ray_units import ray_option, share_machines
from clipvip.pipeline.runtime.report import Report
from clipvip.shards.files.atomic import atomic_write_bytes, write_json
from clipvip.shards.files.claims import lock_folder

if TYPE_CHECKING:
    from clipvip.pipeline.domain_gap.corpora import Corpus, DrawnFeatures, EncodingCluster

_CORES_PER_WORKER = 4
RESULT_NAME = "nmi.json"
PICTURE_NAME = "nmi.png"

_EPILOG = """\b
Examples:
  clipvip-data nmi --source subtitles=clips/ --source captions=captions/ --target mine=queries.txt \\
      --model openai/clip-vit-base-patch32 --out nmi/
"""


@click.command(cls=StageCommand, epilog=_EPILOG)
@click.option("--source", "sources", type=LocalName(), metavar="NAME=PATH", multiple=True, required=True,
              help="A corpus to train on; repeatable. PATH: a text file with one text a line, a .jsonl or "
              ".parquet table, a folder of shards (subtitles) or of captions.")  # fmt: skip
@click.option("--target", "targets", type=LocalName(), metavar="NAME=PATH", multiple=True, required=True,
              help="A corpus of the task at hand, as MSR-VTT's captions; repeatable.")  # fmt: skip
@click.option(
    "--model",
    required=True,
    type=LocalName(),
    metavar="FOLDER_OR_NAME",
    help="The CLIP model whose text tower is used.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for nmi.json, nmi.png and the texts' features.",
)
@click.option("--samples", type=click.IntRange(min=1), default=1000, show_default=True,
              help="Texts to draw on each side; the paper's number is the default.")  # fmt: skip
@click.option(
    "--repeats", type=click.IntRange(min=1), default=10, show_default=True, help="Draws to average."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the draws.")
@batch_size_option("Texts", default=64)
@device_option
@ray_option
@json_option
def command(
    sources: tuple[str, ...],
    targets: tuple[str, ...],
    model: str,
    out: Path,
    samples: int,
    repeats: int,
    seed: int,
    batch_size: int,
    device: str,
    ray_address: str | None,
    as_json: bool,
) -> None:
    """Measure how far apart the language of corpora is, as normalised mutual information (Table 1).

    0: their texts cannot be told apart; 1: two clusters of CLIP features are the two corpora. Writes nmi.json,
    nmi.png and report.json. Features are kept under --out, so the same command again is quick.
    """
    started = time.monotonic()
    corpora = [*_named_paths(sources, "source"), *_named_paths(targets, "target")]
    try:
        require_faiss()
    except ImportError as error:
        raise UserError(str(error)) from error
    # torch is imported from here on, so that mistakes above are told at once.
    from clipvip.pipeline.domain_gap.corpora import count_texts, encode_drawn
    from clipvip.pipeline.domain_gap.encoder import load_text_encoder
    from clipvip.pipeline.runtime.device import torch_device

    counted = [count_texts(name, path, side, samples=samples) for name, path, side in corpora]
    cluster = _cluster(ray_address, model, device) if ray_address else None
    encoder = load_text_encoder(model, device=torch_device("cpu" if cluster else device))
    click.get_current_context().with_resource(lock_folder(out))
    drawn = [
        encode_drawn(
            corpus,
            encoder,
            out=out,
            samples=samples,
            repeats=repeats,
            seed=seed,
            batch_size=batch_size,
            cluster=cluster,
        )
        for corpus in counted
    ]
    num_sources = len(sources)
    gaps = [[_gap(one, other, seed=seed) for other in drawn[num_sources:]] for one in drawn[:num_sources]]
    options = {
        "model": model,
        "samples": samples,
        "repeats": repeats,
        "seed": seed,
        "normalizer": "arithmetic",
    }
    result = _result(counted[:num_sources], counted[num_sources:], gaps)
    write_json(
        out / RESULT_NAME,
        {"schema": 1, "stage": "nmi", "options": options, "model_sha256": encoder.fingerprint, **result},
    )
    _draw(out / PICTURE_NAME, result)
    report = Report(
        "nmi",
        options | {"sources": list(sources), "targets": list(targets), "batch_size": batch_size},
        counts={
            "texts": sum(corpus.num_texts for corpus in counted),
            "empty_texts_passed_over": sum(corpus.num_empty for corpus in counted),
            "pairs": len(sources) * len(targets),
        },
        details={"result": result},
        skips=[skip for corpus in counted for skip in corpus.skips],
    )
    num_encoded = sum(one.num_encoded_now for one in drawn)
    content = report.write(
        out, seconds=time.monotonic() - started, done_now=num_encoded, unit="texts_encoded"
    )
    print_result(content, f"{_table(result)}\n{report.summary(out)}", as_json=as_json)


def _cluster(address: str, model: str, device: str) -> "EncodingCluster":
    from clipvip.pipeline.domain_gap.corpora import EncodingCluster

    gpus = 0 if device == "cpu" else None
    ray = share_machines(address, gpus=gpus, workers=None, cpus_per_worker=_CORES_PER_WORKER)
    if device == "cuda" and not ray.gpus_per_worker:
        raise UserError("--device cuda: the cluster has no GPU; use --device cpu")
    return EncodingCluster(ray, model)


def _named_paths(given: Sequence[str], side: Side) -> list[tuple[str, Path, Side]]:
    named: dict[str, Path] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise UserError(f"--{side} {text}: give NAME=PATH, as in --{side} HowTo=texts.txt")
        if name in named:
            raise UserError(f"--{side} {name}: given twice; each needs a name of its own")
        named[name] = Path(path)
    return [(name, path, side) for name, path in named.items()]


def _gap(source: "DrawnFeatures", target: "DrawnFeatures", *, seed: int) -> DomainGap:
    """`clipvip.analysis.domain_gap.domain_gap` of the two corpora, from the drawn features alone."""
    repeats = range(len(source.positions))
    return DomainGap(tuple(cluster_agreement(source.draw(n), target.draw(n), seed=seed + n) for n in repeats))


def _result(
    sources: Sequence["Corpus"], targets: Sequence["Corpus"], gaps: Sequence[Sequence[DomainGap]]
) -> dict[str, list]:
    pairs = [
        {"source": source.name, "target": target.name, "mean": gap.mean, "std": gap.std, "values": gap.values}
        for source, row in zip(sources, gaps, strict=True)
        for target, gap in zip(targets, row, strict=True)
    ]
    means = [
        {"source": source.name, "mean": float(np.mean([gap.mean for gap in row]))}
        for source, row in zip(sources, gaps, strict=True)
    ]
    return {
        "sources": [corpus.as_dict() for corpus in sources],
        "targets": [corpus.as_dict() for corpus in targets],
        "gaps": pairs,
        "means": means,
    }


def _names(result: dict[str, list]) -> tuple[list[str], list[str]]:
    return [row["name"] for row in result["sources"]], [row["name"] for row in result["targets"]]


def _draw(path: Path, result: dict[str, list]) -> None:
    rows, columns = _names(result)
    means = np.array([pair["mean"] for pair in result["gaps"]]).reshape(len(rows), len(columns))
    averages = np.array([[row["mean"]] for row in result["means"]])
    png = heat_map(
        np.hstack([means, averages]),
        rows=rows,
        columns=[*columns, "Mean"],
        title="NMI: larger is further apart",
        value_range=(0.0, 1.0),
    )
    atomic_write_bytes(path, png)


def _table(result: dict[str, list]) -> str:
    """Sources down, targets across, mean ± standard deviation over the draws, and the mean over targets."""
    rows, columns = _names(result)
    lines = []
    for index, (name, row) in enumerate(zip(rows, result["means"], strict=True)):
        pairs = result["gaps"][index * len(columns) : (index + 1) * len(columns)]
        cells = [f"{pair['mean']:.3f} ± {pair['std']:.3f}" for pair in pairs]
        lines.append([name, *cells, row["mean"]])
    head = [Column("NMI"), *(Column(name, ".3f") for name in (*columns, "Mean"))]
    return Table(head, lines).text()
