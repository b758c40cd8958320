"""Plug-ins: modules of others that add encoders, losses, video sets and captioners, by names of their own.

A plug-in is a module that adds to a `Registry` when it is imported. Installed packages name theirs as entry
points of the group `clipvip.plugins`; CLIPVIP_PLUGINS names more, with commas between. No
name out of data is imported.
"""

import difflib
import os
from collections import UserDict
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import TypeVar

T = TypeVar("T")
GROUP = "clipvip.plugins"
VARIABLE = "CLIPVIP_PLUGINS"
HINT = f"if a plug-in adds it, install that, or name its module in {VARIABLE}"


class PluginError(Exception):
    """A plug-in that does not load; the message is one line and names it."""


class Registry(UserDict[str, T]):
    """Names that a recipe, an option or a model's config.json may give, and what they stand for.

    Plug-ins are loaded when a name is asked for that is not there yet, in whichever process: names of our own
    cost nothing, and workers need not be told. Iteration gives the names that are there, and loads none.

    Raises, where a name is asked for:
        PluginError: a plug-in does not load.
        ValueError: in adding one that is there already.
    """

    def __contains__(self, name: object) -> bool:
        if name not in self.data:
            load_plugins()
        return name in self.data

    def __missing__(self, name: str) -> T:
        load_plugins()
        return self.data[name]

    def __setitem__(self, name: str, entry: T) -> None:
        if name in self.data:
            raise ValueError(f"{name!r} is already taken; choose another name")
        self.data[name] = entry

    def refusal(self, what: str, name: str, *others: str) -> str:
        """What to say of the name of a `what` that is neither there nor one of `others`."""
        known = [*self.data, *others]
        near = "".join(f"did you mean {close}? " for close in difflib.get_close_matches(name, known, n=1))
        return f"{what} {name!r} is none of {', '.join(known)}; {near}{HINT}"


@cache
def load_plugins() -> None:
    """Import all plug-ins, in the first call.

    Raises:
        PluginError: one does not load.
    """
    for module, whose in _modules():
        try:
            import_module(module)
        except Exception as error:  # whatever its code raises
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise PluginError(f"plug-in {module} ({whose}): does not load ({reason})") from error


def _modules() -> Iterator[tuple[str, str]]:
    """Each plug-in's module, and who names it."""
    from importlib.metadata import entry_points  # reads all packages' files; only where a name is not ours

    for name in os.environ.get(VARIABLE, "").split(","):
        if name.strip():
            yield name.strip(), f"named in {VARIABLE}"
    for entry in entry_points(group=GROUP):
        yield entry.module, f"of the package {entry.dist.name}" if entry.dist else "installed"
