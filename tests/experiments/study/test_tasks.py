"""Tasks run in the order of their needs, once each, and a failure keeps what is finished."""

import json
import os
import shlex
import signal
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from clipvip.experiments.study.stages import SpoilOptions, WorldOptions, make_world, spoil_captions
from clipvip.experiments.study.tasks import Task, is_finished, log_path, run_tasks
from clipvip.pipeline.domain_gap.stage import DomainGapOptions, nmi
from clipvip.pipeline.evaluate.retrieval import RetrievalOptions, retrieval
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.train.stage import TrainOptions, train
from clipvip.shards.format.captions import captions_path, write_captions
from commands import start
from left_over import MARK, processes_of, wait_until
from make_shards import make_captioned_folder


def made(name: str, folder: Path, *needs: str, captions: str = "captions") -> Task:
    """A task that exchanges captions: a quick stage that writes files."""
    if not (folder / "shards").exists():
        make_captioned_folder(folder / "shards", [["one"], ["two"]])
        (folder / "captions").mkdir()
        write_captions(captions_path(folder / "captions", "000000"), [("shards0", "one"), ("shards1", "two")])
    options = SpoilOptions(
        shards=folder / "shards", captions=folder / captions, rate=0.5, seed=0, out=folder / name
    )
    return Task(name, spoil_captions, options, needs)


def failing(*needs: str, cost: float = 1.0) -> Task:
    return Task("bad", retrieval, RetrievalOptions(model="nowhere", shards=Path("none")), needs, cost=cost)


def test_each_task_runs_once_and_after_what_it_needs(tmp_path: Path) -> None:
    first = made("one/first", tmp_path)
    second = made("two", tmp_path, "one/first", captions="one/first")  # what the first writes
    assert run_tasks([second, first], tmp_path / "out", jobs=2) == 2
    assert "2 captions replaced by those of other clips" in log_path(second, tmp_path / "out").read_text()
    before = (tmp_path / "one/first/000000.parquet").stat().st_mtime_ns
    assert run_tasks([second, first], tmp_path / "out", jobs=2) == 0
    assert (tmp_path / "one/first/000000.parquet").stat().st_mtime_ns == before
    assert (tmp_path / "out/finished/one/first.json").stat().st_mtime_ns <= (
        tmp_path / "out/finished/two.json"
    ).stat().st_mtime_ns


def test_another_task_under_the_same_name_is_not_finished(tmp_path: Path) -> None:
    task = made("task", tmp_path)
    run_tasks([task], tmp_path / "out", jobs=1)
    assert is_finished(task, tmp_path / "out")
    assert not is_finished(replace(task, options=replace(task.options, seed=1)), tmp_path / "out")
    assert not is_finished(world("task", tmp_path), tmp_path / "out")


def test_how_a_task_was_computed_makes_no_other_task_of_it(tmp_path: Path) -> None:
    task = replace(world("task", tmp_path), how={"workers": 7})
    assert task.command[-2:] == ["--workers", "7"] or "7" in task.command
    mark = tmp_path / "out/finished/task.json"
    mark.parent.mkdir(parents=True)
    mark.write_text(json.dumps({"command": replace(task, how={}).command}))
    assert is_finished(task, tmp_path / "out")


@pytest.mark.parametrize(
    ("task", "command"),
    [
        (
            Task(
                "nmi", nmi, DomainGapOptions(sources={"a": "s"}, targets={"b": "t"}, model="m", out=Path("o"))
            ),
            "clipvip-data nmi --source a=s --target b=t --model m --out o --seed 0 --samples 1000",
        ),
        (
            Task(
                "train",
                train,
                TrainOptions("demo", shards="s", captions="", init="m", out="o", overrides=("seed=1", "a=2")),
            ),
            "clipvip-train demo --shards s --captions '' --init m --out o --set seed=1 --set a=2",
        ),
    ],
)
def test_what_an_earlier_version_finished_is_finished(task: Task, command: str, tmp_path: Path) -> None:
    """It wrote options in another order, and also those that are as by default."""
    mark = tmp_path / f"finished/{task.name}.json"
    mark.parent.mkdir()
    mark.write_text(json.dumps({"command": shlex.split(command)}))
    assert is_finished(task, tmp_path)
    for damaged in ("{", "[]", "{}", '{"command": 3}', '{"command": ["clipvip-data", "nmi", "--what"]}'):
        mark.write_text(damaged)
        assert not is_finished(task, tmp_path)


def test_a_failure_names_the_task_its_last_line_and_its_log(tmp_path: Path) -> None:
    good = made("good", tmp_path)
    bad = failing("good")
    with pytest.raises(UserError, match=r"bad: exit code 1: Error: .*none") as caught:
        run_tasks([bad, good], tmp_path / "out", jobs=1)
    assert str(log_path(bad, tmp_path / "out")) in caught.value.message
    assert is_finished(good, tmp_path / "out") and not is_finished(bad, tmp_path / "out")


def world(name: str, folder: Path) -> Task:
    """A task that takes some seconds, with processes of its own."""
    options = WorldOptions(quick=True, num_train_videos=10, seed=1, out=folder / name)
    return Task(name, make_world, options, cost=2)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_nothing_runs_on_when_a_study_ends_early(number: int, tmp_path: Path) -> None:
    """Not its workers, not their tasks, not the processes of these."""
    arguments = ("losses", "--quick", "--seeds", "1", "--workers", "2", "--out", tmp_path / "out")
    mark = uuid.uuid4().hex
    program = "clipvip.experiments.study.cli"
    process = start(*arguments, program=program, env={**os.environ, MARK: mark})
    # The study and what removes its semaphores, a worker, its task that makes the world, two workers of that.
    assert wait_until(lambda: len(processes_of(mark)) >= 6, 60), processes_of(mark)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert wait_until(lambda: not processes_of(mark), 10), processes_of(mark)


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
    bad = failing(cost=3)
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
    assert json.loads((tmp_path / "out/finished/task0.json").read_text())["command"] == tasks[0].command
