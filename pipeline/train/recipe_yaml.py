"""YAML as recipes are written in: from a file or a name to a tree of plain values."""

import difflib
import re
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
