"""Subtitles: the words of a span, and the file of a video."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipvip.shards.sources.subtitles import (
    Cue,
    index_subtitles,
    text_in_span,
)

_TIMES = st.floats(0, 100, allow_nan=False)
_CUES = st.lists(
    st.tuples(_TIMES, st.floats(0, 20)).map(lambda p: (p[0], p[0] + p[1])), min_size=1, max_size=12
)


@given(_CUES, st.lists(_TIMES, max_size=6))
def test_spans_that_follow_each_other_share_out_the_words(
    times: list[tuple[float, float]], cuts: list[float]
) -> None:
    cues = [Cue(start, end, f"w{n}") for n, (start, end) in enumerate(times)]
    edges = [0.0, *sorted(cuts), 200.0]
    words = " ".join(text_in_span(cues, a, b) for a, b in pairwise(edges)).split()
    assert sorted(words) == sorted(cue.text for cue in cues)


def test_a_span_takes_the_cues_whose_middle_it_holds() -> None:
    cues = [Cue(0, 4, "a"), Cue(4, 8, "b"), Cue(8, 12, "c")]
    assert text_in_span(cues, 0, 6) == "a"  # b's middle is the end, which is open
    assert text_in_span(cues, 6, 12) == "b c"
    assert text_in_span(cues, 20, 30) == ""


def test_subtitles_are_chosen_by_language_and_format(tmp_path: Path) -> None:
    for name in [
        *("plain.vtt", "plain.en.vtt", "two.de.vtt", "two.en-GB.srt", "two.en-GB.vtt", "auto.a.en.vtt"),
        *("de.de.srt", "-a_B9.en.json3", "-a_B9.en.vtt", "dotted.v2.x.vtt", "other.txt", "UP.EN.VTT"),
    ]:
        (tmp_path / name).write_text("WEBVTT\n")
    (tmp_path / "folder.vtt").mkdir()
    expected = {
        "plain": "plain.vtt",
        "two": "two.en-GB.vtt",
        "auto": "auto.a.en.vtt",
        "de": "de.de.srt",
        "-a_B9": "-a_B9.en.json3",
        "dotted.v2.x": "dotted.v2.x.vtt",
        "UP": "UP.EN.VTT",
        "other": None,
        "folder": None,
        "absent": None,
        "../plain": None,
        str(tmp_path / "plain"): None,
    }
    index = index_subtitles(tmp_path)
    for video_id, name in expected.items():
        assert index.get(video_id) == (None if name is None else str(tmp_path / name)), video_id
    with pytest.raises(OSError, match="nowhere"):
        index_subtitles(tmp_path / "nowhere")
