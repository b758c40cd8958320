"""Progress in a log: whole lines, of which there are few."""

import io
import re

import pytest

from clipvip.pipeline.runtime.progress import Progress, speed


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
    assert [line.split(",")[0] for line in lines[:4]] == [
        "texts: 0 texts",
        "texts: 1 text",
        "texts: 2 texts",
        "texts: 3 texts",
    ]


@pytest.mark.parametrize(
    ("total", "done", "words"),
    [
        (1, 1, r"1 of 1 shard, 100%, 00:00, 00:00 left, [\d.,]+ shards/s"),
        (10, 3, r"3 of 10 shards, 30%, 00:00, 00:00 left, [\d.,]+ shards/s"),
        (None, 1, r"1 shard, 00:00, [\d.,]+ shards/s"),
    ],
)
def test_what_is_counted_is_named_as_in_a_sentence(
    total: int | None, done: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("measure", total=total, unit="shards") as bar:
        bar.add(done)
    first, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(f"measure: {words}", last), last
    assert "?" not in first


@pytest.mark.parametrize(
    ("rate", "words"),
    [(0.5, "2.00 s/shard"), (2.5, "2.50 shards/s"), (1234.5, "1,234 shards/s"), (None, "?")],
)
def test_rates_are_above_one(rate: float | None, words: str) -> None:
    assert speed(rate, "shards") == words


def test_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", terminal)
    with Progress("shard", total=4, unit="clips") as bar:
        bar.add(4, skipped=1)
    assert re.search(
        r"shard: 100%\|.*\| 4/4 \[00:00<00:00, [\d.,]+ clips/s, skipped=1\]", terminal.getvalue()
    )
