"""Subtitles: the words of a span, and the file of a video."""

import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipvip.shards.sources.subtitles import (
    Cue,
    find_subtitle_file,
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


def test_find_subtitle_file_by_language_and_format(tmp_path: Path) -> None:
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
    for video_id, name in expected.items():
        found = find_subtitle_file(tmp_path, video_id)
        assert found == (None if name is None else tmp_path / name), video_id
    with pytest.raises(OSError, match="nowhere"):
        find_subtitle_file(tmp_path / "nowhere", "plain")


def _subtitle_file(folder: Path, name: str) -> None:
    (folder / name).write_text(f"WEBVTT\n\n00:00.000 --> 00:09.000\n{name}\n")


NAMES = st.builds(
    "{}{}{}".format,
    st.sampled_from(["v", "w", "v.a"]),
    st.sampled_from(["", ".en", ".de", ".en-US", ".a.en", ".EN"]),
    st.sampled_from([".vtt", ".srt", ".json3", ".VTT", ".txt"]),
)


@given(st.lists(NAMES, max_size=9, unique=True))
@settings(deadline=None, max_examples=30)
def test_an_index_of_subtitles_has_what_is_found_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("subtitles")
    for name in names:
        _subtitle_file(folder, name)
    index = index_subtitles(folder)
    for video_id in ("v", "w", "v.a", "v.en", "nothing"):
        found = find_subtitle_file(folder, video_id)
        assert index.get(video_id) == (None if found is None else str(found))


def test_a_large_folder_that_is_being_filled_is_not_listed_for_each_look_up(tmp_path: Path) -> None:
    for number in range(4000):
        (tmp_path / f"v{number}.en.vtt").touch()
    find_subtitle_file(tmp_path, "v0")
    started = time.process_time()
    for number in range(100):
        (tmp_path / f"new{number}.en.vtt").touch()
        assert find_subtitle_file(tmp_path, f"v{number}") == tmp_path / f"v{number}.en.vtt"
    assert time.process_time() - started < 1  # a listing takes a twentieth of a second
