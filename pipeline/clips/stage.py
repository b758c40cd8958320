"""The stage `clips`: a folder of videos that has no list of clips -> the list that `shard` cuts them by."""

import itertools
import os
import posixpath
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clipvip.pipeline.clips.journal import JOURNAL_NAME, Journal, parse_divided, read_journal
from clipvip.pipeline.clips.work import ClipsTask, Divided, Division, divide_video
from clipvip.pipeline.runtime.device import num_cores
from clipvip.pipeline.runtime.errors import UserError, WrongOptions
from clipvip.pipeline.runtime.options import ALSO, DryRun, SubtitleEncoding, Workers, finite, opt, options
from clipvip.pipeline.runtime.progress import Progress
from clipvip.pipeline.runtime.report import Report, StageReport, duration, planned
from clipvip.pipeline.runtime.stage import StageFailed, StageOptions, stage
from clipvip.pipeline.runtime.workers import Outcome, run_units
from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.files.atomic import write_jsonl
from clipvip.shards.files.claims import SKIPPED_NAME, Options, claim_folder, require_free_folder
from clipvip.shards.files.stores import is_url, parse_location
from clipvip.shards.format.clip import make_key
from clipvip.shards.sources.hdvila import index_videos, video_paths
from clipvip.shards.sources.subtitles import index_subtitles

_PIECE_SECONDS, _MOST_SECONDS = 8.0, 20.0
# What may be otherwise the next time is not noted, and so tried again.
_MAY_PASS = {"timeout", "decoder_crashed", "unreachable_video"}


@options
class ClipsOptions(StageOptions):
    """Options of `clips`. Paths may be URLs of stores (s3://, gs://) where the text says so."""

    videos: str = opt(argument=True, metavar="VIDEOS", kw_only=False)
    out: Path = opt("File for the list of clips, such as clips.jsonl; OUT.report lists what was skipped.")
    by: Literal["pieces", "shots", "subtitles"] = opt(
        "How to divide videos: into pieces of one length, shots (PySceneDetect) or sentences (subtitles).",
        default="pieces",
    )
    seconds: float | None = opt(
        "Length of a piece in seconds, or the longest that a clip by shots or sentences may be.",
        finite(0.1),
        shown=f"{_PIECE_SECONDS:g}; for shots and sentences {_MOST_SECONDS:g}",
        default=None,
    )
    shortest: float = opt(
        "Shortest length in seconds; a shorter clip is joined to its neighbour.", finite(0), default=1.0
    )
    threshold: float = opt(
        "For --by shots: a shot ends where frames differ by at least this, of 255.",
        finite(0, 255),
        default=27.0,
    )
    subtitles: str | None = opt(
        f"Folder of .vtt, .srt or .json3 files, for --by subtitles; {ALSO}.", default=None
    )
    subtitle_encoding: SubtitleEncoding = None
    workers: Workers = None
    video_timeout: float = opt(
        "Give up a video after this many seconds without a new frame.", finite(0, above=True), default=120.0
    )
    dry_run: DryRun = False

    @property
    def division(self) -> Division:
        """How videos are divided."""
        default = _PIECE_SECONDS if self.by == "pieces" else _MOST_SECONDS
        seconds = self.seconds or default
        return Division(self.by, seconds, self.shortest, self.threshold, self.subtitle_encoding)

    @property
    def made_by(self) -> Options:
        """What the list depends on beside the videos, which its report is known by."""
        made: dict[str, str | float] = {
            "by": self.by,
            "seconds": self.division.seconds,
            "shortest": self.shortest,
        }
        if self.by == "shots":
            made["threshold"] = self.threshold
        if self.subtitle_encoding is not None:
            made["subtitle_encoding"] = self.subtitle_encoding
        return made

    def packages(self) -> dict[str, str]:
        return super().packages() | ({"scenedetect": "--by shots"} if self.by == "shots" else {})


