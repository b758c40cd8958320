"""Published lists of clips, read as they are: as published, and as people's copies of them differ."""

import json
from pathlib import Path

import pytest

from clip_lists import (
    HOWTO100M,
    HOWTO100M_CLIPS,
    INTERNVID_CLIPS,
    INTERNVID_ROWS,
    MSVD_CLIPS,
    MSVD_ROWS,
    PANDA70M_CLIPS,
    PANDA70M_ROW,
    PUBLISHED,
    QVHIGHLIGHTS,
    TVR,
    VATEX,
    VATEX_CLIPS,
    YOUCOOK2_CLIPS,
    Clips,
    write_list,
)
from clipvip.shards.errors import DatasetError
from clipvip.shards.sources.annotations import read_annotations
from clipvip.shards.sources.video_sets import find_annotation_file

ALL = float("inf")


def clips(name: str, path: Path) -> Clips:
    """Video, span and sentences of each clip; no row may be bad, and keys number a video's clips."""
    found: Clips = []
    for source in read_annotations(name, path):
        assert not source.skips
        assert [clip.key[-5:] for clip in source.clips] == [f"{n:05d}" for n in range(len(source.clips))]
        assert {clip.sentences_are for clip in source.clips} == {"alternatives"}
        assert len({clip.clip_id for clip in source.clips}) == len(source.clips)
        found += [
            (clip.video_id, clip.start_seconds, clip.end_seconds, clip.sentences) for clip in source.clips
        ]
    return found


def reasons(name: str, path: Path) -> list[str]:
    return [skip.reason for source in read_annotations(name, path) for _, skip in source.skips]


FILES = [(name, *one) for name, files in PUBLISHED.items() for one in files]


@pytest.mark.parametrize(("name", "file", "content", "expected"), FILES)
def test_each_list_is_read_as_published(
    tmp_path: Path, name: str, file: str, content: object, expected: Clips
) -> None:
    write_list(tmp_path / file, content)
    assert clips(name, tmp_path / file) == expected
    if name not in ("panda70m", "vatex", "youcook2", "qvhighlights", "tvr"):
        assert find_annotation_file(name, tmp_path) == tmp_path / file
    else:
        split = "test" if "test" in file else "train"
        assert find_annotation_file(f"{name}/{split}", tmp_path) == tmp_path / file


_PANDA70M = [("b10", 1, 3.5, "A bird flies over water."), ("b10", 4, 8, "Two people talk.")]
_YOUCOOK2 = [("b10", 1, 3, "cut it"), ("b10", 4, 8, "mix it")]
_HOWTO100M = [("b10", 1, 3.5, "first you cut"), ("b10", 4, 8, "then you mix")]
_VATEX = [("b10_000001_000008", 0, ALL, "A bird flies.|A bird in the air.")]
CASES = [
    ("panda70m", "panda70m_training_2m.csv", _PANDA70M),
    ("internvid", "InternVid-10M.csv", [("b10", 1, 3.5, "a bird flies")]),
    ("internvid", "InternVid-10M.jsonl", [("b10", 1, 3.5, "a bird flies")]),
    ("howto100m", "caption.json", _HOWTO100M),
    ("vatex", "vatex_training_v1.0.json", _VATEX),
    ("youcook2/train", "youcookii_annotations_trainval.json", _YOUCOOK2),
    ("msvd", "MSR_Video_Description_Corpus.csv", [("b10_1_8", 0, ALL, "A bird flies.")]),
    ("msvd", "AllVideoDescriptions.txt", [("b10_1_8", 0, ALL, "a bird flies|the bird is flying")]),
    ("qvhighlights", "highlight_train_release.jsonl", [("b10_1.0_8.0", 0, 2, "a bird")]),
    ("tvr", "tvr_train_release.jsonl", [("b10", 1, 3, "x y")]),
    ("captions", "video2dataset_videoid_name.csv", [("b10", 0, ALL, "a bird flies")]),
    ("captions", "video2dataset_webvid.csv", [("b10", 0, ALL, "a bird flies, slowly")]),
    ("webvid/train", "video2dataset_webvid.csv", [("b10", 0, ALL, "a bird flies, slowly")]),
    ("captions", "video2dataset_url_caption.csv", [("b10", 0, ALL, "a bird flies")]),
]


