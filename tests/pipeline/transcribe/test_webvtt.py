"""What was heard comes out of the subtitle file as it went in."""

from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from clipvip.pipeline.transcribe.webvtt import Head, Heard, Word, read_head, webvtt
from clipvip.shards.sources.subtitles import Cue, parse_subtitles

_TEXT = st.one_of(
    st.sampled_from(
        ["File --> Save", "a < b", "<b>", "&amp;", "1\n\n2", "NOTE", "00:01.000 --> 00:02.000", ""]
    ),
    st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=5),
)
_TIME = st.integers(0, 10**8).map(lambda milliseconds: milliseconds / 1000)


def test_words_have_their_times() -> None:
    words = [Word(1.0, " so"), Word(1.4, " to"), Word(1.5, "day"), Word(2.0, " we")]
    text = webvtt([Heard(1.0, 3.0, " so today we", words)], Head("en"))
    assert text == (
        "WEBVTT\nLanguage: en\n\n00:00:01.000 --> 00:00:03.000\n"
        "<00:00:01.000>so<00:00:01.400> to<00:00:01.500>day<00:00:02.000> we\n\n"
    )
    assert parse_subtitles(text.encode()) == [
        Cue(1.0, 1.4, "so"),
        Cue(1.4, 2.0, "today"),
        Cue(2.0, 3.0, "we"),
    ]


def test_nothing_heard_is_a_whole_file() -> None:
    assert webvtt([], Head()) == webvtt([Heard(0, 1, " ")], Head("en")) == "WEBVTT\n\n"
    assert parse_subtitles(b"WEBVTT\n\n") == []


def test_a_file_says_what_it_is(tmp_path: Path) -> None:
    for heard in ([], [Heard(0, 1, "hello")], [Heard(0, 1, "NOTE: hello " * 100)]):
        for warning in ("", "damaged --> <packets>: 3"):
            path = tmp_path / "a.vtt"
            path.write_text(webvtt(heard, Head("de", warning)))
            assert read_head(path) == Head("de" if heard else "", warning)
            assert len(parse_subtitles(path.read_bytes())) == len(heard)


@given(st.lists(st.tuples(_TIME, _TIME, _TEXT), max_size=6))
@example([(0.0, 1.0, "a"), (1.0, 2.0, "a"), (2.0, 3.0, "a b")])
def test_captions_come_out_as_they_went_in(rows: list[tuple[float, float, str]]) -> None:
    # Apart from each other, so that none is the state of a caption before.
    heard = [
        Heard(start + 10**6 * n, start + 10**6 * n + length, text)
        for n, (start, length, text) in enumerate(rows)
    ]
    found = parse_subtitles(webvtt(heard, Head("en")).encode())
    assert [(round(cue.start_seconds, 3), cue.text) for cue in found] == [
        (round(one.start_seconds, 3), " ".join(one.text.split())) for one in heard if one.text.split()
    ]


@given(st.lists(st.sampled_from(["I", "I am", "I am here", "no", "no no", "stop"]), min_size=1, max_size=8))
def test_no_word_of_speech_is_taken_for_a_caption_that_grows(lines: list[str]) -> None:
    heard = []
    for number, line in enumerate(lines):
        words = [Word(number + place / 10, f" {word}") for place, word in enumerate(line.split())]
        heard.append(Heard(number, number + 1, line, words))
    found = parse_subtitles(webvtt(heard, Head("en")).encode())
    said, expected = " ".join(cue.text for cue in found), " ".join(lines)
    assert said == expected
