"""A study from its plan to its page: run the tasks, read what they found, write tables and figures."""

import shlex
import time
from dataclasses import asdict

import click

from clipvip.experiments.study.page import as_markdown, as_page, as_text, chart_of, figures_of
from clipvip.experiments.study.plan import StudyRun, make_plan
from clipvip.experiments.study.report import CHART_NAME, RESULTS_NAME, SCHEMA
from clipvip.experiments.study.results import read_results
from clipvip.experiments.study.small_world import SmallWorld
from clipvip.experiments.study.tasks import is_finished, run_tasks
from clipvip.pipeline.pages.plots import svg_file
from clipvip.pipeline.runtime.ray_units import RayCluster
from clipvip.pipeline.runtime.report import Report
from clipvip.shards.files.atomic import atomic_write_bytes, write_json
from clipvip.shards.files.claims import lock_folder

TABLES_NAME, PAGE_NAME = "tables.md", "index.html"


def run_studies(study: StudyRun, *, workers: int, gpus: int, ray: str | None, dry_run: bool) -> None:
    """Run what is not finished and write results.json, tables.md, the figures and index.html.

    Raises:
        UserError, DatasetError: a task failed, its result cannot be read, or another run is at work there.
    """
    started = time.monotonic()
    out = study.out
    tasks = make_plan(study, workers=max(1, workers // len(study.seeds)))
    if dry_run:
        if isinstance(study.source, SmallWorld):
            click.echo(shlex.join(study.source.preparation(out)))
        for task in tasks:
            mark = "finished  " if is_finished(task, out) else ""
            click.echo(f"{mark}{shlex.join(task.command)}")
        return
    click.get_current_context().with_resource(lock_folder(out))
    if isinstance(study.source, SmallWorld):
        study.source.prepare(out, tasks)
    cluster = None if ray is None else RayCluster(ray, gpus_per_worker=min(1, gpus))
    num_run = run_tasks(tasks, out, jobs=workers, num_gpus=0 if cluster else gpus, ray=cluster)
    results = read_results(study)
    content = {"schema": SCHEMA, "seeds": study.seeds, "studies": [asdict(result) for result in results]}
    write_json(out / RESULTS_NAME, content)
    atomic_write_bytes(out / TABLES_NAME, as_markdown(results).encode())
    atomic_write_bytes(out / f"{CHART_NAME}.svg", svg_file(chart_of(results)))
    for result in results:
        for name, plot in figures_of(result).items():
            atomic_write_bytes(out / f"{name}.svg", svg_file(plot))
    atomic_write_bytes(out / PAGE_NAME, as_page(results, note=_note(study)))
    counts: dict[str, int | float] = {"seeds": len(study.seeds), "runs": len(tasks)}
    report = Report("study", {"studies": study.names, "seeds": study.seeds}, counts)
    made = report.finish(out, started=started, done_now=num_run, unit="runs")
    for result in results:
        click.echo(f"{as_text(result)}\n")
    click.echo(f"{made.text}\n  to look at: {out / PAGE_NAME}")


def _note(study: StudyRun) -> str:
    where = "a small made-up world for each" if isinstance(study.source, SmallWorld) else "your data"
    return (
        f"Seeds {', '.join(map(str, study.seeds))}, {where}. Text-to-video recalls in percent, mean and half "
        "of the 95% interval over the seeds (Student's t); differences are paired by seed. The paper's "
        "numbers are of full size, of MSR-VTT and, where motion decides, of DiDeMo: it is the order that can "
        "be compared, not the numbers."
    )
