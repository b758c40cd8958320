"""The stage `import-captions`: captions that others made -> one file beside each shard, as `caption` writes.

First all clips and rows are put together on the disk (`matching`), then each shard's file is written.
"""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from clipvip.pipeline.caption.report import finish_captions
from clipvip.pipeline.import_captions.matching import KnownClip, RowSkips, example_clip, write_clips
from clipvip.pipeline.import_captions.work import MatchTask, WriteTask, list_clips, match_files, write_file
from clipvip.pipeline.runtime.device import num_cores
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.options import DryRun, Workers, opt, options
from clipvip.pipeline.runtime.progress import Progress
from clipvip.pipeline.runtime.report import StageReport, planned
from clipvip.pipeline.runtime.stage import StageFailed, StageOptions, stage
from clipvip.pipeline.runtime.workers import run_plain_units, run_units
from clipvip.shards.files.atomic import atomic_path
from clipvip.shards.files.claims import SKIPPED_NAME, STATE_FOLDER, Options, claim_folder, require_free_folder
from clipvip.shards.files.hashes import sha256_of_file
from clipvip.shards.format.captions import finished_captions
from clipvip.shards.format.manifest import read_manifest
from clipvip.shards.sources.caption_rows import Columns, find_caption_files, is_lmdb
from clipvip.shards.tar.reader import list_shards

_TABLE = "import-{}.sqlite"


@options
class ImportCaptionsOptions(StageOptions):
    """Options of `import_captions`."""

    shards: Path = opt("Folder of shards, ours or others' (mp4 or jpg with txt and json).")
    sources: tuple[Path, ...] = opt(
        "Captions: .jsonl, .csv, .tsv, .parquet or .json, a folder of such files, or an LMDB of clip id and"
        " caption, as CLIP-ViP's authors publish theirs. May be given several times.",
        names=("--from",),
        metavar="FILE_OR_DIR",
    )
    out: Path = opt("Folder for the captions, one file a shard.")
    id_column: str | None = opt(
        "Field with the key or clip id of a row's clip.",
        shown="key, clip_id, image_id, id, video_id, ...",
        default=None,
    )
    caption_column: str | None = opt(
        "Field with the caption, or a list of captions.",
        shown="caption, captions, text, sentence, ...",
        default=None,
    )
    made_by: str = opt("Name of the captioner, if known; written into each row.", default="")
    workers: Workers = None
    dry_run: DryRun = False


@stage(
    ImportCaptionsOptions,
    "clipvip-data import-captions",
    "--shards clips/ --from captions.jsonl --out captions/",
    "--shards clips/ --from hdvila_ofa_captions_db/ --out captions/",
)
def import_captions(options: ImportCaptionsOptions) -> StageReport:
    """Import captions that others made: one file for each shard, as 'caption' writes them.

    A row belongs to the clip of its key, or of its clip id; several captions of a clip are all kept. Rows
    that belong to no clip, and clips without a caption, are counted and listed. Run the same command again
    after an interruption: it makes what is missing, with the same bytes.

    Raises:
        UserError, DatasetError: what was given cannot be used; StageFailed: no row belongs to a clip.

    Examples:
        >>> import clipvip
        >>> report = clipvip.import_captions(
        ...     sources=["captions.jsonl"], shards="clips", out="imported", workers=1
        ... )
        >>> report.counts["captions"]  # of 1,120 clips; the video of 70 has another name there
        1050
    """
    started = time.monotonic()
    out, workers = options.out, options.workers or num_cores()
    paths = list_shards(options.shards)
    manifest = read_manifest(options.shards)
    sums = {record.name: record.sha256 for record in manifest.shards} if manifest else {}
    if out.exists() and out.samefile(options.shards):
        raise UserError(f"--out {out}: is the folder of the shards; give another one")
    files = [file for source in options.sources for file in find_caption_files(source)]
    made_by = _made_by(options, files)
    table = out / STATE_FOLDER / _TABLE.format(_identity(paths, sums))
    tasks = [WriteTask(n, path, sums.get(path.name), table, out, made_by) for n, path in enumerate(paths)]
    if options.dry_run:
        require_free_folder(out, made_by, outputs="*.parquet")
        return _plan(tasks, out)
    with claim_folder(out, made_by, outputs="*.parquet"):
        columns = Columns(options.id_column, options.caption_column)
        _match(MatchTask(table, tuple(files), columns), paths, workers)
        num_made = _write(tasks, workers)
        skips = RowSkips(table)
        num_rows, num_without_clip = skips.count()
        report = finish_captions(out, paths, made_by, stage="import-captions", more_skips=skips)
        report.counts |= {"rows": num_rows, "rows_without_clip": num_without_clip}
        made = report.finish(out, started=started, done_now=num_made, unit="captions")
        clip = example_clip(table)
        table.unlink()
    if not made.counts["captions"]:
        unmatched = report.tally.examples.get("no_such_clip", [])
        clip_is = f"a clip is {clip}" if clip else "there are no clips"
        row_is = f", a row is about {unmatched[0]['what']!r} ({unmatched[0]['detail']})" if unmatched else ""
        raise StageFailed(
            f"no row belongs to a clip: {clip_is}{row_is}; give the field with the key or clip id to "
            f"--id-column; {out / SKIPPED_NAME} lists all rows",
            made,
        )
    return made


