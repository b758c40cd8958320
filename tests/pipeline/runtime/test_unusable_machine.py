"""What a command cannot work with or in is one line.

A URL for a path, a folder that is gone, too little memory.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from doc_blocks import PROGRAMS

URL = "s3://bucket/run"
# Where URLs work, or are told apart later.
TAKES_URLS = {
    ("clipvip-data shard", "--metadata"),
    ("clipvip-data shard", "--videos"),
    ("clipvip-data shard", "--subtitles"),
    ("clipvip-data shard", "--out"),
    ("clipvip-data caption", "--model"),
    ("clipvip-data clips", "--subtitles"),
    ("clipvip-data clips", "--subtitle-encoding"),
    ("clipvip-data shard", "--subtitle-encoding"),
    ("clipvip-data shard", "--from-shards"),
    ("clipvip-data nmi", "--source"),
    ("clipvip-data nmi", "--model"),
    ("clipvip-data nmi", "--target"),
    ("clipvip-data filter", "--model"),
    ("clipvip-data filter", "--test"),
    ("clipvip-study start", "--init"),
    ("clipvip-train", "--shards"),
    ("clipvip-train", "--captions"),
    ("clipvip-train", "--out"),
    ("clipvip-train", "--init"),
    *(
        (f"clipvip-eval {name}", option)
        for name in ("retrieval", "multiple-choice", "actions", "search", "benchmark")
        for option in ("--model", "--baseline")
    ),
    ("clipvip-train", "--validation"),
    ("clipvip-train", "--test"),
}


def path_parameters() -> list[tuple[str, str]]:
    """(command, option or argument) of all that may name a file or folder, by type or by what their help
    says.
    """
    found = []
    for name, program in PROGRAMS.items():
        subs = program.list_commands(click.Context(program)) if isinstance(program, click.Group) else [""]
        for sub in subs:
            command = program.get_command(click.Context(program), sub) if sub else program
            assert command is not None
            found += [(f"{name} {sub}".strip(), one.opts[0]) for one in command.params if _may_be_path(one)]
    return [pair for pair in found if pair not in TAKES_URLS]


def _may_be_path(parameter: click.Parameter) -> bool:
    if isinstance(parameter.type, click.Path) or getattr(parameter.type, "func", None) is Path:
        return True
    words = f"{parameter.metavar or ''} {getattr(parameter, 'help', '') or ''}".lower()
    return parameter.type.name == "text" and any(word in words for word in ("dir", "folder", "file", "path"))


@pytest.mark.parametrize(("called", "option"), path_parameters())
def test_a_url_where_a_path_is_wanted_is_refused(
    called: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    program, *subs = called.split()
    recipe = ["demo"] if called == "clipvip-train" else []
    value = f"name={URL}" if option in {"--source", "--target"} else URL
    words = [*subs, *recipe, *([option] if option.startswith("-") else []), value]
    result = CliRunner().invoke(PROGRAMS[program], words)
    assert result.exit_code == 1, result.output
    assert result.output.count("\n") == 1 and URL in result.output and "disk" in result.output
    assert not list(tmp_path.iterdir())


def test_training_refuses_them_in_settings_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for out in ("run", "s3://bucket/run"):
        words = ["demo", "--shards", "shards", "--init", "start", "--out", out, "--set", f"run.cache={URL}"]
        result = CliRunner().invoke(PROGRAMS["clipvip-train"], words)
        assert result.exit_code == 1 and result.output.count("\n") == 1, result.output
        assert f"run.cache {URL}" in result.output and not list(tmp_path.iterdir())


def _run(
    *words: str, folder: Path, before: Callable[[], None] | None = None
) -> "subprocess.CompletedProcess[str]":
    program = Path(sys.executable).with_name(words[0])
    return subprocess.run(
        [program, *words[1:]],
        check=False,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=before,
    )


COMMANDS = [
    ("clipvip-data", "stats", "/nowhere"),
    ("clipvip-data", "shard", "--metadata", "a", "--videos", "b", "--out", "c"),
    ("clipvip-train", "demo", "--shards", "a", "--init", "b", "--out", "c"),
    ("clipvip-eval", "retrieval", "--model", "a", "--shards", "b"),
    ("clipvip-demo", "run", "--out", "a"),
    ("clipvip-study", "all", "--out", "a"),
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[:2]))
def test_a_working_directory_that_is_gone_is_one_line(words: tuple[str, ...], tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()

    # The child is in the folder when it is removed.
    result = _run(*words, folder=gone, before=lambda: os.rmdir(gone))
    assert result.returncode == 1, result.stderr
    assert result.stderr == "Error: the working directory has been removed; change to another one\n"
    assert result.stdout == ""


@pytest.mark.parametrize("megabytes", [60, 150])
@pytest.mark.parametrize("words", COMMANDS[1:], ids=lambda words: " ".join(words[:2]))
def test_too_little_memory_to_begin_is_one_line(
    words: tuple[str, ...], megabytes: int, tmp_path: Path
) -> None:
    limit = megabytes << 20

    result = _run(
        *words, folder=tmp_path, before=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    )
    assert result.returncode == 1, result.stderr
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("Error: "), result.stderr
