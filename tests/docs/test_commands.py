"""Every command that the documentation shows is checked.

Those that can be run are, and print what it says.
"""

import doctest
import re
from pathlib import Path

import click
import pytest

import doc_blocks
from doc_blocks import (
    ONE_FOLDER,
    PROGRAMS,
    ROOT,
    Block,
    bare_options,
    check_command,
    check_mention,
    help_examples,
    inline_commands,
    options_of,
    options_of_benchmarks,
    pages,
    read_blocks,
    simple_commands,
    stray_commands,
)
from doc_folder import copy_doc_folder, make_doc_folder
from doc_runs import outputs, run_block

PAGES = {str(page.relative_to(ROOT)): page for page in pages()}


def runs(page: Path) -> list[list[Block]]:
    """The blocks of a page that are run, put together where they share a folder."""
    blocks = [block for block in read_blocks(page) if not block.not_run]
    if ONE_FOLDER in page.read_text():
        return [blocks]
    return [[block] for block in blocks]


RUNS = [run for page in PAGES.values() for run in runs(page)]


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_commands_exist(page: Path) -> None:
    """With all their options, in the forms that these take; in running text too."""
    for block in read_blocks(page):
        for words in simple_commands(block.code) if block.language == "bash" else []:
            try:
                check_command(words)
            except (click.ClickException, AssertionError) as error:
                pytest.fail(f"{block}: {' '.join(words)}\n{getattr(error, 'message', error)}")
    assert not stray_commands(page), f"{page.name}: put these into a bash block"
    for words in inline_commands(page):
        check_mention(words)
    known = options_of_benchmarks().union(*map(options_of, PROGRAMS.values()))
    unknown = bare_options(page) - known
    assert not unknown, f"{page.name}: no command has {unknown}; name the program if it is another's"


def test_examples_in_help_exist() -> None:
    examples = list(help_examples())
    assert len(examples) >= 10
    for command, example in examples:
        try:
            assert [check_command(words) for words in simple_commands(example)] == [True]
        except (click.ClickException, AssertionError) as error:
            pytest.fail(f"{command} --help: {example}\n{getattr(error, 'message', error)}")


@pytest.mark.parametrize(
    "line",
    [
        "clipvip-data shrad --out clips",
        "clipvip-data caption --shards clips --out captions --model m --gpu 8",
        "clipvip-data caption --shards clips --out captions",
        "clipvip-data caption --shards clips --out captions --model m --gpus many",
        "clipvip-eval retrieval --model m --shards s --device tpu",
        "clipvip-train demo --shards clips --set optim.epoch=2",
        "srun --ntasks 2 clipvip-train demo --shard clips",
        "torchrun --nproc-per-node 8 -m clipvip.pipeline.train demo --shard clips",
        "clipvip-dta shard",
        "make every-thing",
        'pip install ".[cpu,nothing]"',
        'pip install "clipvip[cpu] @ ."',
        "python benchmarks/nothing.py",
    ],
)
def test_what_does_not_exist_is_noticed(line: str) -> None:
    (words,) = simple_commands(line)
    with pytest.raises((click.ClickException, AssertionError)):
        check_command(words)


def test_shell_is_split_as_told() -> None:
    assert doctest.testmod(doc_blocks).attempted > 0 and doctest.testmod(doc_blocks).failed == 0


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given")
    make_doc_folder(folder)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("blocks", RUNS, ids=[str(run[0]) if run else "none" for run in RUNS])
def test_blocks_run(blocks: list[Block], given: Path, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    copy_doc_folder(given, folder, written=set(outputs(blocks)))
    for block in blocks:
        printed = run_block(block, folder)
        missing = [line for line in block.output if aligned(line) not in aligned(printed)]
        missing += [line for line in block.rough if without_decimals(line) not in without_decimals(printed)]
        assert not missing, f"{block} does not print {missing[0]!r}, but\n{printed}"


def aligned(text: str) -> str:
    """All white space as one blank: columns are as wide as what is in them."""
    return re.sub(r"\s+", " ", text)


def without_decimals(text: str) -> str:
    """Numbers with a decimal point are one; whole numbers stay."""
    return aligned(re.sub(r"\d[\d,]*\.\d+", "0.0", text))


def test_only_marked_decimals_may_differ(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    mark, text = "<!-- decimals may differ -->", "```text\n3 of 1,204: 7.25\n```"
    page.write_text(f"```bash\ntrue\n```\n\n{text}\n\n{mark}\n\n{text}\n")
    (block,) = read_blocks(page)
    assert block.output == block.rough == ["3 of 1,204: 7.25"]
    assert without_decimals("3 of 1,204: 7.25") == without_decimals("3 of  1,204: 1,008.1")
    assert without_decimals("3 of 1,204: 7.25") != without_decimals("3 of 1,205: 7.25")
