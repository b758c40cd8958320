"""Stages as functions: the same options, checks and results as on the command line."""

import json
import pickle
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import click
import numpy as np
import pytest
from click.testing import CliRunner
from upath import UPath

import clipvip
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.options import LocalName, Named, PlaceType, Workers, finite, opt, options
from clipvip.pipeline.runtime.report import StageReport
from clipvip.pipeline.runtime.stage import (
    StageFailed,
    StageOptions,
    command_line,
    options_in,
    stage,
    stage_command,
)
from clipvip.shards.files.stores import Location
from make_videos import make_video


@options
class ExampleOptions(StageOptions):
    folders: tuple[Path, ...] = opt(argument=True, metavar="DIR...", kw_only=False)
    out: Path = opt("Folder.")
    rate: float = opt("A rate.", finite(0, 10, above=True), default=3.0)
    kind: Literal["one", "two"] = opt("A kind.", default="one")
    names: tuple[str, ...] = opt("A name.", names=("--name",), default=())
    check: bool = opt("Look.", names=("--check/--no-check",), default=True)
    place: str = opt("A path or a URL.", default="here")
    model: str = opt("A folder or a name.", LocalName(), default="some")
    texts: Mapping[str, Path] = opt("Texts.", Named(), names=("--text",), default=())
    workers: Workers = None


@stage(ExampleOptions, "clipvip-data example")
def example(given: ExampleOptions) -> StageReport:
    """Do a thing.

    Raises:
        UserError: never.
    """
    content = {"counts": {"folders": len(given.folders)}, "seen": repr(given)}
    if given.kind == "two":
        raise StageFailed("nothing came of it", StageReport(content=content, text="failed"))
    return StageReport(content=content, text="done")


COMMAND = stage_command(example)


def test_keywords_and_the_command_line_give_the_same_options() -> None:
    words = ["a", "b", "--out", "o", "--rate", "2", "--name", "x", "--name", "y", "--no-check", "--json"]
    result = CliRunner().invoke(COMMAND, words)
    assert result.exit_code == 0, result.output
    called = example(
        folders=["a", Path("b")],  # type: ignore[arg-type]
        out="o",  # type: ignore[arg-type]
        rate=2,
        names=("x", "y"),
        check=False,
    )
    assert json.loads(result.output) == called.content
    assert example(ExampleOptions((Path("a"),), out=Path("o"))).counts == {"folders": 1}


def test_options_say_the_command_that_does_the_same() -> None:
    given = ExampleOptions((Path("a"), Path("b c")), out=Path("o"), names=("x", "y"), check=False, workers=2)
    words = command_line(example, given)
    shown = "clipvip-data example a 'b c' --out o --name x --name y --no-check --workers 2"
    assert shlex.join(words) == shown
    result = CliRunner().invoke(COMMAND, [*words[2:], "--json"])
    assert json.loads(result.output) == example(given).content
    assert options_in(example, words) == given
    with pytest.raises(click.UsageError, match="not a command 'clipvip-data example'"):
        options_in(example, ["clipvip-data", "shard", *words[2:]])