@stage(
    ClipsOptions,
    "clipvip-data clips",
    "videos/ --out clips.jsonl",
    "videos/ --out clips.jsonl --by shots --seconds 12",
    "videos/ --out clips.jsonl --by subtitles --subtitles subtitles/",
)
def clips(options: ClipsOptions) -> StageReport:
    """List the clips of a folder of videos that has no list; `shard` takes the list as --metadata.

    VIDEOS is a folder of video files, also s3://, gs:// and hf://. Damaged files are skipped and named; one
    that is cut short is listed as far as it can be read. Run the same command again after an interruption,
    or when videos were added: only new files are read.

    Raises:
        UserError, DatasetError: what was given cannot be used; StageFailed: there is no clip in any video.

    Examples:
        >>> import clipvip
        >>> report = clipvip.clips("videos", seconds=5, out="listed.jsonl", workers=1)
        >>> report.counts["videos"]
        4
    """
    started = time.monotonic()
    _require_sense(options)
    source = _Source(options, index_videos(options.videos), _subtitles(options))
    if not source.videos:
        raise UserError(f"{options.videos}: holds no video files; give a folder of videos")
    folder = options.out.with_name(f"{options.out.name}.report")
    if options.out.exists() and not (folder / JOURNAL_NAME).exists():
        raise UserError(f"--out {options.out}: is there, and not of an earlier run; give another file")
    if options.dry_run:
        require_free_folder(folder, options.made_by, outputs=JOURNAL_NAME)
        return _dry_report(options.out, source, read_journal(folder))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with claim_folder(folder, options.made_by, outputs=JOURNAL_NAME):
        failed, num_done = _look_into(source, folder, options.workers or num_cores())
        listed = _List(source, read_journal(folder), failed)
        rows = listed.rows()
        first = next(rows, None)
        if first is None:
            options.out.unlink(missing_ok=True)  # an earlier run's, of videos that are gone
        else:
            write_jsonl(options.out, itertools.chain([first], rows))
        report = Report(
            "clips",
            options.made_by,
            counts=listed.counts(),
            skips=listed.skips,
            words={"hours": duration(listed.seconds)},
        )
        content = report.write(folder, seconds=time.monotonic() - started, done_now=num_done, unit="videos")
        text = report.summary(folder).replace(f"-> {folder}", f"-> {options.out}", 1)
        made = StageReport(content=content, text=text)
    if first is None:
        raise StageFailed(f"no video has a clip; {folder / SKIPPED_NAME} says why", made)
    return made


def _require_sense(options: ClipsOptions) -> None:
    """UserError: options that do not go together, or PySceneDetect is wanting."""
    by, seconds = options.by, options.division.seconds
    if by == "subtitles" and options.subtitles is None:
        raise WrongOptions("--by subtitles: give the folder of subtitles to --subtitles")
    if by != "subtitles" and options.subtitles is not None:
        raise WrongOptions(f"--subtitles: goes with --by subtitles, not with {by}; leave it out")
    if by != "subtitles" and options.subtitle_encoding is not None:
        raise WrongOptions(f"--subtitle-encoding: goes with --by subtitles, not with {by}; leave it out")
    if seconds < options.shortest:
        raise WrongOptions(f"--seconds {seconds:g}: is less than --shortest {options.shortest:g}; give more")
    if options.out.is_dir():
        raise UserError(f"--out {options.out}: is a folder; give a file, as clips.jsonl")


def _subtitles(options: ClipsOptions) -> Mapping[str, str]:
    """Video id -> subtitle file, where videos are divided by these."""
    if options.subtitles is None:
        return {}
    place = parse_location(options.subtitles)
    if isinstance(place, Path) and not place.is_dir():
        raise UserError(f"{place}: no such folder of subtitles; give it to --subtitles")
    found = index_subtitles(options.subtitles)
    if not found:
        raise UserError(
            f"{options.subtitles}: holds no subtitle files; give a folder of .vtt, .srt or .json3 files"
        )
    return found


@dataclass(frozen=True)
class _Source:
    """The videos of a folder, by their ids, and their subtitles."""

    options: ClipsOptions
    videos: Mapping[str, str]
    subtitles: Mapping[str, str]

    def entries(self) -> Iterator[ClipsTask | Skip]:
        """What to do for each file, in their order, or why nothing."""
        base = self.options.videos.rstrip("/")
        for path in video_paths(self.options.videos):
            name = path.removeprefix(base).lstrip("/")
            video_id = posixpath.splitext(posixpath.basename(path))[0]
            subtitles = self.subtitles.get(video_id)
            skip = self._why_not(video_id, name, path)
            if skip is None and self.options.by == "subtitles" and subtitles is None:
                skip = Skip("no_subtitles", name, f"no subtitle file named {video_id}")
            file = " ".join([_content_of(path, name), *([_content_of(subtitles)] if subtitles else [])])
            yield skip or ClipsTask(
                video_id, name, file, path, subtitles, self.options.division, self.options.video_timeout
            )

    def tasks(self) -> Iterator[ClipsTask]:
        return (entry for entry in self.entries() if isinstance(entry, ClipsTask))

    def count(self, known: Mapping[str, str]) -> tuple[int, int]:
        """How many videos there are to look into, and how many of them are `known`."""
        is_known = Counter(task.file in known for task in self.tasks())
        return is_known.total(), is_known[True]

    def _why_not(self, video_id: str, name: str, path: str) -> Skip | None:
        try:
            make_key(video_id, 0)
            video_id.encode()
        except (DatasetError, UnicodeEncodeError):
            return Skip("unsafe_id", ascii(name)[1:-1], "its name cannot be a video id; rename the file")
        if self.videos.get(video_id) != path:
            return Skip("duplicate_id", name, f"another file is named {video_id} too; rename one")
        return None


