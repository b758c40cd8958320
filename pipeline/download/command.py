"""The stage `clipvip-data download`: a list of videos -> their files and subtitles, as `shard` reads them.

Options, the order of things, and what is remembered; one video is fetched by `download_work`.
"""

import importlib.util
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipvip.pipeline.download.archive import FETCHED, PASSING, PERMANENT, Archive, Entry, read_outcomes
from clipvip.pipeline.runtime.errors import StageCommand, UserError
from clipvip.pipeline.runtime.options import dry_run_option, json_option, print_result
from clipvip.pipeline.runtime.progress import Progress
from clipvip.pipeline.runtime.report import Report
from clipvip.pipeline.runtime.workers import Outcome, run_units
from clipvip.shards.errors import Skip
from clipvip.shards.files.claims import SKIPPED_NAME, STATE_FOLDER, Options, claim_folder
from clipvip.shards.sources.download_list import Wanted, read_wanted
from clipvip.shards.sources.hdvila import index_videos

if TYPE_CHECKING:
    from clipvip.pipeline.download.fetch import FetchTask

_MOST_REFUSALS_IN_A_ROW = 10
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{1,12})*")
_FACTORS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}


def _parse_rate(_context: click.Context, option: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmg]?)", value.strip().lower())
    if match is None or float(match[1]) == 0:
        raise click.BadParameter("give bytes a second, as 500K or 2.5M", param=option)
    return float(match[1]) * _FACTORS[match[2]]


def _parse_languages(_context: click.Context, option: click.Parameter, value: str) -> tuple[str, ...]:
    languages = tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
    if not all(map(_LANGUAGE.fullmatch, languages)):
        raise click.BadParameter("give language codes, as en or en,de; '' for no subtitles", param=option)
    return languages


_EPILOG = """\b
Examples:
  clipvip-data download --metadata clips.jsonl --out videos/
  clipvip-data download --metadata ids.txt --out videos/ --subtitle-languages en,de --rate-limit 20M
"""


@click.command(cls=StageCommand, epilog=_EPILOG)
@click.option("--metadata", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="HD-VILA-100M's JSONL, or one link or YouTube id a line.")  # fmt: skip
@click.option("--out", required=True, type=Path, help="Folder for videos and subtitles.")
@click.option("--height", type=click.IntRange(min=16), default=360, show_default=True,
              help="The best format up to this height (of the shorter side); else the smallest.")  # fmt: skip
@click.option("--subtitle-languages", "languages", default="en", show_default=True, callback=_parse_languages,
              help="Languages to fetch subtitles in, manual before automatic; '' for none.")  # fmt: skip
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Processes, each with one video.",
)
@click.option("--sleep", "sleep_seconds", type=click.FloatRange(min=0), default=1.0, show_default=True,
              help="Seconds between two requests for a video, over all workers.")  # fmt: skip
@click.option("--rate-limit", "rate", default=None, metavar="BYTES", callback=_parse_rate,
              help="Most bytes a second, over all workers; as 500K or 20M.")  # fmt: skip
@click.option("--retries", type=click.IntRange(min=0), default=3, show_default=True,
              help="Tries after a first that failed in passing.")  # fmt: skip
@click.option("--retry-wait", "retry_seconds", type=click.FloatRange(min=0), default=5.0, show_default=True,
              help="Seconds before the second try; doubled for each further one.")  # fmt: skip
@click.option(
    "--retry-permanent", is_flag=True, help="Also try again what failed for good, as with --cookies."
)
@click.option("--stall-timeout", "stall_seconds", type=click.FloatRange(0, min_open=True), default=30.0,
              show_default=True, help="Give a connection up after so many seconds without a byte.")  # fmt: skip
@click.option("--video-timeout", type=click.FloatRange(0, min_open=True), default=7200.0, show_default=True,
              help="Give a video up after so many seconds, tries included.")  # fmt: skip
@click.option("--cookies", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=None,
              help="Cookies to ask with, in Netscape format; the file is only read.")  # fmt: skip
