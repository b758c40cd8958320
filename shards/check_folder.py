"""What is wrong with a stage's folder as a whole: its manifest, its marks, and files that do not belong there.

Reads small files only; what is in shards and captions is `check`'s business.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clipvip.shards.atomic import TEMPORARY_SUFFIX
from clipvip.shards.check import Findings, Problem
from clipvip.shards.errors import DatasetError
from clipvip.shards.manifest import MANIFEST_NAME
from clipvip.shards.sample import SCHEMA_VERSION
from clipvip.shards.shard_state import STATE_FOLDER, read_mark
from clipvip.shards.skips import Skip
from clipvip.shards.writer import ShardRecord

OPTIONS_NAME = "options.json"
_SKIPPED_NAME = "skipped.jsonl"
_REPORT_NAME = "report.json"
_KNOWN_FILES = {
    MANIFEST_NAME, _SKIPPED_NAME, STATE_FOLDER, _REPORT_NAME, "report.html", "verify.json", "stats.json",
    "stats.html",
}  # fmt: skip


@dataclass
class FolderCheck:
    """What a folder should hold, and what is wrong with it.

    `records` are the files listed, in order; `is_listed` says whether anything lists them, else they are
    those that are there and have no checksum to compare with. `options` made them.
    """

    folder: Path
    records: list[ShardRecord] = field(default_factory=list)
    is_listed: bool = True
    options: dict[str, Any] | None = None
    findings: Findings = field(default_factory=Findings)
    notes: list[str] = field(default_factory=list)
    bad_marks: set[str] = field(default_factory=set)

    def problem(self, kind: str, name: str, detail: str) -> None:
        self.findings.add(Problem(kind, f"{self.folder.name}/{name}", "", detail))


class _Row(BaseModel):
    model_config = ConfigDict(strict=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$")]
    samples: Annotated[int, Field(ge=0)]
    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Manifest(BaseModel):
    model_config = ConfigDict(strict=True)

    schema_version: int = Field(alias="schema", ge=SCHEMA_VERSION, le=SCHEMA_VERSION)
    stage: str
    options: dict[str, Any]
    shards: list[_Row]


def check_folder(folder: Path, *, extension: str) -> FolderCheck:
    """Check the folder of a stage whose outputs end in `extension` (".tar", ".parquet").

    Kinds of problems: `damaged_manifest`, `unfinished` (no manifest yet), `damaged_mark`, `mark_differs` (from
    the manifest), `damaged_options`, `options_differ`, `damaged_skips`, `damaged_report`.

    Raises:
        DatasetError: there is no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; give one that a clipvip stage wrote")
    found = FolderCheck(folder)
    state = folder / STATE_FOLDER
    manifest = _read_manifest(found)
    if manifest is not None:
        found.options = manifest.options
        found.records = [_record(row) for row in manifest.shards]
        for name in sorted(
            {r.name for r in found.records if sum(o.name == r.name for o in found.records) > 1}
        ):
            found.problem("damaged_manifest", MANIFEST_NAME, f"lists {name} twice")
    elif state.is_dir() and extension == ".tar":
        found.records = list(_marked(folder))
        found.options = _read_options(state)
    else:
        found.is_listed = False
        found.options = _read_options(state)
        paths = sorted(path for path in folder.glob(f"*{extension}") if path.is_file())
        found.records = [ShardRecord(path.name, 0, 0, "") for path in paths]
    if not found.records and not found.findings.counts:
        raise DatasetError(f"{folder}: holds no *{extension} files; point at a folder that a stage wrote")
    if state.is_dir():
        _check_state(found, manifest is not None, extension)
    _check_skips(found)
    _check_report(found)
    found.notes += _strangers(found)
    return found


def _read_manifest(found: FolderCheck) -> _Manifest | None:
    path = found.folder / MANIFEST_NAME
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        if (found.folder / STATE_FOLDER).is_dir():
            found.problem("unfinished", MANIFEST_NAME, "not there: the stage has not come to its end")
        else:
            found.notes.append(f"{path}: not there, so no checksum can be compared")
        return None
    try:
        manifest = _Manifest.model_validate_json(data)
        # It is written in one way only, so that also a flipped space is seen.
        canonical = json.dumps(json.loads(data), indent=2, ensure_ascii=False) + "\n"
        if canonical.encode("utf-8", "surrogatepass") != data:
            raise ValueError("not as a clipvip stage writes it")
    except (ValueError, ValidationError) as error:
        found.problem("damaged_manifest", MANIFEST_NAME, _first_line(error))
        return None
    return manifest


def _first_line(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'manifest'}: {' '.join(first['msg'].split())}"
    return " ".join(str(error).split())


def _record(row: _Row) -> ShardRecord:
    return ShardRecord(row.name, row.samples, row.bytes, row.sha256)


def _marked(folder: Path) -> Iterator[ShardRecord]:
    """What the marks of an unfinished folder list; its broken marks count as not done."""
    for path in sorted((folder / STATE_FOLDER).glob("*.json")):
        if re.fullmatch(r"\d{6,}", path.stem):
            mark = read_mark(folder, int(path.stem))
            if mark is not None and mark.record is not None:
                yield mark.record


def _read_options(state: Path) -> dict[str, Any] | None:
    try:
        options = json.loads((state / OPTIONS_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return options if isinstance(options, dict) else None


def _check_state(found: FolderCheck, has_manifest: bool, extension: str) -> None:
    """Compare the marks and options that resuming goes by with the manifest."""
    name = f"{STATE_FOLDER}/{OPTIONS_NAME}"
    options = _read_options(found.folder / STATE_FOLDER)
    if options is None:
        found.problem("damaged_options", name, "not there or not JSON")
    elif has_manifest and options != found.options:
        found.problem("options_differ", name, "other options than the manifest's")
    if not has_manifest or extension != ".tar":
        return
    for record in found.records:
        path = found.folder / record.name
        if not path.is_file() or path.stat().st_size != record.num_bytes or not path.stem.isdecimal():
            continue  # told of by the check of the shard itself
        mark = read_mark(found.folder, int(path.stem))
        mark_name = f"{STATE_FOLDER}/{path.stem}.json"
        if mark is None:
            found.problem("damaged_mark", mark_name, "not there or not that of the shard")
            found.bad_marks.add(record.name)
        elif mark.record != record:
            found.problem("mark_differs", mark_name, "lists another content than the manifest")
            found.bad_marks.add(record.name)


def _check_skips(found: FolderCheck) -> None:
    path = found.folder / _SKIPPED_NAME
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as lines:
        try:
            for line in lines:
                Skip(**json.loads(line))
        except (ValueError, TypeError) as error:
            found.problem("damaged_skips", _SKIPPED_NAME, " ".join(str(error).split()))


def _check_report(found: FolderCheck) -> None:
    path = found.folder / _REPORT_NAME
    try:
        if path.is_file():
            json.loads(path.read_bytes())
    except ValueError as error:
        found.problem("damaged_report", _REPORT_NAME, " ".join(str(error).split()))


def _strangers(found: FolderCheck) -> Iterator[str]:
    """Files that no stage left there on purpose."""
    listed = {record.name for record in found.records} | _KNOWN_FILES
    for path in sorted(found.folder.iterdir()):
        if path.name.endswith(TEMPORARY_SUFFIX):
            yield f"{path}: temporary file of a run that was killed, or is at work"
        elif path.name not in listed:
            yield f"{path}: stray, nothing lists it"
    for path in sorted((found.folder / STATE_FOLDER).glob(f".*{TEMPORARY_SUFFIX}")):
        yield f"{path}: temporary file of a run that was killed, or is at work"
