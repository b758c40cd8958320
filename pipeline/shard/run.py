"""Hand the units of `clipvip-data shard` to workers, show how far they are, and survive their deaths."""

import threading
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeGuard

from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.progress import Progress
from clipvip.pipeline.runtime.ray_units import RayCluster
from clipvip.pipeline.runtime.workers import Outcome, run_units
from clipvip.pipeline.shard.blame import (
    add_blame,
    count_clips_in_progress,
    forget_blame,
    read_blame,
    take_note,
)
from clipvip.pipeline.shard.work import ShardTask, make_unit
from clipvip.shards.building.mark_store import MarkStore
from clipvip.shards.building.marks import ShardMark, read_mark
from clipvip.shards.building.plan import Unit
from clipvip.shards.files.claims import STATE_FOLDER
from clipvip.shards.files.stores import Location
from clipvip.shards.sources.foreign_shards import ForeignSource
from clipvip.shards.sources.hdvila import Source

_BLAME_REASONS = {"crashed": "decoder_crashed", "timeout": "timeout"}
# What may be otherwise the next time: files come, servers answer again, machines have more memory.
_MAY_PASS = {
    *("missing_video", "unreachable_video", "undecodable_video", "no_video_stream"),
    *("timeout", "decoder_crashed"),
}
# So many tasks of units that failed, a megabyte each at most, are kept before they are made again.
_MOST_FAILED = 1000
_SECONDS_BETWEEN_LOOKS = {True: 1.0, False: 30.0}  # on this machine's disk, in a store


def make_tasks(
    units: Iterable[Unit],
    *,
    paths: Mapping[str, str],
    texts: Mapping[str, str] | None = None,
    subtitles: Mapping[str, str] | None = None,
    **common: Any,
) -> Iterator[ShardTask]:
    """Add to each unit its videos' paths and its subtitles: a table of clip id (or key) and text, or files.

    `common` are the other fields of `ShardTask`.
    """

    def texts_of(source: Source) -> tuple[str, ...]:
        assert texts is not None
        return tuple(texts.get(clip.clip_id) or texts.get(clip.key, "") for clip in source.clips)

    run = uuid.uuid4().hex[:12]
    for unit in units:
        ids = [source.video_id for source in unit.sources]
        files = (s.file if isinstance(s, ForeignSource) else paths.get(s.video_id) for s in unit.sources)
        yield ShardTask(
            unit=unit,
            run=run,
            paths=tuple(files),
            texts=None if texts is None else tuple(map(texts_of, unit.sources)),
            subtitles=None if subtitles is None else tuple(map(subtitles.get, ids)),
            **common,
        )


def count_work(tasks: Iterable[ShardTask], *, retry_skipped: bool = False) -> dict[str, int]:
    """How many shards and clips there are to make, how many are done; how many videos have no file."""
    counts = dict.fromkeys(("shards", "shards_done", "clips", "clips_done", "videos_without_file"), 0)
    for task in tasks:
        is_done = _is_done(_marks_of(task), retry_skipped=retry_skipped)
        counts["shards"] += task.unit.num_shards
        counts["shards_done"] += is_done * task.unit.num_shards
        counts["clips"] += task.unit.num_clips
        counts["clips_done"] += is_done * task.unit.num_clips
        counts["videos_without_file"] += task.paths.count(None)
    return counts


