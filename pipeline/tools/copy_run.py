"""Make new folders of shards from finished ones without decoding: what merge, split and subset share.

What goes into which new shard follows from the inputs and options alone, so that a killed run can be resumed.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from pydantic import JsonValue

from clipvip.pipeline.caption.report import finish_captions
from clipvip.pipeline.runtime.device import num_cores
from clipvip.pipeline.runtime.errors import UserError, WrongOptions
from clipvip.pipeline.runtime.options import LAST, Opt, Workers, at_least, opt, options, require_once
from clipvip.pipeline.runtime.progress import Progress
from clipvip.pipeline.runtime.report import Report, StageReport, counted
from clipvip.pipeline.runtime.stage import StageOptions
from clipvip.pipeline.runtime.workers import run_plain_units
from clipvip.pipeline.tools.copy_work import CopyTask, SurveyTask, copy_unit, survey_shard
from clipvip.shards.building.copying import Piece
from clipvip.shards.building.marks import ShardMark, read_mark, shard_path
from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.files.claims import MANIFEST_NAME, STATE_FOLDER, claim_folder
from clipvip.shards.files.hashes import HashStore, sha256_of_file
from clipvip.shards.files.places import is_folder, size_of
from clipvip.shards.files.stores import Location
from clipvip.shards.format.captions import captions_path, finished_captions
from clipvip.shards.format.manifest import CAPTION_STAGE, ShardRecord, read_manifest, write_manifest
from clipvip.shards.tar.reader import list_shards

DEFAULT_SHARD_SIZE = 256
_MADE_BY = "made_by"

# (number of the input shard, hashes of its samples) -> which of them to take.
Choose = Callable[[int, np.ndarray], np.ndarray]


@options
class CopyOptions(StageOptions):
    """What merge, split and subset are asked for alike."""

    workers: Annotated[Workers, LAST] = None
    check: Annotated[bool, LAST] = opt(
        "Compare each input shard with its manifest's checksum first, which reads all of it.",
        names=("--check/--no-check",),
        default=True,
    )
    dry_run: bool = opt("Say how many clips would be taken, and write nothing.", default=False)


ShardSize = Annotated[int | None, Opt("Most clips in a shard.", at_least(1), shown="as before")]


@dataclass(frozen=True)
class Input:
    """A finished folder of shards, and the options that made it and each folder of its captions.

    `identity` is a hash by which a later run knows that it has the same input.
    """

    folder: Location
    captions: tuple[Location, ...]
    shards: list[tuple[Location, ShardRecord | None]]
    options: dict[str, JsonValue]
    caption_options: list[dict[str, JsonValue]]
    identity: str

    @property
    def shard_size(self) -> int:
        """How many clips a shard of it holds at most."""
        size = self.options.get("shard_size")
        return size if isinstance(size, int) and size > 0 else DEFAULT_SHARD_SIZE

    @classmethod
    def open(
        cls, folder: Location, captions: Sequence[Location], captions_out: Sequence[Location]
    ) -> "Input":
        """Read what a folder says of itself; a DatasetError without shards, or captions of a finished run."""
        if bool(captions) != bool(captions_out):
            raise WrongOptions("--captions and --captions-out go together")
        if len(captions) != len(captions_out):
            raise WrongOptions("give as many --captions-out as --captions, in their order")
        require_once(captions, "--captions")
        paths = list_shards(folder)
        manifest = read_manifest(folder)
        records = manifest.by_name() if manifest else {}
        if manifest is not None:
            identity = sha256_of_file(folder / MANIFEST_NAME)
        else:
            sizes = "".join(f"{path.name} {size_of(path)}\n" for path in paths)
            identity = hashlib.sha256(sizes.encode()).hexdigest()
        shards = [(path, records.get(path.name)) for path in paths]
        caption_options = list(map(_options_of_captions, captions))
        made_by = manifest.options if manifest else {}
        return cls(folder, tuple(captions), shards, made_by, caption_options, identity)


def _options_of_captions(captions: Location) -> dict[str, JsonValue]:
    found = read_manifest(captions)
    # Of a folder that others made there is neither.
    is_ours = found is not None or is_folder(captions / STATE_FOLDER) or not is_folder(captions)
    if is_ours and (found is None or found.stage != CAPTION_STAGE):
        raise DatasetError(f"{captions}: no finished captions; run 'clipvip-data caption' to its end")
    return found.options if found else {}


@dataclass(frozen=True)
class Output:
    """A folder to make. `shard_size` None keeps the samples of each input shard together.

    `made_by` is what its manifest will say of the command's own options.
    """

    command: str
    folder: Location
    captions: tuple[Location, ...]
    made_by: dict[str, JsonValue]
    shard_size: int | None


@dataclass
class Survey:
    """All samples of some inputs. `places` are those of the shards that hold more than can be copied."""

    inputs: list[Input]
    hashes: HashStore
    places: dict[int, np.ndarray] = field(default_factory=dict)
    skips: dict[int, list[Skip]] = field(default_factory=dict)

    @property
    def shards(self) -> list[tuple[Input, Location, ShardRecord | None]]:
        return [(source, *shard) for source in self.inputs for shard in source.shards]

    def common_options(self) -> dict[str, JsonValue]:
        """The options that made all inputs."""
        first, *others = (source.options for source in self.inputs)
        return {
            name: value
            for name, value in first.items()
            if name != _MADE_BY and all(name in other and other[name] == value for other in others)
        }

    def make(self, choose: Choose, output: Output, asked: CopyOptions) -> StageReport:
        """Copy the chosen samples in order into a new folder; on a dry run only say how many there are.

        Raises:
            UserError: nothing is chosen, or the folder is one of the inputs.
            DatasetError: another run or other options made what is there, or an input is damaged.
        """
        started = time.monotonic()
        hashes = self.hashes
        num_chosen = sum(int(choose(n, hashes.of_shard(n)).sum()) for n in range(len(self.shards)))
        if asked.dry_run:
            counts = {"clips": num_chosen, "clips_to_choose_from": len(hashes)}
            taken = f"{num_chosen:,} of {counted(len(hashes), 'clips')}"
            text = f"{output.command}: would take {taken} -> {output.folder}"
            return StageReport(content={"stage": output.command, "counts": counts}, text=text)
        _refuse_inputs(self, output)
        if not num_chosen:
            raise UserError(f"{output.folder}: would hold no clips; choose others")
        options = self.common_options() | ({"shard_size": output.shard_size} if output.shard_size else {})
        options[_MADE_BY] = {
            "command": output.command,
            "inputs": [source.identity for source in self.inputs],
            **output.made_by,
            "captions": bool(output.captions),
        }
        caption_options = self.inputs[0].caption_options
        with ExitStack() as claims:
            claims.enter_context(claim_folder(output.folder, options))
            for folder, made_by in zip(output.captions, caption_options, strict=True):
                claims.enter_context(claim_folder(folder, made_by, outputs="*.parquet"))
            tasks = _plan(self, choose, output)
            marks, num_made = _copy(tasks, output, num_chosen, workers=asked.workers or num_cores())
            records = [mark.record for mark in marks if mark.record is not None]
            write_manifest(output.folder, stage="shard", options=options, shards=records)
            totals: dict[str, int | float] = {
                "clips": sum(record.num_samples for record in records),
                "frames": sum(mark.num_frames for mark in marks),
                "shards": len(records),
                "bytes": sum(record.num_bytes for record in records),
                "clips_without_subtitle": sum(mark.num_without_subtitle for mark in marks),
                "clips_to_choose_from": len(hashes),
            }
            skips = [skip for number in sorted(self.skips) for skip in self.skips[number]]
            report = Report(output.command, options, totals, skips=skips)
            made = report.finish(output.folder, started=started, done_now=num_made, unit="clips")
            shards = [shard_path(output.folder, mark.shard) for mark in marks]
            for folder, made_by in zip(output.captions, caption_options, strict=True):
                captions = finish_captions(folder, shards, made_by)
                captions.finish(folder, started=started, done_now=num_made, unit="captions")
        return made


def survey_inputs(
    inputs: list[Input], options: CopyOptions, *, seed: int = 0, by_video: bool = False
) -> Survey:
    """List all samples with a hash of each one's key (or video); an error where a shard is damaged."""
    hashes = HashStore()
    found = Survey(inputs, hashes)
    shards = found.shards
    tasks = (
        SurveyTask(number, path, record, seed, by_video, options.check)
        for number, (_, path, record) in enumerate(shards)
    )
    with Progress("survey", total=len(shards), unit="shards") as bar:
        for outcome in run_plain_units(survey_shard, tasks, workers=options.workers or num_cores()):
            task, result = outcome.unit, outcome.result
            if result is None:
                assert outcome.failure is not None
                raise UserError(f"{task.path}: {outcome.failure.detail}; check it by 'clipvip-data verify'")
            hashes.add(task.number, result.hashes)
            if result.skips:
                found.places[task.number] = result.places
                found.skips[task.number] = result.skips
            bar.add(1)
    return found


