"""A study's results in a document: the tables between two marks, and the figures beside it."""

from dataclasses import dataclass
from pathlib import Path

import click
from pydantic import TypeAdapter, ValidationError

from clipvip.experiments.study.page import as_markdown, chart_of, claims_summary, figures_of
from clipvip.experiments.study.results import FoundStudy
from clipvip.pipeline.pages.plots import svg_file
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.options import opt, options
from clipvip.pipeline.runtime.report import StageReport, counted
from clipvip.pipeline.runtime.stage import StageOptions, stage
from clipvip.shards.files.atomic import atomic_write_bytes

RESULTS_NAME, CHART_NAME, SCHEMA = "results.json", "claims", 2
BEGIN, END = "<!-- results of clipvip-study -->", "<!-- end of the results -->"
_FILE = click.Path(dir_okay=False, path_type=Path)


@dataclass(frozen=True)
class StudyResults:
    """The content of results.json."""

    schema: int
    seeds: tuple[int, ...]
    studies: tuple[FoundStudy, ...]


def read_results_file(path: Path) -> StudyResults:
    """What a study wrote to results.json; a UserError where that cannot be read."""
    try:
        results = TypeAdapter(StudyResults).validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror or error}); give the results.json of a study"
        ) from error
    except ValidationError as error:
        raise UserError(
            f"{path}: does not hold results as this version of clipvip-study writes them; run the study again"
        ) from error
    return results


def results_block(results: StudyResults, figures: str) -> str:
    """The results as Markdown; the figures are named as in the folder `figures`."""
    if not results.studies:
        return "No results yet."
    seeds = ", ".join(map(str, results.seeds))
    names = [CHART_NAME, *(name for study in results.studies for name in figures_of(study))]
    images = {CHART_NAME: "The paper's claims: differences with 95% intervals", "fig1": "Fig. 1",
              "encoders": "R@1 against the steps of fine-tuning, by encoder"}  # fmt: skip
    drawn = "\n\n".join(f"![{images[name]}]({figures}/study_{name}.svg)" for name in names)
    tables = as_markdown(results.studies, level=3)
    return f"{claims_summary(results.studies)} Seeds {seeds}.\n\n{drawn}\n\n{tables}"


@options
class ReportOptions(StageOptions):
    """What `write_report` is asked for."""

    results: Path = opt("The results.json of a study.", _FILE)
    into: Path = opt(f"Markdown file; the results go between its lines '{BEGIN}' and '{END}'.", _FILE)
    figures: Path = opt(
        "Folder for the figures, relative to that of --into.",
        click.Path(file_okay=False, path_type=Path),
        default=Path("assets"),
    )


@stage(ReportOptions, "clipvip-study report", "--results study/results.json --into docs/study.md")
def write_report(options: ReportOptions) -> StageReport:
    """Put a study's tables and figures into a document.

    Raises:
        UserError: a file cannot be read, or it has no such marks.
    """
    results = read_results_file(options.results)
    try:
        text = options.into.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise UserError(f"{options.into}: cannot be read ({error})") from error
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise UserError(f"{options.into}: needs one line '{BEGIN}' and, below it, one line '{END}'; add them")
    folder = options.into.parent / options.figures
    folder.mkdir(parents=True, exist_ok=True)
    plots = {CHART_NAME: svg_file(chart_of(results.studies))} if results.studies else {}
    for study in results.studies:
        plots |= {name: svg_file(plot) for name, plot in figures_of(study).items()}
    for name, content in plots.items():
        atomic_write_bytes(folder / f"study_{name}.svg", content)
    before, after = text[: text.index(BEGIN)], text[text.index(END) :]
    block = results_block(results, options.figures.as_posix())
    atomic_write_bytes(options.into, f"{before}{BEGIN}\n\n{block}\n{after}".encode())
    return StageReport(
        content={"seeds": len(results.seeds), "figures": len(plots)},
        text=f"report: {counted(len(results.studies), 'tables')} of {counted(len(results.seeds), 'seeds')} "
        f"-> {options.into}",
    )
