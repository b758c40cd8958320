"""`clipvip-eval multiple-choice`: the answers that the model's own embeddings give to all files."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import commands
from clipvip.analysis.bootstrap import mean_interval
from clipvip.analysis.classification import Choice, choose_option
from clipvip.media.sampling import uniform_indices
from clipvip.model import ClipVip
from clipvip.pipeline.evaluate.cli import main
from clipvip.pipeline.evaluate.clip_names import ClipName
from clipvip.pipeline.evaluate.multiple_choice import PlaceCounts, match_clips, score_choices
from clipvip.pipeline.evaluate.questions import Question, read_questions
from clipvip.shards.errors import DatasetError
from clipvip.shards.tar.reader import list_shards, read_shard
from clipvip.shards.tar.writer import write_shard
from make_shards import make_shard_folder, stored_clip
from tiny_clip import make_clip, tiny_tokenizer

OPTIONS = ["a cat", "dogs run", "rain falls", "somebody sings", "x"]


run = partial(commands.run, "multiple-choice", "--device", "cpu", program=main)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    ClipVip.from_clip(str(make_clip(folder / "clip"))).save_pretrained(folder / "vip")
    tiny_tokenizer().save_pretrained(folder / "vip")
    return folder / "vip"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shard_folder(tmp_path_factory.mktemp("clips"), num_shards=2, clips_per_shard=4)


def write_lines(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def nearest_options(model: Path, shards: Path) -> dict[str, int]:
    """Key -> the one of OPTIONS that the model finds nearest, one clip at a time."""
    vip = ClipVip.from_pretrained(model).eval()
    found = {}
    with torch.inference_mode():
        texts = vip.encode_text(OPTIONS).numpy()
        for path in list_shards(shards):
            for sample in read_shard(path):
                frames = sample.decode(uniform_indices(sample.num_frames, 4))
                found[sample.key] = int((texts @ vip.encode_video([frames]).numpy()[0]).argmax())
    return found


def test_the_answers_are_those_of_the_models_embeddings(tmp_path: Path, model: Path, shards: Path) -> None:
    nearest = nearest_options(model, shards)
    keys = list(nearest)
    answers = [nearest[key] if number % 2 else (nearest[key] + 1) % 5 for number, key in enumerate(keys)]
    lines = [
        {"video": key, "options": OPTIONS, "answer": answer}
        for key, answer in zip(keys, answers, strict=True)
    ]
    lines.append({"video": keys[1], "options": OPTIONS[:2], "answer": 7})
    lines.append({"video": "elsewhere", "options": OPTIONS, "answer": 0})
    lines.append({"video": "video0", "options": OPTIONS, "answer": 0})
    questions = write_lines(tmp_path / "questions.jsonl", *lines)
    options = ["--model", model, "--shards", shards, "--questions", questions, "--num-frames", 4]
    result = run(*options, "--batch-size", 3, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "out/multiple_choice.json").read_text())
    assert (written["accuracy"], written["num_right"], written["num_questions"]) == (0.5, 4, 8)
    right = np.array([0, 1] * 4, float)
    assert written["interval"] == list(mean_interval(right))
    assert written["chance"] == pytest.approx(0.2)
    assert written["num_options"] == {"5": 8} and written["num_clips"] == 8
    for place, counts in enumerate(written["places"]):
        assert counts["answer"] == answers.count(place)
        assert counts["chosen"] == list(nearest.values()).count(place)
    assert written["skipped"] == {"bad_question": 1, "no_clip": 1, "several_clips": 1}
    assert "skipped 3: bad_question 1, no_clip 1, several_clips 1" in result.stdout
    assert "accuracy      50.0   (95% interval" in result.stdout
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["counts"] == {"questions": 8, "clips": 8} and report["result"]["accuracy"] == 0.5
    before = (tmp_path / "out/multiple_choice.json").read_bytes()
    assert run(*options, "--batch-size", 8, "--out", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out/multiple_choice.json").read_bytes() == before


def test_only_the_clips_that_are_asked_about_are_decoded(tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    broken = [stored_clip("broken", number) for number in range(2)]
    for clip in broken:
        object.__setattr__(clip, "pixels", b"\0" * len(clip.pixels))
    write_shard(folder / "000000.tar", [stored_clip("good", 0), *broken])
    asked = [{"video": name, "options": ["a", "b"], "answer": 0} for name in ("good", "broken_00001")]
    questions = write_lines(tmp_path / "questions.jsonl", *asked)
    result = run("--model", model, "--shards", folder, "--questions", questions, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    skipped = [json.loads(line) for line in (tmp_path / "out/skipped.jsonl").read_text().splitlines()]
    assert [(skip["reason"], skip["what"]) for skip in skipped] == [
        ("damaged_sample", "broken_00001"),
        ("no_clip", "questions.jsonl, line 2"),
    ]


def test_an_option_that_repeats_the_right_one_is_right_and_other_ties_are_wrong() -> None:
    scores = np.array([0.5, 0.5, 0.1])
    assert choose_option(scores, 1, np.array([False, True, False])) == Choice(False, None)
    assert choose_option(scores, 1, np.array([True, True, False])) == Choice(True, 1)
    assert choose_option(scores, 2, np.array([False, False, True])) == Choice(False, None)
    assert choose_option(np.array([0.5, 0.6, 0.1]), 0, np.array([True, False, False])) == Choice(False, 1)
    with pytest.raises(ValueError, match="NaN"):
        choose_option(np.array([0.5, np.nan]), 0, np.array([True, False]))


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=2, max_size=6), st.data())
def test_a_choice_is_right_when_no_wrong_option_is_as_high(scores: list[float], data: st.DataObject) -> None:
    answer = data.draw(st.integers(0, len(scores) - 1))
    right = [data.draw(st.booleans()) or place == answer for place in range(len(scores))]
    choice = choose_option(np.array(scores), answer, np.array(right))
    wrong_scores = [score for score, is_right in zip(scores, right, strict=True) if not is_right]
    right_scores = [score for score, is_right in zip(scores, right, strict=True) if is_right]
    assert choice.right == (max(right_scores) > max(wrong_scores, default=-1.0))


def test_a_model_that_scores_all_alike_has_no_accuracy(tmp_path: Path, shards: Path) -> None:
    blind = ClipVip.from_clip(str(make_clip(tmp_path / "clip")))
    with torch.no_grad():
        blind.text_projection.weight.fill_(0.01)
        blind.text_model.final_layer_norm.weight.zero_()
        blind.text_model.final_layer_norm.bias.fill_(1.0)
    blind.save_pretrained(tmp_path / "vip")
    tiny_tokenizer().save_pretrained(tmp_path / "vip")
    asked = [{"video": f"video0_{n:05d}", "options": ["a", "b", "c"], "answer": n % 3} for n in range(4)]
    questions = write_lines(tmp_path / "questions.jsonl", *asked)
    result = run("--model", tmp_path / "vip", "--shards", shards, "--questions", questions, "--num-frames", 2)
    assert result.exit_code == 0, result.output
    assert "accuracy       0.0" in result.stdout and "undecided, counted as wrong: 4" in result.stdout


def test_scores_of_known_choices() -> None:
    questions = [
        Question("1", "v", ("a", "b"), 0),
        Question("2", "v", ("a", "b", "a", "c"), 2),
        Question("3", "v", ("a", "b", "c", "d"), 3),
    ]
    found = score_choices(questions, [Choice(True, 0), Choice(True, 2), Choice(False, None)], resamples=0)
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.chance == pytest.approx((1 / 2 + 2 / 4 + 1 / 4) / 3)
    assert found.num_options == {"2": 1, "4": 2} and found.num_undecided == 1
    assert found.places[2] == PlaceCounts(answer=1, chosen=1, right=1)
    assert found.places[3] == PlaceCounts(answer=1, chosen=0, right=0)
    assert "interval" not in found.as_dict()


def test_published_files_are_read(tmp_path: Path) -> None:
    jsfusion = tmp_path / "MSR_MC_test.csv"
    jsfusion.write_text(
        "key\tvid_key\ta1\ta2\ta3\ta4\ta5\tanswer\n"
        'MC0\tmsr7010\ta dog\tone "two"\tthree, four\tfive\tsix\t3\n'
        "MC1\tmsr7011\ta dog\t\tthree\tfive\tsix\t0\n"
    )
    (question,), (skip,) = read_questions(jsfusion)
    assert (question.video, question.answer, question.options[2]) == ("msr7010", 3, "three, four")
    assert skip.what == "MSR_MC_test.csv, row 2"
    (row,), _, _ = match_clips(
        [question], [ClipName(f"video{n}_00000", f"video{n}", f"video{n}") for n in (7010, 9)]
    )
    assert row == 0

    times = "\t".join(["00.03.07.077"] * 4)
    five = 'He walks.\t"She" sits.\tThey go.\tIt rains.\tA car stops.'
    lsmdc = tmp_path / "LSMDC16_multiple_choice_test_randomized.csv"
    lsmdc.write_text(f"3001_A_FILM_00.03.07.077-00.03.09.559\t{times}\t{five}\t5\nbad\t{times}\t{five}\t6\n")
    (question,), (skip,) = read_questions(lsmdc)
    assert (question.video, question.answer) == ("3001_A_FILM_00.03.07.077-00.03.09.559", 4)
    assert question.options[1] == '"She" sits.' and skip.reason == "bad_question"
    training = tmp_path / "LSMDC16_multiple_choice_valid.csv"
    training.write_text(f"3001_A_FILM_00.03.07.077-00.03.09.559\t{times}\t{five}\n")
    assert read_questions(training)[0][0].answer == 0

    clipbert = {"clip_name": "video7010", "options": ["a", "b"], "answer": 1, "qid": 0}
    (question,), _ = read_questions(write_lines(tmp_path / "msrvtt_mc_test.jsonl", clipbert))
    assert (question.video, question.answer) == ("video7010", 1)
    listed = tmp_path / "msrvtt_mc_test.json"
    listed.write_text(json.dumps([{"video": "all/video7010.mp4", "caption": ["a", "b"], "answer": 1}]))
    questions, _ = read_questions(listed)
    assert match_clips(questions, [ClipName("video7010_00000", "video7010", "video7010")])[0] == [0]


def test_a_key_or_clip_id_goes_before_the_id_of_a_video() -> None:
    clips = [
        ClipName("v_00000", "v.0.mp4", "v"),
        ClipName("v_00001", "v.1.mp4", "v"),
        ClipName("w_00000", "w", "w"),
    ]
    questions = [Question(name, name, ("a", "b"), 0) for name in ("v_00001", "v.0.mp4", "w", "v", "u")]
    rows, asked, skips = match_clips(questions, clips)
    assert rows == [1, 0, 2] and [question.video for question in asked] == ["v_00001", "v.0.mp4", "w"]
    assert [(skip.reason, skip.what) for skip in skips] == [("several_clips", "v"), ("no_clip", "u")]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("q.jsonl", "", "is empty"),
        ("q.jsonl", "nonsense\n", "holds no question"),
        ("q.jsonl", '{"video": "v", "options": "ab", "answer": 0}\n', "options are not a list"),
        (
            "q.jsonl",
            '{"video": "v", "options": ["a", "b"], "answer": true}\n',
            "its answer 'True' is none of its 2 options",
        ),
        ("q.json", "{}", "must be a list of questions, not an object"),
        ("q.csv", "video_id,sentence\nv,a\n", "is not a known table of questions"),
        ("q.tsv", "vid_key\ta1\tanswer\nv\ta\t0\n", "has fewer than two options"),
    ],
)
def test_files_without_questions_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_questions(tmp_path / name)


def test_mistakes_are_one_line(tmp_path: Path, model: Path, shards: Path) -> None:
    good = write_lines(tmp_path / "good.jsonl", {"video": "video0_00000", "options": ["a", "b"], "answer": 0})
    other = write_lines(tmp_path / "other.jsonl", {"video": "elsewhere", "options": ["a", "b"], "answer": 0})
    cases = [
        ([model, tmp_path / "nowhere", good], "nowhere: no such folder of shards"),
        ([tmp_path / "nothing", shards, good], "nothing"),
        ([model, shards, tmp_path / "missing.jsonl"], "missing.jsonl: cannot be read"),
        ([model, shards, other], "none of its questions is about one clip"),
    ]
    for (model_name, folder, questions), message in cases:
        out = tmp_path / "out"
        result = run("--model", model_name, "--shards", folder, "--questions", questions, "--out", out)
        assert result.exit_code == 1 and isinstance(result.exception, SystemExit), (message, result.exception)
        errors = [line for line in result.output.splitlines() if line.startswith("Error: ")]
        assert len(errors) == 1 and message in errors[0], result.output
        assert not out.exists()
