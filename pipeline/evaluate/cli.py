"""The command `clipvip-eval`: one subcommand per measurement, imported when it is called."""

import click

from clipvip import __version__
from clipvip.pipeline.runtime.lazy_group import LazyGroup

# name -> (where its stage is, one line for --help)
_COMMANDS = {
    "actions": ("evaluate.actions:actions", "Classify clips by the nearest class name."),
    "benchmark": (
        "evaluate.benchmark:benchmark",
        "Run the tests of the paper's Tables 5 to 7, and print these tables with the paper's figures beside.",
    ),
    "multiple-choice": (
        "evaluate.multiple_choice:multiple_choice",
        "Answer questions about clips by the most similar option.",
    ),
    "retrieval": (
        "evaluate.retrieval:retrieval",
        "Rank all clips for each text and all texts for each clip.",
    ),
    "search": ("search.stage:search", "Find the clips that are nearest to each SENTENCE."),
}

_EPILOG = """\b
Examples:
  clipvip-eval retrieval --model runs/b32/model --shards test-clips/ --out runs/b32/eval
"""


@click.command(cls=LazyGroup, package="clipvip.pipeline", modules=_COMMANDS, epilog=_EPILOG)
@click.version_option(__version__, package_name="clipvip")
def main() -> None:
    """Measure a model."""


if __name__ == "__main__":
    main()
