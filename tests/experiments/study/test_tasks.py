"""Tasks run in the order of their needs, once each, and a failure keeps what is finished."""

import json
from pathlib import Path

import pytest

from clipvip.experiments.study.tasks import Task, is_finished, log_path, run_tasks
from clipvip.pipeline.runtime.errors import UserError


def made(name: str, folder: Path, *needs: str) -> Task:
    """A task that unpacks the demo's two models: a quick command of the package that writes files."""
    return Task(name, ("clipvip-demo", "models", "--out", str(folder / name)), needs)


def test_each_task_runs_once_and_after_what_it_needs(tmp_path: Path) -> None:
    first = made("one/first", tmp_path)
    second = Task(
        "two",
        # Refused unless the first has ended: its input is the first's output.
        ("clipvip-eval", "retrieval", "--help", "--model", str(tmp_path / "one/first")),
        ("one/first",),
    )
    assert run_tasks([second, first], tmp_path / "out", jobs=2) == 2
    before = (tmp_path / "one/first/clip/config.json").stat().st_mtime_ns
    assert run_tasks([second, first], tmp_path / "out", jobs=2) == 0
    assert (tmp_path / "one/first/clip/config.json").stat().st_mtime_ns == before
    assert (tmp_path / "out/finished/one/first.json").stat().st_mtime_ns <= (
        tmp_path / "out/finished/two.json"
    ).stat().st_mtime_ns


def test_another_command_under_the_same_name_is_not_finished(tmp_path: Path) -> None:
    task = made("task", tmp_path)
    run_tasks([task], tmp_path / "out", jobs=1)
    assert is_finished(task, tmp_path / "out")
    assert not is_finished(Task("task", (*task.command, "--again")), tmp_path / "out")
    assert is_finished(Task("task", task.command, how=("--workers", "7")), tmp_path / "out")


def test_a_failure_names_the_task_its_last_line_and_its_log(tmp_path: Path) -> None:
    good = made("good", tmp_path)
    bad = Task("bad", ("clipvip-eval", "retrieval", "--model", "nowhere", "--shards", "none"), ("good",))
    with pytest.raises(UserError, match=r"bad: exit code 1: Error: .*none") as caught:
        run_tasks([bad, good], tmp_path / "out", jobs=1)
    assert str(log_path(bad, tmp_path / "out")) in caught.value.message
    assert is_finished(good, tmp_path / "out") and not is_finished(bad, tmp_path / "out")


def world(name: str, folder: Path) -> Task:
    """A task that takes some seconds."""
    command = (
        "clipvip-study",
        "world",
        "--quick",
        "--videos",
        "10",
        "--seed",
        "1",
        "--out",
        str(folder / name),
    )
    return Task(name, command, cost=2)


@pytest.mark.slow
def test_a_task_begins_as_soon_as_its_needs_are_met(tmp_path: Path) -> None:
    """Not when all that began beside them have ended."""
    out = tmp_path / "out"
    chain = [made("a", tmp_path), made("b", tmp_path, "a"), made("c", tmp_path, "b")]
    assert run_tasks([world("long", tmp_path), *chain], out, jobs=2) == 4
    ended = [(out / f"finished/{name}.json").stat().st_mtime_ns for name in ("a", "b", "c", "long")]
    assert ended == sorted(ended)


@pytest.mark.slow
def test_what_runs_beside_a_failure_comes_to_its_end(tmp_path: Path) -> None:
    bad = Task("bad", ("clipvip-eval", "retrieval", "--model", "nowhere", "--shards", "none"), cost=3)
    beside, needs_bad = world("beside", tmp_path), made("later", tmp_path, "bad")
    with pytest.raises(UserError, match="bad: exit code 1"):
        run_tasks([bad, beside, needs_bad], tmp_path / "out", jobs=2)
    assert is_finished(beside, tmp_path / "out") and not is_finished(needs_bad, tmp_path / "out")


def test_tasks_that_wait_for_each_other_are_refused(tmp_path: Path) -> None:
    tasks = [made("a", tmp_path, "b"), made("b", tmp_path, "a")]
    with pytest.raises(ValueError, match="wait for each other: a, b"):
        run_tasks(tasks, tmp_path / "out", jobs=1)


@pytest.mark.slow
def test_each_of_two_gpus_is_given_to_one_task_at_a_time(tmp_path: Path) -> None:
    tasks = [made(f"task{n}", tmp_path) for n in range(4)]
    assert run_tasks(tasks, tmp_path / "out", jobs=2, num_gpus=2) == 4
    marks = sorted(path.name for path in (tmp_path / "out" / "finished").iterdir())
    assert marks == [f"task{n}.json" for n in range(4)]
    assert json.loads((tmp_path / "out/finished/task0.json").read_text())["command"] == list(tasks[0].command)
