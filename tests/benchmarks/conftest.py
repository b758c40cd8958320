"""Lets tests import the scripts of `benchmarks/`, which are no package."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
