"""`clipvip-data nmi` from files to table: the right numbers, cheap to repeat, clear about what is wrong."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

import clipvip
import commands
from clipvip.analysis.domain_gap import domain_gap
from clipvip.pipeline.domain_gap.encoder import load_text_encoder
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.stage import command_line
from clipvip.shards.files.claims import lock_folder
from clipvip.shards.sources.texts import read_texts
from make_shards import make_shard_folder
from outputs import content
from tiny_clip import make_clip, make_text_tower, tiny_tokenizer

COOKING = ["chop the onion", "boil some rice", "fry it in oil", "add salt and stir", "taste the soup"]
NUMBERS = ["0123 4567 89", "99 88 77 66", "31415 92653", "1 2 3 4 5 6 7 8", "27182 81828 45"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_text_tower(tmp_path_factory.mktemp("model") / "clip")


@pytest.fixture
def corpora(tmp_path: Path) -> dict[str, Path]:
    """Two corpora of one kind and one of another; some lines are empty."""
    paths = {}
    for name, phrases, start in [("a", COOKING, 0), ("b", COOKING, 50), ("c", NUMBERS, 0)]:
        lines = [f"{phrases[n % 5]} {phrases[n % 3]} {n}" for n in range(start, start + 40)]
        paths[name] = tmp_path / f"{name}.txt"
        paths[name].write_text("\n".join([*lines[:20], "", "   ", *lines[20:]]) + "\n")
    return paths


run = partial(commands.run, "nmi")


def options(model: Path, out: Path, *more: object) -> list[object]:
    return ["--model", model, "--out", out, "--samples", 30, "--repeats", 3, "--device", "cpu", *more]


def test_table_files_and_numbers(tmp_path: Path, model: Path, corpora: dict[str, Path]) -> None:
    out = tmp_path / "out"
    sources = ["--source", f"near={corpora['a']}", "--source", f"far={corpora['c']}"]
    result = run(*sources, "--target", f"task={corpora['b']}", *options(model, out))
    assert result.exit_code == 0, result.output
    written = json.loads((out / "nmi.json").read_text())
    assert "Warning" not in result.stderr
    assert written["sources"][0] == {"name": "near", "texts": 40, "empty": 2}
    encoder = load_text_encoder(str(model), device=torch.device("cpu"))
    features = {
        name: encoder.encode([text for text in read_texts(path) if text], batch_size=7)
        for name, path in corpora.items()
    }
    for gap, name in zip(written["gaps"], ("a", "c"), strict=True):
        expected = domain_gap(features[name], features["b"], samples=30, repeats=3)
        assert gap["values"] == pytest.approx(expected.values, abs=1e-6)
        assert f"{gap['mean']:.3f} ± {gap['std']:.3f}" in result.output
    near, far = (row["mean"] for row in written["means"])
    assert 3 * near < far
    assert result.stdout.splitlines()[0].split() == ["NMI", "task", "Mean"]
    assert (out / "nmi.png").read_bytes().startswith(b"\x89PNG")
    report = json.loads((out / "report.json").read_text())
    assert report["counts"] == {"texts": 120, "empty_texts_passed_over": 6, "pairs": 2}


def test_a_corpus_in_another_encoding_is_told_in_one_line(
    tmp_path: Path, model: Path, corpora: dict[str, Path]
) -> None:
    other = tmp_path / "other.txt"
    lines = [f"мужчина номер {number} чинит велосипед" for number in range(40)]
    other.write_bytes("\n".join(lines).encode("cp1251"))
    words = ["--source", f"ru={other}", "--target", f"b={corpora['b']}", *options(model, tmp_path / "out")]
    result = run(*words)
    assert result.exit_code == 0, result.output
    told = f"{other}: is not UTF-8, read as cp1251; if that is wrong, save the file as UTF-8"
    assert result.stderr.splitlines().count(told) == 1
    assert "Warning" not in result.stderr


def test_the_function_finds_what_the_command_finds(
    tmp_path: Path, model: Path, corpora: dict[str, Path]
) -> None:
    sources = {"near": corpora["a"], "far": corpora["c"]}
    words = [word for name, path in sources.items() for word in ("--source", f"{name}={path}")]
    words += ["--target", f"task={corpora['b']}", *options(model, tmp_path / "one", "--json")]
    result = run(*words)
    assert result.exit_code == 0, result.output
    report = clipvip.nmi(
        sources=sources,
        targets=[("task", corpora["b"])],
        model=model,
        out=tmp_path / "two",
        samples=30,
        repeats=3,
        device="cpu",
    )
    assert content(tmp_path / "two") == content(tmp_path / "one")
    assert json.loads(result.stdout) | {"this_run": None} == json.loads(
        json.dumps(report.content | {"this_run": None})
    )
    near, far = report.gaps
    assert (near.source, near.target, far.source) == ("near", "task", "far") and near.mean < far.mean
    assert len(near.values) == 3 and f"{near.mean:.3f} ± {near.std:.3f}" in str(report)


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({}, "sources: give at least one"),
        ("nonsense", "nonsense: give NAME=PATH"),
        ([("a", "one.txt"), "a=two.txt"], "--source a: given twice"),
    ],
)
def test_corpora_from_python_are_checked_as_on_the_command_line(sources: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        clipvip.DomainGapOptions(sources=sources, targets={"b": "b.txt"}, model="m", out=Path("out"))
    assert message in error.value.message


def test_corpora_have_names_in_whatever_way_they_are_given() -> None:
    rest: Any = {"targets": "b=b.txt", "model": "m", "out": "out"}
    ways: list[Any] = [{"a": Path("x=y.txt")}, [("a", "x=y.txt")], ["a=x=y.txt"], "a=x=y.txt"]
    for sources in ways:
        made = clipvip.DomainGapOptions(sources=sources, **rest)
        assert made.sources == {"a": "x=y.txt"}
    line = "clipvip-data nmi --source a=x=y.txt --target b=b.txt --model m --out out"
    assert command_line(clipvip.nmi, made) == line.split()


def test_again_encodes_nothing_and_gives_the_same_bytes(
    tmp_path: Path, model: Path, corpora: dict[str, Path]
) -> None:
    out = tmp_path / "out"
    command = ["--source", f"a={corpora['a']}", "--target", f"c={corpora['c']}", *options(model, out)]

    def encoded() -> int:
        result = run(*command)
        assert result.exit_code == 0, result.output
        return json.loads((out / "report.json").read_text())["this_run"]["texts_encoded"]

    assert encoded() > 60
    before = content(out)
    assert encoded() == 0
    # as after a run that was killed: one side's features are there, the results are not
    one, other = sorted((out / "features").iterdir())
    one.unlink()
    other.write_bytes(other.read_bytes()[:50])
    (out / "nmi.json").unlink()
    assert encoded() > 60
    assert before == content(out)


def test_features_are_never_those_of_other_texts_or_weights(
    tmp_path: Path, model: Path, corpora: dict[str, Path]
) -> None:
    out = tmp_path / "out"
    names = ["--source", f"a={corpora['a']}", "--target", f"c={corpora['c']}"]
    assert run(*names, *options(model, out)).exit_code == 0
    first = json.loads((out / "nmi.json").read_text())
    shutil.copy(corpora["b"], corpora["a"])
    assert run(*names, *options(model, out)).exit_code == 0
    assert json.loads((out / "report.json").read_text())["this_run"]["texts_encoded"] > 0
    other = make_text_tower(tmp_path / "other", seed=1)
    assert run(*names, *options(other, out)).exit_code == 0
    assert json.loads((out / "report.json").read_text())["this_run"]["texts_encoded"] > 60
    assert json.loads((out / "nmi.json").read_text())["model_sha256"] != first["model_sha256"]


def test_shards_captions_and_tables_are_corpora(tmp_path: Path, model: Path) -> None:
    shards = make_shard_folder(tmp_path / "clips", num_shards=3, clips_per_shard=4)
    captions = tmp_path / "captions"
    captions.mkdir()
    for part in range(2):
        table = pyarrow.table({"key": [f"k{n}" for n in range(7)], "caption": [*"abcdef", None]})
        pyarrow.parquet.write_table(table, captions / f"{part:06d}.parquet")
    table = tmp_path / "asr.jsonl"
    table.write_text("".join(f'{{"clip_id": "{n}", "text": ["so", "{n}"]}}\n' for n in range(12)))
    assert list(read_texts(shards))[4] == "words of clip 0 of video1"
    assert list(read_texts(captions)) == [*"abcdef", "", *"abcdef", ""]
    assert list(read_texts(table))[3] == "so 3"
    out = tmp_path / "out"
    corpora = [
        "--source",
        f"subtitles={shards}",
        "--source",
        f"captions={captions}",
        "--target",
        f"t={table}",
    ]
    result = run(*corpora, "--model", model, "--out", out, "--samples", 12, "--repeats", 2)
    assert result.exit_code == 0, result.output
    assert "Warning: --samples 12: of so few texts even equal corpora seem apart" in result.stderr
    assert json.loads((out / "nmi.json").read_text())["sources"][1] == {
        "name": "captions",
        "texts": 12,
        "empty": 2,
    }


def test_a_whole_clip_gives_its_text_towers_features(tmp_path: Path) -> None:
    folder = make_clip(tmp_path / "clip")
    from transformers import CLIPModel, CLIPTokenizer

    texts = ["a short one", "x" * 500, "one that is somewhat longer, with punctuation!"]
    tokens = CLIPTokenizer.from_pretrained(folder)(
        texts, padding=True, truncation=True, max_length=24, return_tensors="pt"
    )
    with torch.inference_mode():
        text_model = CLIPModel.from_pretrained(folder).eval()
        pooled = text_model.text_model(**tokens).pooler_output
        expected = torch.nn.functional.normalize(text_model.text_projection(pooled), dim=-1).numpy()
    encoder = load_text_encoder(str(folder), device=torch.device("cpu"))
    for batch_size in (1, 2, 8):
        found = encoder.encode(texts, batch_size=batch_size)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (encoder.encode(texts[::-1], batch_size=2)[::-1] - expected).max() < 1e-5


def test_a_clip_vip_folder_gives_that_models_features(tmp_path: Path) -> None:
    from clipvip.model import ClipVip

    vip = ClipVip.from_clip(str(make_clip(tmp_path / "clip")))
    vip.tokenizer = tiny_tokenizer()
    vip.save_pretrained(tmp_path / "vip")
    texts = ["a short one", "one that is somewhat longer"]
    encoder = load_text_encoder(str(tmp_path / "vip"), device=torch.device("cpu"))
    np.testing.assert_allclose(encoder.encode(texts, batch_size=1), vip.eval().encode_text(texts), atol=1e-5)


def test_mistakes_are_one_line_and_write_nothing(
    tmp_path: Path, model: Path, corpora: dict[str, Path]
) -> None:
    good, out = f"a={corpora['a']}", tmp_path / "out"
    empty = tmp_path / "empty"
    empty.mkdir()
    other = tmp_path / "vit"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "vit"}')
    damaged = shutil.copytree(model, tmp_path / "damaged")
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    lacking = make_text_tower(tmp_path / "lacking")
    from safetensors.torch import load_file, save_file

    tensors = load_file(lacking / "model.safetensors")
    del tensors["text_projection.weight"]
    save_file(tensors, lacking / "model.safetensors", metadata={"format": "pt"})
    bad_tar = tmp_path / "bad"
    bad_tar.mkdir()
    (bad_tar / "000000.tar").write_bytes(b"not a tar" * 200)
    cases = [
        (["--source", good, "--source", good], model, "--source a: given twice"),
        (["--source", "nonsense"], model, "--source nonsense: give NAME=PATH"),
        (["--source", f"x={tmp_path / 'absent.txt'}"], model, "absent.txt: no such file or folder of texts"),
        (["--source", f"x={empty}"], model, "holds neither shards (*.tar) nor captions"),
        (["--source", f"x={bad_tar}"], model, "not a readable tar file"),
        (
            ["--source", good, "--samples", "41"],
            model,
            "has 40 texts with words, --samples asks for 41",
        ),
        (["--source", good], tmp_path / "nowhere", "no such folder; check the path"),
        (["--source", good], empty, "not a model folder"),
        (["--source", good], other, "a model of type 'vit'"),
        (["--source", good], damaged, "the text tower does not load"),
        (["--source", good], lacking, "lacks weights of the text tower, such as text_projection.weight"),
    ]
    for arguments, model_folder, message in cases:
        result = run(*options(model_folder, out), *arguments, "--target", f"t={corpora['c']}")
        assert result.exit_code == 1, (message, result.output)
        assert isinstance(result.exception, SystemExit), (message, result.exception)
        (line,) = result.output.strip().splitlines()
        assert line.startswith("Error: ") and message in line
        assert not out.exists()


def test_two_runs_at_once_are_refused(tmp_path: Path, model: Path, corpora: dict[str, Path]) -> None:
    out = tmp_path / "out"
    sides = ["--source", f"a={corpora['a']}", "--target", f"b={corpora['b']}"]
    with lock_folder(out):
        result = run(*sides, *options(model, out))
    assert result.exit_code == 1
    assert "another run is writing here" in result.output
    assert [path.name for path in out.rglob("*")] == ["_state", "lock"]
    assert run(*sides, *options(model, out)).exit_code == 0


@pytest.mark.needs_shared
def test_real_corpora(tmp_path: Path, shared_dir: Path, model: Path) -> None:
    """The same domain twice is close to 0 whatever the model; speech and captions differ to any."""
    texts = shared_dir / "data/texts"
    sources = ["how2_dev5_transcript.txt", "didemo_train_textproxy.txt"]
    given = [part for name in sources for part in ("--source", f"{name.split('_')[0]}={texts / name}")]
    result = run(
        *(*given, "--target", f"didemo={texts / 'didemo_val_test.txt'}", "--model", model),
        *("--out", tmp_path / "out", "--samples", 500, "--repeats", 3),
    )
    assert result.exit_code == 0, result.output
    speech, same = (row["mean"] for row in json.loads((tmp_path / "out/nmi.json").read_text())["means"])
    assert same < 0.005 and 3 * same < speech
