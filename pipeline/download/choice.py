"""Which of a video's formats and subtitles to fetch, of those that yt-dlp lists. Fetches nothing itself."""

from collections.abc import Sequence
from typing import Any

from clipvip.shards.sources.subtitles import SUBTITLE_EXTENSIONS

_SUBTITLE_FORMATS = ("json3", "vtt", "srv3", "srt")  # best first


def pick_format(formats: Sequence[dict[str, Any]], height: int) -> list[dict[str, Any]]:
    """The one format to fetch of those that yt-dlp lists, worst first: the largest up to `height`, else the smallest.

    Heights are of the shorter side. Of one size, H.264 (cheapest to decode), then 30 frames a second or
    fewer, then one without sound, which shards do not hold. Formats of unknown size come last. Empty: there is
    no format with a picture.
    """
    pictures = [(place, form) for place, form in enumerate(formats) if form.get("vcodec") != "none"]

    def rank(placed: tuple[int, dict[str, Any]]) -> tuple[Any, ...]:
        place, form = placed
        side = min((form[name] for name in ("width", "height") if form.get(name)), default=0)
        fits = side <= height
        return (
            fits and side > 0,
            fits,
            side if fits else -side,
            str(form.get("vcodec") or "").startswith(("avc", "h264")),
            (form.get("fps") or 0) <= 30,
            form.get("acodec") == "none",
            place,
        )

    return [max(pictures, key=rank)[1]] if pictures else []


def choose_subtitles(info: dict[str, Any], languages: Sequence[str]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Language -> (`manual` or `automatic`, one of yt-dlp's subtitle formats), for those of `languages` there are.

    What a person wrote, in the language or a variant of it as en-GB, comes before what the site recognised, and
    that before its translations. Of the formats json3 is best: it has each word once with its time.
    """
    chosen = {}
    for language in languages:
        for kind, field in (("manual", "subtitles"), ("automatic", "automatic_captions")):
            tracks = info.get(field) or {}
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


def _format_rank(form: dict[str, Any]) -> int:
    extension = form.get("ext")
    return _SUBTITLE_FORMATS.index(extension) if extension in _SUBTITLE_FORMATS else len(_SUBTITLE_FORMATS)
