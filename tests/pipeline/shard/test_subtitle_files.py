"""Subtitle files as people have them, from their folder to the texts of clips, and names of two spellings."""

import json
import shutil
import unicodedata
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from clipvip.pipeline.shard.stage import shard as shard_stage
from commands import error_of, run
from make_videos import make_video, write_metadata
from outputs import report, samples, skipped
from shard_folders import shard

SPANS = [(0, 2.2), (2.2, 6)]
_LINES = "\n".join(["a"] * 25_000)
_P = '<p t="1000" d="500">'
_TIMES = "00:00:00,500 --> 00:00:02,000"
CASES: dict[str, bytes] = {
    "arrow.srt": f"1\n{_TIMES}\nopen the menu\nFile --> Save as\nand press enter\n\n"
    "2\n00:00:03,000 --> 00:00:04,000\nlast words\n".encode(),
    "paint_on.vtt": b"WEBVTT\n\n00:00.500 --> 00:01.000\nI\n\n00:01.000 --> 00:01.500\nI am\n\n"
    b"00:01.500 --> 00:02.000\nI am here\n",
    "cp1251.srt": f"1\n{_TIMES}\nпривет мир, сегодня мы чиним велосипед\n".encode("cp1251"),
    "gbk.srt": f"1\n{_TIMES}\n你好，今天我们一起做饭\n".encode("gbk"),
    "polish.srt": f"1\n{_TIMES}\nCześć, dziś naprawimy rower, żeby był dobry\n".encode("cp1250"),
    "french.srt": f"1\n{_TIMES}\nd’accord, c’était très bien\n".encode("cp1252"),
    "ms1000.srt": b"1\n00:00:01,1000 --> 00:00:02,1000\nmiddle\n\n2\n00:00:04,000 --> 00:00:05,000\nlate\n",
    "slow_vtt.vtt": f"WEBVTT\n\n00:00:01.000 --> 00:00:05.000\n{_LINES}\nb\n\n"
    f"00:00:05.000 --> 00:00:09.000\n{_LINES}\n".encode(),
    "slow_xml.srv3": f"<timedtext>{_P * 40_000}x{'</p>' * 40_000}</timedtext>".encode(),
}  # fmt: skip


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("video") / "video.mp4", num_frames=60, fps=10)


def _folder(folder: Path, video: Path, names: list[str]) -> Path:
    folder.mkdir()
    for name in names:
        shutil.copy(video, folder / f"{name}.mp4")
    return folder


