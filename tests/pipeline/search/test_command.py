"""`clipvip-eval search`: what is found, the page that shows it, and mistakes."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from clipvip.model import ClipVip
from clipvip.pipeline.search.index import (
    shards_of,
)
from clipvip.shards.tar.writer import write_shard
from commands import error_of
from html_page import HtmlPage
from make_shards import make_shard_folder, stored_clip
from search_folders import expected, make_model, run, run_well

UGLY = '<img src="http://tracker.example/x.png"> \x1b]0;title\x07 & so on'


def test_clips_are_ranked_by_the_models_similarity(model: Path, shards: Path) -> None:
    sentences = ["a dog runs", "rain  falls"]
    result = run_well(*sentences, "--model", model, "--shards", shards, "--top", 5, "--json")
    rows = json.loads(result.stdout)["clips"]
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5] * 2
    for sentence in ("a dog runs", "rain falls"):
        found = [row for row in rows if row["sentence"] == sentence]
        wanted = expected(model, shards, sentence)[:5]
        assert [row["key"] for row in found] == [key for _, key in wanted]
        assert [row["similarity"] for row in found] == pytest.approx([score for score, _ in wanted], abs=1e-5)
    video, number = re.fullmatch(r"(video\d)_000(\d\d)", rows[0]["key"]).groups()  # type: ignore[union-attr]
    assert (
        rows[0]["span_seconds"] == [10.0 * int(number), 10.0 * int(number) + 3] and rows[0]["problem"] is None
    )
    assert (rows[0]["video_id"], rows[0]["shard"]) == (video, f"00000{video[-1]}.tar")
    assert rows[0]["text"] == f"words of clip {int(number)} of {video}"

    lines = run_well("a dog runs", "--model", model, "--shards", shards, "--top", 99).stdout.splitlines()
    assert lines[0] == '"a dog runs": 12 of 12 clips' and len(lines) == 13
    start = f"    1  {rows[0]['similarity']:7.4f}  {rows[0]['key']}  {10 * int(number):.2f} to "
    assert lines[1].startswith(start) and lines[1].endswith(
        f"s of {video}  words of clip {int(number)} of {video}"
    )


def test_the_page_shows_the_clips_and_nothing_of_others_runs(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    clips = [stored_clip("v", number, subtitle=UGLY if number == 1 else "x" * 300) for number in range(3)]
    write_shard(folder / "000000.tar", clips)
    sentences = ["a <script>alert(1)</script>", "rain"]
    options = ["--model", model, "--shards", folder, "--page", tmp_path / "found.html", "--frames", 3]
    result = run_well(*sentences, *options)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", result.stdout)
    assert "x" * 99 + "…\n" in result.stdout and "x" * 100 not in result.stdout
    text = (tmp_path / "found.html").read_text()
    assert UGLY in HtmlPage(text.encode()).text
    assert text.count("data:image/jpeg;base64,") == 2 * 3 * 3
    assert "&lt;script&gt;" in text and "<script" not in text and "&lt;img src=&#34;http" in text
    assert len(re.findall(r"src=\"(?!data:)|href=", text)) == 0
    first = re.search(r"rank 1</b> similarity (-?\d\.\d{4})", text)
    assert first is not None and first[1] in result.stdout.splitlines()[1]
    assert len(re.findall(r"<b>rank \d</b>", text)) == 6
    before = (tmp_path / "found.html").read_bytes()
    run_well(*sentences, *options)
    assert (tmp_path / "found.html").read_bytes() == before


def test_a_clip_whose_shard_was_damaged_since_is_still_named(
    model: Path, shards: Path, tmp_path: Path
) -> None:
    options = ["--model", model, "--shards", shards]
    run_well(*options)
    path = shards / "000001.tar"
    path.write_bytes(b"\xff" * path.stat().st_size)
    result = run_well("a", *options, "--top", 12, "--json", "--page", tmp_path / "found.html")
    problems = [row["problem"] for row in json.loads(result.stdout)["clips"]]
    assert sum(problem is not None for problem in problems) == 4
    assert (tmp_path / "found.html").read_text().count("its record cannot be read") == 4
    assert "its record cannot be read" in run_well("a", *options, "--top", 12).stdout


def test_mistakes_are_one_line(model: Path, shards: Path, tmp_path: Path) -> None:
    toneless = shutil.copytree(model, tmp_path / "toneless")
    for path in toneless.iterdir():
        if path.name not in {"config.json", "model.safetensors"}:
            path.unlink()
    cut = make_shard_folder(tmp_path / "cut", num_shards=2)
    (cut / "000001.tar").write_bytes(b"no tar" * 1000)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "index.json").write_text("{")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/index.json").write_text('{"stage": "caption"}')
    cases = [
        (["a", "--model", model, "--shards", tmp_path / "nowhere"], "nowhere: no such folder of shards"),
        (["a", "--model", tmp_path / "nothing", "--shards", shards], "nothing"),
        (["a", " ", "--model", model, "--shards", shards], "a SENTENCE is blank"),
        (["--page", tmp_path / "p.html", "--model", model, "--shards", shards], "give a SENTENCE to find"),
        (["a", "--page", tmp_path / "x/p.html", "--model", model, "--shards", shards], "there is no folder"),
        (
            ["a", "--index", model, "--model", model, "--shards", shards],
            "holds other things than a search index",
        ),
        (["a", "--index", broken, "--model", model, "--shards", shards], "index.json: not JSON"),
        (
            ["a", "--index", tmp_path / "foreign", "--model", model, "--shards", shards],
            "this version cannot read the index",
        ),
        (["a", "--model", toneless, "--shards", shards], "has no tokenizer"),
        (["a", "--model", model, "--shards", cut], "000001.tar: not a readable tar file"),
    ]
    for arguments, message in cases:
        assert message in error_of(run(*arguments)), arguments
    assert not (shards / "search").exists() and (model / "model.safetensors").exists()
    assert (cut / "search/000000.safetensors").exists()
    assert [shard.num_clips for shard in shards_of(cut)] == [4, 4]


def test_a_model_whose_texts_are_nan_is_refused(shards: Path, tmp_path: Path) -> None:
    folder = make_model(tmp_path)
    vip = ClipVip.from_pretrained(folder)
    with torch.no_grad():
        vip.text_projection.weight.fill_(3e38)  # overflows
    vip.save_pretrained(folder)
    assert "the sentences' embeddings hold NaN" in error_of(run("a", "--model", folder, "--shards", shards))