def test_a_stage_goes_to_other_processes() -> None:
    assert pickle.loads(pickle.dumps(example)) is example  # noqa: S301 (of our own making)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rate": 0}, "rate: 0.0 is not in the range 0<x<=10"),
        ({"rate": float("nan")}, "rate: give a number"),
        ({"kind": "three"}, "kind: 'three' is not one of 'one', 'two'"),
        ({"workers": 0}, "workers: 0 is not in the range x>=1"),
        ({"out": "s3://bucket/out"}, "a URL cannot be used here"),
        ({"workers": 2.7}, "workers: 2.7 is not a whole number"),
        ({"workers": True}, "workers: True is not a whole number"),
        ({"rate": None}, "rate: None is not a number"),
        ({"check": 2}, "check: 2 is not True or False"),
        ({"place": None}, "place: None cannot be used"),
        ({"place": ["a"]}, "place: ['a'] cannot be used"),
        ({"model": None}, "model: None cannot be used"),
        ({"out": None}, "out: None cannot be used"),
        ({"out": 3}, "out: 3 cannot be used"),
        ({"names": 3}, "names: 3 cannot be used"),
        ({"folders": (None,)}, "folders: (None,) cannot be used"),
        ({"texts": {"a": None}}, "texts: {'a': None} cannot be used"),
        ({"texts": [("a", "b", "c")]}, "texts: [('a', 'b', 'c')] cannot be used"),
    ],
)
def test_values_are_checked_as_on_the_command_line(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as error:
        example(**({"folders": ("a",), "out": "o"} | wrong))  # type: ignore[arg-type]
    assert message in error.value.message


@options
class PlaceOptions(StageOptions):
    """Options that take paths and URLs."""

    folders: tuple[Location, ...] = opt(argument=True, metavar="DIR...", kw_only=False)
    out: Location | None = opt("Folder.", PlaceType(file_okay=False), default=None)


@stage(PlaceOptions, "clipvip-data places")
def places(given: PlaceOptions) -> StageReport:
    """Say what was given."""
    return StageReport(content={}, text=" ".join(map(str, (*given.folders, given.out))))


def test_a_place_is_a_path_or_a_url(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    made = places(("a", Path("b"), f"file://{tmp_path}", UPath("https://host/c")), out="https://host/d")  # type: ignore[arg-type]
    assert made.text == f"a b {tmp_path} https://host/c https://host/d"
    assert places("a").text == "a None"  # type: ignore[arg-type]
    for wrong, said in {
        "memory://x": "--out memory://x: the memory of one process",
        "nothing://x": "--out nothing://x: ",
        str(tmp_path / "file"): "is a file",
    }.items():
        result = CliRunner().invoke(stage_command(places), ["a", "--out", wrong])
        assert result.exit_code in (1, 2) and said in result.output, result.output
        with pytest.raises(UserError):
            places("a", out=wrong)  # type: ignore[arg-type]


def test_numbers_and_paths_may_be_those_of_libraries() -> None:
    given = ExampleOptions(
        ("a",),  # type: ignore[arg-type]
        out=UPath("o"),  # type: ignore[arg-type]
        place=UPath("memory://bucket/clips"),  # type: ignore[arg-type]
        model=Path("m"),  # type: ignore[arg-type]
        rate=np.float32(0.5),  # type: ignore[arg-type]
        workers=np.int64(2),  # type: ignore[arg-type]
    )
    assert (given.out, given.place, given.model) == (Path("o"), "memory://bucket/clips", "m")
    assert (given.rate, given.workers) == (0.5, 2) and type(given.workers) is int


def test_help_is_the_docstring_without_its_errors() -> None:
    text = CliRunner().invoke(COMMAND, ["--help"]).output
    assert "Do a thing." in text and "Raises" not in text
    assert "[default: (one per core); x>=1]" in " ".join(text.split())


def test_a_stage_with_nothing_to_show_prints_its_report_and_fails() -> None:
    result = CliRunner().invoke(COMMAND, ["a", "--out", "o", "--kind", "two"])
    assert result.exit_code == 1
    assert result.stdout == "failed\n" and result.stderr == "Error: nothing came of it\n"
    with pytest.raises(StageFailed) as error:
        example(folders=("a",), out="o", kind="two")  # type: ignore[arg-type]
    assert error.value.report.counts == {"folders": 1}


SCRIPT = """
import sys
import clipvip

report = clipvip.shard(metadata="clips.jsonl", videos="videos", out="clips", workers=2)
print(report.counts["clips"])
"""


def test_a_script_of_two_lines_shards_with_several_processes(tmp_path: Path) -> None:
    """Without `if __name__ == "__main__"`: the processes that it starts do not run the script again."""
    clips = []
    for name in ("one", "two"):
        make_video(tmp_path / "videos" / f"{name}.mp4", num_frames=30)
        clip = {"clip_id": f"{name}.0.mp4", "span": ["00:00:00.000", "00:00:01.000"]}
        clips.append(json.dumps({"video_id": name, "clip": [clip]}))
    (tmp_path / "clips.jsonl").write_text("\n".join(clips))
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr


def test_what_is_offered_is_there_and_loaded_when_asked_for() -> None:
    for name in clipvip.__all__:
        assert getattr(clipvip, name) is not None
    with pytest.raises(AttributeError, match="shrad"):
        _ = clipvip.shrad  # type: ignore[attr-defined]
    assert isinstance(clipvip.ShardOptions(metadata="m", videos="v", out="o"), StageOptions)
    assert isinstance(COMMAND, click.Command)
