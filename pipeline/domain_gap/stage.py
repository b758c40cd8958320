"""The stage `nmi`: texts of corpora -> CLIP features -> how far apart their language is (Table 1).

The measure is `clipvip.analysis.domain_gap`; reading and encoding the texts that it draws is `corpora`.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from clipvip.analysis.domain_gap import DomainGap, cluster_agreement, require_faiss
from clipvip.analysis.plots import heat_map
from clipvip.pipeline.pages.tables import Column, Table
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.options import Device, LocalName, Named, RayAddress, at_least, opt, options
from clipvip.pipeline.runtime.ray_units import share_machines
from clipvip.pipeline.runtime.report import Report, StageReport
from clipvip.pipeline.runtime.stage import StageOptions, stage
from clipvip.shards.files.atomic import atomic_write_bytes, write_json
from clipvip.shards.files.claims import lock_folder

if TYPE_CHECKING:
    from clipvip.pipeline.domain_gap.corpora import Corpus, DrawnFeatures, EncodingCluster

_CORES_PER_WORKER = 4
RESULT_NAME = "nmi.json"
PICTURE_NAME = "nmi.png"


@options
class DomainGapOptions(StageOptions):
    """What `nmi` is asked for. Corpora are {name: path}, or (name, path) pairs, or "NAME=PATH" texts."""

    sources: Mapping[str, str | Path] = opt(
        "A corpus to train on; repeatable. PATH: a text file with one text a line, a .jsonl or .parquet "
        "table, a folder of shards (subtitles) or of captions.",
        Named(),
        names=("--source",),
        metavar="NAME=PATH",
    )
    targets: Mapping[str, str | Path] = opt(
        "A corpus of the task at hand, as MSR-VTT's captions; repeatable.",
        Named(),
        names=("--target",),
        metavar="NAME=PATH",
    )
    model: str = opt("The CLIP model whose text tower is used.", LocalName(), metavar="FOLDER_OR_NAME")
    out: Path = opt(
        "Folder for nmi.json, nmi.png and the texts' features.", click.Path(file_okay=False, path_type=Path)
    )
    samples: int = opt(
        "Texts to draw on each side; the paper's number is the default.", at_least(1), default=1000
    )
    repeats: int = opt("Draws to average.", at_least(1), default=10)
    seed: int = opt("Seed of the draws.", at_least(0), default=0)
    batch_size: int = opt("Texts at once.", at_least(1), default=64)
    device: Device = "auto"
    ray: RayAddress = None


@dataclass(frozen=True, slots=True)
class CorpusGap:
    """How far a source is from a target: a value in [0, 1] a draw, their mean and standard deviation."""

    source: str
    target: str
    mean: float
    std: float
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class DomainGapReport(StageReport):
    """What `nmi` found: the gap of each source to each target, source by source."""

    gaps: tuple[CorpusGap, ...]


@stage(DomainGapOptions, "clipvip-data nmi")
def nmi(options: DomainGapOptions) -> DomainGapReport:
    """Measure how far apart the language of corpora is, as normalised mutual information (Table 1).

    0: their texts cannot be told apart; 1: two clusters of CLIP features are the two corpora. Writes
    nmi.json, nmi.png and report.json. Features are kept under --out, so the same command again is quick.

    Raises:
        UserError, DatasetError: what was given cannot be used.
    """
    started = time.monotonic()
    try:
        require_faiss()
    except ImportError as error:
        raise UserError(str(error)) from error
    # torch is imported from here on, so that mistakes above are told at once.
    from clipvip.pipeline.domain_gap.corpora import count_texts, encode_drawn
    from clipvip.pipeline.domain_gap.encoder import load_text_encoder
    from clipvip.pipeline.runtime.device import torch_device

    samples, out = options.samples, options.out
    sources = [
        count_texts(name, Path(path), "source", samples=samples) for name, path in options.sources.items()
    ]
    targets = [
        count_texts(name, Path(path), "target", samples=samples) for name, path in options.targets.items()
    ]
    counted = [*sources, *targets]
    cluster = _cluster(options.ray, options) if options.ray else None
    encoder = load_text_encoder(options.model, device=torch_device("cpu" if cluster else options.device))
    with lock_folder(out):
        drawn = [
            encode_drawn(
                corpus,
                encoder,
                out=out,
                samples=samples,
                repeats=options.repeats,
                seed=options.seed,
                batch_size=options.batch_size,
                cluster=cluster,
            )
            for corpus in counted
        ]
        gaps = tuple(
            _gap(source, target, seed=options.seed)
            for source in drawn[: len(sources)]
            for target in drawn[len(sources) :]
        )
        made_by = {
            "model": options.model,
            "samples": samples,
            "repeats": options.repeats,
            "seed": options.seed,
            "normalizer": "arithmetic",
        }
        result = _result(sources, targets, gaps)
        fingerprint = {"model_sha256": encoder.fingerprint}
        write_json(
            out / RESULT_NAME, {"schema": 1, "stage": "nmi", "options": made_by, **fingerprint, **result}
        )
        _draw(out / PICTURE_NAME, result)
        report = Report(
            "nmi",
            {
                **made_by,
                "sources": [f"{name}={path}" for name, path in options.sources.items()],
                "targets": [f"{name}={path}" for name, path in options.targets.items()],
                "batch_size": options.batch_size,
            },
            counts={
                "texts": sum(corpus.num_texts for corpus in counted),
                "empty_texts_passed_over": sum(corpus.num_empty for corpus in counted),
                "pairs": len(gaps),
            },
            details={"result": result},
            skips=[skip for corpus in counted for skip in corpus.skips],
        )
        num_encoded = sum(one.num_encoded_now for one in drawn)
        made = report.finish(out, started=started, done_now=num_encoded, unit="texts_encoded")
    return DomainGapReport(content=made.content, text=f"{_table(result)}\n{made.text}", gaps=gaps)


def _cluster(address: str, options: DomainGapOptions) -> "EncodingCluster":
    from clipvip.pipeline.domain_gap.corpora import EncodingCluster

    gpus = 0 if options.device == "cpu" else None
    ray = share_machines(address, gpus=gpus, workers=None, cpus_per_worker=_CORES_PER_WORKER)
    if options.device == "cuda" and not ray.gpus_per_worker:
        raise UserError("--device cuda: the cluster has no GPU; use --device cpu")
    return EncodingCluster(ray, options.model)


def _gap(source: "DrawnFeatures", target: "DrawnFeatures", *, seed: int) -> CorpusGap:
    """`clipvip.analysis.domain_gap.domain_gap` of the two corpora, from the drawn features alone."""
    repeats = range(len(source.positions))
    gap = DomainGap(tuple(cluster_agreement(source.draw(n), target.draw(n), seed=seed + n) for n in repeats))
    return CorpusGap(source.corpus.name, target.corpus.name, gap.mean, gap.std, gap.values)


def _result(
    sources: Sequence["Corpus"], targets: Sequence["Corpus"], gaps: Sequence[CorpusGap]
) -> dict[str, list]:
    means = [
        {
            "source": source.name,
            "mean": float(np.mean([gap.mean for gap in gaps if gap.source == source.name])),
        }
        for source in sources
    ]
    return {
        "sources": [corpus.as_dict() for corpus in sources],
        "targets": [corpus.as_dict() for corpus in targets],
        "gaps": [asdict(gap) for gap in gaps],
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
