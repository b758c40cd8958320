"""Subtitle formats: each spoken line once in every format."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clipvip.shards.errors import DatasetError
from clipvip.shards.sources.subtitles import (
    Cue,
    parse_subtitles,
    read_subtitles,
)

ROLLING = """WEBVTT
Kind: captions
Language: en

00:00:01.000 --> 00:00:03.000 align:start position:0%
 
so<00:00:01.400><c> today</c><00:00:02.000><c> we</c><00:00:02.400><c> cook</c>

00:00:03.000 --> 00:00:03.010 align:start position:0%
so today we cook
 

00:00:03.010 --> 00:00:05.000 align:start position:0%
so today we cook
rice<00:00:03.500><c> and</c><00:00:04.000><c> beans</c>

00:00:05.000 --> 00:00:05.010 align:start position:0%
rice and beans
 

00:00:05.010 --> 00:00:06.000 align:start position:0%
rice and beans
no

00:00:06.000 --> 00:00:06.010 align:start position:0%
no
 

00:00:06.010 --> 00:00:07.000 align:start position:0%
no
no

00:00:07.000 --> 00:00:07.010 align:start position:0%
no
 

00:00:07.010 --> 00:00:09.000 align:start position:0%
no
rice<00:00:07.500><c> and</c><00:00:08.000><c> beans</c>
"""


def said(text: str | bytes) -> str:
    """All the words of a subtitle file."""
    cues = parse_subtitles(text if isinstance(text, bytes) else text.encode())
    return " ".join(cue.text for cue in cues)


def test_rolling_captions_give_each_line_once_and_keep_repeated_words() -> None:
    assert said(ROLLING) == "so today we cook rice and beans no no rice and beans"


def test_words_have_the_times_of_their_tags() -> None:
    cues = parse_subtitles(ROLLING.encode())
    assert cues[:4] == [
        Cue(1.0, 1.4, "so"),
        Cue(1.4, 2.0, "today"),
        Cue(2.0, 2.4, "we"),
        Cue(2.4, 3.0, "cook"),
    ]


def test_rolling_captions_without_word_times_as_converted_to_srt() -> None:
    lines = ["my career in side projects and open", "source basically this is so", "i have been at it"]
    blocks, before, time = [], "", 0.0
    for line in lines:
        for shown, seconds in [(f"{before}\n{line}" if before else line, 1.99), (line, 0.01)]:
            stamp = [f"00:00:{t:06.3f}".replace(".", ",") for t in (time, time + seconds)]
            blocks.append(f"{len(blocks) + 1}\n{stamp[0]} --> {stamp[1]}\n{shown}\n")
            time += seconds
        before = line
    assert said("\n".join(blocks)) == " ".join(lines)


def test_a_chorus_survives_where_captions_do_not_roll() -> None:
    cues = "".join(f"00:0{n}.000 --> 00:0{n + 1}.000\nno no no\n\n" for n in range(4))
    assert said("WEBVTT\n\n" + cues) == " ".join(["no no no"] * 4)
    # also beside rolling captions in the same file
    cues = "".join(f"00:2{n}.000 --> 00:2{n + 1}.000\nla la la\n\n" for n in range(3))
    assert said(ROLLING + "\n" + cues).endswith("rice and beans la la la la la la la la la")


def test_one_shared_line_does_not_make_a_file_rolling() -> None:
    vtt = """WEBVTT

00:01.000 --> 00:02.000
No.

00:02.000 --> 00:03.000
No.
Never.

