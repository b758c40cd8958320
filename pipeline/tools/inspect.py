"""The command `clipvip-data inspect`: what is in a shard, on the terminal or as a page."""

from pathlib import Path
from typing import Any

import click

from clipvip.pipeline.pages.cards import Cards, Pick, draw_cards, facts_of, pick_evenly, pick_keys, texts_of
from clipvip.pipeline.pages.html import Section, render_page
from clipvip.pipeline.runtime.cores import num_cores
from clipvip.pipeline.runtime.errors import StageCommand, UserError
from clipvip.pipeline.runtime.options import json_option, print_result, workers_option
from clipvip.shards.files.atomic import atomic_write_bytes
from clipvip.shards.tar.reader import list_shards

_EPILOG = """\b
Examples:
  clipvip-data inspect clips/ --captions captions/ --num 20 --html page.html
  clipvip-data inspect clips/000012.tar --key QMi8x8o55Ns_00001
"""


@click.command(cls=StageCommand, resumable=False, epilog=_EPILOG)
@click.argument("shard", metavar="SHARD_OR_DIR", type=click.Path(path_type=Path))
@click.option("--num", type=click.IntRange(min=1), default=10, show_default=True,
              help="Clips to show, from all over.")  # fmt: skip
@click.option("--key", "keys", multiple=True, help="Show the clip with this key, instead; may be repeated.")
@click.option("--captions", type=Path, help="Folder that 'clipvip-data caption' wrote for these shards.")
@click.option("--html", "html_path", type=Path, help="Write a page with frames of these clips to this file.")
@click.option("--frames", type=click.IntRange(1, 32), default=4, show_default=True,
              help="Frames of each clip on the page.")  # fmt: skip
@workers_option
@json_option
def command(
    shard: Path,
    num: int,
    keys: tuple[str, ...],
    captions: Path | None,
    html_path: Path | None,
    frames: int,
    workers: int | None,
    as_json: bool,
) -> None:
    """Show clips of a shard, or of a folder of shards: keys, spans, sizes, texts and captions.

    Of a damaged shard the clips before the damage are shown, and a note says where it is.
    """
    if shard.is_file():
        shards = [shard]
    elif shard.exists():
        shards = list_shards(shard)
    else:
        raise UserError(f"{shard}: no such shard or folder; give a .tar file or the folder of some")
    if captions is not None and not captions.is_dir():
        raise UserError(f"{captions}: no such folder of captions")
    damage: list[str] = []
    if keys:
        picks = list(pick_keys(shards, keys, captions=captions, damage=damage))
    else:
        picks = list(pick_evenly(shards, num, captions=captions, damage=damage))
    for line in damage:
        click.echo(f"note: {printable(line)}", err=True)
    if keys:
        missing = set(keys) - {pick.key for pick in picks}
        if missing:
            raise UserError(f"{shard}: has no clip {', '.join(map(ascii, sorted(missing)))}")
    if not picks:
        raise UserError(f"{shard}: has no readable clip; 'clipvip-data verify' says why")
    content = {"clips": list(map(_row, picks)), "damage": damage}
    print_result(content, "\n".join(map(_lines, picks)), as_json=as_json)
    if html_path is not None:
        title = f"{len(picks)} clips of {shard.name}"
        cards = draw_cards(picks, num_frames=frames, workers=min(workers or num_cores(), len(picks)))
        atomic_write_bytes(html_path, render_page(title, [Section(blocks=[Cards(cards)])]))
        click.echo(f"inspect: {len(picks):,} clips -> {html_path}", err=True)


def _row(pick: Pick) -> dict[str, Any]:
    return {
        "shard": pick.path.name,
        "key": pick.key,
        "bytes": pick.num_bytes,
        "caption": pick.caption,
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
