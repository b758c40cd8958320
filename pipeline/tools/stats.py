"""The stage `stats`: how much there is in a folder of shards, and what it is like."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from clipvip.pipeline.pages.cards import draw_cards, pick_evenly
from clipvip.pipeline.runtime.cores import num_cores
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.options import Captions, Workers, opt, options
from clipvip.pipeline.runtime.plain_units import run_plain_units
from clipvip.pipeline.runtime.progress import Progress
from clipvip.pipeline.runtime.report import StageReport
from clipvip.pipeline.runtime.stage import StageOptions, stage, stage_command
from clipvip.pipeline.tools.stats_page import PAGE_NAME, counts_table, summary_table, write_page
from clipvip.pipeline.tools.tally import Tally, tally_shard
from clipvip.shards.checking.state import read_skips
from clipvip.shards.errors import DatasetError
from clipvip.shards.files.atomic import write_json
from clipvip.shards.files.claims import SKIPPED_NAME
from clipvip.shards.files.hashes import HashStore
from clipvip.shards.tar.reader import list_shards

STATS_NAME = "stats.json"
_MAX_SIZES = 10
_FRAMES_PER_CARD = 4


@options
class StatsOptions(StageOptions):
    """What `stats` is asked for."""

    folder: Path = opt(argument=True, metavar="DIR", kw_only=False)
    captions: Captions = None
    out: Path | None = opt(f"Folder for {STATS_NAME} and {PAGE_NAME}.", shown="none is written", default=None)
    num: int = opt("Clips on the page.", click.IntRange(min=0), default=24)
    workers: Workers = None


@dataclass(frozen=True, kw_only=True)
class StatsReport(StageReport):
    """The sums, how many videos there are, and reason -> how many clips were left out."""

    tally: Tally
    num_videos: int
    skipped: dict[str, int]


@stage(StatsOptions, "clipvip-data stats")
def stats(options: StatsOptions) -> StatsReport:
    """Count clips, hours, bytes and words, by reading tar headers and records but no pixels.

    With --out, a page shows the distributions and some clips.

    Raises:
        UserError, DatasetError: there are no such shards or captions, or one cannot be added up.
    """
    folder, captions, out = options.folder, options.captions, options.out
    shards = list_shards(folder)
    if captions is not None and not captions.is_dir():
        raise UserError(f"{captions}: no such folder of captions")
    workers = options.workers or num_cores()
    tally, num_videos = _add_up(shards, captions, workers)
    skipped = _skipped(folder)
    content = _content(tally, num_videos, skipped, has_captions=captions is not None)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / STATS_NAME, content)
        has_all_captions = captions is not None and not tally.missing_captions
        with_captions = captions if has_all_captions else None
        picks = list(pick_evenly(shards, options.num, captions=with_captions)) if options.num else []
        cards = draw_cards(picks, num_frames=_FRAMES_PER_CARD, workers=workers) if picks else []
        write_page(out, folder.name, content, tally, cards)
        click.echo(f"stats: {STATS_NAME}, {PAGE_NAME} -> {out}", err=True)
    return StatsReport(
        content=content, text=_table(folder, content), tally=tally, num_videos=num_videos, skipped=skipped
    )


command = stage_command(
    stats,
    resumable=False,
    epilog="""\b
Examples:
  clipvip-data stats clips/ --captions captions/ --out stats/
""",
)


def _add_up(shards: list[Path], captions: Path | None, workers: int) -> tuple[Tally, int]:
    tally = Tally()
    tasks = ((number, path, captions) for number, path in enumerate(shards))
    videos = HashStore()
    with Progress("stats", total=len(shards), unit="shard") as bar:
        for outcome in run_plain_units(tally_shard, tasks, workers=min(workers, len(shards))):
            if outcome.result is None:
                assert outcome.failure is not None
                raise UserError(
                    f"{outcome.unit[1]}: {outcome.failure.detail}; check it by 'clipvip-data verify'"
                )
            part, hashes = outcome.result
            tally.add_all(part)
            videos.add(outcome.unit[0], hashes)
            bar.add(1)
        return tally, videos.count_distinct()


def _skipped(folder: Path) -> dict[str, int]:
    """Reason -> how many clips the stage left out, the most frequent first."""
    try:
        return _by_count(Counter(skip.reason for skip in read_skips(folder)))
    except DatasetError as error:
        raise DatasetError(f"{folder / SKIPPED_NAME}: damaged ({error}); run the stage again") from error


def _by_count(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _content(tally: Tally, num_videos: int, skipped: dict[str, int], *, has_captions: bool) -> dict[str, Any]:
    clips = tally.frames.count
    content: dict[str, Any] = {
        "counts": {
            "shards": tally.shards,
            "clips": clips,
            "videos": num_videos,
            "hours": round(tally.clip_milliseconds.total / 3_600_000, 3),
            "frames": tally.frames.total,
            "bytes": tally.bytes,
            "clips_without_text": tally.clips_without_subtitle,
            "unreadable_clips": tally.unreadable_clips,
            "unreadable_shards": tally.unreadable_shards,
        },
        "clip_seconds": tally.clip_milliseconds.summary(unit=1000),
        "frames_per_clip": tally.frames.summary(),
        "bytes_per_clip": tally.clip_bytes.summary(),
        "words_per_text": tally.subtitle_words.summary(),
        "sizes": dict(list(_by_count(tally.sizes).items())[:_MAX_SIZES]),
        "source_sizes": dict(list(_by_count(tally.source_sizes).items())[:_MAX_SIZES]),
        "skipped": sum(skipped.values()),
        "skipped_by_reason": skipped,
    }
    if has_captions:
        content["captions"] = {
            "captions": tally.caption_words.count,
            "words": tally.caption_words.summary(),
            "files_missing": tally.missing_captions,
            "skipped_by_reason": _by_count(tally.captions_skipped),
        }
    return content


def _table(folder: Path, content: dict[str, Any]) -> str:
    tables = [
        table.text(gap="", indent="  ")
        for table in (counts_table(content), summary_table(content))
        if table.rows
    ]
    lines = [f"stats: {folder}", *tables]
    for title in ("sizes", "source_sizes", "skipped_by_reason"):
        if content[title]:
            shown = ", ".join(f"{name} {count:,}" for name, count in list(content[title].items())[:5])
            lines.append(f"  {title.replace('_', ' ')}: {shown}")
    return "\n".join(lines)
