"""Units on a Ray cluster behave as in local processes, and outlive the machines that they are on."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.ray_units import RayCluster, connect
from clipvip.pipeline.runtime.workers import run_units
from ray_nodes import find_functions_of_tests, ray_nodes
from resources import need
from unit_functions import append_line, append_line_and_hold, kill_parent, square

SUPPORT = Path(__file__).resolve().parents[2] / "support"


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    need("ray")
    import ray as module

    find_functions_of_tests(monkeypatch)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    yield module
    module.shutdown()


@pytest.mark.slow
def test_crashes_hangs_and_mistakes_are_told_as_by_local_workers(ray: Any) -> None:
    units = [0, 1, 2, 3, 4, 5, 6]
    cluster = RayCluster("local", 2)
    outcomes = {o.unit: o for o in run_units(square, units, workers=1, timeout_seconds=3.0, ray=cluster)}
    local = {o.unit: o for o in run_units(square, units, workers=2, timeout_seconds=3.0)}
    assert outcomes == local
    with pytest.raises(KeyError, match="seven"):
        list(run_units(square, [7], workers=1, ray=cluster))
    assert list(run_units(square, [], workers=1, ray=cluster)) == []


@pytest.mark.slow
def test_a_lost_machine_loses_no_unit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of two machines with two workers each one is lost while it is at work."""
    with ray_nodes(monkeypatch) as nodes:
        nodes.add_node(num_cpus=2)
        victim = nodes.add_node(num_cpus=2)
        begun, gone = tmp_path / "begun", tmp_path / "gone"
        begun.mkdir()

        def lose_it_at_work() -> None:
            while len(list(begun.iterdir())) < 6 + 4:  # then all four workers are at units that wait
                time.sleep(0.05)
            nodes.remove_node(victim, allow_graceful=False)
            gone.touch()

        loser = threading.Thread(target=lose_it_at_work, daemon=True)
        loser.start()
        units = [(begun, number, gone if number >= 6 else None) for number in range(24)]
        outcomes = list(run_units(append_line_and_hold, units, workers=1, ray=RayCluster(nodes.address)))
        loser.join()
        assert sorted(outcome.result for outcome in outcomes) == list(range(24))
        lines = [path.read_text().splitlines() for path in sorted(begun.iterdir())]
        assert len(lines) == 24
        assert sum(map(len, lines)) == 26, "what the lost machine had at hand was begun again, and no more"


@pytest.mark.slow
def test_a_machine_that_joins_gets_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with ray_nodes(monkeypatch) as nodes:
        nodes.add_node(num_cpus=1)
        units = [(tmp_path, number) for number in range(40)]
        num_done = 0
        for outcome in run_units(append_line, units, workers=1, ray=RayCluster(nodes.address)):
            assert outcome.failure is None
            num_done += 1
            if num_done == 3:
                nodes.add_node(num_cpus=1)
        assert num_done == 40
        pids = {line for path in tmp_path.iterdir() for line in path.read_text().splitlines()}
        assert len(pids) == 2


@pytest.mark.slow
def test_what_cannot_run_is_one_line(ray: Any) -> None:
    with pytest.raises(UserError, match="no machine of the cluster has 1,000 CPUs"):
        list(run_units(square, [1], workers=1, ray=RayCluster("local", cpus_per_worker=1000)))
    ray.shutdown()
    started = time.monotonic()
    with pytest.raises(UserError, match=r"--ray 127\.0\.0\.1:9: no cluster answers there"):
        connect("127.0.0.1:9")
    with pytest.raises(UserError, match="without ray://"):
        connect("ray://127.0.0.1:10001")
    assert time.monotonic() - started < 60


@pytest.mark.needs("ray")
def test_a_cluster_that_takes_too_long_to_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that is too busy. Ray raises neither an error of its own nor one of the system then."""
    words = "The current node timed out during startup. This could happen because"

    def too_late(**_: Any) -> None:
        raise Exception(words)  # noqa: TRY002 - what Ray does

    monkeypatch.setattr("ray.init", too_late)
    with pytest.raises(UserError, match=f"^--ray local: no cluster answers there .{words}"):
        connect("local")


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install '\.\[ray\]'"):
        list(run_units(square, [1], workers=1, ray=RayCluster("auto")))
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


@pytest.mark.slow
def test_work_waits_for_a_machine_when_the_last_is_lost(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with ray_nodes(monkeypatch) as nodes:
        only = nodes.add_node(num_cpus=1)
        units = [(tmp_path, number) for number in range(6)]
        outcomes = run_units(append_line, units, workers=1, ray=RayCluster(nodes.address))
        done = [next(outcomes).result]
        nodes.remove_node(only, allow_graceful=False)
        # Ray adds nodes in the main thread only, which waits for outcomes.
        before = signal.signal(signal.SIGUSR1, lambda *_: nodes.add_node(num_cpus=1))
        threading.Timer(6, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        done += [outcome.result for outcome in outcomes]
        signal.signal(signal.SIGUSR1, before)
        assert sorted(done) == list(range(6))


@pytest.mark.slow
def test_a_unit_that_takes_its_workers_with_it_is_a_crash(ray: Any) -> None:
    outcomes = {o.unit: o for o in run_units(kill_parent, range(5), workers=1, ray=RayCluster("local", 2))}
    failure = outcomes[3].failure
    assert failure is not None and failure.reason == "crashed"
    assert "3 worker processes died on it" in failure.detail
    assert [outcomes[unit].result for unit in (0, 1, 2, 4)] == [0, 1, 2, 4]