def _refuse_inputs(survey: Survey, output: Output) -> None:
    given = {path.resolve() for s in survey.inputs for path in (s.folder, *s.captions)}
    made = [output.folder, *output.captions]
    for folder in made:
        if folder.resolve() in given:
            raise UserError(f"{folder}: is one of the inputs; give another folder for the output")
    if len({folder.resolve() for folder in made}) < len(made):
        raise UserError(f"{output.folder}: shards and captions cannot go into one folder")


def _plan(survey: Survey, choose: Choose, output: Output) -> Iterator[CopyTask]:
    """The new shards, in order."""
    # With 4 samples a shard, 3 chosen of one input shard and 6 of the next make shards of 3 + 1, 4 and 1.
    waiting: list[Piece] = []
    number = num_waiting = 0

    def task(*pieces: Piece, sha256: str | None = None) -> CopyTask:
        return CopyTask(number, output.folder, pieces, output.captions, sha256)

    for shard, (source, path, record) in enumerate(survey.shards):
        mask = choose(shard, survey.hashes.of_shard(shard))
        all_places = survey.places.get(shard, np.arange(len(mask), dtype=np.uint32))
        places = all_places[mask].tolist()
        captions = tuple(captions_path(folder, path.stem) for folder in source.captions)
        if output.shard_size is None and places:
            is_whole = shard not in survey.places and bool(mask.all())
            sha256 = record.sha256 if is_whole and record is not None else None
            yield task(Piece(path, tuple(places), captions), sha256=sha256)
            number += 1
        while output.shard_size is not None and places:
            room = output.shard_size - num_waiting
            waiting.append(Piece(path, tuple(places[:room]), captions))
            num_waiting += len(waiting[-1].places)
            places = places[room:]
            if num_waiting == output.shard_size:
                yield task(*waiting)
                number, waiting, num_waiting = number + 1, [], 0
    if waiting:
        yield task(*waiting)


