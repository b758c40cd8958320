"""What a folder of downloads remembers, whenever a run was killed."""

from pathlib import Path

import pytest

from clipvip.pipeline.download.archive import (
    FETCHED,
    PASSING,
    PERMANENT,
    Archive,
    Entry,
    Subtitles,
    keep_fetched,
    work_folder,
)
from clipvip.shards.errors import DatasetError

PRIVATE = Entry("b", "https://a.example/b", PERMANENT, reason="private", detail="Private video")
BUSY = Entry("a", "https://a.example/a", PASSING, reason="rate_limited", detail="429")


def fetched(folder: Path) -> Entry:
    """An entry whose files lie complete in its work folder."""
    work = work_folder(folder, "a")
    work.mkdir(parents=True)
    (work / "a.mp4").write_bytes(b"video")
    (work / "a.en.vtt").write_text("WEBVTT\n")
    subtitles = (Subtitles("en", "automatic", "a.en.vtt"),)
    return Entry("a", "https://a.example/a", FETCHED, "a.mp4", 5, 160, 96, subtitles)


def test_it_is_read_back(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.add(PRIVATE)
    archive.add(BUSY)
    entry = fetched(tmp_path)
    keep_fetched(tmp_path, entry)
    archive.add(entry)
    archive.close()
    again = Archive(tmp_path)
    assert [again.outcome(video_id) for video_id in "abc"] == [FETCHED, PERMANENT, None]
    assert (again.entry("a"), again.entry("b")) == (entry, PRIVATE)
    assert (tmp_path / "a.mp4").read_bytes() == b"video"


def test_compacting_depends_on_the_outcomes_only(tmp_path: Path) -> None:
    contents = []
    for name, entries in (("one", [PRIVATE, BUSY]), ("other", [BUSY, BUSY, PRIVATE])):
        (tmp_path / name).mkdir()
        archive = Archive(tmp_path / name)
        for entry in entries:
            archive.add(entry)
        archive.compact()
        assert archive.entry("a") == BUSY
        archive.add(PRIVATE)
        archive.compact()
        archive.close()
        contents.append((tmp_path / name / "archive.jsonl").read_bytes())
    assert contents[0] == contents[1]


def test_a_line_that_was_cut_off_is_dropped(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.add(PRIVATE)
    archive.add(BUSY)
    archive.close()
    path = tmp_path / "archive.jsonl"
    whole = path.read_bytes()
    second = whole.index(b"\n") + 1
    for end in range(second, len(whole)):
        path.write_bytes(whole[:end])
        archive = Archive(tmp_path)
        assert (archive.outcome("b"), archive.outcome("a")) == (PERMANENT, None)
        archive.add(BUSY)
        archive.close()
        assert path.read_bytes() == whole


@pytest.mark.parametrize("line", [b"nonsense\n", b'{"video_id": "a"}\n', b"[]\n", b'{"outcome": "x"}\n'])
def test_another_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "archive.jsonl").write_bytes(line)
    with pytest.raises(DatasetError, match=r"archive\.jsonl: line 1 is damaged"):
        Archive(tmp_path)


@pytest.mark.parametrize("num_in_place", [0, 1, 2])
def test_files_on_their_way_arrive(tmp_path: Path, num_in_place: int) -> None:
    """Killed between the journal and the line of the archive, with any number of the files in place."""
    entry = fetched(tmp_path)
    keep_fetched(tmp_path, entry)
    for name in ["a.mp4", "a.en.vtt"][: 2 - num_in_place]:
        (tmp_path / name).rename(work_folder(tmp_path, "a") / name)
    archive = Archive(tmp_path)
    assert archive.entry("a") == entry
    assert (tmp_path / "a.mp4").exists() and (tmp_path / "a.en.vtt").exists()
    archive.close()
    assert not work_folder(tmp_path, "a").exists()


def test_files_that_were_incomplete_are_gone(tmp_path: Path) -> None:
    fetched(tmp_path)
    archive = Archive(tmp_path)
    assert archive.outcome("a") is None
    assert [path.name for path in tmp_path.rglob("*.mp4")] == []
