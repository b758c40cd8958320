"""The code that the documentation shows: the blocks of its pages, the commands in them, and whether these
exist.

A bash or python block is run by tests/docs, in a folder of its own that has made-up data under the names that
the pages use (`doc_folder`). Comments in a page, which readers do not see, say otherwise:

    <!-- not run: REASON -->                               before a block: its commands are only checked
    <!-- run with WORDS instead of SHOWN -->               before a block: where GPUs or time are wanting
    <!-- each block goes on from the one before -->        anywhere in a page: its blocks share a folder

A text block is lines that the block before it prints, to the last digit. Before one whose numbers come out of
a network, whose rounding differs from machine to machine, this leaves out those with a decimal point:

    <!-- decimals may differ -->
"""

import pkgutil
import re
import shlex
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import pytest

from clipvip.pipeline.train.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PROGRAMS: dict[str, click.Command] = {
    name: pkgutil.resolve_name(target) for name, target in PROJECT["scripts"].items()
}
ONE_FOLDER = "<!-- each block goes on from the one before -->"
_BLOCK = re.compile(
    r"(?:^ *<!-- (?:not run: (?P<reason>[^\n]+?)|"
    r"run with (?P<words>[^\n]+?) instead of (?P<shown>[^\n]+?)|(?P<rough>decimals may differ)) -->\n+)?"
    r"^(?P<indent> *)```(?P<language>[a-z]*)[^\n]*\n(?P<code>.*?)^(?P=indent)```$",
    flags=re.MULTILINE | re.DOTALL,
)
_INLINE = re.compile(r"`((?:clipvip-|make |pip install )[^`]+)`")
_SEPARATORS = {";", "&&", "||", "|", "&", "(", ")", "&>", ">", ">>", "<", "2>"}


@dataclass
class Block:
    """A block of code; `not_run` is why it is not run, and `output` the lines that it is said to print;
    `rough` are such lines too, in which numbers with a decimal point may differ.

    `to_run` is the code with what tests change in it.
    """

    page: Path
    line: int
    language: str
    code: str
    to_run: str
    not_run: str = ""
    output: list[str] = field(default_factory=list)
    rough: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """Every page for readers: the site's, and those at the top of the repository."""
    top = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")]
    return [*(page for page in top if page.is_file()), *sorted((ROOT / "docs").rglob("*.md"))]


def read_blocks(page: Path) -> list[Block]:
    """The bash and python blocks of a page, each with the text blocks that follow it as its output."""
    blocks: list[Block] = []
    text = page.read_text()
    for found in _BLOCK.finditer(text):
        code = textwrap.dedent(found["code"])
        if found["language"] in {"bash", "python"}:
            line = text.count("\n", 0, found.start("code"))
            shown, words = found["shown"] or "", found["words"] or ""
            assert shown in code, f"{page.name}:{line}: {shown} is not in the block"
            to_run = code.replace(shown, words) if shown else code
            blocks.append(Block(page, line, found["language"], code, to_run, found["reason"] or ""))
        elif found["language"] == "text" and blocks:
            (blocks[-1].rough if found["rough"] else blocks[-1].output).extend(code.splitlines())
    return blocks


def stray_commands(page: Path) -> list[str]:
    """Lines that begin with a command of ours outside of bash blocks, where nothing would check them."""
    rest = _BLOCK.sub(
        lambda found: "" if found["language"] in {"bash", "text"} else found["code"], page.read_text()
    )
    return [line for line in rest.splitlines() if re.match(r"(    |\$ )?clipvip-[a-z]+ ", line)]


def simple_commands(code: str) -> Iterator[list[str]]:
    """The words of each simple command of a shell script, without assignments before it.

    >>> list(simple_commands("A=1 clipvip-data shard \\\\\\n  --out 'a b'  # why\\nhead x | wc"))
    [['clipvip-data', 'shard', '--out', 'a b'], ['head', 'x'], ['wc']]
    """
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word not in _SEPARATORS:
                words.append(word)
                continue
            while words and re.match(r"[A-Za-z_]\w*=", words[0]):
                del words[0]
            if words:
                yield words
            words = []


