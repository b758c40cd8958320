"""How a folder of captions is finished: manifest, counts, lengths, repetitions, and a page of samples."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clipvip.pipeline.pages.cards import Cards, draw_card, pick_evenly
from clipvip.pipeline.pages.html import Section, render_page
from clipvip.pipeline.pages.tables import Column, Table
from clipvip.pipeline.runtime.report import Report, counted
from clipvip.shards.errors import Skip
from clipvip.shards.files.atomic import atomic_write_bytes
from clipvip.shards.files.claims import MANIFEST_NAME, Options
from clipvip.shards.files.hashes import AT_ONCE, key_hash, key_hashes, parts_by_hash, sha256_of_file
from clipvip.shards.files.places import size_of
from clipvip.shards.files.scratch import ScratchFile
from clipvip.shards.files.stores import Location
from clipvip.shards.format.captions import captions_path, read_caption_file
from clipvip.shards.format.clip_captions import NUM_FRAMES
from clipvip.shards.format.manifest import CAPTION_STAGE, ShardRecord, write_manifest

PAGE_NAME = "report.html"
_MAX_SAMPLES = 24
_MAX_FRAMES = 12  # of a clip
_MAX_FREQUENT = 10


@dataclass
class CaptionSummary:
    """Of all caption files of a folder; `digests` are hashes of all captions, to count repetitions by.

    They are on the disk: 8 bytes for each.
    """

    records: list[ShardRecord] = field(default_factory=list)
    num_captioned: int = 0
    num_skips: int = 0
    words: Counter[int] = field(default_factory=Counter)
    digests: ScratchFile = field(default_factory=ScratchFile)


@dataclass(frozen=True)
class CaptionSkips:
    """What the caption files of a folder left out, and then `more`, as often as they are asked for."""

    out: Location
    stems: Sequence[str]
    more: Iterable[Skip] = ()

    def __iter__(self) -> Iterator[Skip]:
        for stem in self.stems:
            yield from read_caption_file(captions_path(self.out, stem)).skips
        yield from self.more


def finish_captions(
    out: Location,
    shards: Sequence[Location],
    options: Options,
    *,
    stage: str = "caption",
    more_skips: Iterable[Skip] = (),
) -> Report:
    """Write the manifest and the page of the captions of `shards`; the report, which is not written yet.

    `stage` is the one that made them; it also skipped `more_skips`, which belong to no shard.
    """
    stems = [shard.stem for shard in shards]
    summary = summarize(out, stems)
    write_manifest(out, stage=CAPTION_STAGE, options=options, shards=summary.records)
    details = statistics_of(summary, out, stems)
    frame = "the frame that was captioned" if stage == CAPTION_STAGE else "the middle frame"
    frame = "the frames that were captioned" if options.get(NUM_FRAMES, 1) != 1 else frame
    write_page(out, shards, options=options, statistics=details, frame=frame)
    num_captions = summary.words.total()
    clips = summary.num_captioned + summary.num_skips
    counts: dict[str, int | float] = {"clips": clips, "captions": num_captions, "shards": len(stems)}
    skips = CaptionSkips(out, stems, more_skips)
    return Report(stage, options, counts=counts, details=details, skips=skips)


def summarize(out: Location, stems: Sequence[str]) -> CaptionSummary:
    """Read the caption files of the shards `stems`."""
    summary = CaptionSummary()
    for stem in stems:
        path = captions_path(out, stem)
        content = read_caption_file(path)
        captions = [caption for texts in content.all_captions().values() for caption in texts]
        record = ShardRecord(path.name, len(content.rows), size_of(path), sha256_of_file(path))
        summary.records.append(record)
        summary.num_captioned += len(content.rows)
        summary.num_skips += content.num_clips - len(content.rows)
        summary.words.update(len(caption.split()) for caption in captions)
        summary.digests.append(key_hashes(captions).tobytes())
    return summary


def statistics_of(summary: CaptionSummary, out: Location, stems: Sequence[str]) -> dict[str, Any]:
    """Lengths in words, and how often captions repeat each other."""
    if not summary.words:
        return {}
    num_distinct = num_sharing = 0
    frequent: list[tuple[int, int]] = []  # (-count, digest), of those that repeat
    for rows, _ in parts_by_hash(summary.digests, 1, at_once=AT_ONCE):
        values, counts = np.unique(rows, return_counts=True)
        num_distinct, num_sharing = num_distinct + len(values), num_sharing + int(counts[counts > 1].sum())
        most = [
            int(index) for index in np.argsort(-counts, kind="stable")[:_MAX_FREQUENT] if counts[index] > 1
        ]
        frequent = sorted(frequent + [(-int(counts[n]), int(values[n])) for n in most])[:_MAX_FREQUENT]
    wanted = {digest: count for count, digest in frequent}
    found = sorted((wanted[digest], text) for digest, text in _find(out, stems, set(wanted)))
    return {
        "caption_words": _lengths(summary.words),
        "duplicates": {
            "distinct_captions": num_distinct,
            "clips_that_share_a_caption": num_sharing,
            "most_frequent": [{"caption": text, "count": -count} for count, text in found],
        },
    }


def _lengths(words: Counter[int]) -> dict[str, float]:
    """Mean, median and extremes of lengths, of which each is counted."""
    lengths, counts = zip(*sorted(words.items()), strict=True)
    ends = np.cumsum(counts)
    total = int(ends[-1])
    # Of 1, 1, 2, 5, which end at 2, 3 and 4, numbers 1 and 2 are in the middle: the second 1, and the 2.
    low, high = (lengths[np.searchsorted(ends, n, side="right")] for n in ((total - 1) // 2, total // 2))
    mean = sum(length * count for length, count in words.items()) / total
    median = low if total % 2 else (low + high) / 2
    return {"mean": round(mean, 3), "median": median, "min": lengths[0], "max": lengths[-1]}


def _find(out: Location, stems: Sequence[str], wanted: set[int]) -> Iterator[tuple[int, str]]:
    """The captions with the digests `wanted`, each once."""
    for stem in stems:
        if not wanted:
            return
        for texts in read_caption_file(captions_path(out, stem)).all_captions().values():
            for caption in texts:
                digest = key_hash(caption)
                if digest in wanted:
                    wanted.discard(digest)
                    yield digest, caption


def write_page(
    out: Location, shards: Sequence[Location], *, options: Options, statistics: dict[str, Any], frame: str
) -> None:
    """Write report.html: frames and captions from all over the folder."""
    picks = [pick for pick in pick_evenly(shards, _MAX_SAMPLES, captions=[out]) if pick.captions]
    found = options.get(NUM_FRAMES, 1)
    num_frames = min(found, _MAX_FRAMES) if isinstance(found, int) else 1
    facts = {**options, **statistics.get("caption_words", {})}
    frequent = statistics.get("duplicates", {}).get("most_frequent", [])
    rows = [(row["count"], row["caption"]) for row in frequent]
    repeated = [Table((Column("clips", ","), Column("caption")), rows)] if rows else []
    about = Table((Column(), Column()), [(name, str(value)) for name, value in facts.items()])
    sections = [
        Section(blocks=[Cards([draw_card(pick, num_frames=num_frames) for pick in picks])]),
        Section("Options and length in words", blocks=[about]),
        Section("Most frequent captions", "" if frequent else "No caption is repeated.", repeated),
    ]
    note = (
        f"{counted(len(picks), 'samples')} from all over {counted(len(shards), 'shards')}: {frame}, "
        "what is said in the clip, and its caption. All figures are in report.json, all that was left out in "
        f"skipped.jsonl, files in {MANIFEST_NAME}."
    )
    atomic_write_bytes(out / PAGE_NAME, render_page("Captions", sections, note=note))