def _content_of(path: str, name: str = "") -> str:
    """A file by name, size and time; by its URL in a store."""
    if is_url(path):
        return path
    try:
        status = os.stat(path)
    except OSError:  # gone since it was listed; opening it will say so
        return f"{name or os.path.basename(path)} gone"
    return f"{name or os.path.basename(path)} {status.st_size} {status.st_mtime_ns}"


def _look_into(source: _Source, folder: Path, workers: int) -> tuple[dict[str, Skip], int]:
    """Look into the videos that the journal lacks; those that failed this time, and the number of all."""
    failed: dict[str, Skip] = {}
    num_done = num_skipped = 0
    with ExitStack() as resources:
        journal = resources.enter_context(Journal(folder))
        known = journal.known
        total, num_known = source.count(known)
        bar = resources.enter_context(Progress("clips", total=total, unit="videos", initial=num_known))
        missing = (task for task in source.tasks() if task.file not in known)
        outcomes = resources.enter_context(closing(run_units(divide_video, missing, workers=workers)))
        for outcome in outcomes:
            divided = outcome.result or _failed(outcome)
            if divided.skip is not None and divided.skip.reason in _MAY_PASS:
                failed[outcome.unit.file] = divided.skip
            else:
                journal.add(outcome.unit.file, divided)
            num_done += 1
            num_skipped += divided.skip is not None
            bar.add(1, skipped=num_skipped)
    return failed, num_done


def _failed(outcome: Outcome[ClipsTask, Divided]) -> Divided:
    assert outcome.failure is not None
    reason = {"crashed": "decoder_crashed", "timeout": "timeout"}[outcome.failure.reason]
    return Divided((), Skip(reason, outcome.unit.name, outcome.failure.detail))


class _List:
    """The list of clips: a row for each video that has any; what was skipped and counted while it is read."""

    def __init__(self, source: _Source, known: Mapping[str, str], failed: Mapping[str, Skip]) -> None:
        self._source, self._known, self._failed = source, known, failed
        self.skips: list[Skip] = []
        self._num_videos = self._num_clips = 0
        self.seconds = 0.0

    def rows(self) -> Iterator[dict[str, Any]]:
        for entry in self._source.entries():
            if isinstance(entry, Skip):
                self.skips.append(entry)
                continue
            divided = self._divided(entry)
            if divided.skip is not None:
                self.skips.append(divided.skip)
            if divided.spans:
                self._num_videos += 1
                self._num_clips += len(divided.spans)
                self.seconds += sum(end - start for start, end in divided.spans)
                listed = [
                    {"clip_id": f"{entry.video_id}.{number}.mp4", "span": list(span)}
                    for number, span in enumerate(divided.spans)
                ]
                yield {"video_id": entry.video_id, "clip": listed}

    def _divided(self, task: ClipsTask) -> Divided:
        if task.file in self._failed:
            return Divided((), self._failed[task.file])
        if task.file in self._known:
            divided = parse_divided(self._known[task.file])
            if divided.spans or divided.skip:
                return divided
            return Divided(
                (), Skip("no_clips", task.name, "no subtitle lies within the time of its pictures")
            )
        return Divided((), Skip("changed", task.name, "changed meanwhile; run the same command again"))

    def counts(self) -> dict[str, int | float]:
        hours = round(self.seconds / 3600, 2)
        return {"clips": self._num_clips, "videos": self._num_videos, "hours": hours}


def _dry_report(out: Path, source: _Source, known: Mapping[str, str]) -> StageReport:
    num_videos, num_done = source.count(known)
    text = planned("clips: would read", num_videos - num_done, num_videos, "videos", out)
    content = {"stage": "clips", "counts": {"videos": num_videos, "videos_done": num_done}}
    return StageReport(content=content, text=text)
