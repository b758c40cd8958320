"""Several training processes of one machine: started, watched and ended together."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.stopping import Stopping, StopSignal, exit_code, starting_a_process
from clipvip.pipeline.runtime.worker_process import die_with_parent, start_resource_tracker, without_main
from clipvip.pipeline.train.distributed import meeting_place

STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)  # exit codes
_LOOK_SECONDS = 0.1
# What the processes have to end by themselves after a second signal.
_STOPPING_SECONDS = 8.0
# What the others have to end by themselves when one has failed; more than `distributed` lets them take.
_OTHERS_SECONDS = 15.0


def launch(function: Callable[..., int], *arguments: Any, processes: int) -> int:
    """Run `function(*arguments)` in `processes` processes of this machine, which find each other.

    What it returns is a process's exit code; returns the first that is neither 0 nor that of a stop, else the
    largest. A process that fails has said why, and the others end with it, after _OTHERS_SECONDS by force.
    All die with this one. SIGTERM and Ctrl-C are passed on to the processes, which are to finish what they
    are doing and return; a second one they are to obey at once, and are ended if they do not.

    Raises:
        UserError: a process was killed, and so could not say what was wrong.
        KeyboardInterrupt: a signal came, and not all of them ended as they do when they obey it.
    """
    context = multiprocessing.get_context("spawn")
    ranks: list[BaseProcess] = []
    with meeting_place() as address, StopSignal() as stop:
        try:
            start_resource_tracker()  # which unblocks signals
            for rank in range(processes):
                ranked = dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank))
                sized = dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(processes))
                environment = {**address, **ranked, **sized}
                process = context.Process(
                    target=_be_rank, args=(os.getpid(), environment, function, arguments)
                )
                with starting_a_process(), without_main():
                    process.start()
                ranks.append(process)
            codes = _codes(ranks, stop)
        finally:
            for started in ranks:
                started.kill()
                started.join()
    if stop.number and (len(codes) < processes or not {0, 128 + stop.number}.issuperset(codes)):
        raise KeyboardInterrupt(stop.number)
    killed = [-code for code in codes if code < 0]
    if killed:
        raise UserError(
            f"a training process was ended by {signal.Signals(killed[0]).name}, perhaps for lack of memory; "
            "the same command goes on from the last checkpoint"
        )
    return next((code for code in codes if code not in (0, *STOPPED)), max(codes))


def _codes(ranks: list[BaseProcess], stop: StopSignal) -> list[int]:
    """The exit codes in the order in which processes ended; without those that did not end by themselves."""
    codes: list[int] = []
    left, num_passed_on, deadline = list(ranks), 0, float("inf")
    while left and time.monotonic() < deadline:
        num_signals = 1 if stop.number else 0
        try:
            wait([process.sentinel for process in left], timeout=_LOOK_SECONDS)
        except KeyboardInterrupt:
            num_signals = 2
            deadline = min(deadline, time.monotonic() + _STOPPING_SECONDS)
        if num_signals > num_passed_on:
            num_passed_on = num_signals
            for process in left:
                if process.exitcode is None and process.pid is not None:
                    os.kill(process.pid, stop.number)
        exit_codes = {process: process.exitcode for process in left}
        left = [process for process, code in exit_codes.items() if code is None]
        ended = [code for code in exit_codes.values() if code is not None]
        # Of those that ended at one look, who was killed is the cause of the others' end.
        codes += sorted(ended)
        if deadline == float("inf") and any(code not in (0, *STOPPED) for code in ended):
            deadline = time.monotonic() + _OTHERS_SECONDS
    return codes


def _be_rank(
    launcher: int, environment: dict[str, str], function: Callable[..., int], arguments: tuple[Any, ...]
) -> None:
    """One process: end with the launcher, and stop from now on as commands do."""
    die_with_parent(launcher)
    os.environ.update(environment)
    try:
        with Stopping():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            code = function(*arguments)
    except KeyboardInterrupt as error:
        code = exit_code(error)
    sys.exit(code)
