"""The stage `benchmark`: the tests of the paper's Tables 5 to 7 in one go, its figures beside."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import click
import yaml

from clipvip.media.errors import one_line
from clipvip.pipeline.evaluate.actions import actions
from clipvip.pipeline.evaluate.baselines import Figure, cells
from clipvip.pipeline.evaluate.multiple_choice import multiple_choice
from clipvip.pipeline.evaluate.options import DEFAULT_RESAMPLES, Bootstrap, EncodingOptions, result_folder
from clipvip.pipeline.evaluate.output import Output, finish
from clipvip.pipeline.evaluate.published import HMDB51_PROMPT, RETRIEVAL, ZERO_SHOT, ZERO_SHOT_TITLES
from clipvip.pipeline.evaluate.retrieval import RetrievalScores, retrieval
from clipvip.pipeline.pages.tables import Column, Table
from clipvip.pipeline.runtime.errors import UserError, nearest
from clipvip.pipeline.runtime.options import ALSO, LAST, opt, options
from clipvip.pipeline.runtime.report import Report, StageReport
from clipvip.pipeline.runtime.stage import stage
from clipvip.shards.files.atomic import atomic_write_bytes
from clipvip.shards.files.places import read_whole
from clipvip.shards.files.stores import Location

RESULT_NAME, TABLES_NAME = "benchmark.json", "tables.md"
_RECALLS = ("r1", "r5", "r10")
_FROM_PAPER = "the paper"
# What the file says of a test: of these the first two, or the first three, must be there.
_KEYS = {
    "retrieval": ("shards", "model"),
    "actions": ("shards", "classes", "labels", "prompts", "model"),
    "multiple_choice": ("shards", "questions", "model"),
}
_OPTIONAL = ("model", "labels", "prompts")
_KIND = {
    **dict.fromkeys(RETRIEVAL, "retrieval"),
    **{name: "multiple_choice" if name.endswith("_mc") else "actions" for name in ZERO_SHOT_TITLES},
}
Tests = dict[str, dict[str, Any]]


@options
class BenchmarkOptions(EncodingOptions):
    """Options of `benchmark`."""

    data: Location = opt(
        f"What to test on: a YAML file with a section for each of {', '.join(_KIND)} that there is; {ALSO}."
    )
    model: str | None = opt(
        f"A CLIP-ViP model, or a plain CLIP or SigLIP, for all tests whose section names none; {ALSO}.",
        metavar="FOLDER_OR_NAME",
        shown="that of each section",
        default=None,
    )
    baselines: Annotated[tuple[str, ...], LAST] = opt(
        "Another model to show beside it, such as the plain CLIP that it started from; repeatable.",
        names=("--baseline",),
        metavar="FOLDER_OR_NAME",
        default=(),
    )
    out: Location | None = result_folder(RESULT_NAME)
    bootstrap: Bootstrap = DEFAULT_RESAMPLES


@dataclass(frozen=True, kw_only=True)
class BenchmarkReport(StageReport):
    """The report of each test by its name in the file, as `retrieval`, `actions` or `multiple_choice` has it.

    `tables` are the paper's, in Markdown.
    """

    tests: dict[str, Any]
    tables: str


@stage(
    BenchmarkOptions,
    "clipvip-eval benchmark",
    "--data tests.yaml --model runs/b32/model --baseline openai/clip-vit-base-patch32 --out benchmark",
    resumable=False,
)
def benchmark(options: BenchmarkOptions) -> BenchmarkReport:
    """Run the tests of the paper's Tables 5 to 7, and print these tables with the paper's figures beside.

    Retrieval is scored from text to video, also with the dual softmax (DSL); zero-shot tests by accuracy. All
    have 95% intervals. A test on other clips than the published ones is named as such.

    Raises:
        UserError, DatasetError, CheckpointError: what was given cannot be used, or no clip of a test.

    Examples:
        >>> import clipvip
        >>> report = clipvip.benchmark(data="tests.yaml", model="runs/b32/model")
        >>> 0 <= report.tests["msrvtt"].text_to_video.r1 <= 1
        True
    """
    started = time.monotonic()
    tests = _read_tests(options)
    reports = {}
    for name, settings in tests.items():
        click.echo(f"{name}: {settings['shards']}", err=True)
        out = None if options.out is None else options.out / name
        reports[name] = _STAGES[_KIND[name]](**_common(options), **settings, out=out)
    tables = _tables(tests, reports)
    text = "\n\n".join(f"{title}\n{table.text()}{note}" for title, table, note in tables)
    markdown = "\n\n".join(f"## {title}\n\n{table.markdown()}\n{note}" for title, table, note in tables)
    result = {name: reports[name].content["result"] | _beside(name) for name in tests}
    about: dict[str, object] = {"data": str(options.data)}
    about |= {"model": options.model} if options.model else {}
    output = Output(RESULT_NAME, options.out, None)
    report = Report("benchmark", about, counts={"tests": len(tests)})
    made = finish(report, {"tests": result}, text, output=output, started=started)
    if options.out is not None:
        atomic_write_bytes(options.out / TABLES_NAME, f"# {options.data}\n\n{markdown}\n".encode())
    return BenchmarkReport(content=made.content, text=made.text, tests=reports, tables=markdown)


def _retrieval(**settings: Any) -> Any:
    return retrieval(dsl=True, **settings)


_STAGES: dict[str, Callable[..., Any]] = {
    "retrieval": _retrieval,
    "actions": actions,
    "multiple_choice": multiple_choice,
}


def _common(options: BenchmarkOptions) -> dict[str, Any]:
    names = ("num_frames", "max_text_tokens", "batch_size", "workers", "max_pixels", "device")
    return {name: getattr(options, name) for name in (*names, "baselines", "bootstrap")}


def _read_tests(options: BenchmarkOptions) -> Tests:
    """The tests that the file names, in the order of the paper's tables; UserError: one that cannot be."""
    place = options.data
    try:
        tree = yaml.safe_load(read_whole(place))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"--data {place}: not YAML ({one_line(error, most=200)})") from error
    if not isinstance(tree, dict) or not tree:
        raise UserError(f"--data {place}: give a section for each test, such as msrvtt: {{shards: FOLDER}}")
    for name in tree:
        if name not in _KIND:
            hint = nearest(str(name), _KIND) or f"; there are {', '.join(_KIND)}"
            raise UserError(f"--data {place}: no test is called {name!r}{hint}")
    return {
        name: _settings(f"--data {place}: {name}", name, tree[name], options)
        for name in _KIND
        if name in tree
    }


