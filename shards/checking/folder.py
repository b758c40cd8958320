"""What is wrong with a stage's folder as a whole: manifest, marks, strange files. Reads small files only."""

import json
from collections import Counter
from collections.abc import Iterator

from pydantic import JsonValue

from clipvip.media.errors import one_line
from clipvip.shards.checking.findings import FolderCheck
from clipvip.shards.checking.state import check_marks, check_options, marks_of, read_options, read_skips
from clipvip.shards.errors import DatasetError
from clipvip.shards.files.atomic import TEMPORARY_SUFFIX
from clipvip.shards.files.claims import MANIFEST_NAME, REPORT_NAME, SKIPPED_NAME, STATE_FOLDER
from clipvip.shards.files.places import is_folder, read_whole, sorted_glob
from clipvip.shards.files.stores import Location
from clipvip.shards.files.text import parse_json
from clipvip.shards.format.manifest import Manifest, ShardRecord, parse_manifest

_STAGES = {".tar": "shard", ".parquet": "caption"}
_KNOWN_FILES = {
    MANIFEST_NAME, SKIPPED_NAME, STATE_FOLDER, REPORT_NAME, "report.html", "verify.json", "stats.json",
    "stats.html", "search",
}  # fmt: skip


def check_folder(folder: Location, *, extension: str) -> FolderCheck:
    """Check the folder of a stage whose outputs end in `extension` (".tar", ".parquet").

    Kinds of problems: `damaged_manifest`, `unfinished` (no manifest yet), `damaged_skips`, `damaged_report`,
    `unlisted` (an output that the manifest does not name), and as `check_options` and `check_marks`.
    Raises DatasetError where there is no such folder, or nothing in it.
    """
    if not is_folder(folder):
        raise DatasetError(f"{folder}: no such folder; give one that a clipvip stage wrote")
    found = FolderCheck(folder)
    state = folder / STATE_FOLDER
    manifest = _read_manifest(found, _STAGES[extension])
    if manifest is not None:
        found.options = manifest.options
        found.records = manifest.shards
        for name, count in sorted(Counter(record.name for record in found.records).items()):
            if count > 1:
                found.problem("damaged_manifest", MANIFEST_NAME, f"lists {name} twice")
    elif is_folder(state) and extension == ".tar":
        found.records = [mark.record for _, mark in marks_of(folder) if mark and mark.record]
        found.options = read_options(folder)
    else:
        found.is_listed = False
        found.options = read_options(folder)
        paths = [path for path in sorted_glob(folder, f"*{extension}") if path.is_file()]
        found.records = [ShardRecord(path.name, 0, 0, "") for path in paths]
    if manifest is None and not found.records and not found.findings.counts:
        raise DatasetError(f"{folder}: holds no *{extension} files; point at a folder that a stage wrote")
    report = _read_report(found)
    _check_skips(found)
    if is_folder(state):
        if manifest is not None:
            check_options(found, report.get("options"))
        if extension == ".tar":
            check_marks(found, has_manifest=manifest is not None)
    if manifest is not None:
        _check_unlisted(found, extension)
    found.notes += _strangers(found, extension if manifest is not None else None)
    return found


def _read_manifest(found: FolderCheck, stage: str) -> Manifest | None:
    path = found.folder / MANIFEST_NAME
    try:
        data = read_whole(path)
    except FileNotFoundError:
        if is_folder(found.folder / STATE_FOLDER):
            found.problem("unfinished", MANIFEST_NAME, "not there: the stage has not come to its end")
        else:
            found.notes.append(f"{path}: not there, so no checksum can be compared")
        return None
    try:
        manifest = parse_manifest(data, name=MANIFEST_NAME)
        # It is written in one way only, so that also a flipped space is seen.
        canonical = json.dumps(json.loads(data), indent=2, ensure_ascii=False) + "\n"
        if canonical.encode("utf-8", "surrogatepass") != data:
            raise ValueError("not as a clipvip stage writes it")
        if manifest.stage != stage:
            raise ValueError(f"of the stage {manifest.stage[:40]!r}, not {stage!r}")
    except (ValueError, DatasetError) as error:
        reason = one_line(error).removeprefix(f"{MANIFEST_NAME}: ")
        found.problem("damaged_manifest", MANIFEST_NAME, reason)
        return None
    return manifest


def _check_skips(found: FolderCheck) -> None:
    try:
        for _ in read_skips(found.folder):
            pass
    except DatasetError as error:
        found.problem("damaged_skips", SKIPPED_NAME, str(error))


def _read_report(found: FolderCheck) -> dict[str, JsonValue]:
    """The report, which is empty where it is missing or damaged."""
    try:
        content = parse_json(read_whole(found.folder / REPORT_NAME))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        found.problem("damaged_report", REPORT_NAME, one_line(error))
        return {}
    return content if isinstance(content, dict) else {}


def _check_unlisted(found: FolderCheck, extension: str) -> None:
    """Our commands pass over such a file, but whoever takes all files of the folder takes it along."""
    listed = {record.name for record in found.records}
    for path in sorted_glob(found.folder, f"*{extension}"):
        if path.name not in listed:
            found.problem("unlisted", path.name, "the manifest does not name it; move it away or delete it")


def _strangers(found: FolderCheck, told: str | None) -> Iterator[str]:
    """Files that no stage left there on purpose, without those that end in `told`."""
    listed = {record.name for record in found.records} | _KNOWN_FILES
    of_state = sorted_glob(found.folder / STATE_FOLDER, f".*{TEMPORARY_SUFFIX}")
    for path in (*sorted_glob(found.folder, "*"), *of_state):
        if path.name.endswith(TEMPORARY_SUFFIX):
            yield f"{path}: temporary file of a run that was killed, or is at work"
        elif path.name not in listed and path.suffix != told:
            yield f"{path}: stray, nothing lists it"