def make_shards(
    tasks: Iterable[ShardTask],
    out: Location,
    num_clips: int,
    *,
    workers: int,
    ray: RayCluster | None = None,
    retry_skipped: bool = False,
) -> tuple[MarkStore, int]:
    """Make every shard that is not there yet; with `retry_skipped` also those that lack a video.

    A worker that dies is put down to the video that it had open, and the unit is made again without it.

    Returns:
        The marks of all shards, and the number of clips that this run had to look at.

    Raises:
        UserError: a worker died without having a video open.
    """
    marks = MarkStore(out / STATE_FOLDER if isinstance(out, Path) else None)
    num_tried = 0
    with Progress("shard", total=num_clips, unit="clips") as bar, _LiveProgress(bar, out) as progress:

        def missing() -> Iterator[ShardTask]:
            for task in tasks:
                found = _marks_of(task)
                if _is_done(found, retry_skipped=retry_skipped):
                    for mark in found:
                        marks.add(mark)
                    progress.finish(task, found)
                    continue
                if retry_skipped:
                    forget_blame(task.out, task.unit.first_shard)
                yield task

        new_tasks, again = missing(), deque[ShardTask]()
        while True:
            failed: list[ShardTask] = []
            waiting = _waiting(again, new_tasks, failed, progress)
            for outcome in run_units(make_unit, waiting, workers=workers, ray=ray):
                if outcome.result is None:
                    bar.note(_blame(outcome))
                    failed.append(outcome.unit)
                    continue
                for mark in outcome.result:
                    marks.add(mark)
                num_tried += outcome.unit.unit.num_clips
                progress.finish(outcome.unit, outcome.result)
            if not failed:
                return marks, num_tried
            again.extend(failed)


def _waiting(
    again: deque[ShardTask], new: Iterator[ShardTask], failed: list[ShardTask], progress: "_LiveProgress"
) -> Iterator[ShardTask]:
    """What there is to do, until so much has failed that it is made again before it fills the memory."""
    while len(failed) < _MOST_FAILED:
        task = again.popleft() if again else next(new, None)
        if task is None:
            return
        progress.begin(task)
        yield task


class _LiveProgress:
    """Keeps the bar moving within units: a shard may take minutes."""

    def __init__(self, bar: Progress, out: Location) -> None:
        self._bar = bar
        self._out = out
        self._seconds_between_looks = _SECONDS_BETWEEN_LOOKS[isinstance(out, Path)]
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)
        self._num_finished = self._num_shown = self._num_skipped = 0
        self._at_work: dict[int, str] = {}  # first shard of a unit -> its run

    def begin(self, task: ShardTask) -> None:
        """Look at how far a unit is, until it is finished."""
        with self._lock:
            self._at_work[task.unit.first_shard] = task.run

    def finish(self, task: ShardTask, marks: list[ShardMark]) -> None:
        """Count a finished unit."""
        with self._lock:
            self._at_work.pop(task.unit.first_shard, None)
            self._num_finished += task.unit.num_clips
            self._num_skipped += sum(len(mark.skips) for mark in marks)
            self._show(self._num_finished)

    def _look_on(self) -> None:
        while not self._stop.wait(self._seconds_between_looks):
            with self._lock:
                self._show(self._num_finished + count_clips_in_progress(self._out, self._at_work))

    def _show(self, num_done: int) -> None:
        # Never backwards: a unit that is made again starts over.
        step = max(0, num_done - self._num_shown)
        self._num_shown += step
        self._bar.add(step, skipped=self._num_skipped)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def _marks_of(task: ShardTask) -> list[ShardMark] | None:
    """The marks of a unit that is done, else None."""
    unit = task.unit
    marks = [read_mark(task.out, unit.first_shard + number) for number in range(unit.num_shards)]
    return [mark for mark in marks if mark is not None] if all(marks) else None


def _is_done(marks: list[ShardMark] | None, *, retry_skipped: bool) -> TypeGuard[list[ShardMark]]:
    if marks is None or not retry_skipped:
        return marks is not None
    return all(skip.skip.reason not in _MAY_PASS for mark in marks for skip in mark.skips)


def _blame(outcome: Outcome[ShardTask, list[ShardMark]]) -> str:
    """Put a dead worker down to the video that it had open, so that the unit can be made without it."""
    task, failure = outcome.unit, outcome.failure
    assert failure is not None
    first_shard = task.unit.first_shard
    line = take_note(task.out, task.run, first_shard)
    if line is None or line in read_blame(task.out, first_shard):
        raise UserError(f"shard {first_shard:06d}: {failure.detail} between two videos; run it again")
    add_blame(task.out, first_shard, line, _BLAME_REASONS[failure.reason])
    return f"video of metadata line {line}: {failure.detail}; it is skipped"
