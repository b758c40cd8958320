"""What the Hub refuses is a sentence that says what to do."""

from collections.abc import Iterator
from pathlib import Path

import click
import huggingface_hub
import pytest
from click.testing import CliRunner

from clipvip.hub_errors import hub_problem
from clipvip.model import ClipVip, hub
from clipvip.model.errors import CheckpointError
from clipvip.model.ofa import OfaForConditionalGeneration
from clipvip.pipeline.cli import main as data
from clipvip.pipeline.evaluate.cli import main as evaluate
from clipvip.pipeline.train.command import main as train
from make_shards import make_shard_folder
from refusing_hub import refusing_hub
from tiny_clip import make_clip

CLOSED = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with refusing_hub() as address:
        yield address


def refused(name: str, endpoint: str, folder: Path) -> str:
    with pytest.raises((OSError, ValueError)) as found:
        huggingface_hub.hf_hub_download(name, "config.json", endpoint=endpoint, cache_dir=folder)
    try:
        raise OSError("We couldn't load it, as a library says") from found.value
    except OSError as wrapped:
        assert hub_problem(name, wrapped) == hub_problem(name, found.value)
    return hub_problem(name, found.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("owner/gated", "owner/gated: is gated on the Hugging Face Hub; ask for access at its page"),
        ("owner/absent", "has none of that name; check the spelling, OWNER/NAME, or if it is a private one"),
        ("misspelt", "misspelt: no such folder, and the Hugging Face Hub has none of that name"),
        (
            "owner/forbidden",
            "owner/forbidden: the Hugging Face Hub refuses it (403); log in by 'hf auth login'",
        ),
        pytest.param(
            "owner/broken",
            "does not answer (500); check the network and try again",
            marks=pytest.mark.slow,  # the Hub's library asks again and again
        ),
        ("a b/c/d", "a b/c/d: no such folder, and no name that the Hugging Face Hub can have"),
    ],
)
def test_each_refusal_says_what_to_do(
    name: str, words: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    problem = refused(name, address, tmp_path)
    assert words in problem and "\n" not in problem, problem


@pytest.mark.slow
def test_no_network_and_no_permission_to_use_it_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "HF_HUB_OFFLINE is set; unset it" in refused("owner/some", CLOSED, tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    assert "does not answer; check the network" in refused("owner/some", CLOSED, tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "owner/forbidden",
            "the Hugging Face Hub refuses it (403); log in by 'hf auth login' with a token that may write",
        ),
        (
            "owner/absent",
            "the Hugging Face Hub refuses it (401); log in by 'hf auth login' with a token that may write",
        ),
        ("a b/c/d", "no name that the Hugging Face Hub can have; give OWNER/NAME"),
        ("owner/offline", "not asked since HF_HUB_OFFLINE is set; unset it"),
    ],
)
def test_an_upload_says_what_to_do(
    name: str, words: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", name.endswith("offline"))
    monkeypatch.setattr(hub, "HfApi", lambda **options: huggingface_hub.HfApi(endpoint=address, **options))
    model = ClipVip.from_clip(make_clip(tmp_path / "clip"))
    with pytest.raises(OSError) as found:
        model.push_to_hub(name)
    assert str(found.value).startswith(f"{name}: ") and words in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("url", "page"),
    [
        ("hf://datasets/owner/gated/clips/of.tar", "https://huggingface.co/datasets/owner/gated)"),
        ("hf://datasets/owner/gated", "https://huggingface.co/datasets/owner/gated)"),
        ("owner/gated", "https://huggingface.co/owner/gated)"),
    ],
)
def test_a_gated_data_set_is_asked_for_at_its_own_page(
    url: str, page: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(OSError) as found:
        huggingface_hub.hf_hub_download("owner/gated", "of.tar", endpoint=address, cache_dir=tmp_path)
    assert page in hub_problem(url, found.value)


def test_a_data_set_is_in_no_cache(tmp_path: Path) -> None:
    found = CliRunner().invoke(data, ["stats", "hf://datasets/owner/some/clips"])
    assert found.exit_code == 1
    assert found.stderr.splitlines()[-1].endswith(
        "the Hugging Face Hub is not asked since HF_HUB_OFFLINE is set; unset it, or give a folder"
    )


def test_what_is_not_of_the_hub_is_left_to_others() -> None:
    assert hub_problem("folder", FileNotFoundError("no such file")) == ""
    assert hub_problem("folder", ValueError("a damaged file")) == ""


NAME = "owner/some"
COMMANDS = {
    "caption": (data, "caption --shards SHARDS --out OUT --gpus 0 --model"),
    "nmi": (data, "nmi --source a=TEXTS --target b=TEXTS --samples 2 --out OUT --model"),
    "train": (train, "demo --shards SHARDS --captions SHARDS --gpus 0 --out OUT --init"),
    "retrieval": (evaluate, "retrieval --shards SHARDS --model"),
    "search": (evaluate, "search words --shards SHARDS --model"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_so_of_its_model(command: str, tmp_path: Path) -> None:
    program, words = COMMANDS[command]
    assert isinstance(program, click.Command)
    shards = make_shard_folder(tmp_path / "shards", num_shards=1, clips_per_shard=3, num_frames=1)
    (tmp_path / "texts.txt").write_text("one\ntwo\nthree\n")
    places = {"SHARDS": str(shards), "OUT": str(tmp_path / "out"), "TEXTS": str(tmp_path / "texts.txt")}
    for word, place in places.items():
        words = words.replace(word, place)
    found = CliRunner().invoke(program, [*words.split(), NAME])
    assert found.exit_code == 1
    assert f"{NAME}: no such folder, and not in the cache" in found.stderr.splitlines()[-1], found.stderr
    assert not (tmp_path / "out").exists()


def test_python_says_so_too() -> None:
    for load in (ClipVip.from_pretrained, ClipVip.from_clip, OfaForConditionalGeneration.from_pretrained):
        with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE is set; unset it"):
            load(NAME)
