"""The options of a stage as keywords of a Python function: its docstring and its signature."""

import inspect
import re
import textwrap
from dataclasses import MISSING, Field, fields
from typing import Any

from clipvip.pipeline.runtime.options import declared

_SECTIONS = re.compile(r"^(?:Returns|Raises|Examples):$", flags=re.MULTILINE)
_WIDTH = 100


def docstring_with_options(docstring: str, options: Any) -> tuple[str, str]:
    """What a stage does, from its docstring; and the whole, with its options before results and errors."""
    docstring = inspect.cleandoc(docstring)
    found = _SECTIONS.search(docstring)
    end = found.start() if found else len(docstring)
    about, rest = docstring[:end].rstrip(), docstring[end:]
    lead = f"Options, as keywords or as one {options.__name__}; a path may be a str:"
    listed = "\n".join(_option_help(one) for one in fields(options))
    return about, "\n\n".join(part for part in (about, f"{lead}\n{listed}", rest) if part)


def _option_help(one: Field[Any]) -> str:
    """`name: type = default` and, below, what it is for."""
    said = declared(one)
    opt = said.opt
    default = "" if one.default is MISSING else f" = {one.default!r}"
    shown = f" ({opt.shown})" if opt.shown else ""
    text = textwrap.fill(opt.help, _WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return f"    {one.name}: {_type_name(said.kind)}{default}{shown}" + (f"\n{text}" if text.strip() else "")


def _type_name(kind: Any) -> str:
    """A type as it is written, without its module."""
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", inspect.formatannotation(kind))


def signature_of(options: Any) -> inspect.Signature:
    """The signature of a stage that takes these options as keywords."""
    signature = inspect.signature(options)
    kinds = {one.name: declared(one).kind for one in fields(options)}
    parameters = [one.replace(annotation=kinds[one.name]) for one in signature.parameters.values()]
    return signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)
