"""A known set's list under another's name: said by name in one line, whichever the two are."""

import json
from pathlib import Path

import pytest

from clip_lists import HOWTO100M, PUBLISHED, write_list
from clipvip.shards.errors import DatasetError
from clipvip.shards.sources.annotations import read_annotations, require_no_set
from clipvip.shards.sources.recognise import KNOWN_NAMES, recognise
from clipvip.shards.sources.video_sets import DATASETS, GENERIC, splits_of

TIMES = "\t".join(["00.00.51.926", "00.00.54.129"] * 2)
# (set, file, content, which --dataset may read it too)
OLDER: list[tuple[str, str, object, set[str]]] = [
    (
        "msrvtt",
        "MSRVTT_data.json",
        {
            "info": {},
            "videos": [{"video_id": "v1", "split": "train"}],
            "sentences": [{"video_id": "v1", "caption": "a"}],
        },
        set(),
    ),
    (
        "msrvtt",
        "MSRVTT_JSFUSION_test.csv",
        [{"key": "ret0", "vid_key": "msr1", "video_id": "v1", "sentence": "a, b"}],
        {"captions", "paragraphs"},
    ),
    ("msrvtt", "MSRVTT_train.9k.csv", "video_id\nvideo0\n", set()),
    ("didemo", "val_data.json", [{"video": "a.mov", "description": "b", "times": [[0, 1]]}], set()),
    (
        "activitynet",
        "val_1.json",
        {"v_a": {"duration": 3, "timestamps": [[0, 1], [1, 2]], "sentences": ["a", "b"]}},
        {"paragraphs"},
    ),
    ("lsmdc", "LSMDC16_annos_val.csv", f"0001_A_Film_00.00.51.926-00.00.54.129\t{TIMES}\tA man.\n", set()),
    (
        "webvid",
        "results_2M_val.csv",
        [{"videoid": 1, "contentUrl": "x", "duration": "y", "page_dir": "z", "name": "a, b"}],
        {"captions", "paragraphs"},
    ),
    ("", "hdvila.jsonl", [{"video_id": "a", "url": "b", "clip": []}], set()),
]
LISTS = [
    *((name, file, content, set[str]()) for name, files in PUBLISHED.items() for file, content, _ in files),
    *OLDER,
]


@pytest.mark.parametrize(("name", "file", "content", "others"), LISTS)
def test_each_list_under_each_name(
    tmp_path: Path, name: str, file: str, content: object, others: set[str]
) -> None:
    path = write_list(tmp_path / file, content)
    known = recognise(path)
    assert known is not None and known.name == name
    assert set(known.others) == others
    for dataset in {*KNOWN_NAMES, *GENERIC} - {name, ""} - others:
        asked = dataset if dataset in GENERIC else splits_of(dataset)[-1]
        with pytest.raises(DatasetError, match=f"looks like {known.title}'s list, not one of") as caught:
            list(read_annotations(asked, path))
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)
        assert (f"--dataset {splits_of(name)[0]}" if name else "leave --dataset out") in str(caught.value)
    for generic in others:
        assert len(list(read_annotations(generic, path))) == 1
    if name:
        with pytest.raises(DatasetError, match=f"looks like {known.title}'s list; give --dataset {name}"):
            require_no_set(path)
    else:
        require_no_set(path)


def test_one_line_of_narration_each_is_narration_too(tmp_path: Path) -> None:
    content = {f"b{n}": {"start": [n + 1.5], "end": [n + 3], "text": ["you cut"]} for n in range(3)}
    known = recognise(write_list(tmp_path / "raw_caption.json", content))
    assert known is not None and known.name == "howto100m"


def test_every_set_is_recognised() -> None:
    assert {name for name, *_ in LISTS} == KNOWN_NAMES
    assert set(DATASETS.data) == KNOWN_NAMES - {""}


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl", "json"])
def test_tables_are_recognised_in_every_format(tmp_path: Path, kind: str) -> None:
    for name in ("panda70m", "internvid", "msvd", "tvr"):
        _, content, _ = PUBLISHED[name][0]
        known = recognise(write_list(tmp_path / f"{name}.{kind}", content))
        assert known is not None and known.name == name


OTHERS: list[tuple[str, object]] = [
    ("mine.csv", "video,caption\na,b\n"),
    ("mine.csv", "video_id,start,end,text\na,1,2,b\n"),
    ("mine.tsv", "url\tcaption\na\tb\n"),
    ("mine.jsonl", [{"clip_id": "a", "text": ["b", "c"], "start": [0, 1], "end": [1, 2]}]),
    ("mine.json", {"a": {"caption": ["b", "c"]}}),
    ("lsmdc.json", {"0001_A_00.00.51.926-00.00.54.129": {"text": ["b"], "start": [0], "end": [3]}}),
    ("activitynet.json", {"v_a": {"text": ["b", "c"], "start": [0, 1], "end": [1, 2]}}),
    ("empty.csv", ""),
    ("broken.json", '{"a": {"start"'),
    ("no_object.json", "3"),
    ("classes.txt", "a_b\nc d\n"),
]


@pytest.mark.parametrize(("file", "content"), OTHERS)
def test_lists_of_ones_own_are_none_of_them(tmp_path: Path, file: str, content: object) -> None:
    assert recognise(write_list(tmp_path / file, content)) is None


def test_only_the_beginning_of_a_large_list_is_read(tmp_path: Path) -> None:
    path = tmp_path / "caption.json"
    text = json.dumps(HOWTO100M)[1:-1].replace("c1", "c{}")
    many = ", ".join(text.replace("b10", f"b{n}").replace("{}", str(n)) for n in range(20_000))
    path.write_text("{" + many + ", and then damage")
    known = recognise(path)
    assert known is not None and known.name == "howto100m"
