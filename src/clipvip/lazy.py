"""Names that a package offers and loads on use, so that importing it costs nothing."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, modules: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package.

    Args:
        modules: module of clipvip -> the names of it that the package offers; "there as here" gives one
            another name, and no name at all stands for the module itself.
    """
    home: dict[str, tuple[str, str]] = {}
    for module, names in modules.items():
        for name in names.replace(" as ", ":").split():
            there, _, here = name.partition(":")
            home[here or there] = (module, there)
        if not names:
            home[module.rpartition(".")[2]] = (module, "")

    def get(name: str) -> Any:
        if name not in home:
            message = f"module {package!r} has no attribute {name!r}"
            # With these two a traceback names the nearest.
            raise AttributeError(message, name=name, obj=import_module(package))
        module, there = home[name]
        found = import_module(f"clipvip.{module}")
        return getattr(found, there) if there else found

    def names_of() -> list[str]:
        return sorted({*vars(import_module(package)), *home})

    return get, names_of