@json_option
@dry_run_option("how many videos there are to fetch, and how many are there")
def command(
    metadata: Path,
    out: Path,
    height: int,
    languages: tuple[str, ...],
    workers: int,
    rate: float | None,
    retry_permanent: bool,
    video_timeout: float,
    cookies: Path | None,
    as_json: bool,
    dry_run: bool,
    **polite: Any,
) -> None:
    """Fetch videos and their subtitles by yt-dlp.

    What is there is not fetched again. Videos that are private, removed or blocked are remembered as such; what
    failed in passing is tried again by the next run, which is the same command. The folder is what
    `clipvip-data shard` takes for --videos and --subtitles.
    """
    started = time.monotonic()
    if importlib.util.find_spec("yt_dlp") is None:
        raise UserError("yt-dlp is not installed; run: pip install 'clipvip[download]'")
    from clipvip.pipeline.download.fetch import PACE_NAME, FetchOptions, FetchTask, fetch_video, read_cookies

    fetch_options = FetchOptions(
        height=height,
        languages=languages,
        bytes_per_second=rate / workers if rate else None,
        cookies=None if cookies is None else read_cookies(cookies),
        **polite,
    )
    options: Options = {"height": height, "subtitle_languages": list(languages)}
    survey = _survey(metadata)
    if dry_run:
        _tell_plan(metadata, out, survey, retry_permanent=retry_permanent, as_json=as_json)
        return
    with claim_folder(out, options):
        archive = Archive(out)
        plan = _plan(metadata, archive.outcome, index_videos(out), retry_permanent=retry_permanent)
        tasks = (FetchTask(wanted, out, fetch_options) for wanted in plan.missing(metadata))
        with closing(
            run_units(fetch_video, tasks, workers=workers, timeout_seconds=video_timeout)
        ) as outcomes:
            num_fetched, refusal = _record(outcomes, archive, num_missing=plan.num_missing)
        archive.compact()
        report = _report(metadata, archive, plan, survey, options)
        archive.close()
        (out / STATE_FOLDER / PACE_NAME).unlink(missing_ok=True)
        content = report.write(out, seconds=time.monotonic() - started, done_now=num_fetched, unit="videos")
    print_result(content, report.summary(out), as_json=as_json)
    if report.counts["to_try_again"]:
        click.echo(
            f"  {report.counts['to_try_again']:,} failed in passing: run the same command again", err=as_json
        )
    if refusal is not None:
        raise UserError(
            f"stopped: the site refused {_MOST_REFUSALS_IN_A_ROW} videos in a row ({refusal}); "
            "run again in some hours, with a longer --sleep, fewer --workers or --cookies"
        )
    if not report.counts["fetched"]:
        raise UserError(f"no video could be fetched; {out / SKIPPED_NAME} says why")


@dataclass
class _Survey:
    """What the list asks for, and what in it cannot be asked for."""

    num_videos: int = 0
    skips: list[Skip] = field(default_factory=list)


def _survey(metadata: Path) -> _Survey:
    survey = _Survey()
    for wanted in read_wanted(metadata):
        if isinstance(wanted, Skip):
            survey.skips.append(wanted)
        else:
            survey.num_videos += 1
    if not survey.num_videos and not survey.skips:
        raise UserError(f"{metadata}: lists no videos; give HD-VILA's JSONL or one link or YouTube id a line")
    return survey


def _wanted(metadata: Path) -> Iterator[Wanted]:
    return (wanted for wanted in read_wanted(metadata) if isinstance(wanted, Wanted))


@dataclass
class _Plan:
    """Which videos of the list to fetch.

    `again` failed before; `there` lie in the folder without this stage knowing of them, and are left as they are.
    """

    new: set[str] = field(default_factory=set)
    again: set[str] = field(default_factory=set)
    there: set[str] = field(default_factory=set)

    @property
    def num_missing(self) -> int:
        return len(self.new) + len(self.again)

    def missing(self, metadata: Path) -> Iterator[Wanted]:
        """New ones first: what failed before may well fail again."""
        for ids in (self.new, self.again):
            yield from (wanted for wanted in _wanted(metadata) if wanted.video_id in ids)


