"""Studies as data.

Rows of the paper's tables become commands that exist, shared where two tables share a row.
"""

import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from clipvip.experiments.demo.corpus import as_json, plan_videos
from clipvip.experiments.demo.world import DEMO_WORLD, REVERSED, WEIGHTS, World
from clipvip.experiments.study.cli import main as study_command
from clipvip.experiments.study.data import StudyData, read_data
from clipvip.experiments.study.plan import Settings, StudyRun, make_plan
from clipvip.experiments.study.questions import write_questions
from clipvip.experiments.study.rows import ENCODERS
from clipvip.experiments.study.small_world import SmallWorld
from clipvip.experiments.study.stages import Knobs, WorldOptions, make_world, world_of
from clipvip.experiments.study.tables import STUDIES, STUDY_NAMES
from clipvip.experiments.study.tasks import Task
from clipvip.pipeline.cli import main as data_command
from clipvip.pipeline.evaluate.cli import main as eval_command
from clipvip.pipeline.evaluate.labels import read_classes, read_labels
from clipvip.pipeline.evaluate.questions import read_questions
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
        "clipvip-eval": eval_command,
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
            *(
                f"finetune/{run}-vip4{task}"
                for run in ("captions", "images", "subtitles-images")
                for task in ("", "-motion")
            ),
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
    assert rows.pop("extras") == 6  # beyond the paper
    assert rows == {"scale": 9, "encoders": 6, "starts": 6, "losses": 7, "data": 6, "scratch": 2}
    for study in STUDIES:
        labels = [row.label for row in study.rows]
        assert len(set(labels)) == len(labels)
        for claim in study.claims:
            assert {claim.better, claim.worse} <= set(labels)
        for row in study.rows:
            assert row.encoder in ENCODERS
            for paper in (row.paper, row.didemo):
                if None not in (paper.r1, paper.r5, paper.r10, paper.mean):
                    mean = (paper.r1 + paper.r5 + paper.r10) / 3  # type: ignore[operator]
                    assert mean == pytest.approx(paper.mean, abs=0.07)


def worlds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, World]:
    """The worlds of a seed by kind, without their files."""
    made: list[World] = []

    def note(world: World, folder: Path, *, workers: int) -> str:
        made.append(world)
        (folder / "texts").mkdir(parents=True)
        return ""

    monkeypatch.setattr("clipvip.experiments.demo.run.make_corpus", note)
    for kind in ({}, {"motion": True}, {"web": True}):
        make_world(WorldOptions(out=tmp_path / str(len(made)), seed=5, **kind))
    return dict(zip(("first", "motion", "web"), made, strict=True))


def test_worlds_test_what_they_are_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of = worlds(tmp_path, monkeypatch)
    shown = [clip.scene for video in plan_videos(of["first"], "test") for clip in video.clips]
    # Each appearance as often as any other, and no two clips that show the same.
    number = Counter(scene.appearance for scene in shown)
    assert len(shown) == 144 and set(number.values()) == {3}
    assert len({(scene.appearance, scene.motion) for scene in shown}) == 144
    assert not any(scene.backwards for scene in shown)
    # No clip of the second gallery can be told from its twin by eyes that are blind to order.
    shown = [clip.scene for video in plan_videos(of["motion"], "test") for clip in video.clips]
    assert len(shown) == 144 == 2 * sum(scene.backwards for scene in shown)
    found = {(scene.appearance, scene.motion) for scene in shown}
    assert {(appearance, REVERSED[motion]) for appearance, motion in found} == found
    assert set(of["web"].shapes).isdisjoint(of["first"].shapes)


def test_questions_have_the_twin_among_their_options(tmp_path: Path) -> None:
    write_questions(replace(DEMO_WORLD, num_test_videos=2), tmp_path)
    questions, skips = read_questions(tmp_path / "questions.jsonl")
    assert len(questions) == 24 and not skips
    clips = {
        clip.clip_id: clip
        for video in plan_videos(replace(DEMO_WORLD, num_test_videos=2), "test")
        for clip in video.clips
    }
    for question in questions:
        assert question.options[question.answer] == clips[question.video].description
        assert len(set(question.options)) == 5
    assert len(read_classes(tmp_path / "actions.txt")) == 6
    labels, skips = read_labels(tmp_path / "actions.jsonl")
    assert len(labels.rows) == 24 and not skips


