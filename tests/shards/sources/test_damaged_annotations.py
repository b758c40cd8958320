"""Annotation files that are damaged, or not what was asked for: one line each."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.sources.annotations import read_annotations
from clipvip.shards.sources.video_sets import DATASETS, find_annotation_file, splits_of


def skips(name: str, path: Path) -> list[str]:
    return [skip.reason for source in read_annotations(name, path) for _, skip in source.skips]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("msrvt/1ka", "did you mean msrvtt"),
        ("msrvtt", "msrvtt/train9k, msrvtt/train7k"),
        ("didemo/dev", "didemo/train, didemo/val, didemo/test"),
    ],
)
def test_unknown_names_list_the_known(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        find_annotation_file(name, tmp_path)


def test_a_folder_without_the_file_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"val_1\.json"):
        find_annotation_file("activitynet/val1", tmp_path)
    with pytest.raises(DatasetError, match="no such file or folder"):
        find_annotation_file("activitynet/val1", tmp_path / "none")


def test_bad_rows_are_skipped_and_named(tmp_path: Path) -> None:
    records = [
        {"video": "a.mov"},
        3,
        {"video": "", "description": "x"},
        {"video": "b.mov", "description": " "},
    ]
    records += [
        {"video": "../../etc/passwd.mp4", "description": "x"},
        {"video": "c.mov", "description": "fine"},
    ]
    path = tmp_path / "train_data.json"
    path.write_text(json.dumps(records))
    assert Counter(skips("didemo/train", path)) == {"bad_annotation": 3, "empty_caption": 1, "unsafe_id": 1}
    good = [source for source in read_annotations("didemo/train", path) if source.clips]
    assert [source.video_id for source in good] == ["c"]
    table = tmp_path / "t.csv"
    table.write_text("video,caption\nonly\nv,\nw,words\n")
    assert Counter(skips("captions", table)) == {"bad_annotation": 1, "empty_caption": 1}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("didemo/val", "", "is empty"),
        ("didemo/val", "[{", "not JSON"),
        ("didemo/val", "{}", "must be a list of annotations, not an object"),
        ("msrvtt/test", "[]", "MSRVTT_data"),
        ("msrvtt/test", '{"videos": [], "sentences": []}', "no videos of the split test"),
        ("activitynet/val1", "[]", "must be an object of video ids"),
        ("webvid/val", "a,b\n1,2\n", "no column videoid"),
        ("msrvtt/1ka", "key,video_id\n1,2\n", "no column sentence"),
        ("captions", "\x00\x01,\n", r"no column .*its columns are \?\?, $"),
        (
            "didemo/val",
            '[{"video": "a.mov"}]',
            r"no annotation of didemo/val that can be used \(file.json, rec",
        ),
        ("activitynet/val1", '{"v_a": [1]}', "no annotation of activitynet/val1"),
        ("lsmdc/test1k", '{"a": 1}', "no annotation of lsmdc/test1k"),
        ("webvid/train", "videoid,name\n", "no annotation of webvid/train"),
    ],
)
def test_damaged_files_are_refused_in_one_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / (
        "file.csv" if name in {"webvid/val", "webvid/train", "msrvtt/1ka", "captions"} else "file.json"
    )
    path.write_text(text)
    with pytest.raises(DatasetError, match=message) as caught:
        list(read_annotations(name, path))
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


NAMES = [name for dataset in DATASETS for name in splits_of(dataset)] + ["captions"]


@settings(max_examples=150)
@given(
    name=st.sampled_from(NAMES),
    data=st.binary(max_size=200),
    extension=st.sampled_from(["csv", "json", "jsonl", "parquet", "txt"]),
)
def test_any_bytes_give_sources_or_one_clear_error(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: bytes, extension: str
) -> None:
    path = tmp_path_factory.mktemp("bytes") / f"file.{extension}"
    path.write_bytes(data)
    check(name, path)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "video",
                    "videos",
                    "video_id",
                    "sentences",
                    "description",
                    "times",
                    "timestamps",
                    "text",
                    "split",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300)
@given(name=st.sampled_from(["msrvtt/train", "didemo/test", "activitynet/val1", "captions"]), value=JSON)
def test_any_json_gives_sources_or_one_clear_error(
    tmp_path_factory: pytest.TempPathFactory, name: str, value: object
) -> None:
    path = tmp_path_factory.mktemp("json") / ("file.jsonl" if name == "captions" else "file.json")
    path.write_text(json.dumps(value))
    check(name, path)


def check(name: str, path: Path) -> None:
    try:
        sources = list(read_annotations(name, path))
    except DatasetError as error:
        assert "\n" not in str(error)
        return
    for source in sources:
        assert all(isinstance(skip, Skip) for _, skip in source.skips)
        assert all(clip.sentences and all(clip.sentences) for clip in source.clips)
