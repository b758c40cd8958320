"""Which of a video's formats and subtitles are fetched."""

from typing import Any

import pytest

from clipvip.pipeline.download.choice import choose_subtitles, pick_format


def form(name: str, width: int | None, height: int | None, vcodec: str | None = "vp9", **more: Any) -> dict:
    return {"format_id": name, "width": width, "height": height, "vcodec": vcodec, "acodec": "none", **more}


# As yt-dlp orders YouTube's: the worst first.
FORMATS = [
    form("storyboard", 48, 27, "none"),
    form("sound", None, None, "none", acodec="opus"),
    form("144", 256, 144, "avc1.4d400c"),
    form("360 with sound", 640, 360, "avc1.42001E", acodec="mp4a.40.2"),
    form("360 h264", 640, 360, "avc1.4d401e", fps=30),
    form("360 vp9", 640, 360, fps=30),
    form("720 h264 60", 1280, 720, "avc1.4d4020", fps=60),
    form("720 h264", 1280, 720, "avc1.4d401f", fps=30),
    form("720 av1", 1280, 720, "av01.0.05M.08", fps=30),
    form("1080", 1920, 1080),
]


@pytest.mark.parametrize(
    ("height", "name"),
    [(360, "360 h264"), (719, "360 h264"), (720, "720 h264"), (4000, "1080"), (100, "144")],
)
def test_the_largest_that_fits_or_the_smallest(height: int, name: str) -> None:
    assert [found["format_id"] for found in pick_format(FORMATS, height)] == [name]


def test_upright_videos_are_measured_by_their_width() -> None:
    upright = [form("a", 202, 360), form("b", 360, 640), form("c", 720, 1280)]
    assert pick_format(upright, 360)[0]["format_id"] == "b"


def test_unknown_sizes_come_after_known_ones_that_fit() -> None:
    unknown = form("unknown", None, None, None)
    assert pick_format([unknown], 360) == [unknown]
    assert pick_format([form("small", 64, 36), unknown], 360)[0]["format_id"] == "small"
    assert pick_format([form("large", 1920, 1080), unknown], 360)[0]["format_id"] == "unknown"


def test_without_a_picture_there_is_no_format() -> None:
    assert pick_format(FORMATS[:2], 360) == []


def tracks(*extensions: str) -> list[dict[str, str]]:
    return [{"ext": extension, "url": f"https://a.example/{extension}"} for extension in extensions]


@pytest.mark.parametrize(
    ("manual", "automatic", "kind", "extension"),
    [
        ({"en": tracks("vtt", "json3")}, {"en": tracks("json3")}, "manual", "json3"),
        ({"en-GB": tracks("vtt")}, {"en": tracks("json3")}, "manual", "vtt"),
        ({"de": tracks("vtt")}, {"en": tracks("ttml", "srv3")}, "automatic", "srv3"),
        ({}, {"en": tracks("vtt"), "en-orig": tracks("json3", "vtt")}, "automatic", "json3"),
        ({"en": tracks("ttml")}, {"en": tracks("vtt")}, "automatic", "vtt"),
    ],
)
def test_manual_before_automatic_and_words_with_times_first(
    manual: dict, automatic: dict, kind: str, extension: str
) -> None:
    chosen = choose_subtitles({"subtitles": manual, "automatic_captions": automatic}, ["en"])
    assert (chosen["en"][0], chosen["en"][1]["ext"]) == (kind, extension)


def test_the_spoken_language_comes_before_its_translation() -> None:
    automatic = {"en": [{"ext": "vtt", "url": "translated"}], "en-orig": [{"ext": "vtt", "url": "spoken"}]}
    assert choose_subtitles({"automatic_captions": automatic}, ["en"])["en"][1]["url"] == "spoken"


def test_languages_that_are_not_there_are_left_out() -> None:
    assert choose_subtitles({"subtitles": {"eng": tracks("vtt")}}, ["en", "de"]) == {}
    assert choose_subtitles({"subtitles": None}, ["en"]) == {}
