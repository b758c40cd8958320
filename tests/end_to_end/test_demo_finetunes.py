"""The demo's corpus fine-tunes and scores through the commands that docs/finetuning.md shows, as they stand
there.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "finetuning.md"


@pytest.mark.slow
def test_the_commands_of_the_page(tmp_path: Path) -> None:
    block = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)[-1]
    lines = [line for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    assert [line.split()[0] for line in lines].count("clipvip-train") == 1 and len(lines) == 6
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    for line in lines:
        name, *words = shlex.split(line)
        script = Path(sys.executable).parent / name
        done = subprocess.run(
            [script, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stderr[-2000:]}"
    scores = json.loads((tmp_path / "tuned" / "test.json").read_text())
    recall = scores["metrics"]["plain"]["text_to_video"]["r1"]
    # Chance is below 1%; the start has about a third.
    assert recall > 0.5
    again = json.loads((tmp_path / "tuned" / "eval" / "retrieval.json").read_text())
    assert again["metrics"]["plain"]["text_to_video"]["r1"] == recall
