"""A plain CLIP as the model and as a baseline: numbers by hand, in the file, the table and the page."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clipvip
import commands
from clipvip.analysis.classification import class_scores, mean_of_prompts
from clipvip.analysis.retrieval import embedding_ranks
from clipvip.model import ClipVip
from clipvip.pipeline.evaluate.cli import main
from commands import error_of
from html_page import HtmlPage
from make_shards import make_shard_folder
from plain_clip import shards_by_hand, texts_by_hand
from tiny_clip import make_clip, make_text_tower
from tiny_siglip import make_siglip
from zero_shot_files import CLASSES, OPTIONS, write_zero_shot_files

run = partial(commands.run, program=main)
run_well = partial(commands.run_well, program=main)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models (`vip` of 4 frames), shards, questions and classes."""
    folder = tmp_path_factory.mktemp("world")
    ClipVip.from_clip(make_clip(folder / "clip"), num_frames=4).save_pretrained(folder / "vip")
    make_siglip(folder / "siglip")
    keys, *_ = shards_by_hand(
        folder / "clip", make_shard_folder(folder / "shards", num_shards=2), num_frames=1
    )
    write_zero_shot_files(folder, keys)
    return folder


def words_of(folder: Path, name: str) -> list[str]:
    files = {
        "retrieval": [],
        "multiple-choice": ["--questions", str(folder / "questions.jsonl")],
        "actions": ["--classes", str(folder / "classes.txt"), "--labels", str(folder / "labels.csv")],
    }
    return [name, "--device", "cpu", "--shards", str(folder / "shards"), *files[name]]


TESTS = ("retrieval", "multiple-choice", "actions")


def result_of(out: Path, name: str) -> dict[str, Any]:
    return json.loads((out / f"{name.replace('-', '_')}.json").read_text())


def by_hand(folder: Path, plain: str, name: str, num_frames: int) -> dict[str, float]:
    """The numbers of a test out of transformers' embeddings of single frames."""
    _, texts, videos = shards_by_hand(folder / plain, folder / "shards", num_frames=num_frames)
    if name == "retrieval":
        return embedding_ranks(texts_by_hand(folder / plain, texts).numpy(), videos).metrics()
    if name == "multiple-choice":
        choices = (videos @ texts_by_hand(folder / plain, OPTIONS).numpy().T).argmax(axis=1)
        return {"accuracy": float((choices == np.arange(len(choices)) % 5).mean())}
    prompts = [f"a person {name}" for name in CLASSES]
    classes = mean_of_prompts(texts_by_hand(folder / plain, prompts).numpy()[:, None])
    scores = class_scores(videos @ classes.T, np.arange(len(videos)) % 3, resamples=0)
    return {"top1": scores.top1, "top5": scores.top5, "mean_per_class": scores.mean_per_class}


@pytest.mark.parametrize("plain", ["clip", "siglip"])
@pytest.mark.parametrize("name", TESTS)
def test_the_numbers_of_a_plain_model_are_those_by_hand(
    folder: Path, name: str, plain: str, tmp_path: Path
) -> None:
    if plain == "siglip":  # whose colours are not CLIP's
        plain = str(tmp_path / "siglip")
        shutil.copytree(folder / "siglip", plain)
        clip = {
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
        }
        Path(plain, "preprocessor_config.json").write_text(json.dumps(clip))
    prompt = ["--prompt", "a person {}"] if name == "actions" else []
    options = [*words_of(folder, name), *prompt]
    model = str(folder / plain)
    run_well(*options, "--model", model, "--out", tmp_path / "alone")
    alone = result_of(tmp_path / "alone", name)
    found = alone["metrics"]["plain"]["text_to_video"] if name == "retrieval" else alone
    expected = by_hand(folder, plain, name, 12)
    assert {key: found[key] for key in expected} == pytest.approx(expected)
    assert alone["num_frames"] == 12 and "baselines" not in alone

    # Beside a model of four frames it sees four, too.
    vip = str(folder / "vip")
    run_well(*options, "--model", vip, "--out", tmp_path / "vip")
    run_well(*options, "--model", vip, "--baseline", model, "--out", tmp_path / "both")
    both = result_of(tmp_path / "both", name)
    (beside,) = both["baselines"].items()
    assert beside[0] == model and beside[1]["num_frames"] == 4
    found = beside[1]["metrics"]["plain"]["text_to_video"] if name == "retrieval" else beside[1]
    expected = by_hand(folder, plain, name, 4)
    assert {key: found[key] for key in expected} == pytest.approx(expected)
    # The model's own numbers are as without.
    del both["baselines"], both["options"]["baselines"]
    assert both == result_of(tmp_path / "vip", name)


