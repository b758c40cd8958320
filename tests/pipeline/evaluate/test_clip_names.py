"""Questions and labels find their clips by any spelling of a name, and by ids that are numbers."""

import json
import unicodedata
from pathlib import Path
from typing import Literal

import pytest

from clipvip.pipeline.evaluate.clip_names import ClipName
from clipvip.pipeline.evaluate.labels import read_labels
from clipvip.pipeline.evaluate.multiple_choice import match_clips
from clipvip.pipeline.evaluate.questions import read_questions
from clipvip.shards.tar.reader import read_shard
from clipvip.shards.tar.writer import write_shard
from make_shards import stored_clip


@pytest.mark.parametrize("in_shard", ["NFC", "NFD"])
@pytest.mark.parametrize("in_file", ["NFC", "NFD"])
def test_two_spellings_of_a_name_are_one(
    tmp_path: Path, in_shard: Literal["NFC", "NFD"], in_file: Literal["NFC", "NFD"]
) -> None:
    name = unicodedata.normalize(in_file, "día")
    write_shard(tmp_path / "000000.tar", [stored_clip(unicodedata.normalize(in_shard, "día"), 0)])
    clips = [ClipName.of(sample) for sample in read_shard(tmp_path / "000000.tar")]
    (tmp_path / "labels.jsonl").write_text(json.dumps({"video": name, "label": "walk"}) + "\n")
    labels, _ = read_labels(tmp_path / "labels.jsonl")
    assert [labels.of(clip) for clip in clips] == [{"walk"}]
    question = {"video": name, "options": ["a", "b"], "answer": 0}
    (tmp_path / "questions.jsonl").write_text(json.dumps(question) + "\n")
    questions, _ = read_questions(tmp_path / "questions.jsonl")
    assert match_clips(questions, clips)[0] == [0]


@pytest.mark.parametrize("name", [123, 123.0, "123"])
def test_whole_numbers_are_names(tmp_path: Path, name: object) -> None:
    clips = [ClipName("123_00000", "123", "123")]
    (tmp_path / "labels.json").write_text(json.dumps([{"id": name, "label": "walk"}]))
    assert read_labels(tmp_path / "labels.json")[0].of(clips[0]) == {"walk"}
    (tmp_path / "questions.json").write_text(
        json.dumps([{"video": name, "options": ["a", "b"], "answer": 0}])
    )
    assert match_clips(read_questions(tmp_path / "questions.json")[0], clips)[0] == [0]
