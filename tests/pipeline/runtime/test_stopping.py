"""Ctrl-C and SIGTERM end every command with one line that says how to go on.

Its worker processes end with it.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from clipvip.experiments.demo.world import WEIGHTS
from clipvip.model import ClipVip
from clipvip.pipeline.runtime.errors import StageCommand, StageGroup
from clipvip.pipeline.runtime.stopping import Stopping, StopSignal
from commands import start, workers_of
from make_shards import make_shard_folder
from stage_commands import caption_command, nmi_command, shard_command

GOES_ON = "Stopped. What is finished is kept: the same command goes on from here."
STARTS_OVER = "Stopped. Nothing of this run is kept: the same command starts over."

Command = Callable[[Path], tuple[object, ...]]


def verify_command(folder: Path) -> tuple[object, ...]:
    shards = make_shard_folder(folder / "shards", num_shards=8, clips_per_shard=40)
    return ("verify", shards, "--workers", 2)


def retrieval_command(folder: Path) -> tuple[object, ...]:
    shards = make_shard_folder(folder / "shards", num_shards=4, clips_per_shard=100)
    ClipVip.from_clip(WEIGHTS / "clip", temporal_size=8).save_pretrained(folder / "model")
    return ("retrieval", "--model", folder / "model", "--shards", shards, "--batch-size", 2)


WORLD = ("world", "--seed", "1", "--workers", "2")


def wait_for(process: "subprocess.Popen[str]", text: str) -> str:
    """What it says to standard error until that has `text` in it."""
    assert process.stderr is not None
    said = ""
    while text not in said:
        part = os.read(process.stderr.fileno(), 4096).decode()
        assert part, f"ended without saying {text!r}: {said}"
        said += part
    return said


def test_in_another_thread_signals_are_left_to_the_main_one() -> None:
    """Where Python lets nobody set handlers; a notebook may run a training there."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def during() -> list[object]:
        with StopSignal() as stop, Stopping():
            return [stop.number, *(signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM))]

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(during).result() == [0, *before]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_gone(workers: list[int]) -> None:
    deadline = time.monotonic() + 10
    while any(map(is_alive, workers)):
        assert time.monotonic() < deadline, "workers live on"
        time.sleep(0.05)


def check_that_it_stops(process: "subprocess.Popen[str]", number: int, *, at: str, line: str) -> None:
    """Send the signal as a terminal, or as `kill` does, when its progress is first shown, and look how it
    ends.
    """
    said = wait_for(process, at)
    workers = workers_of(process)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    output, rest = process.communicate(timeout=30)
    said += rest
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number], said
    assert said.splitlines()[-1] == line and said.count("Stopped") == 1, said
    assert "Traceback" not in said and not output
    wait_until_gone(workers)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_shard_stops(number: int, tmp_path: Path) -> None:
    process = start(*shard_command(tmp_path), "--out", tmp_path / "out")
    check_that_it_stops(process, number, at="shard:", line=GOES_ON)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_verify_stops(number: int, tmp_path: Path) -> None:
    check_that_it_stops(start(*verify_command(tmp_path)), number, at="verify:", line=STARTS_OVER)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("command", "at"), [(caption_command, "caption:"), (nmi_command, "one:")])
def test_stages_that_compute_models_stop(number: int, command: Command, at: str, tmp_path: Path) -> None:
    process = start(*command(tmp_path), "--out", tmp_path / "out")
    check_that_it_stops(process, number, at=at, line=GOES_ON)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_retrieval_stops(number: int, tmp_path: Path) -> None:
    process = start(*retrieval_command(tmp_path), program="clipvip.pipeline.evaluate.cli")
    check_that_it_stops(process, number, at="clips:", line=STARTS_OVER)


def test_a_signal_to_all_processes_is_put_down_to_no_video(tmp_path: Path) -> None:
    """As schedulers send it to all processes of a job."""
    process = start(*shard_command(tmp_path), "--out", tmp_path / "out")
    said = wait_for(process, "shard:")
    os.killpg(process.pid, signal.SIGTERM)
    said += process.communicate(timeout=30)[1]
    assert process.returncode == 143 and "it is skipped" not in said
    assert not list((tmp_path / "out").rglob("*blame*"))


def test_a_second_signal_ends_what_does_not_end() -> None:
    code = (
        "import time; from clipvip.pipeline.runtime.stopping import Stopping\n"
        "with Stopping():\n"
        "  try:\n    print('up', flush=True); time.sleep(30)\n"
        "  finally:\n    time.sleep(30)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    process.terminate()
    time.sleep(0.2)
    process.terminate()  # so soon, it is taken for the first
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=2.5)
    process.terminate()
    assert process.wait(timeout=5) == -signal.SIGTERM


@pytest.mark.parametrize(
    ("attributes", "arguments", "line"),
    [({}, [], GOES_ON), ({"resumable": False}, [], STARTS_OVER), ({}, ["--dry-run"], STARTS_OVER)],
)
def test_the_line_is_right_for_the_command(
    attributes: dict[str, bool], arguments: list[str], line: str
) -> None:
    @click.command(cls=StageCommand, **attributes)
    @click.option("--dry-run", is_flag=True)
    def command(dry_run: bool) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    before = signal.getsignal(signal.SIGTERM)
    result = CliRunner().invoke(command, arguments)
    assert (result.exit_code, result.output) == (143, f"{line}\n")
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_program_stops_while_its_command_is_imported() -> None:
    class Slow(StageGroup):
        def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
            raise KeyboardInterrupt

    result = CliRunner().invoke(Slow("slow"), ["command"])
    assert (result.exit_code, result.output) == (130, f"{STARTS_OVER}\n")


def test_who_has_read_enough_hears_no_complaint(tmp_path: Path) -> None:
    shards = make_shard_folder(tmp_path / "shards", num_shards=8, clips_per_shard=100)
    process = start("inspect", shards, "--num", 800, "--json")
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    process.wait(timeout=30)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_making_a_world_stops(number: int, tmp_path: Path) -> None:
    process = start(*WORLD, "--out", tmp_path / "out", program="clipvip.experiments.study.cli")
    check_that_it_stops(process, number, at="videos:", line=GOES_ON)


@pytest.mark.slow
def test_workers_die_with_the_making_of_a_world(tmp_path: Path) -> None:
    process = start(*WORLD, "--out", tmp_path / "out", program="clipvip.experiments.study.cli")
    wait_for(process, "videos:")
    deadline = time.monotonic() + 60
    while len(workers := workers_of(process)) < 2:
        assert time.monotonic() < deadline, "no workers"
        time.sleep(0.05)
    process.kill()
    process.communicate(timeout=30)
    wait_until_gone(workers)


@pytest.mark.parametrize(
    ("words", "code"), [(("verify", "nowhere"), 1), (("verify",), 2), (("--version",), 0)]
)
def test_native_threads_do_not_end_a_command_that_is_done(words: tuple[str, ...], code: int) -> None:
    """What dies when the interpreter is torn down, as a thread of a library does, dies by SIGABRT."""
    dies_late = "import os, sys; sys.late = type('Late', (), {'__del__': lambda self: os.abort()})();"
    process = start(*words, before=dies_late)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert (output + errors).strip()