@pytest.mark.needs_shared
@pytest.mark.parametrize(("name", "file", "expected"), CASES)
def test_the_handed_lists(
    shared_dir: Path, name: str, file: str, expected: list[tuple[str, float, float, str]]
) -> None:
    found = clips(name, shared_dir / "cases" / "lists" / file)
    assert found == [(video, start, end, tuple(text.split("|"))) for video, start, end, text in expected]


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "jsonl", "json"])
def test_tables_in_other_formats_and_orders_with_other_columns(tmp_path: Path, kind: str) -> None:
    def write(name: str, rows: list[dict[str, object]]) -> Path:
        shuffled = [dict(reversed((row | {"more, or less": 'it\'s "x", y'}).items())) for row in rows]
        return write_list(tmp_path / f"{name}.{kind}", shuffled)

    lists: dict[str, object] = {
        "timestamp": [["0:00:01.000", "0:00:03.500"], ["0:00:04.000", "0:00:08.000"]],
        "caption": ["A bird flies over water.", "It's two people, who talk."],
    }
    assert clips("panda70m", write("literals", [dict(PANDA70M_ROW)])) == PANDA70M_CLIPS
    as_json = PANDA70M_ROW | {name: json.dumps(value) for name, value in lists.items()}
    assert clips("panda70m", write("json", [as_json])) == PANDA70M_CLIPS
    if kind not in ("csv", "tsv"):
        assert clips("panda70m", write("lists", [PANDA70M_ROW | lists])) == PANDA70M_CLIPS
        assert clips("vatex", write("vatex", [dict(row) for row in VATEX])) == VATEX_CLIPS
    assert clips("internvid", write("internvid", [dict(row) for row in INTERNVID_ROWS])) == INTERNVID_CLIPS
    lower = [{name.lower(): value for name, value in row.items()} for row in INTERNVID_ROWS]
    assert clips("internvid", write("lower", lower)) == INTERNVID_CLIPS
    assert clips("msvd", write("msvd", [dict(row) for row in MSVD_ROWS])) == MSVD_CLIPS


def test_panda70ms_later_columns_and_odd_captions(tmp_path: Path) -> None:
    row = PANDA70M_ROW | {
        "desirable_filtering": "['desirable', '2_low_desirable_score']",
        "shot_boundary_detection": "[[['0:00:00.000', '0:00:02.500']], []]",
        "caption": "['caf\\xe9 \\\\d [not a list]', None]",
    }
    path = write_list(tmp_path / "panda70m_testing.csv", [row, PANDA70M_ROW | {"videoID": "c1"}])
    by_video = {source.video_id: source for source in read_annotations("panda70m/test", path) if source.clips}
    assert [clip.sentences for clip in by_video["b10"].clips] == [("café \\d [not a list]",)]
    assert len(by_video["c1"].clips) == 2
    assert reasons("panda70m/test", path) == ["bad_annotation"]


@pytest.mark.parametrize(
    "cell",
    [
        "__import__('os').system('touch MADE')",
        "[1, 2",
        "[" * 100_000,
        "-" * 100_000 + "1",
        "{1: [2]}",
        "",
        "[1]",
        "\0",
    ],
)
def test_cells_are_never_run_and_bad_ones_are_named(tmp_path: Path, cell: str) -> None:
    rows = [
        PANDA70M_ROW | {"videoID": "c1", "timestamp": cell.replace("MADE", str(tmp_path / "made"))},
        PANDA70M_ROW,
    ]
    path = write_list(tmp_path / "panda70m_training_2m.jsonl", rows)
    assert reasons("panda70m", path) == ["bad_annotation"]
    assert [source.video_id for source in read_annotations("panda70m", path) if source.clips] == ["b10"]
    assert not (tmp_path / "made").exists()


def test_bad_spans_are_named_and_the_others_stay(tmp_path: Path) -> None:
    spans: list[object] = [[3, 1], [-1, 2], [1], "1-2", None, ["a", "b"], [1, float("inf")], [2, 4.5]]
    rows = [TVR[0] | {"ts": span} for span in spans if isinstance(span, list)]
    path = write_list(tmp_path / "tvr.jsonl", rows)
    assert reasons("tvr", path) == ["bad_span"] * 5
    assert [clip.end_seconds for source in read_annotations("tvr", path) for clip in source.clips] == [4.5]
    content = {
        "b10": {"start": [1, 4], "end": [3.5, 8], "text": ["a b", ""]},
        "c1": {"start": [1], "end": []},
    }
    path = write_list(tmp_path / "caption.json", content)
    assert sorted(reasons("howto100m", path)) == ["bad_annotation", "empty_caption"]


def test_rows_about_one_span_are_alternatives_and_videos_come_by_their_first_row(tmp_path: Path) -> None:
    rows = [
        {
            "YoutubeID": video,
            "Start_timestamp": start,
            "End_timestamp": "00:00:09.000",
            "Caption": f"{video} {n}",
        }
        for n in range(2)
        for start in ("00:00:05.000", "00:00:02.000")
        for video in ("z", "a", "m")
    ]
    found = clips("internvid", write_list(tmp_path / "i.jsonl", rows))
    assert [video for video, *_ in found] == ["z", "z", "a", "a", "m", "m"]
    assert [(start, texts) for video, start, _, texts in found if video == "a"] == [
        (2, ("a 0", "a 1")),
        (5, ("a 0", "a 1")),
    ]


