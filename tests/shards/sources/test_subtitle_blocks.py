"""Which lines of WebVTT and SubRip are times, and what they say."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clipvip.shards.sources.subtitle_blocks import parse_cue_blocks
from clipvip.shards.sources.subtitles import Cue, parse_subtitles

# Lines of speech with arrows, none of which is wholly times.
_SPOKEN = [
    *("File --> Save as", "-->", "--> that way", "a --> b --> c", "1 --> 2", "x-->y", "3: a --> b", "<-->"),
    *("from 00:01 --> you go", "12:30 --> noon", "00:00:01,000 -->", "10:00 --> 11:00 is a break"),
    *("words", "<i>File --> Save</i>", "at 0:10 --> 0:20 it rains", "7 up"),
]
_FORMS = {
    "srt": ("", "{n}\n00:00:0{n},500 --> 00:00:0{m},000\n{text}\n\n"),
    "srt without blank lines": ("", "{n}\n00:00:0{n},500 --> 00:00:0{m},000\n{text}\n"),
    "vtt": ("WEBVTT\n\n", "00:0{n}.500 --> 00:0{m}.000 align:start position:0%\n{text}\n\n"),
    "vtt with identifiers": ("WEBVTT\n\n", "id {n}\n00:0{n}.500 --> 00:0{m}.000\n{text}\n\n"),
}


def _file(form: str, cues: list[list[str]]) -> bytes:
    head, cue = _FORMS[form]
    blocks = (cue.format(n=n, m=n + 1, text="\n".join(lines)) for n, lines in enumerate(cues, start=1))
    return (head + "".join(blocks)).encode()


@pytest.mark.parametrize("form", _FORMS)
@given(cues=st.lists(st.lists(st.sampled_from(_SPOKEN), min_size=1, max_size=4), min_size=1, max_size=6))
@example(cues=[["open the menu", "File --> Save as", "and press enter"], ["last words"]])
def test_every_word_of_a_cue_with_arrows_stays(form: str, cues: list[list[str]]) -> None:
    found = parse_subtitles(_file(form, cues))
    assert [cue.start_seconds for cue in found] == [n + 0.5 for n in range(1, len(cues) + 1)]
    expected = [" ".join(lines).replace("<i>", "").replace("</i>", "") for lines in cues]
    assert [cue.text for cue in found] == expected


def test_a_damaged_time_ends_the_cue_before_it_and_is_told() -> None:
    warnings: list[str] = []
    srt = (
        "1\n00:00:01,000 --> 00:00:02,000\ngood\n\n2\n00:00:0x,000 --> 00:00:04,000\nlost\n\n"
        "3\nno time --> here\nlost\n\n4\n00:00:05,000 --> 00:00:06,000\nFile --> Save\n\nand --> more\n"
    )
    cues = parse_subtitles(srt.encode(), name="a.srt", warn=warnings.append)
    assert [cue.text for cue in cues] == ["good", "File --> Save and --> more"]
    assert warnings == ["a.srt, line 6: times that cannot be read; cues left out: 1"]


def test_words_behind_the_times_do_no_harm_where_times_are_expected() -> None:
    srt = (
        "1\n00:00:01,000 --> 00:00:02,000 (Ann)\ngood\n\n2\n00:00:03,000 --> 00:00:04,000 X1:40 X2:600\nday\n"
    )
    assert [cue.text for cue in parse_subtitles(srt.encode())] == ["good", "day"]


@pytest.mark.parametrize(
    ("stamps", "spans"),
    [
        # A second of a thousand milliseconds, as some programs round up.
        (["00:00:01,1000 --> 00:00:02,1000"], [(2.0, 3.0)]),
        (["00:00:01,1000 --> 00:00:02,1000", "00:00:04,000 --> 00:00:05,000"], [(2.0, 3.0), (4.0, 5.0)]),
        (["00:28:41,1000 --> 00:28:59,1000"], [(1722.0, 1740.0)]),
        (["00:59:58,250 --> 00:59:59,1000"], [(3598.25, 3600.0)]),
        (["00:00:01,1250 --> 00:00:03,000"], [(2.25, 3.0)]),
        # Fractions of a second, in any number of digits.
        (["00:00:01.5 --> 00:00:02.25"], [(1.5, 2.25)]),
        (["0:00:01.500000 --> 0:00:02"], [(1.5, 2.0)]),
        (["00:00:01.1000 --> 00:00:02.2500"], [(1.1, 2.25)]),
        (["00:00:01.0999 --> 00:00:02.500"], [(1.1, 2.5)]),
        (["00:00:01.1000 --> 00:00:02.25"], [(1.1, 2.25)]),
    ],
)
def test_digits_of_seconds(stamps: list[str], spans: list[tuple[float, float]]) -> None:
    for head in ("", "WEBVTT\n\n"):
        text = head + "".join(f"{stamp}\nw\n\n" for stamp in stamps)
        assert parse_subtitles(text.encode()) == [Cue(*span, "w") for span in spans]


@given(st.integers(0, 359_999), st.integers(0, 1000), st.sampled_from(",."))
def test_milliseconds_up_to_a_thousand_are_what_they_say(start: int, more: int, point: str) -> None:
    minutes, seconds = divmod(start, 60)
    stamp = f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}{point}{more:03d}"
    shown = parse_cue_blocks(f"{stamp} --> 100:00:00{point}000\nw\n", warn=lambda _: None)
    assert [cue.start_seconds for cue in shown] == [(1000 * start + more) / 1000]
