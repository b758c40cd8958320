"""What every page of this package is: a well-formed shell that loads and runs nothing and fits a phone."""

import re
from html.parser import HTMLParser

_VOID = {"meta", "img", "wbr"}


class HtmlPage(HTMLParser):
    """A page's tags, the addresses that it would load, and its texts. Making one checks the page."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.style = ""
        self.has_viewport = False
        self._open: list[str] = []
        assert content.startswith(b'<!doctype html>\n<html lang="en">')
        self.feed(content.decode())
        self.close()
        self._check()

    def _check(self) -> None:
        assert self._open == []
        assert all(self.tags.count(tag) == 1 for tag in ("html", "head", "title", "style", "body", "h1"))
        assert self.has_viewport
        assert not {"script", "link", "iframe", "object"} & set(self.tags)
        assert all(source.startswith("data:image/") for source in self.sources)
        assert not re.search(r"url\(|@import|https?:", self.style)
        assert "prefers-color-scheme:dark" in self.style
        # Nothing is at least as wide as a phone; a grid's columns are told so by min(..., 100%).
        assert set(re.findall(r"(?<![a-z-])(?:min-)?width:([^;}]*)", self.style)) <= {"100%", "0"}
        assert "minmax" not in re.sub(r"minmax\(min\([\d.]+rem,100%\),1fr\)", "", self.style)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append("label" if tag == "title" and "svg" in self._open else tag)
        if tag not in _VOID:
            self._open.append(tag)
        named = dict(attrs)
        self.sources += [str(named[name]) for name in ("src", "href", "srcset", "data") if name in named]
        self.has_viewport = self.has_viewport or named.get("name") == "viewport"
        assert not [name for name in named if name.startswith("on")]
        if "svg" not in self._open:
            assert "style" not in named and "width" not in named

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] == ["style"]:
            self.style += data
        else:
            self.text += data
