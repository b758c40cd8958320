"""Questions about clips, and classes of them, as files."""

import json
from collections.abc import Iterable
from pathlib import Path

OPTIONS = ["a cat", "dogs run", "rain falls", "somebody sings", "x"]
CLASSES = ["brush hair", "cartwheel", "dive"]


def write_zero_shot_files(folder: Path, keys: Iterable[str]) -> None:
    """questions.jsonl, classes.txt and labels.csv of the clips with these keys."""
    keys = list(keys)
    lines = [{"video": key, "options": OPTIONS, "answer": n % 5} for n, key in enumerate(keys)]
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    rows = [f"{key},{CLASSES[n % 3]}" for n, key in enumerate(keys)]
    (folder / "labels.csv").write_text("\n".join(["video,label", *rows]))
