"""Studies as data.

Rows of the paper's tables become commands that exist, shared where two tables share a row.
"""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from clipvip.experiments.demo.corpus import plan_videos
from clipvip.experiments.demo.world import REVERSED
from clipvip.experiments.study.cli import main as study_command
from clipvip.experiments.study.data import SmallWorld, StudyData, read_data
from clipvip.experiments.study.plan import Settings, StudyRun, make_plan
from clipvip.experiments.study.rows import ENCODERS, STUDIES, STUDY_NAMES
from clipvip.experiments.study.stages import STUDY_WORLD, Knobs
from clipvip.experiments.study.tasks import Task
from clipvip.pipeline.cli import main as data_command
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.train.command import main as train_command
from clipvip.pipeline.train.recipe import load_recipe
from clipvip.pipeline.train.stage import TrainOptions

SETTINGS = Settings(pretrain_steps=20, finetune_steps=30, gpus=0)


def plan(*names: str, seeds: tuple[int, ...] = (1, 2), out: Path = Path("out")) -> list[Task]:
    return make_plan(StudyRun(names, seeds, out, SmallWorld(Knobs()), SETTINGS), workers=1)


def test_every_command_of_a_plan_parses() -> None:
    commands: dict[str, click.Command] = {
        "clipvip-data": data_command,
        "clipvip-train": train_command,
        "clipvip-study": study_command,
    }
    for task in plan(*STUDY_NAMES):
        name, *arguments = task.command
        command = commands[name]
        if isinstance(command, click.Group):
            found = command.get_command(click.Context(command), arguments.pop(0))
            assert found is not None
            command = found
        command.make_context(name, list(arguments))  # raises where an option does not exist or fit
        if name == "clipvip-train":
            sets = [value for option, value in pairwise(arguments) if option == "--set"]
            load_recipe(arguments[0], tuple(sets))


def test_rows_of_two_tables_share_their_runs() -> None:
    both, alone = plan("losses", "data"), plan("losses")
    names = [task.name for task in both]
    assert len(set(names)) == len(names)
    added = {task.name for task in both} - {task.name for task in alone}
    assert added == {
        f"seed{seed}/{name}"
        for seed in (1, 2)
        for name in (
            *("pretrain/captions", "pretrain/images", "pretrain/subtitles-images"),
            *("finetune/captions-vip4", "finetune/images-vip4", "finetune/subtitles-images-vip4"),
        )
    }


def test_every_need_is_a_task_and_every_finetuning_starts_from_what_it_needs() -> None:
    tasks = {task.name: task for task in plan(*STUDY_NAMES)}
    for task in tasks.values():
        assert set(task.needs) <= set(tasks)
        if "/finetune/" in task.name and "clip-" not in task.name:
            (need,) = task.needs
            start = task.command[task.command.index("--init") + 1]
            folder = tasks[need].command[tasks[need].command.index("--out") + 1]
            assert start.startswith(f"{folder}/")


def test_the_papers_rows_are_all_there() -> None:
    rows = {study.name: len(study.rows) for study in STUDIES}
    assert rows == {"scale": 7, "encoders": 8, "losses": 7, "data": 6, "scratch": 2}
    for study in STUDIES:
        labels = [row.label for row in study.rows]
        assert len(set(labels)) == len(labels)
        for claim in study.claims:
            assert {claim.better, claim.worse} <= set(labels)
        for row in study.rows:
            assert row.encoder in ENCODERS
            paper = row.paper
            if None not in (paper.r1, paper.r5, paper.r10, paper.mean):
                mean = (paper.r1 + paper.r5 + paper.r10) / 3  # type: ignore[operator]
                assert mean == pytest.approx(paper.mean, abs=0.06)


def test_no_clip_of_the_worlds_gallery_can_be_told_from_its_twin_by_order_blind_eyes() -> None:
    assert STUDY_WORLD.twins
    appearances = len(STUDY_WORLD.shapes) * len(STUDY_WORLD.colours) * len(STUDY_WORLD.places)
    assert STUDY_WORLD.num_test_videos * STUDY_WORLD.clips_per_video == appearances
    videos = plan_videos(replace(STUDY_WORLD, seed=5), "test")
    shown = [clip.scene for video in videos for clip in video.clips]
    forwards = [scene for scene in shown if not scene.backwards]
    assert len(shown) == 2 * appearances == 2 * len({scene.appearance for scene in forwards})
    for scene in forwards:
        twins = [other for other in shown if other.appearance == scene.appearance and other != scene]
        assert [twin.motion for twin in twins] == [REVERSED[scene.motion]] and twins[0].backwards


def recipe_of(task: Task) -> str:
    assert isinstance(task.options, TrainOptions)
    return task.options.recipe


def test_encoders_are_compared_where_motion_decides() -> None:
    tasks = {task.name: task for task in plan("encoders", "losses", seeds=(1,))}
    compared = [task for name, task in tasks.items() if "/finetune/" in name and name.endswith("-motion")]
    assert len(compared) == 6
    for task in compared:
        assert recipe_of(task) == "study_finetune_motion"
        assert any(part.endswith("shards-motion-test") for part in task.command)
    assert not any("motion" in task.name for task in plan("losses"))
    assert recipe_of(tasks["seed1/finetune/clip-vip4"]) == "study_finetune"


def test_a_dry_run_prints_the_commands_and_writes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(study_command, ["losses", "--seeds", "1", "--dry-run", "--out", str(out)])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert sum("study_pretrain" in line for line in lines) == 5
    assert sum("study_finetune" in line for line in lines) == 7
    assert not out.exists()


def test_data_of_ones_own_names_its_folders(tmp_path: Path) -> None:
    for name in ("clips", "captions", "finetune", "test"):
        (tmp_path / name).mkdir()
    named = {name: tmp_path / name for name in ("captions", "finetune", "test")} | {
        "shards": tmp_path / "clips"
    }
    text = "".join(f"{name}: {path}\n" for name, path in named.items())
    text += "clip: openai/clip-vit-base-patch32\ndescriptions: {msrvtt: m.txt}\n"
    file = tmp_path / "data.yaml"
    file.write_text(text)
    data = read_data(file)
    assert isinstance(data, StudyData) and data.pretrain == "pretrain_vip_b32"
    tasks = make_plan(StudyRun(("data",), (1,), tmp_path, data, SETTINGS), workers=1)
    assert not any("images" in task.name for task in tasks)  # there are none
    tasks += make_plan(StudyRun(("encoders",), (1,), tmp_path, data, SETTINGS), workers=1)
    assert not any("motion" in task.name for task in tasks)  # encoders are compared on the task itself
    assert not any(task.needs for task in tasks if "/pretrain/" in task.name)  # nothing is made first
    file.write_text(text + "shard: x")
    with pytest.raises(UserError, match=r"data.yaml: shard: .* the names are clip, shards"):
        read_data(file)
    file.write_text(text.replace(f"{tmp_path}/test", "nowhere"))
    with pytest.raises(UserError, match="test: nowhere is no folder"):
        read_data(file)
