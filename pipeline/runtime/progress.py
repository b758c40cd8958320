"""The progress line of a stage: done of total, rate, time left, skipped so far."""

import sys
from typing import Self, TextIO

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 30.0
_TIMES = "{elapsed}, {remaining} left, {rate_fmt}{postfix}"
_LINE = "{desc}: {n_fmt} of {total_fmt} {unit}, {percentage:.0f}%, " + _TIMES
_LINE_WITHOUT_TOTAL = "{desc}: {n_fmt} {unit}, {elapsed}, {rate_fmt}{postfix}"


class Progress:
    """A progress bar on a terminal; in a log, a plain line at the start, every half minute and at the end."""

    def __init__(
        self, label: str, *, total: int | None, unit: str, initial: int = 0, hidden: bool = False
    ) -> None:
        self._on_terminal = on_terminal = sys.stderr.isatty()
        line = _LINE_WITHOUT_TOTAL if total is None else _LINE
        self._bar = tqdm(
            desc=label,
            total=total,
            unit=unit,
            initial=initial,
            file=sys.stderr if on_terminal else _Lines(sys.stderr),
            dynamic_ncols=on_terminal,
            ascii=not on_terminal,
            mininterval=0.2 if on_terminal else _SECONDS_BETWEEN_LINES,
            maxinterval=1.0 if on_terminal else 2 * _SECONDS_BETWEEN_LINES,
            smoothing=0.1,
            disable=hidden,
            # Without this tqdm looks at the clock only after so many units as it guesses from the rate.
            miniters=None if on_terminal else 1,
            bar_format=None if on_terminal else line,
        )

    def add(self, done: int, *, skipped: int | None = None) -> None:
        """Count `done` more units; `skipped` is the total skipped so far."""
        if skipped is not None:
            self._bar.set_postfix(skipped=skipped, refresh=False)
        self._bar.update(done)

    def note(self, line: str) -> None:
        """Print a line without tearing the bar."""
        if self._on_terminal:
            self._bar.write(line, file=sys.stderr)
        else:
            sys.stderr.write(f"{line}\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


class _Lines:
    """A stream that makes lines of what tqdm writes over itself."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        text = text.strip("\r\n ")
        if text:
            self._stream.write(f"{text}\n")

    def flush(self) -> None:
        self._stream.flush()
