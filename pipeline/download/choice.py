"""Which of a video's formats and subtitles to fetch, of those that yt-dlp lists."""

from collections.abc import Iterable, Sequence
from typing import TypedDict

from clipvip.shards.sources.subtitles import SUBTITLE_EXTENSIONS

_SUBTITLE_FORMATS = ("json3", "vtt", "srv3", "srt")  # best first


class Form(TypedDict, total=False):
    """What is looked at in a format that yt-dlp lists, of a video or of its subtitles."""

    vcodec: str | None
    acodec: str | None
    width: int | None
    height: int | None
    fps: float | None
    ext: str


class Tracks(TypedDict, total=False):
    """What is looked at in what yt-dlp knows of a video: language -> formats of its subtitles."""

    subtitles: dict[str, list[Form]] | None
    automatic_captions: dict[str, list[Form]] | None


def pick_format(formats: Iterable[Form], height: int) -> list[Form]:
    """The one format to fetch of those listed, worst first: the largest up to `height`, else the smallest.

    Heights are of the shorter side. Of one size, H.264 (cheapest to decode), then 30 frames a second or
    fewer, then one without sound, which shards do not hold. Formats of unknown size come last. Empty: no
    format has a picture.
    """
    pictures = [form for form in formats if form.get("vcodec") != "none"]

    def rank(form: Form) -> tuple[bool | int, ...]:
        side = min((side for side in (form.get("width"), form.get("height")) if side), default=0)
        # For 360 of 240, 360 and 720: 360, 240, 720; of 480 and 720 the 480.
        fits = side <= height
        return (
            fits and side > 0,
            fits,
            side if fits else -side,
            str(form.get("vcodec") or "").startswith(("avc", "h264")),
            (form.get("fps") or 0) <= 30,
            form.get("acodec") == "none",
        )

    # Of equal ones the last.
    return [max(reversed(pictures), key=rank)] if pictures else []


def choose_subtitles(info: Tracks, languages: Sequence[str]) -> dict[str, tuple[str, Form]]:
    """Language -> (`manual` or `automatic`, the format to fetch), of those `languages` that there are.

    What a person wrote, in the language or a variant of it as en-GB, comes before what the site recognised,
    and that before its translations. Of the formats json3 is best: it has each word once with its time.
    """
    chosen = {}
    for language in languages:
        kinds = {"manual": info.get("subtitles"), "automatic": info.get("automatic_captions")}
        for kind, given in kinds.items():
            tracks = given or {}
            variants = sorted(name for name in tracks if name.startswith((f"{language}-", f"{language}_")))
            original = [name for name in variants if name == f"{language}-orig"]
            forms = [
                form
                for name in (*original, language, *(variants if kind == "manual" else ()))
                for form in sorted(tracks.get(name) or (), key=_format_rank)
                if f".{form.get('ext')}" in SUBTITLE_EXTENSIONS
            ]
            if forms:
                chosen[language] = (kind, forms[0])
                break
    return chosen


def _format_rank(form: Form) -> int:
    extension = form.get("ext", "")
    return _SUBTITLE_FORMATS.index(extension) if extension in _SUBTITLE_FORMATS else len(_SUBTITLE_FORMATS)
