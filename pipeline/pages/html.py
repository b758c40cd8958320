"""Pages to look at: one shell and one style for all, each page one file that loads nothing from elsewhere.

Jinja2 escapes all text, whoever wrote it.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from jinja2 import Environment, PackageLoader, StrictUndefined

_TEMPLATES = Environment(
    loader=PackageLoader("clipvip.pipeline.pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


class Block(Protocol):
    """What stands in a section: a dataclass that names the template that draws it as `block`."""

    template: ClassVar[str]


@dataclass(frozen=True)
class Section:
    """A part of a page: heading, a line about it, blocks side by side where they fit, and lines of code."""

    heading: str = ""
    note: str = ""
    blocks: Sequence[Block] = ()
    code: str = ""


def render_page(title: str, sections: Sequence[Section], *, note: str = "") -> bytes:
    """A whole page as UTF-8; equal arguments give equal bytes."""
    parts = _TEMPLATES.get_template("page.html").generate(title=title, note=note, sections=sections)
    return b"".join(part.encode("utf-8", "replace") for part in parts)


def render_block(block: Block) -> str:
    """A block by itself."""
    return _TEMPLATES.get_template(block.template).render(block=block)


def data_url(data: bytes, *, kind: str) -> str:
    """An image of the MIME type `kind` as the address of an <img>."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
