"""docs/glossary.md: in order, a line for each word, and what it points at is there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LINES = [line for line in (ROOT / "docs" / "glossary.md").read_text().splitlines() if line.startswith("| ")]
ROWS = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in LINES[1:]]


def test_words_are_in_order_and_come_once() -> None:
    words = [row[0] for row in ROWS]
    assert len(words) > 25
    assert words == sorted(set(words), key=str.lower)
    assert [row[0] for row in ROWS if len(row) != 3 or not all(row)] == []


def test_files_and_names_in_them_exist() -> None:
    for word, _, more in ROWS:
        found = re.findall(r"(?:`(\w+)` in )?`(\S+/\S+\.py)`", more)
        assert found or "](" in more, word
        for name, file in found:
            assert (ROOT / file).is_file(), f"{word}: {file}"
            text = (ROOT / file).read_text()
            assert re.search(rf"^(?:class |def )?{name}\b", text, flags=re.MULTILINE), f"{word}: {name}"
