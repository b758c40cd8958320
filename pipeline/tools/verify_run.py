"""Check all shards of a folder in processes, find repeated keys, and tell a bad sample from a bad process."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath

from clipvip.pipeline.runtime.progress import Progress
from clipvip.pipeline.runtime.workers import run_units
from clipvip.pipeline.tools.verify_work import (
    CaptionTask,
    CheckResult,
    CheckTask,
    check_unit,
    places_to_decode,
)
from clipvip.shards.checking.findings import Findings, FolderCheck, Problem
from clipvip.shards.checking.folder import check_folder
from clipvip.shards.checking.shard import decode_all
from clipvip.shards.files.claims import STATE_FOLDER
from clipvip.shards.files.hashes import HashStore
from clipvip.shards.files.stores import Location
from clipvip.shards.tar.index import ShardFile
from clipvip.shards.tar.reader import DEFAULT_MAX_PIXELS, Sample

_MAX_LISTED = 1000
# Keys are told by their hashes; so many of those that repeat are looked up to be named.
_MAX_NAMED_KEYS = 1000
_DEATHS = {"crashed": "decoder_crashed", "timeout": "timeout"}


@dataclass
class Verification:
    """All that was found. `broken` are the names of files that must be made again.

    `captions` are the folders of captions, and `broken_captions` names files of each of them.
    """

    folder: FolderCheck
    captions: list[FolderCheck]
    findings: Findings = field(default_factory=lambda: Findings(_MAX_LISTED))
    broken: set[str] = field(default_factory=set)
    broken_captions: list[set[str]] = field(default_factory=list)
    num_samples: int = 0
    num_frames: int = 0
    num_decoded: int = 0

    @property
    def num_problems(self) -> int:
        return sum(self.findings.counts.values())

    @property
    def notes(self) -> list[str]:
        return self.folder.notes + [note for folder in self.captions for note in folder.notes]

    @property
    def names_of_broken_captions(self) -> list[str]:
        """In order, with their folder's name where there are several."""
        return [
            f"{check.folder.name}/{name}" if len(self.captions) > 1 else name
            for check, broken in zip(self.captions, self.broken_captions, strict=True)
            for name in sorted(broken)
        ]


def verify_folder(
    folder: Location,
    *,
    captions: Sequence[Location],
    num_decoded: int | None,
    workers: int,
    timeout_seconds: float,
    decode: Callable[[Sample], None] = decode_all,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Verification:
    """Check everything about a folder of shards, and of the captions beside it; changes nothing.

    Of each shard `num_decoded` samples are handed to `decode` (None: all). A DatasetError where there is
    nothing to check.
    """
    shards = check_folder(folder, extension=".tar")
    sidecars = [check_folder(beside, extension=".parquet") for beside in captions]
    found = Verification(shards, sidecars, broken_captions=[set() for _ in sidecars])
    found.findings.add_all(shards.findings)
    found.broken |= shards.bad_marks
    listed = []
    for check in sidecars:
        found.findings.add_all(check.findings)
        listed.append({record.name: record for record in check.records} if check.is_listed else {})
    tasks = (
        CheckTask(
            number,
            folder / record.name,
            record if shards.is_listed else None,
            num_decoded,
            timeout_seconds,
            captions=tuple(
                CaptionTask(check.folder, records.get(f"{PurePath(record.name).stem}.parquet"), check.options)
                for check, records in zip(sidecars, listed, strict=True)
            ),
            decode=decode,
            max_pixels=max_pixels,
        )
        for number, record in enumerate(shards.records)
    )
    hashes = HashStore()
    with Progress("verify", total=len(shards.records), unit="shards") as bar:
        for task, result in _check_all(tasks, workers, found):
            hashes.add(task.number, result.hashes)
            _take(found, task, result)
            bar.add(1)
    _find_repeated(found, hashes)
    return found


def _check_all(
    tasks: Iterable[CheckTask], workers: int, found: Verification
) -> Iterator[tuple[CheckTask, CheckResult]]:
    """The result of each task; where a process died, of a check without decoding, then sample by sample."""
    died: dict[int, CheckTask] = {}
    for outcome in run_units(check_unit, tasks, workers=workers):
        if outcome.result is None:
            died[outcome.unit.number] = outcome.unit
        else:
            yield outcome.unit, outcome.result
    again = [replace(task, num_decoded=0) for task in died.values()]
    for outcome in run_units(check_unit, again, workers=workers) if again else ():
        task, result = died[outcome.unit.number], outcome.result
        if result is not None:
            yield task, _check_one_by_one(task, result, workers)
            continue
        assert outcome.failure is not None
        found.findings.add(Problem("unreadable", task.path.name, "", outcome.failure.detail))
        found.broken.add(task.path.name)


def _check_one_by_one(task: CheckTask, result: CheckResult, workers: int) -> CheckResult:
    """Decode each sample of a shard in a turn of its own, so that those that end a process are known."""
    alone = replace(task, record=None, captions=())
    singles = [replace(alone, only=place) for place in places_to_decode(task, len(result.shard.keys))]
    for outcome in run_units(check_unit, singles, workers=workers):
        place, failure = outcome.unit.only, outcome.failure
        assert place is not None
        result.shard.num_decoded += 1
        if outcome.result is not None:
            for problem in outcome.result.shard.findings.listed:
                if problem.kind == "undecodable":
                    result.shard.findings.add(problem)
        elif failure is not None:
            kind, key = _DEATHS[failure.reason], result.shard.keys[place]
            result.shard.findings.add(Problem(kind, task.path.name, key, failure.detail))
    return result


def _take(found: Verification, task: CheckTask, result: CheckResult) -> None:
    found.findings.add_all(result.shard.findings)
    for check, findings, broken in zip(found.captions, result.captions, found.broken_captions, strict=False):
        found.findings.add_all(findings.inside(check.folder.name) if len(found.captions) > 1 else findings)
        if findings.counts:
            broken.add(f"{task.path.stem}.parquet")
    found.num_samples += len(result.shard.keys)
    found.num_frames += result.shard.num_frames
    found.num_decoded += result.shard.num_decoded
    counts = (result.shard.num_frames, result.shard.num_without_subtitle)
    if result.shard.findings.counts:
        found.broken.add(task.path.name)
    elif found.folder.mark_counts.get(task.path.name, counts) != counts:
        detail = "its counts of frames and of clips without subtitle are not the shard's"
        name = f"{found.folder.folder.name}/{STATE_FOLDER}/{task.path.stem}.json"
        found.findings.add(Problem("mark_differs", name, "", detail))
        found.broken.add(task.path.name)


def _find_repeated(found: Verification, hashes: HashStore) -> None:
    """Keys that stand in several shards. Making shards again does not help, so none counts as broken."""
    for number, group in enumerate(hashes.repeated()):
        names = [found.folder.records[shard].name for shard, _ in group]
        keys = {""}
        if number < _MAX_NAMED_KEYS:
            keys = {
                _key_at(found.folder.folder / name, at) for name, (_, at) in zip(names, group, strict=True)
            }
        if len(keys) == 1:  # else two keys have one hash
            detail = f"also in {', '.join(names[1:4])}{' …' if len(names) > 4 else ''}"
            found.findings.add(Problem("key_in_several_shards", names[0], keys.pop(), detail))


def _key_at(path: Location, place: int) -> str:
    """The key at a place among the different keys of a shard."""
    keys: dict[str, None] = {}
    with ShardFile(path) as shard:
        for span in shard.spans():
            keys[span.key] = None
            if len(keys) > place:
                break
    return next(reversed(keys))