@pytest.fixture(scope="module")
def cut(video: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    (folder / "subtitles").mkdir()
    for name, data in CASES.items():
        (folder / "subtitles" / name).write_bytes(data)
    ids = [Path(name).stem for name in CASES]
    metadata = write_metadata(folder / "clips.jsonl", dict.fromkeys(ids, SPANS))
    videos = _folder(folder / "videos", video, ids)
    out = folder / "out"
    result = shard(metadata, videos, out, "--subtitles", str(folder / "subtitles"), "--workers", "1")
    assert result.exit_code == 0, result.output
    return out


def test_texts_of_subtitles_as_people_have_them(cut: Path) -> None:
    texts = {key: sample.subtitle for key, sample in samples(cut).items()}
    assert len(texts) == 2 * len(CASES)
    assert [texts[f"arrow_0000{n}"] for n in (0, 1)] == [
        "open the menu File --> Save as and press enter",
        "last words",
    ]
    assert texts["paint_on_00000"] == "I am here"
    assert texts["cp1251_00000"] == "привет мир, сегодня мы чиним велосипед"
    assert texts["gbk_00000"] == "你好，今天我们一起做饭"
    assert texts["french_00000"] == "d’accord, c’était très bien"
    assert [texts[f"ms1000_0000{n}"] for n in (0, 1)] == ["", "middle late"]
    assert texts["slow_vtt_00001"].split()[-1] == "b"
    assert texts["slow_xml_00000"] == "x"


def test_what_was_guessed_is_in_the_report(cut: Path) -> None:
    told = report(cut)["subtitle_warnings"]
    assert told["count"] == 3
    assert {line.partition(":")[0] for line in told["examples"]} == {"cp1251.srt", "gbk.srt", "polish.srt"}
    assert all("--subtitle-encoding" in line for line in told["examples"])


def test_an_encoding_can_be_said(video: Path, tmp_path: Path) -> None:
    text = "zażółć gęślą jaźń"
    (tmp_path / "subtitles").mkdir()
    (tmp_path / "subtitles" / "a.srt").write_bytes(f"1\n{_TIMES}\n{text}\n".encode("cp1250"))
    (tmp_path / "subtitles" / "b.srt").write_text(f"1\n{_TIMES}\n{text}\n")  # UTF-8 stays what it is
    metadata = write_metadata(tmp_path / "clips.jsonl", dict.fromkeys("ab", SPANS[:1]))
    videos = _folder(tmp_path / "videos", video, ["a", "b"])
    with_subtitles = ("--subtitles", str(tmp_path / "subtitles"), "--workers", "1")
    said = ("--subtitle-encoding", "cp1250")
    assert shard(metadata, videos, tmp_path / "out", *with_subtitles, *said).exit_code == 0
    assert {sample.subtitle for sample in samples(tmp_path / "out").values()} == {text}
    assert report(tmp_path / "out")["subtitle_warnings"]["count"] == 0
    # Shards of one folder are read in one way.
    other = shard(metadata, videos, tmp_path / "out", *with_subtitles, "--subtitle-encoding", "cp1252")
    assert "subtitle_encoding" in error_of(other)
    for wrong, message in (
        ((*with_subtitles, "--subtitle-encoding", "klingon"), "no encoding of that name"),
        (said, "goes with a folder of subtitle files"),
    ):
        assert message in error_of(shard(metadata, videos, tmp_path / "new", *wrong))
        assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_lists", ["NFC", "NFD"])
def test_two_spellings_of_a_name_are_one(video: Path, tmp_path: Path, on_disk: str, in_lists: str) -> None:
    there, listed = (unicodedata.normalize(form, "é ñandú") for form in (on_disk, in_lists))  # type: ignore[arg-type]
    videos = _folder(tmp_path / "videos", video, [there])
    (tmp_path / "subtitles").mkdir()
    (tmp_path / "subtitles" / f"{there}.en.srt").write_text(f"1\n{_TIMES}\nhello\n")
    metadata = write_metadata(tmp_path / "clips.jsonl", {listed: SPANS[:1]})
    # A table names the clip in the other spelling.
    table = tmp_path / "texts.jsonl"
    table.write_text(json.dumps({"clip_id": f"{there}.0.mp4", "text": "hello"}) + "\n")
    for subtitles in (tmp_path / "subtitles", table):
        out = tmp_path / f"out-{subtitles.name}"
        assert shard(metadata, videos, out, "--subtitles", str(subtitles), "--workers", "1").exit_code == 0
        assert [sample.subtitle for sample in samples(out).values()] == ["hello"]
    annotations = tmp_path / "captions.csv"
    annotations.write_text(f"video,caption\n{listed},one\n{there},two\n")
    report = shard_stage(
        dataset="captions",
        metadata=str(annotations),
        videos=str(videos),
        out=str(tmp_path / "set"),
        workers=1,
    )
    assert report.counts["clips"] == 1
    assert [sample.sentences for sample in samples(tmp_path / "set").values()] == [["one", "two"]]
    # A list of videos to take, too.
    (tmp_path / "ids.txt").write_text(f"{there}\n")
    taken = run("subset", tmp_path / "set", "--video-ids", tmp_path / "ids.txt", "--out", tmp_path / "taken")
    assert taken.exit_code == 0, taken.output
    assert len(samples(tmp_path / "taken")) == 1


def test_whole_numbers_are_ids(video: Path, tmp_path: Path) -> None:
    videos = _folder(tmp_path / "videos", video, ["123", "124"])
    metadata = tmp_path / "clips.jsonl"
    rows = [
        {"video_id": 123, "clip": [{"clip_id": 5, "span": [0, 2]}]},
        {"video_id": 124.0, "clip": [{"clip_id": "124.7.mp4", "span": [0, 2]}]},
        {"video_id": 124.5, "clip": []},
        {"video_id": True, "clip": []},
    ]
    metadata.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = tmp_path / "texts.parquet"
    for ids in (pyarrow.array([5, 9]), pyarrow.array([5.0, 9.0])):
        pyarrow.parquet.write_table(pyarrow.table({"clip_id": ids, "text": ["five", "nine"]}), table)
        out = tmp_path / f"out-{ids.type}"
        result = shard(metadata, videos, out, "--subtitles", str(table), "--workers", "1")
        assert result.exit_code == 0, result.output
        found = samples(out)
        assert {key: sample.subtitle for key, sample in found.items()} == {
            "123_00000": "five",
            "124_00007": "",
        }
        assert found["123_00000"].record.video_id == "123"
        assert skipped(out) == [("bad_metadata", "line 3"), ("bad_metadata", "line 4")]
    records = tmp_path / "captions.jsonl"
    records.write_text('{"video_id": 123, "caption": "one"}\n{"video": 124.0, "text": ["two"]}\n')
    report = shard_stage(
        dataset="captions", metadata=str(records), videos=str(videos), out=str(tmp_path / "set"), workers=1
    )
    assert report.counts["clips"] == 2