@pytest.mark.parametrize("name", TESTS)
def test_table_and_page_have_a_row_for_each_with_intervals(folder: Path, name: str, tmp_path: Path) -> None:
    models = [str(folder / model) for model in ("vip", "clip", "siglip")]
    page = tmp_path / "page.html"
    options = ["--model", models[0], "--baseline", models[1], "--baseline", models[2], "--page", page]
    result = run_well(*words_of(folder, name), *options, "--out", tmp_path)
    written = result_of(tmp_path, name)
    assert list(written["baselines"]) == models[1:]
    rows = [line.split() for line in result.stdout.splitlines() if line.split()[-1:] != [] and " to " in line]
    on_page = HtmlPage(page.read_bytes()).text
    for model, one in zip(models, [written, *written["baselines"].values()], strict=True):
        if name == "retrieval":
            of = one["metrics"]["plain"]["text_to_video"]
            share, ends = of["r5"], of["intervals"]["r5"]
        elif name == "actions":
            share, ends = one["top1"], one["intervals"]["top1"]
        else:
            share, ends = one["accuracy"], one["interval"]
        shown = f"{100 * share:.1f}", f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}"
        (row,) = [line for line in rows if model in line][:1]
        assert shown[0] in row and shown[1] in " ".join(row)
        assert model in on_page and shown[1] in on_page
    assert "</script" not in page.read_text() and "http" not in page.read_text().split("<body>")[1]


def test_a_page_without_baselines_and_no_intervals(folder: Path, tmp_path: Path) -> None:
    options = ["--model", folder / "vip", "--bootstrap", 0, "--page", tmp_path / "page.html"]
    plain = run_well(*words_of(folder, "retrieval"), *options[:-2])
    assert run_well(*words_of(folder, "retrieval"), *options).stdout == plain.stdout
    assert "text to video" in HtmlPage((tmp_path / "page.html").read_bytes()).text


def test_texts_are_cut_alike_but_to_what_a_baseline_takes(folder: Path, tmp_path: Path) -> None:
    for given, wanted in (((), 24), (("--max-text-tokens", 9), 9)):
        out = tmp_path / str(wanted)
        options = ["--model", folder / "vip", "--baseline", folder / "siglip", "--out", out, *given]
        run_well(*words_of(folder, "retrieval"), *options)
        written = result_of(out, "retrieval")
        assert written["baselines"][str(folder / "siglip")]["max_text_tokens"] == wanted


def test_from_python(folder: Path) -> None:
    report = clipvip.retrieval(
        model=folder / "vip", shards=folder / "shards", baselines=folder / "clip", device="cpu", bootstrap=0
    )
    (beside,) = report.baselines.values()
    expected = by_hand(folder, "clip", "retrieval", 4)
    assert beside.metrics["plain"].text_to_video.mean_rank == pytest.approx(expected["mean_rank"])


def test_mistakes_are_one_line(folder: Path, tmp_path: Path) -> None:
    text = make_text_tower(tmp_path / "text")
    toneless = shutil.copytree(folder / "clip", tmp_path / "toneless")
    for path in toneless.glob("tokenizer*"):
        path.unlink()
    cases = [
        (["--baseline", text], "text: holds a model of type 'clip_text_model', expected clip or clip_vip"),
        (["--baseline", tmp_path / "nowhere"], "nowhere: no such model folder"),
        (["--baseline", toneless], "toneless: has no tokenizer"),
        (["--baseline", folder / "vip"], "vip: is given twice, or is the --model"),
        (
            ["--baseline", folder / "clip", "--baseline", folder / "clip"],
            "clip: is given twice, or is the --model",
        ),
        (["--page", tmp_path / "x" / "page.html"], "there is no folder"),
    ]
    for options, says in cases:
        words = [
            *words_of(folder, "retrieval"),
            "--model",
            folder / "vip",
            "--out",
            tmp_path / "out",
            *options,
        ]
        assert says in error_of(run(*words)), options
    assert not (tmp_path / "out").exists()
