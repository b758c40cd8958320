"""What a worker process of `clipvip-data shard` does: decode the sources of one unit, write its shards."""

import io
import itertools
import os
import posixpath
import signal
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

from clipvip.media.errors import one_line
from clipvip.pipeline.runtime.time_limit import time_limit
from clipvip.pipeline.shard.blame import read_blame, take_note, write_note
from clipvip.shards.building.cutting import CutOptions, cut_clips
from clipvip.shards.building.marks import PlacedSkip, ShardMark, shard_path, write_mark
from clipvip.shards.building.pictures import cut_picture
from clipvip.shards.building.plan import Unit
from clipvip.shards.errors import NO_ROOM, DatasetError, Skip
from clipvip.shards.files.stores import Location, local_copy
from clipvip.shards.format.clip import VIDEO_EXTENSION, StoredClip
from clipvip.shards.sources.foreign_shards import ForeignSource
from clipvip.shards.sources.hdvila import Source
from clipvip.shards.sources.subtitles import Cue, read_subtitles, text_in_spans
from clipvip.shards.tar.index import ShardFile
from clipvip.shards.tar.members import read_foreign
from clipvip.shards.tar.writer import write_shard


@dataclass(frozen=True, slots=True)
class ShardTask:
    """A unit with everything needed to make it.

    `run` is the name of this run, which `blame` keeps notes by. `paths` are files or URLs, one for each of
    `unit.sources` (None: there is none). Subtitles are in `texts`, one for each clip of each source, or in
    the files or URLs `subtitles`, one for each source; else all are empty. A video that yields no frame for
    `timeout_seconds` ends the process by SIGALRM, even inside native code. `subtitle_encoding` is that
    of files that are not UTF-8 (None: to be found out).
    """

    unit: Unit
    out: Location
    run: str
    options: CutOptions
    paths: tuple[str | None, ...]
    timeout_seconds: float
    texts: tuple[tuple[str, ...], ...] | None = None
    subtitles: tuple[str | None, ...] | None = None
    subtitle_encoding: str | None = None


# A clip's number in its unit, and what became of it.
_Result = tuple[int, StoredClip | PlacedSkip]


def make_unit(task: ShardTask) -> list[ShardMark]:
    """Make the shards of one unit, mark each done, and return the marks."""
    unit, out = task.unit, task.out
    warnings: list[str] = []
    marks = []
    for shard, results in itertools.groupby(_results(task, warnings), lambda r: unit.shard_of(r[0])):
        mark = ShardMark(shard, subtitle_warnings=warnings)
        stored = _tally(mark, results)
        first = next(stored, None)
        path = shard_path(out, shard)
        if first is None:
            path.unlink(missing_ok=True)
        else:
            mark.record = write_shard(path, itertools.chain([first], stored))
        write_mark(out, mark)
        marks.append(mark)
        warnings = []
    take_note(out, task.run, unit.first_shard)
    return marks


def _tally(mark: ShardMark, results: Iterable[_Result]) -> Iterator[StoredClip]:
    """Pass on the clips that there are; note the others, and the counts, in `mark`."""
    for _, outcome in results:
        if isinstance(outcome, PlacedSkip):
            mark.skips.append(outcome)
            continue
        mark.num_frames += len(outcome.record.frame_seconds)
        mark.num_without_subtitle += not outcome.record.has_text
        yield outcome


def _results(task: ShardTask, warnings: list[str]) -> Iterator[_Result]:
    """One result for each planned clip of the unit, in order."""
    blamed = read_blame(task.out, task.unit.first_shard)
    num_done = 0
    for index, (source, path) in enumerate(zip(task.unit.sources, task.paths, strict=True)):
        outcomes: Iterable[StoredClip | Skip]
        if path is None:
            outcomes = _all_skipped(source, "missing_video", f"no video named {source.video_id}")
        elif source.line in blamed:
            outcomes = _all_skipped(source, blamed[source.line], f"while reading video {source.video_id}")
        else:
            note = {"line": source.line, "num_done": num_done, "pid": os.getpid()}
            write_note(task.out, task.run, task.unit.first_shard, **note)
            if isinstance(source, ForeignSource):
                outcomes = _cut_sample(task, source)
            else:
                outcomes = _cut(task, index, path, warnings)
        for position, outcome in zip(source.positions, outcomes, strict=True):
            if isinstance(outcome, Skip):
                yield num_done, PlacedSkip(source.line, position, outcome)
            else:
                yield num_done, outcome
            num_done += 1


