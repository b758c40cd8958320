"""A browser without a window: how wide pages become on screens."""

import html
import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FRAME = '<iframe style="width:{width}px;height:800px;border:0" srcdoc="{page}"></iframe>'
_MEASURE = """
<p id="found"></p>
<script>
window.onload = () => {
  const pages = [...document.querySelectorAll("iframe")].map(frame => frame.contentDocument);
  const isWide = box => box.scrollWidth > box.clientWidth;
  document.getElementById("found").textContent = JSON.stringify(pages.map(page =>
    [page.documentElement.scrollWidth, [...page.querySelectorAll(".table, table")].filter(isWide).length]));
};
</script>
"""


class Fit(NamedTuple):
    """How wide a page is on a screen, in pixels, and how many of its tables are to be scrolled sideways."""

    width: int
    wide_tables: int


def find_browser() -> str | None:
    """The path of a browser of Chromium's family, if there is one."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


def fit_screens(page: bytes, screens: Sequence[int]) -> dict[int, Fit]:
    """How a page, all in one file, fits on screens of these widths."""
    browser = find_browser()
    assert browser is not None
    text = html.escape(page.decode())
    frames = "".join(_FRAME.format(width=width, page=text) for width in screens)
    with tempfile.TemporaryDirectory() as folder:
        outer = Path(folder) / "outer.html"
        outer.write_text(f"<!doctype html>{frames}{_MEASURE}")
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--dump-dom",
                   f"--user-data-dir={folder}/profile", "--virtual-time-budget=5000")  # fmt: skip
        command = [browser, *options, outer.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found = done.stdout.partition('id="found">')[2].partition("<")[0]
    return {screen: Fit(*one) for screen, one in zip(screens, json.loads(found), strict=True)}