def recipe_of(task: Task) -> str:
    assert isinstance(task.options, TrainOptions)
    return task.options.recipe


def test_encoders_are_compared_where_motion_decides_and_fine_tuned_longer() -> None:
    tasks = {task.name: task for task in plan("encoders", "losses", seeds=(1,))}
    compared = [task for name, task in tasks.items() if name.endswith("-encoders")]
    assert len(compared) == 6
    for task in compared:
        assert recipe_of(task) == "study_finetune_encoders"
        assert any(part.endswith("shards-motion-test") for part in task.command)
    assert recipe_of(tasks["seed1/finetune/clip-vip4"]) == "study_finetune"
    assert recipe_of(tasks["seed1/finetune/clip-vip4-motion"]) == "study_finetune_motion"


def test_a_start_that_is_the_recipes_is_no_run_of_its_own() -> None:
    names = {task.name for task in plan("starts", "losses", seeds=(1,))}
    assert {"seed1/pretrain/ocl-d", "seed1/pretrain/ocl-d-random"} <= names
    assert not any("-class" in name for name in names)
    for name, start in (("study_pretrain", "class"), ("pretrain_vip_b32", "random")):
        assert (load_recipe(name).model.proxy_start or "random") == start


def test_seeds_come_one_after_the_other() -> None:
    assert {(task.name.split("/")[0], task.turn) for task in plan("losses", seeds=(7, 3))} == {
        ("seed7", 0), ("seed3", 1)
    }  # fmt: skip


def test_no_task_names_where_the_package_lies() -> None:
    """A study goes on by a package that lies elsewhere."""
    for task in plan(*STUDY_NAMES):
        assert str(WEIGHTS) not in " ".join(task.command)
        assert str(Path(__file__).parents[3]) not in " ".join(task.command)


def test_a_folder_of_another_world_is_refused(tmp_path: Path) -> None:
    tasks = plan("losses", seeds=(1,), out=tmp_path)
    SmallWorld(Knobs()).prepare(tmp_path, tasks)
    mark = tmp_path / "seed1" / "corpus-motion" / "world.json"
    mark.parent.mkdir(parents=True)
    settings = as_json(world_of(WorldOptions(out=tmp_path, seed=1, motion=True)))
    mark.write_text(json.dumps(settings))
    SmallWorld(Knobs()).prepare(tmp_path, tasks)
    mark.write_text(json.dumps(settings | {"topic_noise": 0.9}))
    with pytest.raises(
        UserError, match="corpus-motion: holds a world made with other settings; give another --out"
    ):
        SmallWorld(Knobs()).prepare(tmp_path, tasks)


def test_the_tiny_models_of_a_study_stay_those_that_it_began_with(tmp_path: Path) -> None:
    SmallWorld(Knobs()).prepare(tmp_path, [])
    config = tmp_path / "models" / "clip" / "config.json"
    assert config.read_bytes() == (WEIGHTS / "clip" / "config.json").read_bytes()
    config.write_text("another")
    SmallWorld(Knobs()).prepare(tmp_path, [])
    assert config.read_text() == "another"


def test_a_dry_run_prints_the_commands_and_writes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(study_command, ["losses", "--seeds", "1", "--dry-run", "--out", str(out)])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert sum("study_pretrain" in line for line in lines) == 5
    assert sum("study_finetune " in line for line in lines) == 7
    assert sum("study_finetune_motion " in line for line in lines) == 7
    assert lines[0] == f"clipvip-demo models --out {out / 'models'}"
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
    assert not any(
        "motion" in task.name or "encoders" in task.name for task in tasks
    )  # encoders are compared on the task itself
    assert not any(task.needs for task in tasks if "/pretrain/" in task.name)  # nothing is made first
    file.write_text(text + "shard: x")
    with pytest.raises(UserError, match=r"data.yaml: shard: .* the names are clip, shards"):
        read_data(file)
    file.write_text(text.replace(f"{tmp_path}/test", "nowhere"))
    with pytest.raises(UserError, match="test: there is no folder nowhere"):
        read_data(file)
