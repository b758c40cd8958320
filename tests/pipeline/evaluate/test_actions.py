"""`clipvip-eval actions`: classes by the model's own embeddings, from every file of classes and labels."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import commands
from clipvip.media.sampling import uniform_indices
from clipvip.model import ClipVip
from clipvip.pipeline.evaluate.cli import main
from clipvip.pipeline.evaluate.clip_names import ClipName
from clipvip.pipeline.evaluate.labels import read_classes, read_labels
from clipvip.shards.errors import DatasetError
from clipvip.shards.tar.reader import list_shards, read_shard
from clipvip.shards.tar.writer import write_shard
from make_shards import make_captioned_folder, make_shard_folder, stored_clip
from tiny_clip import make_clip, tiny_tokenizer

CLASSES = ["brush hair", "cartwheel", "Climb stairs", "dive", "eat", "fencing"]


run = partial(commands.run, "actions", "--device", "cpu", program=main)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    ClipVip.from_clip(str(make_clip(folder / "clip"))).save_pretrained(folder / "vip")
    tiny_tokenizer().save_pretrained(folder / "vip")
    return folder / "vip"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shard_folder(tmp_path_factory.mktemp("clips"), num_shards=2, clips_per_shard=4)


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("classes") / "classes.txt"
    path.write_text("brush_hair\ncartwheel\n\nClimb stairs\ndive\neat\nfencing\n")
    return path


def write_lines(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def class_order(model: Path, shards: Path, prompts: list[str]) -> dict[str, list[int]]:
    """Key -> the classes from the nearest, one clip and one class at a time and straight from the model."""
    vip = ClipVip.from_pretrained(model).eval()
    found = {}
    with torch.inference_mode():
        rows = []
        for name in CLASSES:
            mean = vip.encode_text([prompt.replace("{}", name) for prompt in prompts]).mean(dim=0)
            rows.append((mean / mean.norm()).numpy())
        for path in list_shards(shards):
            for sample in read_shard(path):
                frames = sample.decode(uniform_indices(sample.num_frames, 4))
                scores = np.stack(rows) @ vip.encode_video([frames]).numpy()[0]
                found[sample.key] = np.argsort(-scores).tolist()
    return found


def test_the_scores_are_those_of_the_models_embeddings(
    tmp_path: Path, model: Path, shards: Path, classes: Path
) -> None:
    prompts = ["a video of {}", "someone does {}!"]
    order = class_order(model, shards, prompts)
    # Right, second, last, right, ... of the clips in turn.
    places = [(0, 1, 5)[number % 3] for number in range(8)]
    labels = {key: order[key][place] for (key, place) in zip(order, places, strict=True)}
    rows = [{"video": f"{key}.mp4", "label": CLASSES[label].upper()} for key, label in labels.items()]
    rows.append({"video": "elsewhere", "label": "dive"})
    labels_file = write_lines(tmp_path / "labels.jsonl", *rows)
    options = ["--model", model, "--shards", shards, "--classes", classes, "--labels", labels_file]
    options += [
        "--prompt",
        "a video of [label]",
        "--prompt",
        prompts[1],
        "--num-frames",
        4,
        "--out",
        tmp_path / "out",
    ]
    result = run(*options, "--batch-size", 3)
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "out/actions.json").read_text())
    assert written["top1"] == pytest.approx(3 / 8) and written["top5"] == pytest.approx(6 / 8)
    shares = {label: [] for label in labels.values()}
    for label, place in zip(labels.values(), places, strict=True):
        shares[label].append(place == 0)
    assert written["mean_per_class"] == pytest.approx(np.mean([np.mean(hits) for hits in shares.values()]))
    assert [row["class"] for row in written["classes"]] == CLASSES
    assert 0 < sum(pair["clips"] for pair in written["confused"]) <= 5
    for pair in written["confused"]:
        wrong = [k for k, label in labels.items() if CLASSES[label] == pair["class"] != CLASSES[order[k][0]]]
        assert pair["clips"] == sum(CLASSES[order[key][0]] == pair["taken_for"] for key in wrong)
    assert written["chance"] == pytest.approx({"top1": 1 / 6, "top5": 5 / 6, "mean_per_class": 1 / 6})
    assert written["options"]["prompts"] == prompts and written["labels_not_used"] == 1
    assert set(written["intervals"]) == {"top1", "top5", "mean_per_class"}
    for name, (low, high) in written["intervals"].items():
        assert low <= written[name] <= high
    assert "top-1              37.5     16.7   (95% interval" in result.stdout
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["counts"] == {"clips": 8, "classes": 6}
    before = (tmp_path / "out/actions.json").read_bytes()
    assert run(*options, "--batch-size", 8).exit_code == 0
    assert (tmp_path / "out/actions.json").read_bytes() == before


def test_without_labels_the_sentences_are_the_classes(tmp_path: Path, model: Path, classes: Path) -> None:
    texts = [["Brush hair"], ["cartwheel"], ["swim"], ["dive", "eat"], ["climb_stairs"]]
    shards = make_captioned_folder(tmp_path / "clips", texts)
    result = run("--model", model, "--shards", shards, "--classes", classes, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "3 clips of 3 classes" in result.stdout and "6 classes to choose from" in result.stdout
    assert "skipped 2: several_labels 1, unknown_label 1" in result.stdout
    skipped = [json.loads(line) for line in (tmp_path / "out/skipped.jsonl").read_text().splitlines()]
    assert {(skip["what"], skip["detail"]) for skip in skipped} == {
        ("clips2_00002", "swim"),
        ("clips3_00003", "dive; eat"),
    }
    written = json.loads((tmp_path / "out/actions.json").read_text())
    assert len(written["options"]["prompts"]) == 5
    assert [row["clips"] for row in written["classes"]] == [1, 1, 1, 0, 0, 0]
    assert written["classes"][5]["top1"] is None


def test_clips_without_a_label_or_with_damage_are_counted(tmp_path: Path, model: Path, classes: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    broken = stored_clip("broken", 0)
    object.__setattr__(broken, "pixels", b"\0" * len(broken.pixels))
    write_shard(
        folder / "000000.tar", [stored_clip("a", 0), stored_clip("a", 1), stored_clip("b", 0), broken]
    )
    labels = tmp_path / "labels.csv"
    labels.write_text("video_id,label\na,dive\nbroken,eat\nc,\n")
    options = ["--model", model, "--shards", folder, "--classes", classes, "--labels", labels]
    result = run(*options, "--prompt", "{}", "--num-frames", 2, "--bootstrap", 0)
    assert result.exit_code == 0, result.output
    assert "2 clips of 1 class," in result.stdout and "interval" not in result.stdout
    assert "skipped 3: bad_label 1, damaged_sample 1, no_label 1" in result.stdout


def test_classes_in_every_form(tmp_path: Path) -> None:
    forms = {
        "a.txt": "dive\nbrush_hair\n",
        "a.json": '["dive", "brush hair"]',
        "b.json": '{"brush_hair": "1", "dive": "0"}',
        "c.json": '{"10": "brush_hair", "9": "dive"}',
        "d.json": '{"dive": 0, "brush [hair]": 1}',
    }
    for name, text in forms.items():
        (tmp_path / name).write_text(text)
        assert read_classes(tmp_path / name) == ["dive", "brush hair"], name


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "dive\n", "has one class"),
        ("a.txt", "brush_hair\nBrush hair\n", "twice"),
        ("a.txt", "dive\n_\n", "without a name"),
        ("a.json", '{"a": "b", "c": "d"}', "must be a list of class names"),
        ("a.json", "[1, 2]", "must be a list of class names"),
        ("a.json", "[", "is not JSON"),
        ("a.txt", "", "is empty"),
    ],
)
def test_files_without_classes_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_classes(tmp_path / name)


def test_labels_in_every_form(tmp_path: Path) -> None:
    template = {"id": "74225", "label": "spinning a cube", "template": "Spinning [something]"}
    forms = {
        "a.csv": "label,video_id\nSpinning something,74225\n",
        "a.tsv": "file\tclass\nfolder/74225.webm\tSpinning something\n",
        "a.json": json.dumps([template]),
        "a.jsonl": '{"id": 74225, "action": "Spinning something"}\nnonsense\n',
    }
    for name, text in forms.items():
        (tmp_path / name).write_text(text)
        labels, skips = read_labels(tmp_path / name)
        assert labels.of(ClipName("74225_00000", "74225", "74225")) == {"Spinning something"}, name
        assert [skip.reason for skip in skips] == (["bad_label"] if name == "a.jsonl" else [])
    for name, text in {"b.csv": "video,label\n", "b.json": "{}", "b.jsonl": "[]\n"}.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(DatasetError, match=name):
            read_labels(tmp_path / name)


def test_a_label_of_a_clip_goes_before_that_of_its_video(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("key,label\nv,dive\nv_00001,eat\nw,eat\nw,dive\n")
    labels, _ = read_labels(tmp_path / "l.csv")
    assert labels.of(ClipName("v_00000", "v.0.mp4", "v")) == {"dive"}
    assert labels.of(ClipName("v_00001", "v.1.mp4", "v")) == {"eat"}
    assert labels.of(ClipName("w_00000", "w", "w")) == {"dive", "eat"}
    assert labels.of(ClipName("x_00000", "", "")) == set()


def test_mistakes_are_one_line(tmp_path: Path, model: Path, shards: Path, classes: Path) -> None:
    labels = write_lines(tmp_path / "labels.jsonl", {"video": "video0", "label": "juggling"})
    given = {"--model": model, "--shards": shards, "--classes": classes, "--labels": labels}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"--shards": tmp_path / "nowhere"}, "nowhere: no such folder of shards"),
        ({"--model": tmp_path / "nothing"}, "nothing"),
        ({"--classes": tmp_path / "missing.txt"}, "missing.txt: cannot be read"),
        ({"--labels": tmp_path / "missing.csv"}, "missing.csv: cannot be read"),
        ({"--prompt": "a video"}, "put {} where the class is to stand"),
        ({}, "no clip has a label that is a class (no_label 4, unknown_label 4); look at --labels"),
        ({"--labels": None}, "no clip has a label that is a class (no_label 8); give --labels"),
    ]
    for change, message in cases:
        options = {**given, **change, "--out": tmp_path / "out"}
        result = run(
            *(part for name, value in options.items() if value is not None for part in (name, value))
        )
        assert result.exit_code == 1 and isinstance(result.exception, SystemExit), (message, result.exception)
        errors = [line for line in result.output.splitlines() if line.startswith("Error: ")]
        assert len(errors) == 1 and message in errors[0], result.output
        assert not (tmp_path / "out").exists()
