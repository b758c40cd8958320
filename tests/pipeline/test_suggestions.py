"""A mistyped command or recipe is told what is near, and shells complete the names of recipes."""

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from clipvip.experiments.demo.cli import main as demo
from clipvip.experiments.study.cli import main as study
from clipvip.pipeline.cli import main as data
from clipvip.pipeline.evaluate.cli import main as evaluate
from clipvip.pipeline.train.command import main as train
from clipvip.pipeline.train.recipe_names import packaged_recipes

PROGRAMS = {"data": data, "eval": evaluate, "demo": demo, "study": study}


def misspelt(name: str) -> list[str]:
    """Letters changed places, are missing or doubled, or it has underscores or capitals."""
    middle = len(name) // 2
    swapped = name[:middle] + name[middle : middle + 2][::-1] + name[middle + 2 :]
    return [swapped, name[:-1], name + name[-1], name.replace("-", "_"), name.upper()]


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_nearest_command_is_named(program: str) -> None:
    group = PROGRAMS[program]
    assert isinstance(group, click.Group)
    known = group.list_commands(click.Context(group))
    for name in known:
        for word in {*misspelt(name)} - {*known}:
            refused = CliRunner().invoke(group, [word])
            line = refused.stderr.splitlines()[-1]
            assert refused.exit_code == 2
            assert line.startswith(f"Error: no such command '{word}'; did you mean ") and f"'{name}'" in line


@pytest.mark.parametrize("program", PROGRAMS)
def test_where_none_is_near_all_are_named(program: str) -> None:
    group = PROGRAMS[program]
    assert isinstance(group, click.Group)
    refused = CliRunner().invoke(group, ["qqqq"])
    known = group.list_commands(click.Context(group))
    assert refused.stderr.splitlines()[-1] == f"Error: no such command 'qqqq'; give one of {', '.join(known)}"


@pytest.mark.parametrize("name", packaged_recipes())
def test_the_nearest_recipe_is_named(name: str) -> None:
    for word in {*misspelt(name), f"{name}x.yaml"} - {*packaged_recipes()}:
        refused = CliRunner().invoke(train, [word, "--shards", "x", "--out", "y"])
        line = refused.stderr.splitlines()[-1]
        assert refused.exit_code == 1 and "no such recipe; did you mean" in line and f"'{name}'" in line, word


def test_recipes_complete_in_a_shell() -> None:
    complete = ShellComplete(train, {}, "clipvip-train", "_CLIPVIP_TRAIN_COMPLETE")
    found = complete.get_completions([], "pretrain_")
    plain = [one.value for one in found if one.type == "plain"]
    assert plain == [name for name in packaged_recipes() if name.startswith("pretrain_")]
    assert [one.type for one in found if one.type != "plain"] == ["file"]  # a YAML file of one's own


@pytest.mark.parametrize("program", [*PROGRAMS.values(), train])
def test_each_program_says_its_version(program: click.Command) -> None:
    from clipvip import __version__

    assert __version__ in CliRunner().invoke(program, ["--version"]).output
