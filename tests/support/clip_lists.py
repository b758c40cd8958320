"""Small lists of clips in the shapes in which sets publish theirs, all of them about one or two videos."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet

Row = Mapping[str, object]
Clips = list[tuple[str, float, float, tuple[str, ...]]]
ALL = float("inf")


def write_list(path: Path, content: object) -> Path:
    """Write rows as the extension of `path` says; .txt gets the text, .json anything."""
    suffix = path.suffix
    if isinstance(content, str):
        path.write_text(content)
    elif suffix == ".jsonl":
        assert isinstance(content, Sequence)
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    elif suffix == ".json":
        path.write_text(json.dumps(content))
    elif suffix == ".parquet":
        assert isinstance(content, Sequence)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(content)), path)
    else:
        assert isinstance(content, Sequence)
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(content[0]), delimiter="\t" if suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(content)
    return path


PANDA70M_ROW = {
    "videoID": "b10",
    "url": "https://www.youtube.com/watch?v=b10",
    "timestamp": "[['0:00:01.000', '0:00:03.500'], ['0:00:04.000', '0:00:08.000']]",
    "caption": "['A bird flies over water.', \"It's two people, who talk.\"]",
    "matching_score": "[0.43, 0.51]",
}
PANDA70M_CLIPS: Clips = [
    ("b10", 1, 3.5, ("A bird flies over water.",)),
    ("b10", 4, 8, ("It's two people, who talk.",)),
]
INTERNVID_ROWS = [
    {
        "YoutubeID": "b10",
        "Start_timestamp": "00:00:04.000",
        "End_timestamp": "00:00:08.000",
        "Caption": "two people",
        "Aesthetic_Score": 5.1,
        "UMT_Score": 0.4,
    },
    {
        "YoutubeID": "c1",
        "Start_timestamp": "00:01:01.000",
        "End_timestamp": "00:01:03.500",
        "Caption": "a dog, running",
        "Aesthetic_Score": 5.0,
        "UMT_Score": 0.3,
    },
    {
        "YoutubeID": "b10",
        "Start_timestamp": "00:00:01.000",
        "End_timestamp": "00:00:03.500",
        "Caption": "a bird flies",
        "Aesthetic_Score": 5.1,
        "UMT_Score": 0.4,
    },
]
INTERNVID_CLIPS: Clips = [
    ("b10", 1, 3.5, ("a bird flies",)),
    ("b10", 4, 8, ("two people",)),
    ("c1", 61, 63.5, ("a dog, running",)),
]
HOWTO100M = {
    "b10": {"start": [1.0, 4.0], "end": [3.5, 8.0], "text": ["first you cut", "then you mix"]},
    "c1": {"text": ["hello"], "start": [0], "end": [2]},
}
HOWTO100M_CLIPS: Clips = [
    ("b10", 1, 3.5, ("first you cut",)),
    ("b10", 4, 8, ("then you mix",)),
    ("c1", 0, 2, ("hello",)),
]
VATEX = [{"videoID": "b10_000001_000008", "enCap": ["A bird flies.", "A bird."], "chCap": ["一只鸟"]}]
VATEX_CLIPS: Clips = [("b10_000001_000008", 0, ALL, ("A bird flies.", "A bird."))]
YOUCOOK2 = {
    "database": {
        "b10": {
            "duration": 10.0,
            "subset": "training",
            "recipe_type": "101",
            "annotations": [
                {"segment": [1, 3], "id": 0, "sentence": "cut it"},
                {"segment": [4, 8], "id": 1, "sentence": "mix it"},
            ],
            "video_url": "x",
        },
        "c1": {
            "subset": "validation",
            "annotations": [{"segment": [0, 2], "id": 0, "sentence": "eat it"}],
        },
    }
}
YOUCOOK2_CLIPS: Clips = [
    ("b10", 1, 3, ("cut it",)),
    ("b10", 4, 8, ("mix it",)),
    ("c1", 0, 2, ("eat it",)),
]


def _msvd_row(start: int, end: int, language: str, description: str) -> Row:
    cells = {"WorkerID": 1, "Source": "clean", "AnnotationTime": 10}
    return (
        {"VideoID": "b10", "Start": start, "End": end}
        | cells
        | {"Language": language, "Description": description}
    )


MSVD_ROWS = [
    _msvd_row(1, 8, "English", "A bird flies."),
    _msvd_row(1, 8, "German", "Ein Vogel."),
    _msvd_row(9, 12, "English", "A man, singing"),
    _msvd_row(1, 8, "English", "a bird"),
]
MSVD_TEXT = "b10_1_8 A bird flies.\nb10_1_8 a bird\nb10_9_12 A man, singing\n"
MSVD_CLIPS: Clips = [
    ("b10_1_8", 0, ALL, ("A bird flies.", "a bird")),
    ("b10_9_12", 0, ALL, ("A man, singing",)),
]
QVHIGHLIGHTS = [
    {"qid": 1, "query": "a bird", "duration": 10, "vid": "b10_1.0_8.0", "relevant_windows": [[4, 6], [0, 2]]},
    {"qid": 2, "query": "some bird", "duration": 10, "vid": "b10_1.0_8.0", "relevant_windows": [[0, 2]]},
]
QVHIGHLIGHTS_CLIPS: Clips = [
    ("b10_1.0_8.0", 0, 2, ("a bird", "some bird")),
    ("b10_1.0_8.0", 4, 6, ("a bird",)),
]
TVR = [
    {"vid_name": "b10", "desc": "x y", "ts": [1.0, 3.0], "duration": 10, "type": "v", "desc_id": 1},
    {"vid_name": "b10", "desc": "y x", "ts": [1.0, 3.0], "duration": 10, "type": "t", "desc_id": 2},
]
TVR_CLIPS: Clips = [("b10", 1, 3, ("x y", "y x"))]

# What each set publishes: file, content, the clips in it.
PUBLISHED: dict[str, list[tuple[str, object, Clips]]] = {
    "panda70m": [("panda70m_training_2m.csv", [PANDA70M_ROW], PANDA70M_CLIPS)],
    "internvid": [
        ("InternVid-10M-flt.jsonl", INTERNVID_ROWS, INTERNVID_CLIPS),
        ("InternVid-10M.csv", INTERNVID_ROWS, INTERNVID_CLIPS),
    ],
    "howto100m": [("caption.json", HOWTO100M, HOWTO100M_CLIPS)],
    "vatex": [("vatex_training_v1.0.json", VATEX, VATEX_CLIPS)],
    "youcook2": [("youcookii_annotations_trainval.json", YOUCOOK2, YOUCOOK2_CLIPS)],
    "msvd": [
        ("MSR Video Description Corpus.csv", MSVD_ROWS, MSVD_CLIPS),
        ("AllVideoDescriptions.txt", MSVD_TEXT, MSVD_CLIPS),
    ],
    "qvhighlights": [("highlight_train_release.jsonl", QVHIGHLIGHTS, QVHIGHLIGHTS_CLIPS)],
    "tvr": [("tvr_train_release.jsonl", TVR, TVR_CLIPS)],
}
