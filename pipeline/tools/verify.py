"""The stage `verify`: is a folder of shards, and of captions, what its stage wrote?"""

from collections import Counter
from dataclasses import asdict, astuple, dataclass
from typing import Any

import click

from clipvip.pipeline.pages.tables import Column, Table
from clipvip.pipeline.runtime.device import num_cores
from clipvip.pipeline.runtime.options import (
    ALSO,
    Captions,
    MaxPixels,
    Workers,
    finite,
    opt,
    options,
    require_once,
)
from clipvip.pipeline.runtime.report import StageReport, counted
from clipvip.pipeline.runtime.stage import StageFailed, StageOptions, stage
from clipvip.pipeline.tools.repair import repair
from clipvip.pipeline.tools.verify_run import Verification, verify_folder
from clipvip.shards.checking.findings import Findings, Problem
from clipvip.shards.files.atomic import write_json
from clipvip.shards.files.places import make_folder
from clipvip.shards.files.stores import Location
from clipvip.shards.tar.reader import DEFAULT_MAX_PIXELS

VERIFY_NAME = "verify.json"
_MAX_ROWS_PER_KIND = 10


class _Decode(click.ParamType):
    """`all`, `none` or a number of samples."""

    name = "decode"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if text not in {"all", "none"} and not (text.isascii() and text.isdecimal()):
            self.fail(f"{text!r} is neither 'all' nor 'none' nor a number of samples", param, ctx)
        return text


@options
class VerifyOptions(StageOptions):
    """Options of `verify`."""

    folder: Location = opt(argument=True, metavar="DIR", kw_only=False)
    captions: Captions = ()
    decode: str = opt(
        "Samples of each shard whose frames are all decoded, evenly spread.",
        _Decode(),
        metavar="[all|none|N]",
        default="all",
    )
    workers: Workers = None
    sample_timeout: float = opt(
        "Give up a sample after this many seconds.", finite(0, above=True), default=120.0
    )
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS
    repair: bool = opt(
        "Remove broken shards and captions, so that the commands that made them make these again.",
        default=False,
    )
    out: Location | None = opt(f"Folder for {VERIFY_NAME}; {ALSO}.", shown="none is written", default=None)

    @property
    def num_decoded(self) -> int | None:
        """Samples of each shard to decode; None: all."""
        return None if self.decode == "all" else 0 if self.decode == "none" else int(self.decode)


@dataclass(frozen=True, kw_only=True)
class VerifyReport(StageReport):
    """What was found: problems, and the names of files that must be made again.

    `removed` are those that a repair took away, `notes` what is unusual and not wrong.
    """

    findings: Findings
    broken: list[str]
    removed: list[str]
    notes: list[str]


@stage(
    VerifyOptions,
    "clipvip-data verify",
    "clips/ --captions captions/",
    "clips/ --captions captions/ --workers 16 --repair",
    "s3://bucket/clips --captions s3://bucket/captions",
    note="Exit codes: 0 all is well, 1 something is broken, 2 the command line is wrong.",
    resumable=False,
)
def verify(options: VerifyOptions) -> VerifyReport:
    """Check a folder of shards: checksums, tar structure, records, keys, pixels, captions.

    DIR may also be in s3://, gs:// and hf://.

    Nothing is changed, unless --repair is given: then exactly the broken shards and caption files are
    removed with their marks, and the same 'clipvip-data shard' or 'caption' as before makes these again and
    no others.

    Raises:
        StageFailed: something is wrong; its `report` is the `VerifyReport`.
        UserError, DatasetError: there is nothing to check, or nothing that could make removed files again.

    Examples:
        >>> import clipvip
        >>> report = clipvip.verify("test-clips", decode="none")
        >>> report.findings.listed
        []
    """
    require_once(options.captions or (), "--captions")
    found = verify_folder(
        options.folder,
        captions=options.captions or (),
        num_decoded=options.num_decoded,
        workers=options.workers or num_cores(),
        timeout_seconds=options.sample_timeout,
        max_pixels=options.max_pixels,
    )
    removed = repair(found) if options.repair else []
    broken = sorted(found.broken) + found.names_of_broken_captions
    folders = [str(folder) for folder in options.captions or ()]
    problems = sorted(found.findings.listed, key=astuple)
    content = {
        "folder": str(options.folder),
        "captions": folders if len(folders) > 1 else next(iter(folders), None),
        "counts": _counts(found),
        "problems": dict(sorted(found.findings.counts.items())),
        "broken": broken,
        "removed": removed,
        "listed": list(map(asdict, problems)),
        "notes": found.notes,
    }
    if options.out is not None:
        make_folder(options.out)
        write_json(options.out / VERIFY_NAME, content)
    report = VerifyReport(
        content=content,
        text=_table(found, problems, removed),
        findings=found.findings,
        broken=broken,
        removed=removed,
        notes=found.notes,
    )
    if found.num_problems:
        raise StageFailed(_what_to_do(found, removed, repaired=options.repair), report)
    return report


def _counts(found: Verification) -> dict[str, int]:
    return {
        "shards": len(found.folder.records),
        "clips": found.num_samples,
        "frames": found.num_frames,
        "clips_decoded": found.num_decoded,
        "problems": found.num_problems,
    }


def _table(found: Verification, problems: list[Problem], removed: list[str]) -> str:
    counts = ", ".join(counted(value, name.replace("_", " ")) for name, value in _counts(found).items())
    rows = []
    shown: Counter[str] = Counter()
    for problem in problems:
        shown[problem.kind] += 1
        if shown[problem.kind] <= _MAX_ROWS_PER_KIND:
            rows.append((problem.kind, problem.file, problem.key or "-", problem.detail))
    lines = [f"verify: {counts} -> {found.folder.folder}"]
    if rows:
        titles = ("problem", "file", "sample", "what was found")
        lines.append(Table(list(map(Column, titles)), rows).text())
    for kind, count in sorted(found.findings.counts.items()):
        if count > _MAX_ROWS_PER_KIND:
            lines.append(f"{kind}: {count - _MAX_ROWS_PER_KIND:,} more")
    lines += [f"note: {note}" for note in found.notes[:_MAX_ROWS_PER_KIND]]
    if len(found.notes) > _MAX_ROWS_PER_KIND:
        lines.append(f"note: {counted(len(found.notes) - _MAX_ROWS_PER_KIND, 'more such files')}")
    lines += [f"removed {path}" for path in removed]
    return "\n".join(lines)


def _what_to_do(found: Verification, removed: list[str], *, repaired: bool) -> str:
    broken = len(found.broken) + len(found.names_of_broken_captions)
    said = counted(found.num_problems, "problems")
    if removed:
        files = counted(broken, "broken files")
        return f"{said}, {files} removed; the command that made the folder, run again, makes what is missing"
    if broken and not repaired:
        files = counted(broken, "broken files")
        return f"{said}, {files}; --repair removes what is broken, so that it can be made again"
    return f"{said}; docs/dataset_tools.md says what to do about each"
