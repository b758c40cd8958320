"""YAML as recipes are written in: from a file or a name to a tree of plain values."""

import difflib
import re
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from clipvip.media.errors import one_line
from clipvip.pipeline.runtime.errors import UserError


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers: `5e-6` is a number, though YAML 1.1 calls it text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse_yaml(text: str, *, name: str) -> dict[str, Any]:
    """YAML text as a tree of plain values; UserError where it is not a mapping."""
    tree = parse_value(text, name=name)
    if not isinstance(tree, dict | None):
        raise UserError(f"{name}: a recipe is a mapping of sections, this is a {type(tree).__name__}")
    return tree or {}


def parse_value(text: str, *, name: str) -> Any:
    """Any YAML value; UserError, with `name`, where the text is none."""
    try:
        return yaml.load(text, _Loader)  # a SafeLoader: plain values only
    except yaml.YAMLError as error:
        raise UserError(f"{name}: not YAML ({one_line(error)})") from error


def packaged_recipes() -> list[str]:
    """The names of the recipes that come with the package."""
    folder = resources.files("clipvip.recipes")
    return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def read_recipe(name: str) -> str:
    """The text of a recipe, of a file or one of the packaged ones; UserError where there is none."""
    if Path(name).is_file():
        try:
            return Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{name}: cannot be read as a recipe ({error})") from error
    known = packaged_recipes()
    if name not in known:
        raise UserError(
            f"{name}: no such recipe{nearest(name, known)}; give a YAML file or one of: {', '.join(known)}"
        )
    return resources.files("clipvip.recipes").joinpath(f"{name}.yaml").read_text(encoding="utf-8")


def put(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key, making sections on the way; UserError where one of them is a value."""
    *sections, last = key.split(".")
    for section in sections:
        if tree.get(section) is None:
            tree[section] = {}
        tree = tree[section]
        if not isinstance(tree, dict):
            raise UserError(f"{key}: {section} is a value, not a section")
    tree[last] = value


def nearest(word: str, known: list[str]) -> str:
    """What a message adds of the known word that was meant; nothing where there is none like it."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""
