"""Write timed words as subtitle files of the kinds that come with videos: rolling WebVTT, SubRip and json3.

The reader of such files is `clipvip.shards.sources.subtitles`; this is only for the demo's corpus.
"""

import json
from dataclasses import dataclass

WORDS_PER_LINE = 6
_FLASH_SECONDS = 0.01


@dataclass(frozen=True)
class SpokenLine:
    """Words that are shown together, with the time at which each begins."""

    words: tuple[str, ...]
    starts_seconds: tuple[float, ...]
    end_seconds: float

    @property
    def start_seconds(self) -> float:
        return self.starts_seconds[0]

    @property
    def text(self) -> str:
        return " ".join(self.words)


def spoken_lines(text: str, *, start_seconds: float, end_seconds: float) -> list[SpokenLine]:
    """Spread the words of a text evenly over a time."""
    words = text.split()
    step = (end_seconds - start_seconds) / max(1, len(words))
    starts = [start_seconds + n * step for n in range(len(words) + 1)]
    lines = []
    for cut in range(0, len(words), WORDS_PER_LINE):
        end = min(cut + WORDS_PER_LINE, len(words))
        lines.append(SpokenLine(tuple(words[cut:end]), tuple(starts[cut:end]), starts[end]))
    return lines


def rolling_vtt(lines: list[SpokenLine]) -> str:
    """As YouTube writes automatic captions: each line is shown three times, between the lines around it."""
    blocks = ["WEBVTT\nKind: captions\nLanguage: en\n"]
    before = " "
    for n, line in enumerate(lines):
        follows = n + 1 < len(lines) and lines[n + 1].start_seconds - line.end_seconds < 0.5
        if n and line.start_seconds - lines[n - 1].end_seconds >= 0.5:
            before = " "
        end = lines[n + 1].start_seconds if follows else line.end_seconds
        timed = line.words[0] + "".join(
            f"<{clock(start)}><c> {word}</c>"
            for word, start in zip(line.words[1:], line.starts_seconds[1:], strict=True)
        )
        flash = max(line.start_seconds, end - _FLASH_SECONDS)
        style = "align:start position:0%"
        blocks.append(f"{clock(line.start_seconds)} --> {clock(flash)} {style}\n{before}\n{timed}\n")
        blocks.append(f"{clock(flash)} --> {clock(end)} {style}\n{line.text}\n \n")
        before = line.text
    return "\n".join(blocks)


def srt(lines: list[SpokenLine]) -> str:
    """SubRip: each line once."""
    return "\n".join(
        f"{n}\n{clock(line.start_seconds, ',')} --> {clock(line.end_seconds, ',')}\n{line.text}\n"
        for n, line in enumerate(lines, start=1)
    )


def json3(lines: list[SpokenLine]) -> str:
    """YouTube's json3: an event per line, with the offset of each word."""
    events = [
        {
            "tStartMs": round(1000 * line.start_seconds),
            "dDurationMs": round(1000 * (line.end_seconds - line.start_seconds)),
            "segs": [
                {"utf8": word, "tOffsetMs": round(1000 * (start - line.start_seconds))}
                for word, start in zip(
                    (line.words[0], *(f" {word}" for word in line.words[1:])),
                    line.starts_seconds,
                    strict=True,
                )
            ],
        }
        for line in lines
    ]
    return json.dumps({"wireMagic": "pb3", "events": events}, indent=1) + "\n"


def clock(seconds: float, point: str = ".") -> str:
    """HH:MM:SS.mmm, as HD-VILA-100M's metadata writes times."""
    minutes, milliseconds = divmod(round(1000 * seconds), 60_000)
    return (
        f"{minutes // 60:02d}:{minutes % 60:02d}:{milliseconds // 1000:02d}{point}{milliseconds % 1000:03d}"
    )