def _all_skipped(source: Source, reason: str, detail: str) -> list[StoredClip | Skip]:
    return [Skip(reason, clip.clip_id, detail) for clip in source.clips]


def _cut_sample(task: ShardTask, source: ForeignSource) -> Iterator[StoredClip | Skip]:
    """The clip that a sample of others is, with its text and what its KEY.json says."""
    (clip,), span = source.clips, source.span
    assert span is not None
    with time_limit(task.timeout_seconds) as allow_more_time, ShardFile(source.file) as shard:
        try:
            foreign = read_foreign(shard, span)
            pixels = b"" if foreign is None else shard.read(span, foreign.extension)
        except DatasetError as error:
            yield Skip("damaged_sample", clip.clip_id, one_line(error))
            return
        if foreign is None:
            what = span.problem or f"its members are {', '.join(span.members)[:200]}"
            yield Skip("wrong_members", clip.clip_id, f"no sample of others: {what}")
            return
        if foreign.sentences:
            clip = replace(clip, sentences=tuple(foreign.sentences), sentences_are=foreign.sentences_are)
        text = foreign.subtitle or clip.text
        if foreign.extension == VIDEO_EXTENSION:
            file = io.BytesIO(pixels)
            cut = cut_clips(file, [clip], subtitles=[text], options=task.options, heartbeat=allow_more_time)
            outcome = next(cut)
        else:
            outcome = cut_picture(pixels, clip, subtitle=text, options=task.options)
    if isinstance(outcome, StoredClip) and foreign.metadata:
        record = outcome.record.model_copy(update={"metadata": foreign.metadata})
        outcome = replace(outcome, record=record)
    yield outcome


def _cut(task: ShardTask, index: int, path: str, warnings: list[str]) -> Iterator[StoredClip | Skip]:
    """The clips of source number `index`."""
    with time_limit(task.timeout_seconds) as allow_more_time:
        subtitles = _subtitles(task, index, warnings)
        allow_more_time()
        source = task.unit.sources[index]
        with ExitStack() as stack:
            try:
                path = stack.enter_context(local_copy(path, heartbeat=allow_more_time))
            except OSError as error:
                yield from _all_skipped(source, *_why_not_fetched(error))
                return
            for outcome in cut_clips(
                path, source.clips, subtitles=subtitles, options=task.options, heartbeat=allow_more_time
            ):
                signal.setitimer(signal.ITIMER_REAL, 0)  # writing it may take its time
                yield outcome
                allow_more_time()


def _why_not_fetched(error: OSError) -> tuple[str, str]:
    """Reason and detail of a video that a store does not give; a full disk here is raised."""
    if error.errno in NO_ROOM:
        raise error
    if isinstance(error, FileNotFoundError):
        return "missing_video", "it was listed, and is gone"
    return "unreachable_video", one_line(error, most=200)


def _subtitles(task: ShardTask, index: int, warnings: list[str]) -> list[str]:
    """The text of each clip of source number `index`; "" where there is none."""
    source = task.unit.sources[index]
    if any(clip.sentences for clip in source.clips):
        return [clip.text for clip in source.clips]
    if task.texts is not None:
        return list(task.texts[index])
    cues = None
    try:
        cues = _cues(task, index, warnings)
    except DatasetError as error:
        warnings.append(str(error))
    if cues is None:
        return [""] * len(source.clips)
    return text_in_spans(cues, [(clip.start_seconds, clip.end_seconds) for clip in source.clips])


def _cues(task: ShardTask, index: int, warnings: list[str]) -> list[Cue] | None:
    """What is said in source number `index`; None where there are no subtitles. Doubts go into `warnings`.

    Raises:
        DatasetError: they cannot be read, or understood; it names the file without its folder.
    """
    place = None if task.subtitles is None else task.subtitles[index]
    if place is None:
        return None
    return read_subtitles(
        place, name=posixpath.basename(place), encoding=task.subtitle_encoding, warn=warnings.append
    )
