"""The program `clipvip-study`: the paper's tables and Fig. 1, in a small world or on data of one's own."""

import click

from clipvip import __version__
from clipvip.experiments.study.tables import TITLES
from clipvip.pipeline.runtime.lazy_group import LazyGroup

_ATTRIBUTES = {"all": "everything", "domain-gap": "domain_gap"}
_COMMANDS = {
    name: (f"commands:{_ATTRIBUTES.get(name, name)}", f"{title}.") for name, title in TITLES.items()
} | {
    "report": ("report:write_report", "Put a study's tables and figures into a document."),
    "spoil": (
        "stages:spoil_captions",
        "Give some clips the caption of another clip, to see what wrong captions cost.",
    ),
    "start": ("stages:make_start", "Write the model with which a recipe begins, to score it as it is."),
    "world": ("stages:make_world", "Write the small world alone."),
}


@click.command(
    cls=LazyGroup,
    package="clipvip.experiments.study",
    modules=_COMMANDS,
    epilog="\b\nExamples:\n  clipvip-study all --out study/",
)
@click.version_option(__version__, package_name="clipvip")
def main() -> None:
    """The paper's experiments over several seeds, with intervals: in a small world, or on data of
    your own."""


if __name__ == "__main__":
    main()
