"""The command `clipvip-data verify`: is a folder of shards, and of captions, what its stage wrote?

Options and the table; checking is `verify_run`'s business, removing what is broken `repair`'s.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from clipvip.pipeline.pages.tables import Column, Table
from clipvip.pipeline.runtime.cores import num_cores
from clipvip.pipeline.runtime.errors import StageCommand, UserError
from clipvip.pipeline.runtime.options import json_option, max_pixels_option, print_result, workers_option
from clipvip.pipeline.tools.repair import repair
from clipvip.pipeline.tools.verify_run import Verification, verify_folder
from clipvip.shards.files.atomic import write_json

VERIFY_NAME = "verify.json"
_MAX_ROWS_PER_KIND = 10

_EPILOG = """Exit codes: 0 all is well, 1 something is wrong, 2 the command line is.

\b
Examples:
  clipvip-data verify clips/ --captions captions/
  clipvip-data verify clips/ --captions captions/ --workers 16 --repair
"""


class _Decode(click.ParamType):
    """`all`, `none` or a number of samples; None stands for all."""

    name = "decode"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        if text in {"all", "none"}:
            return -1 if text == "all" else 0
        if not text.isascii() or not text.isdecimal():
            self.fail(f"{text!r} is neither 'all' nor 'none' nor a number of samples", param, ctx)
        return int(text)


@click.command(cls=StageCommand, resumable=False, epilog=_EPILOG)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--captions", type=Path, help="Folder that 'clipvip-data caption' wrote for these shards.")
@click.option("--decode", type=_Decode(), metavar="[all|none|N]", default="all", show_default=True,
              help="Samples of each shard whose frames are all decoded, at even distances.")  # fmt: skip
@workers_option
@click.option("--sample-timeout", type=click.FloatRange(0, min_open=True), default=120.0, show_default=True,
              help="Give a sample up after so many seconds.")  # fmt: skip
@max_pixels_option
@click.option("--repair", "with_repair", is_flag=True,
              help="Remove broken shards and captions, so that the commands that made them make these again.")  # fmt: skip
@click.option("--out", type=Path, show_default="none is written", help=f"Folder for {VERIFY_NAME}.")
@json_option
def command(
    folder: Path,
    captions: Path | None,
    decode: int,
    workers: int | None,
    sample_timeout: float,
    max_pixels: int,
    with_repair: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Check a folder of shards: checksums, tar structure, records, keys, pixels, captions.

    Nothing is changed, unless --repair is given: then exactly the broken shards and caption files are removed
    with their marks, and the same 'clipvip-data shard' or 'caption' as before makes these again and no others.
    """
    found = verify_folder(
        folder,
        captions=captions,
        num_decoded=None if decode < 0 else decode,
        workers=workers or num_cores(),
        timeout_seconds=sample_timeout,
        max_pixels=max_pixels,
    )
    removed = repair(found) if with_repair else []
    content = _content(found, removed)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / VERIFY_NAME, content)
    print_result(content, _table(found, removed), as_json=as_json)
    if found.num_problems:
        raise UserError(_what_to_do(found, removed, repaired=with_repair))


def _content(found: Verification, removed: list[str]) -> dict[str, Any]:
    return {
        "folder": str(found.folder.folder),
        "captions": str(found.captions.folder) if found.captions else None,
        "counts": _counts(found),
        "problems": dict(sorted(found.findings.counts.items())),
        "broken": sorted(found.broken) + sorted(found.broken_captions),
        "removed": removed,
        "listed": [asdict(problem) for problem in _in_order(found)],
        "notes": found.notes,
    }


def _counts(found: Verification) -> dict[str, int]:
    return {
        "shards": len(found.folder.records),
        "clips": found.num_samples,
        "frames": found.num_frames,
        "clips_decoded": found.num_decoded,
        "problems": found.num_problems,
    }


def _in_order(found: Verification) -> list[Any]:
    return sorted(found.findings.listed, key=lambda p: (p.kind, p.file, p.key, p.detail))


def _table(found: Verification, removed: list[str]) -> str:
    counts = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in _counts(found).items())
    rows = []
    shown: dict[str, int] = {}
    for problem in _in_order(found):
        shown[problem.kind] = shown.get(problem.kind, 0) + 1
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
        lines.append(f"note: {len(found.notes) - _MAX_ROWS_PER_KIND:,} more such files")
    lines += [f"removed {path}" for path in removed]
    return "\n".join(lines)


def _what_to_do(found: Verification, removed: list[str], *, repaired: bool) -> str:
    broken = len(found.broken) + len(found.broken_captions)
    said = f"{found.num_problems:,} problems, {broken:,} files broken"
    if removed:
        return f"{said} and removed; run the command that made them again, it makes these and no others"
    if broken and not repaired:
        return f"{said}; --repair removes them for the command that made them to make again"
    return f"{said}; docs/dataset_tools.md tells what to do about each"