00:03.000 --> 00:04.000
Why not?
"""
    assert said(vtt) == "No. No. Never. Why not?"


def test_vtt_with_everything_around_the_words() -> None:
    vtt = (
        "\ufeffWEBVTT - a title\r\n\r\nSTYLE\r\n::cue { color: red }\r\n\r\nNOTE two\r\nlines of note\r\n\r\n"
        "intro\r\n00:01.000 --> 00:02.000 line:0 align:start\r\n"
        "<v Ann>Tom &amp; <i>Jerry</i></v> &lt;3\r\n{\\an8}second\u00a0 line\r\n\r\nREGION\r\nid:x\r\n\r\n"
        "01:00:00.5 --> 01:00:01.000\r\n<c.colorE5E5E5>late</c>\u200b\r\n"
        "01:00:02.000 --> 01:00:03.000\r\nno blank line before\r\n\r\n7\r\n"
        "01:00:04.000 --> 01:00:05.000\r\n\r\nafter an empty line\r\n"
    )
    assert [(cue.start_seconds, cue.text) for cue in parse_subtitles(vtt.encode())] == [
        (1.0, "Tom & Jerry <3 second line"),
        (3600.5, "late"),
        (3602.0, "no blank line before"),
        (3604.0, "after an empty line"),
    ]


def test_srt_counters_are_not_words_even_without_blank_lines() -> None:
    srt = "1\n00:00:01,000 --> 00:00:02,000\none of\n42\n\n2\n00:00:02,000 --> 00:00:03,000\ntwo\n"
    assert said(srt) == "one of 42 two"
    assert said(srt.replace("\n\n", "\n")) == "one of 42 two"


def test_words_split_by_a_time_inside_them_stay_whole() -> None:
    vtt = "WEBVTT\n\n00:01.000 --> 00:03.000\nka<00:01.500>ra<00:02.000>oke <00:02.500>night\n"
    assert [(cue.start_seconds, cue.text) for cue in parse_subtitles(vtt.encode())] == [
        (1.0, "karaoke"),
        (2.5, "night"),
    ]


def test_json3() -> None:
    events = [
        {"tStartMs": 0, "dDurationMs": 9000, "id": 1, "wpWinPosId": 1},
        {
            "tStartMs": 1000,
            "dDurationMs": 5000,
            "wWinId": 1,
            "segs": [{"utf8": "so"}, {"utf8": " today", "tOffsetMs": 400}, {"utf8": " we", "tOffsetMs": 900}],
        },
        {"tStartMs": 2990, "wWinId": 1, "aAppend": 1, "segs": [{"utf8": "\n"}]},
        {"tStartMs": 3000, "dDurationMs": 2000, "segs": [{"utf8": "cook", "tOffsetMs": 0}]},
    ]
    assert parse_subtitles(json.dumps({"wireMagic": "pb3", "events": events}).encode()) == [
        Cue(1.0, 1.4, "so"),
        Cue(1.4, 1.9, "today"),
        Cue(1.9, 3.0, "we"),
        Cue(3.0, 5.0, "cook"),
    ]


def test_timedtext_xml_of_both_kinds() -> None:
    srv3 = (
        '<?xml version="1.0" encoding="utf-8"?><timedtext format="3"><body><w t="0"/>'
        '<p t="1000" d="4000" w="1"><s>so</s><s t="500"> today</s></p><p t="2000" w="1" a="1">\n</p>'
        '<p t="3000" d="1000">it&amp;#39;s late</p></body></timedtext>'
    )
    assert parse_subtitles(srv3.encode()) == [
        Cue(1.0, 1.5, "so"),
        Cue(1.5, 3.0, "today"),
        Cue(3.0, 4.0, "it's late"),
    ]
    srv1 = '<transcript><text start="1.5" dur="2">one</text><text start="4">two</text></transcript>'
    assert parse_subtitles(srv1.encode()) == [Cue(1.5, 3.5, "one"), Cue(4.0, 4.0, "two")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encodings(encoding: str) -> None:
    srt = "1\n00:00:01,000 --> 00:00:02,000\ncafé crème\n"
    assert said(srt.encode(encoding)) == "café crème"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1: the file is empty"),
        ("\n\nhello\nworld", "line 3: no times"),
        ("WEBVTT\n\nxx --> yy\nhello", "line 3: no times"),
        ('{"events":\n [', "line 2: not JSON"),
        ('{"captions": []}', "line 1: JSON without"),
        ("[" * 9, "line 1: no times"),
        ('{"events": ' + "[" * 200_000, "not JSON|nested too deeply"),
        ("<html><body>Sign in</body></html>", "XML of another kind"),
        ("<transcript>\n<text", "line 2: not XML"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><transcript/>', "line 1: a document type"),
    ],
)
def test_a_file_of_which_nothing_can_be_made_is_named_with_the_line(content: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        parse_subtitles(content.encode(), name="videos/abc.vtt")
    assert str(caught.value).startswith("videos/abc.vtt, line ")
    assert "\n" not in str(caught.value)


def test_damaged_cues_among_good_ones_are_passed_over() -> None:
    vtt = "WEBVTT\n\n00:01.000 --> oops\nlost\n\n00:03.000 --> 00:02.000\nkept\n\n"
    vtt += "00:05.000 --> 00:06.000\ngood\n"
    assert said(vtt) == "kept good"
    event = {"tStartMs": 1000, "dDurationMs": "soon", "segs": [{"utf8": "hi \ud800"}, {}, None, 3]}
    json3 = json.dumps({"events": [None, 5, {"tStartMs": 1e999}, {"tStartMs": "x", "segs": []}, event]})
    assert said(json3) == "hi ?"
    assert said("WEBVTT\n") == ""


_TAMPERED = st.binary(max_size=40).flatmap(
    lambda junk: st.integers(0, len(ROLLING)).map(
        lambda at: ROLLING.encode()[:at] + junk + ROLLING.encode()[at:]
    )
)
_SNIPPETS = st.lists(
    st.sampled_from(
        [
            *("WEBVTT", "\n", "\n\n", "\r", "-->", "00:00:01.000 --> 00:00:02.000", "1", "<00:00:01.500>"),
            *("<c>", "</c>", "<", ">", "&#99;", "&#" + "9" * 5000 + ";", "word", "NOTE", "{", "}", "\\an8"),
            *(
                '{"events": [',
                '{"tStartMs": 1, "segs": [{"utf8": "',
                '"}]}',
                "]}",
                "<timedtext>",
                "<p t='1'>",
            ),
            *("\ud7ff", "\x00", "\x85", "<transcript>", "</transcript>", "<text start='9e999'>", "</text>"),
        ]
    ),
    max_size=25,
).map(lambda parts: "".join(parts).encode())


@settings(max_examples=300, deadline=2000)
@given(st.one_of(st.binary(max_size=300), _TAMPERED, _SNIPPETS))
@example(b"<" * 200_000)
@example(b"1\n00:00:01,000 --> 00:00:02,000\n" + b"<a" * 100_000)
@example(b"WEBVTT\n\n" + b"00:00:01.000 --> 00:00:02.000\n" * 20_000)
@example(b"<transcript>" + b"<text start='1'>" * 50_000)
def test_any_bytes_give_cues_or_a_dataset_error(data: bytes) -> None:
    try:
        cues = parse_subtitles(data)
    except DatasetError:
        return
    for cue in cues:
        assert cue.text == " ".join(cue.text.split()) != ""
        assert 0 <= cue.start_seconds <= cue.end_seconds < float("inf")
        cue.text.encode()
    assert [cue.start_seconds for cue in cues] == sorted(cue.start_seconds for cue in cues)


@pytest.mark.needs_shared
def test_real_files(shared_dir: Path) -> None:
    folder = shared_dir / "data/subtitles"
    heard = {
        path.name: " ".join(cue.text for cue in read_subtitles(path))
        for path in sorted(folder.iterdir())
        if path.name != "manifest.json"
    }
    assert heard["webvttpy_youtube_dl.vtt"] == "yeah what this will happen is I'm telling"
    assert heard["simonw_demo.vtt"] == (
        "my career in side projects and open source basically this is so i've been"
    )
    assert heard["sift_rolling.vtt"] == (
        "the thing nobody tells you about funding is simple you raise money to buy time"
    )
    assert heard["sift_no_blank_lines.vtt"].endswith("something different? Exactly. Exactly.")
    assert heard["sift_no_blank_lines.vtt"].count("the same agencies, the same consultants") == 1
    assert heard["sift_sample.json3"].startswith("The thing nobody tells you about funding is simple. You")
    assert heard["hanif_sample.json3"] == "First line Second line"
    assert "this is not the original transcript just" in heard["yta_transcript.xml"]
    assert heard["ytsubconverter.ytt"].startswith("Bold Italic Underline")
    assert all(text and "<" not in text and "-->" not in text for text in heard.values())


@pytest.mark.needs_shared
def test_manual_captions_lose_no_word(shared_dir: Path) -> None:
    """Captions that do not roll come out as they stand in the file, cue by cue."""
    for name in ("ableplayer_itaccess_captions_en.vtt", "syntax52_asr.srt", "friday.vtt"):
        path = shared_dir / "data/subtitles" / name
        lines = re.sub(r"</?[vui][^>]*>", "", path.read_text(encoding="utf-8-sig")).splitlines()
        num_cues = sum("-->" in line for line in lines)
        bodies = " ".join(line for line in lines if "-->" not in line and not line.strip().isdigit()).split()
        cues = read_subtitles(path)
        words = " ".join(cue.text for cue in cues).split()
        assert len(cues) == num_cues
        assert words == [word for word in bodies if word != "WEBVTT"]
