"""The stage `download`: a list of videos -> their files and subtitles, as `shard` reads them."""

import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipvip.pipeline.download.archive import FETCHED, PASSING, PERMANENT, Archive, Entry, read_outcomes
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.options import Listed, at_least, finite, opt, options
from clipvip.pipeline.runtime.progress import Progress
from clipvip.pipeline.runtime.report import Report, StageReport, counted
from clipvip.pipeline.runtime.stage import StageFailed, StageOptions, stage
from clipvip.pipeline.runtime.workers import Outcome, run_units
from clipvip.shards.errors import Skip
from clipvip.shards.files.claims import SKIPPED_NAME, STATE_FOLDER, Options, claim_folder
from clipvip.shards.sources.download_list import Wanted, read_wanted
from clipvip.shards.sources.hdvila import index_videos

if TYPE_CHECKING:
    from clipvip.pipeline.download.fetch import FetchTask

_MOST_REFUSALS_IN_A_ROW = 10
_LANGUAGES = Listed(
    r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{1,12})*", "give language codes, as en or en,de; '' for no subtitles"
)
_RATE = re.compile(r"(\d+(?:\.\d+)?)([kmg]?)")
_FACTORS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class _Rate(click.ParamType):
    """Bytes a second, `500K` or `2.5M`; from Python also a number."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, str):
            match = _RATE.fullmatch(value.strip().lower())
            value = float(match[1]) * _FACTORS[match[2]] if match else 0
        if not 0 < value < math.inf:
            self.fail("give bytes a second, as 500K or 2.5M", param, ctx)
        return float(value)


@options
class DownloadOptions(StageOptions):
    """What `download` is asked for."""

    metadata: Path = opt("HD-VILA-100M's JSONL, or one link or YouTube id a line.", _FILE)
    out: Path = opt("Folder for videos and subtitles.")
    height: int = opt(
        "Most pixels of the shorter side: the best format up to this is fetched, or else the smallest.",
        at_least(16),
        default=360,
    )
    subtitle_languages: tuple[str, ...] = opt(
        "Languages to fetch subtitles in, manual before automatic; '' for none.", _LANGUAGES, default=("en",)
    )
    workers: int = opt("Processes, each with one video.", at_least(1), default=4)
    sleep: float = opt("Seconds between two requests for a video, over all workers.", finite(0), default=1.0)
    rate_limit: float | None = opt(
        "Most bytes per second, over all workers, such as 500K or 20M.",
        _Rate(),
        metavar="BYTES",
        default=None,
    )
    retries: int = opt("Retries after a transient failure.", at_least(0), default=3)
    retry_wait: float = opt(
        "Seconds before the first retry; doubled for each further one.", finite(0), default=5.0
    )
    retry_permanent: bool = opt("Also try again what failed for good, such as with --cookies.", default=False)
    stall_timeout: float = opt(
        "Give up a connection after this many seconds without a byte.", finite(0, above=True), default=30.0
    )
    video_timeout: float = opt(
        "Give up a video after this many seconds, retries included.", finite(0, above=True), default=7200.0
    )
    cookies: Path | None = opt(
        "File of cookies to send, in Netscape format; it is only read.", _FILE, default=None
    )
    dry_run: bool = opt(
        "Say how many videos there are to fetch, and how many are there, and write nothing.", default=False
    )

    @property
    def made_by(self) -> Options:
        """What the videos depend on, which a folder is known by."""
        return {"height": self.height, "subtitle_languages": list(self.subtitle_languages)}

    @property
    def bytes_per_worker(self) -> float | None:
        """Most bytes a second of one worker."""
        return self.rate_limit / self.workers if self.rate_limit else None

    def packages(self) -> dict[str, str]:
        return super().packages() | {"yt_dlp": "download"}


@stage(
    DownloadOptions,
    "clipvip-data download",
    "--metadata clips.jsonl --out videos/",
    "--metadata ids.txt --out videos/ --subtitle-languages en,de --rate-limit 20M",
)
def download(options: DownloadOptions) -> StageReport:
    """Fetch videos and their subtitles, with yt-dlp.

    Videos that are there are not fetched again. Private, removed and blocked videos are remembered;
    transient failures are tried again by the next run of the same command. The folder is what
    `clipvip-data shard` takes for --videos and --subtitles.

    Raises:
        UserError, DatasetError: what was given cannot be used; StageFailed: there is no video, or the site
            refuses all.

    Examples:
        >>> import clipvip
        >>> clipvip.download(metadata="clips.jsonl", out="fetched", dry_run=True).counts["videos"]
        4
    """
    started = time.monotonic()
    from clipvip.pipeline.download.fetch import PACE_NAME, FetchTask, fetch_video, read_cookies

    metadata, out = options.metadata, options.out
    cookies = None if options.cookies is None else read_cookies(options.cookies)
    num_videos, unusable = _survey(metadata)
    if options.dry_run:
        return _tell_plan(options, num_videos, len(unusable))
    with claim_folder(out, options.made_by):
        archive = Archive(out)
        videos = index_videos(out)
        plan = _plan(options, archive.outcome, videos)
        tasks = (FetchTask(wanted, options, cookies) for wanted in plan.missing(metadata))
        with closing(
            run_units(fetch_video, tasks, workers=options.workers, timeout_seconds=options.video_timeout)
        ) as outcomes:
            num_fetched, refusal = _record(outcomes, archive, num_missing=plan.num_missing)
        archive.compact()
        report = _report(options, archive, plan, num_videos, unusable)
        archive.close()
        (out / STATE_FOLDER / PACE_NAME).unlink(missing_ok=True)
        made = report.finish(out, started=started, done_now=num_fetched, unit="videos")
    if again := made.counts["to_try_again"]:
        failed = f"{counted(again, 'videos')} failed that may work later"
        made = replace(made, note=f"  {failed}: run the same command again")
    if refusal is not None:
        raise StageFailed(
            f"stopped: the site refused {_MOST_REFUSALS_IN_A_ROW} videos in a row ({refusal}); "
            "run again in some hours, with a longer --sleep, fewer --workers or --cookies",
            made,
        )
    if not made.counts["fetched"]:
        raise StageFailed(f"no video could be fetched; {out / SKIPPED_NAME} says why", made)
    return made


def _survey(metadata: Path) -> tuple[int, list[Skip]]:
    """How many videos the list asks for, and what in it cannot be asked for."""
    num_videos, skips = 0, []
    for wanted in read_wanted(metadata):
        if isinstance(wanted, Skip):
            skips.append(wanted)
        else:
            num_videos += 1
    if not num_videos and not skips:
        raise UserError(f"{metadata}: lists no videos; give HD-VILA's JSONL or one link or YouTube id a line")
    return num_videos, skips


def _wanted(metadata: Path) -> Iterator[Wanted]:
    return (wanted for wanted in read_wanted(metadata) if isinstance(wanted, Wanted))


@dataclass
class _Plan:
    """Which videos of the list to fetch.

    `again` failed before; `there` lie in the folder without the archive knowing of them, and are left as
    they are.
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
    options: DownloadOptions, outcome_of: Callable[[str], str | None], videos: Mapping[str, str]
) -> _Plan:
    plan = _Plan()
    for wanted in _wanted(options.metadata):
        outcome = outcome_of(wanted.video_id)
        if outcome is None:
            (plan.there if wanted.video_id in videos else plan.new).add(wanted.video_id)
        elif outcome == PASSING or (outcome == PERMANENT and options.retry_permanent):
            plan.again.add(wanted.video_id)
    return plan


