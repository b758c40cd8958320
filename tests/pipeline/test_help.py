"""All commands ask for the same things in the same words, and show how they are used."""

import inspect
from collections import defaultdict
from collections.abc import Iterator

import click
import pytest

from doc_blocks import PROGRAMS, check_command, simple_commands

# What the help of an option begins with, wherever it is met.
BEGINNINGS = {
    "--batch-size": {"Clips", "Texts", "Frames"},
    "--captions": {"Folder"},
    "--captions-out": {"Folder"},
    "--device": {"Where to compute"},
    "--dry-run": {"Say "},
    "--gpus": {"Processes with a GPU each"},
    "--json": {"Print the result as one JSON object"},
    "--model": {
        "A CLIP-ViP model",
        "OFA in Hugging Face layout",
        "The text encoder",
        "Whisper in CTranslate2",
    },
    "--num-frames": {"Frames"},
    "--out": {"Folder", "File for the list of clips"},
    "--seed": {"Seed of "},
    "--shard-size": {"Most clips in a shard"},
    "--shards": {"Folder of shards"},
    "--workers": {"Processes"},
}


def all_commands() -> Iterator[tuple[str, click.Command]]:
    """(how it is called, command) of each program and each of its subcommands."""
    for name, program in PROGRAMS.items():
        yield name, program
        if isinstance(program, click.Group):
            for sub in program.list_commands(click.Context(program)):
                command = program.get_command(click.Context(program), sub)
                assert command is not None
                yield f"{name} {sub}", command


COMMANDS = dict(all_commands())


@pytest.mark.parametrize("called", COMMANDS)
def test_help_ends_with_examples_that_parse(called: str) -> None:
    command = COMMANDS[called]
    text = command.get_help(click.Context(command, info_name=called, terminal_width=80))
    _, options, end = text.partition("\nOptions:\n")
    assert options
    _, title, end = end.rpartition("\n  Examples")
    examples = inspect.cleandoc("Examples" + end.replace("\\\n", "")).splitlines()[1:] if title else []
    assert examples, f"{called} --help does not end with examples"
    for line in examples:
        (words,) = simple_commands(line)
        assert " ".join(words).startswith(called), line
        try:
            assert check_command(words)
        except click.ClickException as error:
            pytest.fail(f"{called} --help: {line}\n{error.format_message()}")


def test_each_option_says_what_it_is_for() -> None:
    for called, command in COMMANDS.items():
        for option in command.params:
            if isinstance(option, click.Option):
                text = option.help or ""
                assert text.endswith(".") and "default:" not in text.lower(), (
                    f"{called} {option.opts[0]}: {text}"
                )


def test_options_of_one_name_are_of_one_kind() -> None:
    found = defaultdict(set)
    for called, command in COMMANDS.items():
        for option in command.params:
            name = option.opts[0]
            found[name].add(called)
            if isinstance(option, click.Option) and name in BEGINNINGS:
                assert option.help is not None
                assert option.help.startswith(tuple(BEGINNINGS[name])), f"{called} {name}: {option.help}"
    assert set(BEGINNINGS) <= set(found)
    assert len(found["--workers"]) > 8 and len(found["--out"]) > 15


def test_a_program_says_what_each_command_does_in_a_whole_sentence() -> None:
    for name, program in PROGRAMS.items():
        if isinstance(program, click.Group):
            context = click.Context(program, info_name=name, terminal_width=80)
            for sub in program.list_commands(context):
                line = program.line_of(context, sub)  # type: ignore[attr-defined]
                assert line.endswith(".") and not line.endswith(("...", "Fig.")), f"{name} {sub}: {line}"
            assert "..." not in program.get_help(context).replace("[ARGS]...", ""), name


NUMBERS = [
    (called, option)
    for called, command in COMMANDS.items()
    for option in command.params
    if isinstance(option.type, click.types.IntParamType | click.types.FloatParamType)
    or "frames" in option.opts[0]
]


def test_absurd_numbers_are_refused_by_all_options_that_take_one() -> None:
    assert len({option.opts[0] for _, option in NUMBERS}) > 40
    for called, option in NUMBERS:
        if option.type.name == "integer range" and getattr(option.type, "max", None) == 2**64 - 1:
            continue  # a seed
        for number in ("99999999999", "1" + 400 * "0"):
            with pytest.raises(click.BadParameter) as refused:
                option.type.convert(number, option, None)
            assert "\n" not in refused.value.message, called