def check_command(words: list[str]) -> bool:
    """Check a command line as far as that goes without running it; False where it is none of ours.

    Raises:
        click.ClickException: a subcommand, option or value that does not exist, or one that is missing.
        AssertionError: a make target, extra, script or recipe that does not exist.
    """
    for place, word in enumerate(words):
        name = Path(word).name
        if name in PROGRAMS:
            _parse(name, PROGRAMS[name], words[place + 1 :])
            return True
        assert not re.fullmatch(r"clipvip-[a-z]+", name) or place, f"no such program: {name}"
        if word == "-m" and words[place + 1] == "clipvip.pipeline.train":
            _parse("clipvip-train", PROGRAMS["clipvip-train"], words[place + 2 :])
            return True
    if words[0] == "make":
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
        assert set(words[1:]) <= targets, f"no such target: {words}"
        return True
    if words[:2] == ["pip", "install"]:
        for extras in re.findall(r"(?:^|\s)(?:clipvip|\.|\S+\.whl)\[([a-z0-9,]+)\]", " ".join(words)):
            assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"]), f"no such extra: {words}"
        assert not any(" @ ." in word for word in words), f"pip takes no relative path after @: {words}"
        return True
    if words[0] in {"python", "python3"} and words[1].endswith(".py"):
        assert (ROOT / words[1]).is_file(), f"no such script: {words[1]}"
        return True
    return False


def _parse(name: str, command: click.Command, words: list[str]) -> None:
    """Let Click parse the words as it would, with no look at whether files exist."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(click.Path, "convert", lambda kind, value, *_: (kind.type or str)(value))
        try:
            context = _context(name, command, words)
        except click.exceptions.Exit:  # --help, --version
            return
    recipe = context.params.get("recipe")
    if context.command is PROGRAMS["clipvip-train"] and (ROOT / "recipes" / f"{recipe}.yaml").is_file():
        load_recipe(str(recipe), context.params["overrides"])


def _context(name: str, command: click.Command, words: list[str]) -> click.Context:
    if isinstance(command, click.Group) and words and not words[0].startswith("-"):
        subcommand = command.get_command(click.Context(command), words[0])
        if subcommand is None:
            raise click.UsageError(f"{name} has no command {words[0]!r}")
        return _context(f"{name} {words[0]}", subcommand, words[1:])
    return command.make_context(name, list(words))


def inline_commands(page: Path) -> list[list[str]]:
    """Mentions of commands in running text, which need not be complete: `clipvip-data merge --dry-run`."""
    return [shlex.split(found) for found in _INLINE.findall(_BLOCK.sub("", page.read_text()))]


def check_mention(words: list[str]) -> None:
    """Check that a program, its subcommand and its options exist.

    Raises:
        AssertionError: one does not.
    """
    name, *rest = words
    if name in {"make", "pip"}:
        check_command(words)
        return
    command: Any = PROGRAMS.get(name)
    assert command is not None, f"no such program: {name}"
    if isinstance(command, click.Group) and rest and re.fullmatch(r"[a-z-]+", rest[0]) and rest[0][0] != "-":
        command = command.get_command(click.Context(command), rest[0])
        assert command is not None, f"no such command: {' '.join(words)}"
    known = options_of(command)
    asked = {word.split("=")[0] for word in rest if word.startswith("--")}
    assert asked <= known, f"no such option: {' '.join(sorted(asked - known))} of {' '.join(words)}"


def bare_options(page: Path) -> set[str]:
    """Options that running text mentions without a program: `--captions DIR`."""
    return set(re.findall(r"`(--[a-z][a-z-]*)[^`]*`", _BLOCK.sub("", page.read_text())))


def options_of(command: click.Command) -> set[str]:
    """The options of a command and of its subcommands."""
    known = {"--help"}
    for _, one in _with_subcommands("", command):
        known |= {
            option for parameter in one.params for option in (*parameter.opts, *parameter.secondary_opts)
        }
    return known


def options_of_benchmarks() -> set[str]:
    """The options that the scripts in benchmarks/ name."""
    sources = [path.read_text() for path in (ROOT / "benchmarks").glob("*.py")]
    return {option for source in sources for option in re.findall(r'"(--[a-z][a-z-]*)"', source)}


def help_examples() -> Iterator[tuple[str, str]]:
    """(command, example) of each example in a --help."""
    for name, program in PROGRAMS.items():
        for called, command in _with_subcommands(name, program):
            text = f"{command.help or ''}\n\n{command.epilog or ''}".replace("\\\n", " ")
            for paragraph in text.split("\n\n"):
                lines = [line.strip() for line in paragraph.strip("\n").splitlines()]
                if lines and lines[0] == "\b":
                    yield from ((called, line) for line in lines if line.startswith("clipvip-"))
                elif found := re.match(r"Examples?: (clipvip-.*)", " ".join(lines)):
                    yield called, found[1]


def _with_subcommands(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        for sub in command.list_commands(click.Context(command)):
            subcommand = command.get_command(click.Context(command), sub)
            assert subcommand is not None
            yield f"{name} {sub}", subcommand