def _tell_plan(options: DownloadOptions, num_videos: int, num_unusable: int) -> StageReport:
    """Say what a run would do, without a change in the folder."""
    out = options.out
    videos = index_videos(out) if out.is_dir() else {}
    plan = _plan(options, read_outcomes(out).get, videos)
    counts = {
        "videos": num_videos,
        "to_fetch": len(plan.new),
        "to_try_again": len(plan.again),
        "not_to_be_fetched": num_videos - plan.num_missing,
        "unusable_lines": num_unusable,
    }
    text = Report("download", {}, dict(counts)).summary(out)
    return StageReport(content={"stage": "download", "counts": counts}, text=text)


def _record(
    outcomes: Iterable[Outcome["FetchTask", Entry]], archive: Archive, *, num_missing: int
) -> tuple[int, str | None]:
    """Remember each outcome; how many were fetched, and what the site said if it refuses all, else None."""
    from clipvip.pipeline.download.fetch import REFUSED

    num_fetched = num_failed = num_refused = 0
    with Progress("download", total=num_missing, unit="videos") as bar:
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


def _report(
    options: DownloadOptions, archive: Archive, plan: _Plan, num_videos: int, unusable: list[Skip]
) -> Report:
    """Sum up what there is of the videos of this list, in the list's order."""
    outcomes: Counter[str] = Counter()
    subtitles: Counter[str] = Counter()
    reasons: dict[str, Counter[str]] = {PERMANENT: Counter(), PASSING: Counter()}
    num_bytes, skips = 0, []
    for wanted in _wanted(options.metadata):
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
        "videos": num_videos,
        "fetched": outcomes[FETCHED] + len(plan.there),
        "bytes": num_bytes,
        "failed_for_good": outcomes[PERMANENT],
        "to_try_again": num_videos - outcomes[FETCHED] - outcomes[PERMANENT] - len(plan.there),
    }
    details = {
        "already_there": len(plan.there),
        "subtitles": dict(sorted(subtitles.items())),
        "failed_for_good": dict(sorted(reasons[PERMANENT].items())),
        "to_try_again": dict(sorted(reasons[PASSING].items())),
    }
    return Report("download", options.made_by, counts=counts, details=details, skips=unusable + skips)