def _settings(where: str, name: str, given: object, options: BenchmarkOptions) -> dict[str, Any]:
    known = _KEYS[_KIND[name]]
    if not isinstance(given, dict):
        raise UserError(f"{where}: give it {', '.join(key for key in known if key not in _OPTIONAL)}")
    for key, value in given.items():
        if key not in known:
            hint = nearest(str(key), known) or f"; it has {', '.join(known)}"
            raise UserError(f"{where}: has no {key!r}{hint}")
        is_texts = isinstance(value, list) and all(isinstance(one, str) for one in value)
        if not (is_texts if key == "prompts" else isinstance(value, str)):
            raise UserError(f"{where}.{key}: give {'a list of texts' if key == 'prompts' else 'a text'}")
    if missing := [key for key in known if key not in given and key not in _OPTIONAL]:
        raise UserError(f"{where}: lacks {' and '.join(missing)}")
    settings = {"model": options.model, **given}
    if settings["model"] is None:
        raise UserError(f"{where}: names no model; give --model, or a model there")
    if name == "hmdb51":
        settings.setdefault("prompts", [HMDB51_PROMPT])
    return settings


def _beside(name: str) -> dict[str, Any]:
    """What the paper reports of a test, in percent."""
    if name in RETRIEVAL:
        return {"paper": {model: scores._asdict() for model, scores in RETRIEVAL[name].scores.items()}}
    return {"paper": {model: scores[name] for model, scores in ZERO_SHOT.items()}}


def _tables(tests: Tests, reports: Mapping[str, Any]) -> list[tuple[str, Table, str]]:
    """Title, table and note of each test of retrieval, and of all zero-shot tests together."""
    found = []
    for name, report in reports.items():
        if name in RETRIEVAL:
            about = RETRIEVAL[name]
            title = f"{about.title}, text to video (Tables 5 and 6 of the paper)"
            note = ""
            if report.scores.num_clips != about.num_clips:
                note = f"\nnot the published test: {report.scores.num_clips:,} clips of {about.num_clips:,}"
            found.append((title, _of_retrieval(name, str(tests[name]["model"]), report), note))
    zero_shot = {name: report for name, report in reports.items() if name in ZERO_SHOT_TITLES}
    if zero_shot:
        title = "Zero-shot accuracy (Table 7 of the paper: B/32)"
        found.append((title, _of_zero_shot(tests, zero_shot), ""))
    return found


def _of_retrieval(name: str, model: str, report: Any) -> Table:
    columns = [Column("model")]
    for title in ("R@1", "R@5", "R@10"):
        columns += [Column(title, ".1f"), Column("95% interval")]
    columns += [Column("MdR", ".1f"), Column("from")]
    rows: list[list[object]] = []
    ours: dict[str, RetrievalScores] = {model: report.scores, **report.baselines}
    for one, scores in ours.items():
        for kind, suffix in {"plain": "", "dsl": ", DSL"}.items():
            metrics = scores.metrics[kind].text_to_video
            ends = metrics.intervals or {}
            figures = [Figure(getattr(metrics, key), ends.get(key)) for key in _RECALLS]
            shown = [cell for figure in figures for cell in cells(figure)]
            rows.append([f"{one}{suffix}", *shown, metrics.median_rank, "this run"])
    for one, paper in RETRIEVAL[name].scores.items():
        shown = [cell for recall in paper[:3] for cell in (recall, "")]
        rows.append([one, *shown, paper.median_rank, _FROM_PAPER])
    return Table(columns, rows)


def _of_zero_shot(tests: Tests, reports: Mapping[str, Any]) -> Table:
    columns = [Column("model")]
    for name in reports:
        columns += [Column(ZERO_SHOT_TITLES[name], ".1f"), Column("95% interval")]
    # Sections may name models of their own; each is a row.
    by_model: dict[str, dict[str, Figure]] = {}
    for name, report in reports.items():
        for model, scores in {str(tests[name]["model"]): report.scores, **report.baselines}.items():
            by_model.setdefault(model, {})[name] = _accuracy(scores)
    rows: list[list[object]] = [
        [
            model,
            *(cell for name in reports for cell in (cells(some[name]) if name in some else (None, ""))),
            "this run",
        ]
        for model, some in by_model.items()
    ]
    rows += [
        [model, *(cell for name in reports for cell in (some[name], "")), _FROM_PAPER]
        for model, some in ZERO_SHOT.items()
    ]
    return Table([*columns, Column("from")], rows)


def _accuracy(scores: Any) -> Figure:
    """Of a test of classes the top-1 accuracy, of one of questions the accuracy."""
    if hasattr(scores, "top1"):
        return Figure(scores.top1, (scores.intervals or {}).get("top1"))
    return Figure(scores.accuracy, scores.interval)