def _made_by(options: ImportCaptionsOptions, files: list[Path]) -> Options:
    """What a folder of imported captions is known by: the content of the files, and how they are read."""
    return {
        "model": options.made_by,
        "revision": "",
        "imported": [file.parent.name if is_lmdb(file) else file.name for file in files],
        "imported_sha256": " ".join(map(sha256_of_file, files)),
        "id_column": options.id_column,
        "caption_column": options.caption_column,
    }


def _identity(paths: list[Path], sums: dict[str, str]) -> str:
    """What tells a table of these shards from one of others, or of these before they were changed."""
    digest = hashlib.sha256()
    for path in paths:
        found = path.stat()
        digest.update(f"{path.name} {found.st_size} {found.st_mtime_ns} {sums.get(path.name)}\n".encode())
    return digest.hexdigest()[:16]


def _match(task: MatchTask, paths: list[Path], workers: int) -> None:
    """Make the task's table, unless an earlier run has: its clips by the shards, then the rows."""
    table = task.table
    if table.exists():
        return
    for other in table.parent.glob(_TABLE.format("*")):
        other.unlink()
    with atomic_path(table) as temporary:
        with Progress("list clips", total=len(paths), unit="shards") as bar:
            write_clips(temporary, _listed(paths, workers, bar))
        # Of a damaged LMDB the library may end its process.
        run = run_units if any(map(is_lmdb, task.files)) else run_plain_units
        for outcome in run(match_files, [replace(task, table=temporary)], workers=1):
            if outcome.failure is not None:
                names = ", ".join(map(str, task.files))
                raise UserError(f"{names}: {outcome.failure.detail} while they were read; are they damaged?")


def _listed(paths: list[Path], workers: int, bar: Progress) -> Iterator[tuple[int, list[KnownClip]]]:
    tasks = list(enumerate(paths))
    for outcome in run_plain_units(list_clips, tasks, workers=min(workers, len(tasks))):
        number, path = outcome.unit
        if outcome.result is None:
            assert outcome.failure is not None
            raise UserError(f"{path}: {outcome.failure.detail}; check it by 'clipvip-data verify'")
        bar.add(1)
        yield number, outcome.result


def _write(tasks: list[WriteTask], workers: int) -> int:
    """Write the files that are not there yet; how many captions that were."""
    todo = [task for task in tasks if finished_captions(task.out, task.shard, task.sha256) is None]
    num_made = 0
    with Progress("import-captions", total=len(tasks), unit="shards", initial=len(tasks) - len(todo)) as bar:
        for outcome in run_plain_units(write_file, todo, workers=min(workers, max(1, len(todo)))):
            if outcome.result is None:
                assert outcome.failure is not None
                raise UserError(
                    f"{outcome.unit.shard}: {outcome.failure.detail}; run it again, it goes on from here"
                )
            num_made += outcome.result[0]
            bar.add(1)
    return num_made


def _plan(tasks: list[WriteTask], out: Path) -> StageReport:
    """What --dry-run says."""
    done = sum(finished_captions(out, task.shard, task.sha256) is not None for task in tasks)
    counts = {"shards": len(tasks), "shards_done": done}
    begin = "import-captions: would write captions of"
    text = planned(begin, len(tasks) - done, len(tasks), "shards", out)
    return StageReport(content={"stage": "import-captions", "counts": counts}, text=text)
