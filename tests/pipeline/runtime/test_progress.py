"""Progress in a log: whole lines, of which there are few."""

import pytest

from clipvip.pipeline.runtime.progress import Progress


def test_a_log_gets_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("shard", total=20_000, unit="clips") as bar:
        for number in range(10_000):
            bar.add(2, skipped=number)
        bar.note("something to know")
    lines = capsys.readouterr().err.split("\n")
    assert len(lines) == 4 and lines[1] == "something to know" and lines[3] == ""
    assert lines[0].startswith("shard: 0 of 20000 clips, 0%, ")
    assert lines[2].startswith("shard: 20000 of 20000 clips, 100%, ") and lines[2].endswith("skipped=9999")
    assert not {"\r", "\x1b"} & set("".join(lines))


def test_lines_come_at_their_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipvip.pipeline.runtime.progress._SECONDS_BETWEEN_LINES", 0.0)
    with Progress("texts", total=None, unit="texts") as bar:
        for _ in range(3):
            bar.add(1)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines[:4]] == [f"texts: {n} texts" for n in range(4)]
