"""HD-VILA metadata, and the folder of videos."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipvip.shards.errors import DatasetError
from clipvip.shards.format.clip import is_safe_key
from clipvip.shards.sources.hdvila import Source, clip_number, index_videos, parse_span, read_sources


def sources_of(folder: Path, *lines: Any) -> list[Source]:
    path = folder / "clips.jsonl"
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"\n".join(texts) + b"\n")
    return list(read_sources(path))


def entry(video_id: str, *clips: tuple[str, Any]) -> dict[str, Any]:
    return {"video_id": video_id, "clip": [{"clip_id": clip_id, "span": span} for clip_id, span in clips]}


def reasons(source: Source) -> list[tuple[int, str]]:
    return [(position, skip.reason) for position, skip in source.skips]


@pytest.mark.needs_shared
def test_the_published_example(shared_dir: Path) -> None:
    (source,) = read_sources(shared_dir / "data/annotations/hdvila_readme_example.jsonl")
    assert [clip.key for clip in source.clips] == ["QMi8x8o55Ns_00001", "QMi8x8o55Ns_00016"]
    assert [(c.start_seconds, c.end_seconds) for c in source.clips] == [(17.759, 23.279), (292.14, 303.35)]
    assert source.skips == ()


@pytest.mark.parametrize(
    ("span", "seconds"),
    [
        (["00:00:17.759", "00:00:23.279"], (17.759, 23.279)),
        (["01:02:03.5", "01:02:04"], (3723.5, 3724.0)),
        (["100:00:00", "100:00:01"], (360000.0, 360001.0)),
        (["1:30", "90.5"], (90.0, 90.5)),
        ([0, 2.25], (0.0, 2.25)),
        ([2, 1], None),
        ([1, 1], None),
        ([-1, 1], None),
        ([float("nan"), 1], None),
        ([0, float("inf")], None),
        ([True, 2], None),
        ([0, 10**400], None),
        ([0, 1e308], None),
        (["00:00:-1", "00:00:02"], None),
        (["soon", "later"], None),
        ([None, 1], None),
        ([1], None),
        ("00:00:01", None),
        (None, None),
    ],
)
def test_spans(span: Any, seconds: tuple[float, float] | None) -> None:
    assert parse_span(span) == seconds


def test_clip_numbers() -> None:
    assert clip_number("QMi8x8o55Ns", "QMi8x8o55Ns.16.mp4", 0) == 16
    assert clip_number("a.7", "a.7.mp4", 3) == 3  # 7 is part of the video's id
    assert clip_number("a.7", "a.7.2.mp4", 3) == 2
    assert clip_number("abc", "other.5.mp4", 3) == 5
    assert clip_number("abc", "without a number", 3) == 3
    assert clip_number("abc", "abc-12", 3) == 3


def test_what_is_wrong_is_named_and_the_rest_stays(tmp_path: Path) -> None:
    good = ("v.0.mp4", [0, 1])
    sources = sources_of(
        tmp_path,
        b"{not json",
        entry("v", good, ("v.0.mp4", [2, 3]), ("v.1.mp4", [3, 2]), ("v.2.mp4", [4, 5])),
        b"",
        {"video_id": 7.5, "clip": []},
        {"video_id": "w", "clip": "none"},
        {
            "video_id": "x",
            "clip": [{"clip_id": "x.0.mp4"}, "no clip", {"clip_id": "x.1.mp4", "span": [0, 1]}],
        },
        entry("../../etc/passwd", good, good),
        entry("a\\b", good),
        entry("bell\x07", good),
        entry("\ud800", good),
        entry("v" * 500, good),
        entry("", good),
        b"\xff\xfe",
        b"[]",
    )
    assert [s.line for s in sources] == [1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]
    assert [[c.key for c in s.clips] for s in sources if s.clips] == [["v_00000", "v_00002"], ["x_00001"]]
    assert sources[1].positions == (0, 3)
    assert [reasons(s) for s in sources] == [
        [(0, "bad_metadata")],
        [(1, "duplicate_clip"), (2, "bad_span")],
        [(0, "bad_metadata")],
        [(0, "bad_metadata")],
        [(0, "bad_metadata"), (1, "bad_metadata")],
        [(0, "unsafe_id"), (1, "unsafe_id")],
        *[[(0, "unsafe_id")]] * 5,
        [(0, "bad_metadata")],
        [(0, "bad_metadata")],
    ]
    assert sources[0].skips[0][1].what == "line 1"
    assert sources[4].skips[1][1].what == "line 6, clip 1"


def test_a_video_on_two_lines_keeps_its_first_clips(tmp_path: Path) -> None:
    first, second = sources_of(
        tmp_path,
        entry("v", ("v.0.mp4", [0, 1]), ("v.1.mp4", [1, 2])),
        entry("v", ("v.1.mp4", [5, 6]), ("v.2.mp4", [2, 3])),
    )
    assert [c.key for c in first.clips + second.clips] == ["v_00000", "v_00001", "v_00002"]
    assert reasons(second) == [(0, "duplicate_clip")]


def test_harmless_ids_get_distinct_safe_keys(tmp_path: Path) -> None:
    ids = ["awesome movie", "awesome.movie", "awesome-movie", "día", "日本"]
    sources = sources_of(tmp_path, *(entry(i, (f"{i}.0.mp4", [0, 1])) for i in ids))
    keys = [clip.key for source in sources for clip in source.clips]
    assert len(set(keys)) == len(ids)
    assert all(map(is_safe_key, keys))


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["video_id", "clip", "clip_id", "span", "x"]), inner, max_size=4
            )
        ),
        max_leaves=20,
    )
)
def test_no_line_is_a_surprise(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    folder = tmp_path_factory.getbasetemp()
    for line in (
        value,
        {"video_id": "v", "clip": value},
        {"video_id": "v", "clip": [{"clip_id": "v.1", "span": value}]},
    ):
        (source,) = sources_of(folder, line)
        for clip in source.clips:
            assert is_safe_key(clip.key)
            assert 0 <= clip.start_seconds < clip.end_seconds


def test_videos_are_found_by_stem_at_any_depth(tmp_path: Path) -> None:
    for name in (
        "a.mp4",
        "b.MOV",
        "deep/er/c.webm",
        "c d.mkv",
        "notes.txt",
        "a.vtt",
        "e.mp4.part",
        "z/a.mp4",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "folder.mp4").mkdir()
    found = {
        stem: Path(path).relative_to(tmp_path).as_posix() for stem, path in index_videos(tmp_path).items()
    }
    assert found == {"a": "a.mp4", "b": "b.MOV", "c": "deep/er/c.webm", "c d": "c d.mkv"}
    with pytest.raises(DatasetError, match="no such folder"):
        index_videos(tmp_path / "missing")


@pytest.mark.parametrize(
    "extension",
    ["mp4", "mov", "mkv", "webm", "avi", "flv", "ts", "m2ts", "mpg", "asf", "ogv", "mxf", "rm", "wtv", "dv"],
)
def test_the_containers_of_the_docs_are_found(extension: str, tmp_path: Path) -> None:
    (tmp_path / f"a.{extension.upper()}").touch()
    assert list(index_videos(tmp_path)) == ["a"]
