"""The stage `nmi`: texts of corpora -> features -> how far apart their language is (Table 1).

The measure is `clipvip.analysis.domain_gap`; `corpora` reads and encodes the texts that it draws.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click
import numpy as np

from clipvip.analysis.domain_gap import DomainGap, Side, cluster_agreement
from clipvip.analysis.plots import heat_map, interval_bars
from clipvip.pipeline.pages.tables import Column, Table
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.options import (
    ALSO,
    MOST_DRAWS,
    Device,
    Named,
    PlaceType,
    RayAddress,
    at_least,
    opt,
    options,
)
from clipvip.pipeline.runtime.ray_units import RayCluster, share_machines
from clipvip.pipeline.runtime.report import Report, StageReport, counted
from clipvip.pipeline.runtime.stage import StageOptions, stage
from clipvip.shards.files.atomic import atomic_write_bytes, write_json
from clipvip.shards.files.claims import lock_folder
from clipvip.shards.files.places import location_of
from clipvip.shards.files.stores import Location

if TYPE_CHECKING:
    from clipvip.pipeline.domain_gap.corpora import DrawnFeatures

_CORES_PER_WORKER = 4
_FEW_SAMPLES = 20
RESULT_NAME = "nmi.json"
PICTURE_NAME = "nmi.png"


@options
class DomainGapOptions(StageOptions):
    """What `nmi` is asked for. Corpora are {name: path}, or (name, path) pairs, or "NAME=PATH" texts."""

    sources: Mapping[str, str | Location] = opt(
        "A corpus to train on; repeatable. PATH: a text file with one text a line, a .jsonl or .parquet "
        f"table, a folder of shards (subtitles) or of captions; {ALSO}.",
        Named(),
        names=("--source",),
        metavar="NAME=PATH",
    )
    targets: Mapping[str, str | Location] = opt(
        "A corpus of the task at hand, such as MSR-VTT's captions; repeatable.",
        Named(),
        names=("--target",),
        metavar="NAME=PATH",
    )
    model: str = opt(
        "The text encoder: a CLIP, CLIP-ViP or SigLIP, of which the text tower is used, or a "
        f"sentence-embedding model; {ALSO}.",
        metavar="FOLDER_OR_NAME",
    )
    out: Location = opt(
        f"Folder for nmi.json, nmi.png and the texts' features; {ALSO}.", PlaceType(file_okay=False)
    )
    samples: int = opt(
        "Texts to draw from each corpus; the default is the paper's number.", at_least(1), default=1000
    )
    repeats: int = opt("Draws to average.", at_least(1, MOST_DRAWS), default=10)
    seed: int = opt("Seed of the draws.", at_least(0), default=0)
    batch_size: int = opt("Texts in a batch.", at_least(1), default=64)
    device: Device = "auto"
    ray: RayAddress = None

    def packages(self) -> dict[str, str]:
        return super().packages() | {"faiss": "nmi"}


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


@stage(
    DomainGapOptions,
    "clipvip-data nmi",
    "--source subtitles=clips/ --source captions=captions/ --target mine=queries.txt\n"
    "--model openai/clip-vit-base-patch32 --out nmi/",
)
def nmi(options: DomainGapOptions) -> DomainGapReport:
    """Measure how far apart the language of corpora is, as normalised mutual information (Table 1).

    0: the corpora cannot be told apart; 1: the two clusters of features are the two corpora. Writes
    nmi.json, nmi.png and report.json. Features are kept under --out, so the same command again is quick.

    Raises:
        UserError, DatasetError: what was given cannot be used.

    Examples:
        >>> import clipvip
        >>> report = clipvip.nmi(
        ...     sources={"subtitles": "clips", "captions": "captions"},
        ...     targets={"queries": "queries.txt"},
        ...     model="openai/clip-vit-base-patch32",
        ...     samples=20,
        ...     out="gaps",
        ... )
        >>> [(gap.source, gap.target) for gap in report.gaps]
        [('subtitles', 'queries'), ('captions', 'queries')]
    """
    started = time.monotonic()
    # torch is imported from here on, so that mistakes above are told at once.
    from clipvip.pipeline.domain_gap.corpora import count_texts, encode_drawn
    from clipvip.pipeline.domain_gap.encoder import load_text_encoder
    from clipvip.pipeline.runtime.device import torch_device

    sides: tuple[tuple[Side, Mapping[str, str | Location]], ...]
    sides = ("source", options.sources), ("target", options.targets)
    corpora = [
        count_texts(name, location_of(path), side, samples=options.samples)
        for side, paths in sides
        for name, path in paths.items()
    ]
    _warn_of_few(options.samples)
    cluster = _cluster(options) if options.ray else None
    encoder = load_text_encoder(options.model, device=torch_device("cpu" if cluster else options.device))
    out = options.out
    with lock_folder(out):
        drawn = [encode_drawn(corpus, encoder, options, cluster) for corpus in corpora]
        sources, targets = drawn[: len(options.sources)], drawn[len(options.sources) :]
        gaps = [_gap(source, target, options) for source in sources for target in targets]
        rows = {name: [gap for gap in gaps if gap.source == name] for name in options.sources}
        means = {name: float(np.mean([gap.mean for gap in row])) for name, row in rows.items()}
        made_by = {name: getattr(options, name) for name in ("model", "samples", "repeats", "seed")}
        made_by["normalizer"] = "arithmetic"
        result = {
            "sources": [one.corpus.as_dict() for one in sources],
            "targets": [one.corpus.as_dict() for one in targets],
            "gaps": [asdict(gap) for gap in gaps],
            "means": [{"source": name, "mean": mean} for name, mean in means.items()],
        }
        fingerprint = {"model_sha256": encoder.fingerprint}
        write_json(
            out / RESULT_NAME, {"schema": 1, "stage": "nmi", "options": made_by, **fingerprint, **result}
        )
        atomic_write_bytes(out / PICTURE_NAME, _picture(rows, list(options.targets)))
        given = {f"{side}s": [f"{name}={path}" for name, path in paths.items()] for side, paths in sides}
        num_empty = sum(corpus.num_empty for corpus in corpora)
        empty = f"{counted(num_empty, 'empty texts')} skipped" if num_empty else ""
        report = Report(
            "nmi",
            {**made_by, **given, "batch_size": options.batch_size},
            counts={
                "texts": sum(corpus.num_texts for corpus in corpora),
                "empty_texts_passed_over": num_empty,
                "pairs": len(gaps),
            },
            details={"result": result},
            skips=[skip for corpus in corpora for skip in corpus.skips],
            words={"empty_texts_passed_over": empty, "pairs": counted(len(gaps), "pairs of corpora")},
        )
        num_encoded = sum(one.num_encoded_now for one in drawn)
        made = report.finish(out, started=started, done_now=num_encoded, unit="texts_encoded")
    # Sources down, targets across, mean ± standard deviation over the draws, and the mean over targets.
    lines = [[key, *(f"{g.mean:.3f} ± {g.std:.3f}" for g in row), means[key]] for key, row in rows.items()]
    head = [Column("NMI"), *(Column(name, ".3f") for name in (*options.targets, "Mean"))]
    text = f"{Table(head, lines).text()}\n{made.text}"
    return DomainGapReport(content=made.content, text=text, gaps=tuple(gaps))


def _warn_of_few(samples: int) -> None:
    if samples < _FEW_SAMPLES:
        click.echo(
            f"Warning: --samples {samples}: of so few texts even equal corpora seem apart, and the numbers "
            f"say little; give {_FEW_SAMPLES} or more",
            err=True,
        )


def _picture(rows: Mapping[str, Sequence[CorpusGap]], targets: Sequence[str]) -> bytes:
    """Bars for one target, a heat map for several."""
    if len(targets) == 1:
        gaps = [gap for (gap,) in rows.values()]
        return interval_bars(
            list(rows),
            [gap.mean for gap in gaps],
            [gap.std for gap in gaps],
            title=f"How far from {targets[0]}",
            label=f"NMI, mean ± deviation of {counted(len(gaps[0].values), 'draws')}: 0 alike, 1 fully apart",
        )
    table = np.array([[gap.mean for gap in row] for row in rows.values()])
    table = np.column_stack([table, table.mean(1)])
    return heat_map(
        table,
        rows=list(rows),
        columns=[*targets, "Mean"],
        title="NMI: larger is further apart",
        value_range=(0.0, float(table.max()) or 1.0),
    )


def _cluster(options: DomainGapOptions) -> RayCluster:
    assert options.ray is not None
    gpus = 0 if options.device == "cpu" else None
    ray = share_machines(options.ray, gpus=gpus, workers=None, cpus_per_worker=_CORES_PER_WORKER)
    if options.device == "cuda" and not ray.gpus_per_worker:
        raise UserError("--device cuda: the cluster has no GPU; use --device cpu")
    return ray


def _gap(source: "DrawnFeatures", target: "DrawnFeatures", options: DomainGapOptions) -> CorpusGap:
    """`clipvip.analysis.domain_gap.domain_gap` of the two corpora, from the drawn features alone."""
    pairs = zip(source.positions, target.positions, strict=True)
    gap = DomainGap(
        tuple(
            cluster_agreement(
                source.features[rows],
                target.features[columns],
                seed=options.seed + n,
                use_gpu=options.device != "cpu",
            )
            for n, (rows, columns) in enumerate(pairs)
        )
    )
    return CorpusGap(source.corpus.name, target.corpus.name, gap.mean, gap.std, gap.values)
