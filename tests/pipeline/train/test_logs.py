"""log.jsonl after a disk has damaged it: what is left of it is read, and what is lost is told of."""

from pathlib import Path

import pytest

from clipvip.pipeline.runtime.progress import Progress
from clipvip.pipeline.train.logs import open_logs, read_log
from clipvip.pipeline.train.recipe import recipe_from_tree

FIRST, LAST = b'{"step": 1, "loss": 2.5}', b'{"step": 3, "loss": 1.5}'
NO_ROWS = [
    b"",
    b"\0" * 40,
    b"\xff\xfe{}",
    b'{"step": 2, "lo',
    b"[" * 9999,
    b"[2, 1.5]",
    b"null",
    b'{"step": "2", "loss": 1.0}',
    b'{"step": 2, "loss": NaN}',
    b'{"step": 2, "loss": 1e999}',
    b'{"step": ' + b"9" * 400 + b', "loss": 1.0}',
    b'{"step": 2}',
]


@pytest.mark.parametrize("line", NO_ROWS, ids=range(len(NO_ROWS)))
def test_a_line_that_is_no_row_is_left_out_and_told_of(
    line: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"\n".join([FIRST, line, LAST, b'{"step": 4, "los']))
    with open_logs(
        recipe_from_tree({"run": {"tensorboard": False}}, name="x"),
        tmp_path,
        Progress("train", total=1, unit="steps", hidden=True),
        step=2,
    ):
        pass
    assert capsys.readouterr().err.splitlines() == [f"Warning: {path}: 1 damaged line of 3 left out"]
    assert path.read_bytes() == FIRST + b"\n"
    assert read_log(tmp_path) == [{"step": 1, "loss": 2.5}]
    assert not capsys.readouterr().err
