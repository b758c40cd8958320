"""Uploads to the hub.

Everything that a user of the model needs is among them, and nothing that others wrote is lost.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import yaml
from huggingface_hub.errors import EntryNotFoundError
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers.utils import logging as transformers_logging

from clipvip.model import ClipVip
from clipvip.model.errors import CheckpointError
from goldens import assert_close
from tiny_clip import make_clip

FILES = {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


class Hub:
    """What `huggingface_hub` is asked for, in place of the network: a repository is a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.options: dict[str, Any] = {}
        folder.mkdir()

    def create_repo(self, repo_id: str, **options: Any) -> Any:
        assert options["exist_ok"]
        self.options |= options
        return type("Repository", (), {"repo_id": repo_id})()

    def hf_hub_download(self, repo_id: str, filename: str, **_: Any) -> str:
        if not (self.folder / filename).is_file():
            raise EntryNotFoundError(filename)
        return str(self.folder / filename)

    def create_commit(self, repo_id: str, operations: Any, **options: Any) -> str:
        self.options |= options | {"repo_id": repo_id}
        self.sent = {operation.path_in_repo for operation in operations}
        for operation in operations:
            content = Path(operation.path_or_fileobj).read_bytes()
            (self.folder / operation.path_in_repo).write_bytes(content)
        return "a commit"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(tmp_path / "hub")
    for name in ("create_repo", "hf_hub_download", "create_commit"):
        method = getattr(hub, name)
        monkeypatch.setattr(
            huggingface_hub.HfApi,
            name,
            lambda self, *args, method=method, **options: method(*args, **options),
        )
    return hub


@pytest.fixture
def model(tmp_path: Path) -> ClipVip:
    return ClipVip.from_clip(make_clip(tmp_path / "clip"))


def by_saving(model: ClipVip, tmp_path: Path) -> None:
    model.save_pretrained(
        tmp_path / "saved", push_to_hub=True, repo_id="me/x", private=True, commit_message="New"
    )
    assert {path.name for path in (tmp_path / "saved").iterdir()} == FILES


def by_pushing(model: ClipVip, tmp_path: Path) -> None:
    assert model.push_to_hub("me/x", private=True, commit_message="New", tags=["mine"]) == "a commit"


@pytest.mark.parametrize("push", [by_saving, by_pushing])
def test_what_is_uploaded_encodes_texts(
    push: Callable[[ClipVip, Path], None], model: ClipVip, hub: Hub, tmp_path: Path
) -> None:
    push(model, tmp_path)
    assert hub.sent == FILES
    assert (hub.options["repo_id"], hub.options["private"], hub.options["commit_message"]) == (
        "me/x",
        True,
        "New",
    )
    card = (hub.folder / "README.md").read_text()
    assert "<!-- written by clipvip" in card
    header = yaml.safe_load(card.split("---")[1])
    assert header["library_name"] == "clipvip" and ("mine" in header["tags"]) == (push is by_pushing)
    again = ClipVip.from_pretrained(hub.folder)
    assert_close(again.encode_text(["a dog"]), model.encode_text(["a dog"]), atol=1e-6)
    # Once more, with other settings: our card is written anew.
    model.config.num_frames = 3
    push(model, tmp_path)
    assert "3 of a clip" in (hub.folder / "README.md").read_text()
    assert json.loads((hub.folder / "config.json").read_text())["num_frames"] == 3


@pytest.mark.parametrize("push", [by_saving, by_pushing])
def test_a_card_that_was_written_on_the_hub_stays(
    push: Callable[[ClipVip, Path], None], model: ClipVip, hub: Hub, tmp_path: Path
) -> None:
    (hub.folder / "README.md").write_text("words of the owner")
    push(model, tmp_path)
    assert hub.sent == FILES - {"README.md"}
    assert (hub.folder / "README.md").read_text() == "words of the owner"


def test_a_card_of_ones_own_in_the_folder_is_uploaded(model: ClipVip, hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "me"
    folder.mkdir()
    (folder / "README.md").write_text("my own words")
    (folder / "notes.txt").write_text("not of the model")
    model.save_pretrained(folder, push_to_hub=True)
    assert hub.options["repo_id"] == "me" and hub.sent == FILES
    assert (hub.folder / "README.md").read_text() == (folder / "README.md").read_text() == "my own words"


def test_nothing_is_uploaded_unasked(model: ClipVip, hub: Hub, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "saved")
    assert hub.options == {} and not list(hub.folder.iterdir())
    model.save_pretrained(tmp_path / "other", False)  # another process than the main one
    assert not list((tmp_path / "other").glob("*.md"))


def test_a_model_of_the_hub_encodes_texts(model: ClipVip, hub: Hub, tmp_path: Path) -> None:
    """By its name, out of the hub's cache; what is damaged there is not taken for absent."""
    model.push_to_hub("me/x")
    repository = tmp_path / "cache" / "models--me--x"
    snapshot = repository / "snapshots" / ("0" * 40)
    shutil.copytree(hub.folder, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(snapshot.name)
    again = ClipVip.from_pretrained("me/x", cache_dir=tmp_path / "cache")
    assert_close(again.encode_text(["a dog"]), model.encode_text(["a dog"]), atol=1e-6)
    (snapshot / "tokenizer.json").write_text("<html>")
    with pytest.raises(CheckpointError, match="me/x: has no tokenizer that loads") as caught:
        ClipVip.from_pretrained("me/x", cache_dir=tmp_path / "cache")
    assert "\n" not in str(caught.value)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (snapshot / name).unlink()
    assert ClipVip.from_pretrained("me/x", cache_dir=tmp_path / "cache").tokenizer is None


@pytest.mark.parametrize("start", [ClipVip.from_pretrained, ClipVip.from_clip])
def test_a_folder_is_read_without_a_progress_bar(
    start: Callable[..., Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """And afterwards both libraries show theirs as before."""
    make_clip(tmp_path / "clip")
    ClipVip.from_clip(tmp_path / "clip").save_pretrained(tmp_path / "vip")
    capfd.readouterr()
    transformers_logging.enable_progress_bar()
    for hub_is_shown in (False, True):
        (enable_progress_bars if hub_is_shown else disable_progress_bars)()
        for name in ("clip", "vip"):
            start(tmp_path / name)
        assert capfd.readouterr().err == ""
        assert transformers_logging.is_progress_bar_enabled()
        assert are_progress_bars_disabled() != hub_is_shown
