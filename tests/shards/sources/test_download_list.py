"""Which videos a list asks for."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipvip.shards.errors import Skip
from clipvip.shards.sources.download_list import Wanted, read_wanted

WATCH = "https://www.youtube.com/watch?v="


def read(tmp_path: Path, *lines: str) -> list[Wanted | Skip]:
    path = tmp_path / "list"
    path.write_text("".join(line + "\n" for line in lines))
    return list(read_wanted(path))


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (
            json.dumps({"video_id": "QMi8x8o55Ns", "url": WATCH + "QMi8x8o55Ns", "clip": []}),
            Wanted("QMi8x8o55Ns", WATCH + "QMi8x8o55Ns"),
        ),
        ('{"video_id": "QMi8x8o55Ns"}', Wanted("QMi8x8o55Ns", WATCH + "QMi8x8o55Ns")),
        ("QMi8x8o55Ns", Wanted("QMi8x8o55Ns", WATCH + "QMi8x8o55Ns")),
        ("-Mi8x8o55Ns", Wanted("-Mi8x8o55Ns", WATCH + "-Mi8x8o55Ns")),
        ("https://youtu.be/QMi8x8o55Ns?t=3", Wanted("QMi8x8o55Ns", "https://youtu.be/QMi8x8o55Ns?t=3")),
        (
            "http://m.youtube.com/watch?a=b&v=QMi8x8o55Ns",
            Wanted("QMi8x8o55Ns", "http://m.youtube.com/watch?a=b&v=QMi8x8o55Ns"),
        ),
        (
            "https://a.example/b/some%20clip.mp4?x=1",
            Wanted("some clip", "https://a.example/b/some%20clip.mp4?x=1"),
        ),
    ],
)
def test_each_way_to_ask(tmp_path: Path, line: str, wanted: Wanted) -> None:
    assert read(tmp_path, "# a comment", "", line) == [wanted]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "bad_metadata"),
        ('{"video_id": 3}', "bad_metadata"),
        ('{"video_id": "short"}', "bad_metadata"),
        ('{"video_id": "a", "url": "file:///etc/passwd"}', "bad_metadata"),
        ('{"video_id": "a", "url": "ytsearch10:cats"}', "bad_metadata"),
        ("words", "bad_metadata"),
        ("https://a.example/", "unsafe_id"),
        ('{"video_id": "../a", "url": "https://a.example/a.mp4"}', "unsafe_id"),
    ],
)
def test_what_cannot_be_asked_for(tmp_path: Path, line: str, reason: str) -> None:
    (found,) = read(tmp_path, line)
    assert isinstance(found, Skip) and (found.reason, found.what) == (reason, "line 1")


def test_a_video_is_asked_for_once(tmp_path: Path) -> None:
    one, other = (json.dumps({"video_id": "a", "url": f"https://a.example/{name}.mp4"}) for name in "ab")
    found = read(tmp_path, one, one, other)
    assert found[0] == Wanted("a", "https://a.example/a.mp4")
    assert [skip.reason for skip in found[1:] if isinstance(skip, Skip)] == ["duplicate_id"]


@given(st.text(), st.text())
def test_no_id_is_a_path(tmp_path_factory: pytest.TempPathFactory, video_id: str, name: str) -> None:
    path = tmp_path_factory.mktemp("list") / "list"
    rows = [json.dumps({"video_id": video_id, "url": "https://a.example/v"}), f"https://a.example/{name}"]
    path.write_bytes("\n".join(rows).encode("utf-8", "surrogatepass"))
    found = list(read_wanted(path))
    assert found
    for wanted in found:
        if isinstance(wanted, Wanted):
            assert Path("folder", wanted.video_id + ".mp4").parent == Path("folder")
            assert wanted.video_id not in {".", ".."}