def _plan(
    metadata: Path,
    outcome_of: Callable[[str], str | None],
    videos: Mapping[str, str],
    *,
    retry_permanent: bool,
) -> _Plan:
    plan = _Plan()
    for wanted in _wanted(metadata):
        outcome = outcome_of(wanted.video_id)
        if outcome is None:
            (plan.there if wanted.video_id in videos else plan.new).add(wanted.video_id)
        elif outcome == PASSING or (outcome == PERMANENT and retry_permanent):
            plan.again.add(wanted.video_id)
    return plan


def _tell_plan(metadata: Path, out: Path, survey: _Survey, *, retry_permanent: bool, as_json: bool) -> None:
    """Say what a run would do, without a change in the folder."""
    outcomes = read_outcomes(out)
    videos = index_videos(out) if out.is_dir() else {}
    plan = _plan(metadata, outcomes.get, videos, retry_permanent=retry_permanent)
    counts = {
        "videos": survey.num_videos,
        "to_fetch": len(plan.new),
        "to_try_again": len(plan.again),
        "not_to_be_fetched": survey.num_videos - plan.num_missing,
        "unusable_lines": len(survey.skips),
    }
    text = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in counts.items())
    print_result({"stage": "download", "counts": counts}, f"download: {text} -> {out}", as_json=as_json)


def _record(
    outcomes: Iterable[Outcome["FetchTask", Entry]], archive: Archive, *, num_missing: int
) -> tuple[int, str | None]:
    """Remember each outcome; how many were fetched, and what the site said where it refuses all (None: it does not)."""
    from clipvip.pipeline.download.fetch import REFUSED

    num_fetched = num_failed = num_refused = 0
    with Progress("download", total=num_missing, unit="video") as bar:
        for outcome in outcomes:
            entry = outcome.result or _failed(outcome)
            archive.add(entry)
            num_fetched += entry.outcome == FETCHED
            num_failed += entry.outcome != FETCHED
            bar.add(1, skipped=num_failed)
            num_refused = num_refused + 1 if entry.reason in REFUSED else 0
            if num_refused == _MOST_REFUSALS_IN_A_ROW:
                return num_fetched, entry.detail
    return num_fetched, None


def _failed(outcome: Outcome["FetchTask", Entry]) -> Entry:
    wanted, failure = outcome.unit.wanted, outcome.failure
    assert failure is not None
    return Entry(wanted.video_id, wanted.url, PASSING, reason=failure.reason, detail=failure.detail)


def _report(metadata: Path, archive: Archive, plan: _Plan, survey: _Survey, options: Options) -> Report:
    """Sum up what there is of the videos of this list, in the list's order."""
    outcomes: Counter[str] = Counter()
    subtitles: Counter[str] = Counter()
    reasons: dict[str, Counter[str]] = {PERMANENT: Counter(), PASSING: Counter()}
    num_bytes, skips = 0, []
    for wanted in _wanted(metadata):
        if archive.outcome(wanted.video_id) is None:
            continue
        entry = archive.entry(wanted.video_id)
        outcomes[entry.outcome] += 1
        if entry.outcome == FETCHED:
            num_bytes += entry.num_bytes
            subtitles.update({one.kind for one in entry.subtitles} or {"none"})
        else:
            reasons[entry.outcome][entry.reason] += 1
            skips.append(Skip(entry.reason, wanted.video_id, entry.detail))
    counts: dict[str, int | float] = {
        "videos": survey.num_videos,
        "fetched": outcomes[FETCHED] + len(plan.there),
        "bytes": num_bytes,
        "failed_for_good": outcomes[PERMANENT],
        "to_try_again": survey.num_videos - outcomes[FETCHED] - outcomes[PERMANENT] - len(plan.there),
    }
    details = {
        "already_there": len(plan.there),
        "subtitles": dict(sorted(subtitles.items())),
        "failed_for_good": dict(sorted(reasons[PERMANENT].items())),
        "to_try_again": dict(sorted(reasons[PASSING].items())),
    }
    return Report("download", options, counts=counts, details=details, skips=survey.skips + skips)