def _copy(
    tasks: Iterable[CopyTask], output: Output, num_chosen: int, *, workers: int
) -> tuple[list[ShardMark], int]:
    """Make the shards that are not there yet; all marks, and how many clips this run copied."""
    marks: dict[int, ShardMark] = {}
    num_made = 0
    with Progress(output.command, total=num_chosen, unit="clips") as bar:

        def missing() -> Iterator[CopyTask]:
            for task in tasks:
                mark = _mark_if_done(task)
                if mark is None:
                    yield task
                else:
                    marks[task.number] = mark
                    bar.add(task.num_samples)

        for outcome in run_plain_units(copy_unit, missing(), workers=workers):
            if outcome.result is None:
                assert outcome.failure is not None
                raise UserError(
                    f"{output.folder}: {outcome.failure.detail}; run it again, it goes on from here"
                )
            marks[outcome.unit.number] = outcome.result
            num_made += outcome.unit.num_samples
            bar.add(outcome.unit.num_samples)
    return [marks[number] for number in sorted(marks)], num_made


def _mark_if_done(task: CopyTask) -> ShardMark | None:
    mark = read_mark(task.out, task.number)
    if mark is None:
        return mark
    sha256 = mark.record.sha256 if mark.record is not None else None
    path = shard_path(task.out, task.number)
    return mark if all(finished_captions(folder, path, sha256) for folder in task.captions_out) else None
