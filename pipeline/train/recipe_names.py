"""The recipes that come with the package: their names, their text, and completion in a shell."""

from importlib import resources
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from clipvip.pipeline.runtime.errors import UserError, nearest
from clipvip.pipeline.runtime.options import as_text
from clipvip.shards.sources.text_files import text_lines

_ENDING = ".yaml"


class RecipeName(click.ParamType):
    """The name of a packaged recipe, or the path of a YAML file."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return as_text(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        names = [name for name in packaged_recipes() if name.startswith(incomplete)]
        return [*map(CompletionItem, names), CompletionItem(incomplete, type="file")]


def packaged_recipes() -> list[str]:
    """The names of the recipes that come with the package."""
    folder = resources.files("clipvip.recipes")
    return sorted(
        entry.name.removesuffix(_ENDING) for entry in folder.iterdir() if entry.name.endswith(_ENDING)
    )


def read_recipe(name: str) -> str:
    """The text of a recipe, by a path or the name of a packaged one; a UserError where there is none."""
    if Path(name).is_file():
        try:
            with Path(name).open("rb") as file:
                return "".join(text_lines(file, Path(name)))
        except OSError as error:
            raise UserError(f"{name}: cannot be read as a recipe ({error})") from error
    known = packaged_recipes()
    if name not in known:
        hint = nearest(name.removesuffix(_ENDING), known)
        raise UserError(
            f"{name}: no such recipe{hint} Give the name of one, or the path of a YAML file"
            if hint
            else f"{name}: no such recipe; give the path of a YAML file, or one of {', '.join(known)}"
        )
    return resources.files("clipvip.recipes").joinpath(f"{name}{_ENDING}").read_text(encoding="utf-8")
