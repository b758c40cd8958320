"""The names that users import, where one looks for them."""

import subprocess
import sys

import pytest

NAMES = """
from clipvip.analysis import domain_gap, retrieval_metrics
from clipvip.analysis.domain_gap import domain_gap as the_function
import clipvip.analysis.domain_gap
from clipvip.analysis import domain_gap as still_the_function
from clipvip.model import ClipVip, ClipVipConfig, omnisource_loss
from clipvip.model.losses import omnisource_loss as the_loss
from clipvip.shards.sampling import uniform_indices

assert domain_gap is the_function is still_the_function, domain_gap
assert omnisource_loss is the_loss and callable(retrieval_metrics)
assert uniform_indices(5, 3).tolist() == [0, 2, 4]
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_functions_and_classes_stand_where_one_looks() -> None:
    run(NAMES)


@pytest.mark.parametrize("heavy", ["torch", "transformers", "sklearn", "av", "click", "matplotlib"])
def test_the_packages_themselves_load_nothing_heavy(heavy: str) -> None:
    code = "import sys, clipvip, clipvip.analysis, clipvip.model, clipvip.shards, clipvip.media"
    assert run(f"{code}\nprint({heavy!r} in sys.modules)") == "False\n"
