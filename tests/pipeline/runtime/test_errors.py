"""Expected failures are one line and an exit code."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import clipvip
from clipvip.model.errors import CheckpointError
from clipvip.pipeline.cli import main as data
from clipvip.pipeline.evaluate.cli import main as evaluate
from clipvip.pipeline.runtime.errors import StageCommand, UserError
from clipvip.shards.errors import DatasetError


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (DatasetError("x.tar: broken;\nmake it again"), "Error: x.tar: broken; make it again\n"),
        (CheckpointError("folder: no config.json"), "Error: folder: no config.json\n"),
        (UserError("--fps: must be positive"), "Error: --fps: must be positive\n"),
        (PermissionError(13, "Permission denied", "out"), "Error: out: permission denied\n"),
        (OSError("disk gone"), "Error: disk gone\n"),
    ],
)
def test_expected_failures_are_one_line(error: Exception, line: str) -> None:
    @click.command(cls=StageCommand)
    def command() -> None:
        raise error

    result = CliRunner().invoke(command)
    assert (result.exit_code, result.output) == (1, line)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 8.00 GiB for an array"),
        OSError(12, "Cannot allocate memory"),
        ImportError("libtorch.so: failed to map segment from shared object"),
        RuntimeError("can't start new thread"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
    ],
)
def test_too_little_memory_is_one_line(error: Exception) -> None:
    @click.command(cls=StageCommand)
    def command() -> None:
        raise error

    result = CliRunner().invoke(command)
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert result.output.startswith("Error: not enough memory") and "ulimit -v" in result.output


def test_a_mistake_of_ours_keeps_its_traceback() -> None:
    @click.command(cls=StageCommand)
    def command() -> None:
        raise RuntimeError("bug")

    assert isinstance(CliRunner().invoke(command).exception, RuntimeError)


def test_ctrl_c_says_how_to_go_on() -> None:
    @click.command(cls=StageCommand)
    def command() -> None:
        raise KeyboardInterrupt

    result = CliRunner().invoke(command)
    assert result.exit_code == 130
    assert "same command goes on" in result.output


def test_an_end_of_data_that_nothing_expected_is_not_taken_for_the_end_of_an_answer() -> None:
    """Click says "Aborted!" of an EOFError, and not a word of what happened."""

    @click.command(cls=StageCommand)
    def command() -> None:
        raise EOFError

    result = CliRunner().invoke(command)
    assert isinstance(result.exception, RuntimeError) and "Aborted" not in result.output


def test_an_empty_path_is_not_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a variable of the shell that is not set."""
    monkeypatch.chdir(tmp_path)
    for words in (("--shards", "", "--out", "x"), ("--shards", ".", "--out", "")):
        result = CliRunner().invoke(data, ["filter", *words])
        assert result.exit_code == 2 and "is empty; give a value, or leave it out" in result.output
    result = CliRunner().invoke(data, ["inspect", ""])
    assert result.exit_code == 2 and "'SHARD_OR_DIR': is empty" in result.output
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="the path is empty"):
        clipvip.filter(shards="", out="x")


@pytest.mark.parametrize(
    ("program", "words", "most"),
    [
        (data, ("caption", "--num-beams", "1000000"), "100"),
        (data, ("caption", "--max-length", "1000000"), "10,000"),
        (data, ("nmi", "--repeats", "2000000000"), "1,000,000"),
        (data, ("interpolate", "--bootstrap", "2000000000"), "1,000,000"),
        (evaluate, ("retrieval", "--bootstrap", "2000000000"), "1,000,000"),
    ],
)
def test_numbers_that_would_take_all_memory_or_never_end_are_refused(
    program: click.Command, words: tuple[str, ...], most: str
) -> None:
    result = CliRunner().invoke(program, words)
    assert result.exit_code == 2
    assert f"'{words[1]}': {int(words[2])} is more than {most}; give a smaller number" in result.output
