"""The processes that train: this one, several that it starts, or one of those that torchrun started."""

import json
import os
import signal
import tempfile
import traceback
from pathlib import Path
from typing import Any

import click

from clipvip.pipeline.runtime.errors import StageCommand, UserError
from clipvip.pipeline.runtime.report import StageReport
from clipvip.pipeline.runtime.stopping import Stopped, leave
from clipvip.pipeline.runtime.worker_process import die_with_parent
from clipvip.pipeline.train.recipe import Recipe, recipe_from_tree, recipe_tree
from clipvip.pipeline.train.store_run import naming_store


class ProcessesFailed(UserError):
    """A training process failed, and has said why."""

    def __init__(self, code: int) -> None:
        super().__init__(f"a training process ended with code {code}; its own message says why")
        self.exit_code = code  # type: ignore[misc]

    def show(self, file: Any = None) -> None:
        """Nothing more is to be said on a terminal."""


def run_training(recipe: Recipe) -> StageReport:
    """Train in as many processes as the recipe says, or in this one where a launcher started it."""
    from clipvip.pipeline.train.distributed import launched_world_size
    from clipvip.pipeline.train.launch import STOPPED, launch

    if launched_world_size() is not None:
        return _run_one_of_many(recipe)
    if recipe.run.processes == 1:
        return _run_here(recipe)
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder, "report.json")
        code = launch(_train_process, recipe_tree(recipe), str(told), processes=recipe.run.processes)
        if code in STOPPED:
            raise Stopped(code - 128, "")  # the first process has said so
        if code:
            raise ProcessesFailed(code)
        return StageReport(**json.loads(told.read_text()))


def _train_process(tree: dict[str, Any], told: str) -> int:
    """One of several processes of this machine; the first leaves its report at `told`."""
    report = _run_one_of_many(recipe_from_tree(tree, name="recipe.yaml"))
    if report.content:
        Path(told).write_text(json.dumps({"content": report.content, "text": report.text}))
    return 0


def _run_one_of_many(recipe: Recipe) -> StageReport:
    """As `_run_here`; where that fails, say why in one line and end this process, which holds up no other."""
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun looks after its processes, and does not outlive them
        die_with_parent()
    command = StageCommand("clipvip-train", callback=lambda: _run_here(recipe))
    try:
        made = command.main([], standalone_mode=False)
    except click.ClickException as error:
        error.show()
        leave(error.exit_code)
    except Exception:  # noqa: BLE001 (a mistake of ours)
        traceback.print_exc()
        leave(1)
    if isinstance(made, int):
        leave(made)
    return made


def _run_here(recipe: Recipe) -> StageReport:
    """Train in this process; other processes than the first give an empty report."""
    from clipvip.pipeline.train.distributed import process_group
    from clipvip.pipeline.train.loop import train
    from clipvip.pipeline.train.start import chosen_device

    with naming_store(recipe), process_group(chosen_device(recipe)) as place:
        outcome = train(recipe, place=place)
    if outcome.stopped_by:
        raise Stopped(
            outcome.stopped_by,
            f"Stopped by {signal.Signals(outcome.stopped_by).name} after step {outcome.step:,} of "
            f"{outcome.num_steps:,}; a checkpoint is saved. The same command goes on from here.",
        )
    return outcome.report