def test_youcook2_is_split_by_its_subsets(tmp_path: Path) -> None:
    file, content, _ = PUBLISHED["youcook2"][0]
    write_list(tmp_path / file, content)
    for split, expected in (("train", YOUCOOK2_CLIPS[:2]), ("val", YOUCOOK2_CLIPS[2:])):
        path = find_annotation_file(f"youcook2/{split}", tmp_path)
        assert clips(f"youcook2/{split}", path) == expected
    only_test = write_list(
        tmp_path / "t.json", {"database": {"b10": {"subset": "testing", "annotations": []}}}
    )
    with pytest.raises(DatasetError, match="no videos of the subset training"):
        list(read_annotations("youcook2/train", only_test))


def test_narration_in_tables_of_each_video(tmp_path: Path) -> None:
    for video, lines in HOWTO100M.items():
        columns = {"": range(9), **lines}  # with pandas' index
        rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=False)]
        write_list(tmp_path / f"{video}.csv", rows)
    (tmp_path / "HowTo100M_v1.csv").write_text("video_id,category_1,category_2,rank,task_id\nb10,a,b,1,2\n")
    assert find_annotation_file("howto100m", tmp_path) == tmp_path
    assert clips("howto100m", tmp_path / "b10.csv") == HOWTO100M_CLIPS[:2]
    found = list(read_annotations("howto100m", tmp_path))
    spans = [
        (clip.video_id, clip.start_seconds, clip.end_seconds, clip.sentences)
        for s in found
        for clip in s.clips
    ]
    assert spans == HOWTO100M_CLIPS
    assert reasons("howto100m", tmp_path) == ["bad_annotation"]
    rows = [{"video_id": "b10", "start": 1, "end": 3.5, "text": "first you cut"}]
    assert clips("howto100m", write_list(tmp_path / "all.parquet", rows)) == HOWTO100M_CLIPS[:1]
    of_videos = [{"video_id": video, **lines} for video, lines in HOWTO100M.items()]
    for kind in ("jsonl", "parquet"):
        assert clips("howto100m", write_list(tmp_path / f"lists.{kind}", of_videos)) == HOWTO100M_CLIPS


def test_tests_without_moments_are_whole_videos(tmp_path: Path) -> None:
    for name, row, dropped in (("tvr", TVR[0], "ts"), ("qvhighlights", QVHIGHLIGHTS[0], "relevant_windows")):
        rows = [{key: value for key, value in row.items() if key != dropped}]
        ((_, start, end, _),) = clips(f"{name}/test", write_list(tmp_path / f"{name}.jsonl", rows))
        assert (start, end) == (0, ALL)


def test_a_video_that_comes_again_is_a_duplicate(tmp_path: Path) -> None:
    rows = [PANDA70M_ROW, PANDA70M_ROW | {"videoID": "c1"}, PANDA70M_ROW]
    path = write_list(tmp_path / "panda70m_training_2m.csv", rows)
    assert reasons("panda70m", path) == ["duplicate_clip"] * 2
    assert [len(source.clips) for source in read_annotations("panda70m", path)] == [2, 2, 0]


def test_own_tables_as_video2dataset_has_them(tmp_path: Path) -> None:
    links = {
        "https://host/a%20b/b10.mp4?x=1": "b10",
        "https://www.youtube.com/watch?v=dQw4w9WgXcQ&t=3": "dQw4w9WgXcQ",
        "https://youtu.be/dQw4w9WgXc2": "dQw4w9WgXc2",
        "s3://bucket/folder/c.1.webm": "c.1",
    }
    rows = [{"url": link, "caption": "a bird", "width": 3} for link in links]
    for kind in ("csv", "parquet", "tsv", "jsonl", "json"):
        found = clips("captions", write_list(tmp_path / f"links.{kind}", rows))
        assert [video for video, *_ in found] == list(links.values())
    path = write_list(tmp_path / "bad.csv", [*rows, {"url": "https://host/", "caption": "a", "width": 1}])
    assert reasons("captions", path) == ["bad_annotation"]
    rows = [{"videoid": 7, "name": "seven"}, {"videoid": 8, "name": "eight"}]
    for kind in ("csv", "parquet", "jsonl", "json"):
        table = write_list(tmp_path / f"ids.{kind}", rows)
        assert [video for video, *_ in clips("captions", table)] == ["7", "8"]
        assert [video for video, *_ in clips("webvid/val", table)] == ["7", "8"]
