"""The stage `inspect`: what is in a shard, on the terminal or as a page that `pages.cards` draws."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import click

from clipvip.pipeline.evaluate.options import require_page_folder
from clipvip.pipeline.pages.cards import Cards, Pick, draw_cards, facts_of, pick_evenly, pick_keys, texts_of
from clipvip.pipeline.pages.html import Section, render_page
from clipvip.pipeline.runtime.device import num_cores
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.options import ALSO, Captions, Workers, at_least, opt, options, require_captions
from clipvip.pipeline.runtime.report import StageReport, counted
from clipvip.pipeline.runtime.stage import StageOptions, stage
from clipvip.shards.files.atomic import atomic_write_bytes
from clipvip.shards.files.places import is_file, is_folder
from clipvip.shards.files.stores import Location
from clipvip.shards.tar.reader import list_shards


@options
class InspectOptions(StageOptions):
    """Options of `inspect`."""

    shard: Location = opt(argument=True, metavar="SHARD_OR_DIR", kw_only=False)
    num: int = opt("Clips to show, evenly spread.", at_least(1), default=10)
    keys: tuple[str, ...] = opt(
        "Show the clip with this key, instead; may be repeated.", names=("--key",), default=()
    )
    captions: Captions = ()
    html: Location | None = opt(
        f"Write a page with frames of these clips to this file; {ALSO}.", default=None
    )
    frames: int = opt("Frames of each clip on the page.", click.IntRange(1, 32), default=4)
    workers: Workers = None


@dataclass(frozen=True, kw_only=True)
class InspectReport(StageReport):
    """The clips that were picked; where shards are damaged, `damage` says so, a line each."""

    clips: list[Pick]
    damage: list[str] = field(default_factory=list)


@stage(
    InspectOptions,
    "clipvip-data inspect",
    "clips/ --captions captions/ --num 20 --html page.html",
    "clips/000012.tar --key QMi8x8o55Ns_00001",
    "s3://bucket/clips --html page.html",
    resumable=False,
)
def inspect(options: InspectOptions) -> InspectReport:
    """Show clips of a shard, or of a folder of shards: keys, spans, sizes, texts and captions.

    Shards may also be in s3://, gs:// and hf://. Of a damaged shard, the clips before the damage are shown,
    and a note says where it is.

    Raises:
        UserError, DatasetError: there are no such shards, captions or clips.

    Examples:
        >>> import clipvip
        >>> report = clipvip.inspect("test-clips", num=1)
        >>> len(report.clips)
        1
    """
    shard, keys, captions = options.shard, options.keys, options.captions or ()
    shards: Sequence[Location]
    if is_file(shard):
        shards = [shard]
    elif is_folder(shard):
        shards = list_shards(shard)
    else:
        raise UserError(f"{shard}: no such shard or folder; give a .tar file or the folder of some")
    require_captions(captions)
    require_page_folder(options.html, "--html")
    damage: list[str] = []
    if keys:
        picks = list(pick_keys(shards, keys, captions=captions, damage=damage))
    else:
        picks = list(pick_evenly(shards, options.num, captions=captions, damage=damage))
    for line in damage:
        click.echo(f"note: {printable(line)}", err=True)
    missing = set(keys) - {pick.key for pick in picks}
    if missing:
        raise UserError(f"{shard}: has no clip {', '.join(map(ascii, sorted(missing)))}")
    if not picks:
        raise UserError(f"{shard}: has no readable clip; 'clipvip-data verify' says why")
    if options.html is not None:
        workers = min(options.workers or num_cores(), len(picks))
        cards = draw_cards(picks, num_frames=options.frames, workers=workers)
        title = f"{counted(len(picks), 'clips')} of {shard.name}"
        atomic_write_bytes(options.html, render_page(title, [Section(blocks=[Cards(cards)])]))
        click.echo(f"inspect: {counted(len(picks), 'clips')} -> {options.html}", err=True)
    content = {"clips": list(map(_row, picks)), "damage": damage}
    return InspectReport(content=content, text="\n".join(map(_lines, picks)), clips=picks, damage=damage)


def _row(pick: Pick) -> dict[str, object]:
    return {
        "shard": pick.path.name,
        "key": pick.key,
        "bytes": pick.num_bytes,
        "caption": next(iter(pick.captions), None),
        **({"captions": list(pick.captions)} if len(pick.captions) > 1 else {}),
        "problem": pick.problem or None,
        "record": pick.record.as_dict() if pick.record is not None else None,
    }


def _lines(pick: Pick) -> str:
    lines = [f"{pick.path.name}  {pick.key}  {facts_of(pick)}"]
    lines += [f"  {name:8}  {text}" for name, text in texts_of(pick)]
    if pick.problem:
        lines.append(f"  problem   {pick.problem}")
    return "\n".join(map(printable, lines))


def printable(text: str) -> str:
    """Text of others may hold what moves the cursor or changes the terminal's title."""
    return "".join(
        c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text
    )
