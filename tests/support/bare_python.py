"""A Python that finds only some of the installed distributions and what they need.

For tests of what is optional.
"""

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path


def bare_python(folder: Path, distributions: list[str]) -> dict[str, str]:
    """Make an empty virtual environment in `folder`, and links to the distributions and all that they
    require.

    Returns:
        The variables PATH and PYTHONPATH with which `python3` is that Python.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    links = folder / "packages"
    links.mkdir()
    for name in _with_requirements(distributions):
        found = distribution(name)
        for top in {
            file.parts[0] for file in found.files or [] if file.parts[0] not in {"..", "__pycache__"}
        }:
            source = Path(str(found.locate_file(top)))
            if source.exists() and not (links / top).exists():
                (links / top).symlink_to(source)
    return {"PATH": f"{folder / 'venv' / 'bin'}:/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": str(links)}


def _with_requirements(names: list[str]) -> set[str]:
    todo, found = list(names), set()
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in found:
            continue
        try:
            required = distribution(name).requires or []
        except PackageNotFoundError:
            continue  # for another platform
        found.add(name)
        todo += [re.match(r"[A-Za-z0-9._-]+", text)[0] for text in required if "extra ==" not in text]  # type: ignore[index]
    return found
