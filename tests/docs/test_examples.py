"""Every public function has an example in its docstring, and it prints what it says."""

import doctest
import inspect
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from safetensors.torch import save_file

from clipvip.pipeline.runtime.report import StageReport
from clipvip.pipeline.runtime.stage import Stage, StageOptions, stage_command
from doc_folder import copy_doc_folder, make_doc_folder
from goldens import tensors
from openclip_models import ARCHITECTURES, NAME
from resources import need
from tiny_whisper import make_whisper

PACKAGES = (
    "clipvip",
    "clipvip.analysis",
    "clipvip.media",
    "clipvip.model",
    "clipvip.model.ofa",
    "clipvip.shards",
)
# A stage's options are shown in the example of the stage; nobody but a function makes the others.
SHOWN_ELSEWHERE = (StageOptions, StageReport, Exception)
RESULTS = {"ClipCaption", "ClipRecord", "ClipVipOutput", "DecodedClip", "DomainGap", "Ranks", "Sample"}


def is_shown_by_another(name: str, offered: Any) -> bool:
    is_shown = inspect.isclass(offered) and issubclass(offered, SHOWN_ELSEWHERE)
    return is_shown or name in RESULTS or isinstance(offered, str) or inspect.ismodule(offered)


def public() -> dict[str, Any]:
    """What the packages offer, each once, under the first of its names."""
    found: dict[int, tuple[str, Any]] = {}
    for package in map(import_module, PACKAGES):
        for name in getattr(package, "__all__", ()):
            offered = getattr(package, name)
            if not is_shown_by_another(name, offered):
                found.setdefault(id(offered), (f"{package.__name__}.{name}", offered))
    return dict(found.values())


PUBLIC = public()


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given")
    make_doc_folder(folder)
    kind, prefix = "exact_gelu", "exact_gelu/weights/"
    state = {name.removeprefix(prefix): one for name, one in tensors(NAME).items() if name.startswith(prefix)}
    save_file(state, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps(ARCHITECTURES[kind]))
    return folder


@pytest.mark.parametrize("name", PUBLIC)
def test_the_example_prints_what_it_says(
    name: str, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = PUBLIC[name]
    examples = doctest.DocTestParser().get_doctest(offered.__doc__ or "", {}, name, None, None)
    assert any(example.want for example in examples.examples), f"{name}: has no example"
    if name == "clipvip.transcribe":
        need("faster_whisper")
        make_whisper(tmp_path / "whisper")
    copy_doc_folder(given, tmp_path, written=set())
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    failures, _ = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(examples, out=said.append)
    assert not failures, "".join(said)


def test_help_of_a_command_leaves_the_example_of_the_function_out() -> None:
    stages = {name: one for name, one in PUBLIC.items() if isinstance(one, Stage)}
    assert len(stages) >= 16
    for name, one in stages.items():
        shown = CliRunner().invoke(stage_command(one), ["--help"]).output
        assert ">>>" not in shown and "Usage" in shown, name
