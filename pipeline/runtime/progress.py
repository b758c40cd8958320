"""The progress line of a stage: done of total, rate, time left, skipped so far."""

import sys
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, NoReturn, Self, TextIO

from tqdm import tqdm

from clipvip.pipeline.runtime.report import counted, singular

if TYPE_CHECKING:
    _Tqdm = tqdm[NoReturn]
else:
    _Tqdm = tqdm

_SECONDS_BETWEEN_LINES = 30.0
_MANY = 100  # a second: decimals say nothing
_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {speed}{postfix}]"
_BAR_WITHOUT_TOTAL = "{desc}: {how_many} [{elapsed}, {speed}{postfix}]"
_LINE = "{desc}: {how_many}, {percentage:.0f}%, {elapsed}"
_LINE_WITHOUT_TOTAL = "{desc}: {how_many}, {elapsed}"


class Progress:
    """A progress bar on a terminal; in a log, a plain line at the start, every half minute and at the end.

    `unit` is the plural of what is counted.
    """

    def __init__(
        self, label: str, *, total: int | None, unit: str, initial: int = 0, hidden: bool = False
    ) -> None:
        assert not unit or singular(unit) != unit, unit
        self._on_terminal = on_terminal = sys.stderr.isatty()
        self._bar = (_Bar if on_terminal else _Line)(
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


class _Bar(_Tqdm):
    """What is shown is put together here: tqdm knows one form of a unit, and joins it to its number."""

    @property
    def format_dict(self) -> MutableMapping[str, Any]:
        about = dict(super().format_dict)
        done, total, unit = about["n"], about["total"], about["unit"]
        how_many = counted(done, unit) if total is None else f"{done} of {total} {_of(total, unit)}"
        rate = about["rate"]
        if rate is None and about["elapsed"]:
            rate = (done - about["initial"]) / about["elapsed"]
        about |= {"how_many": how_many, "speed": speed(rate, unit)}
        return about | {"bar_format": self._form(total is not None, is_moving=bool(rate))}

    def _form(self, has_total: bool, *, is_moving: bool) -> str:
        return _BAR if has_total else _BAR_WITHOUT_TOTAL


class _Line(_Bar):
    def _form(self, has_total: bool, *, is_moving: bool) -> str:
        form = _LINE if has_total else _LINE_WITHOUT_TOTAL
        if is_moving:
            form += ", {remaining} left, {speed}" if has_total else ", {speed}"
        return form + "{postfix}"


def _of(number: int, unit: str) -> str:
    return singular(unit) if number == 1 else unit


def speed(rate: float | None, unit: str) -> str:
    """Units a second, or seconds a unit, whichever is above 1."""
    if not rate:
        return "?"
    if rate < 1:
        return f"{1 / rate:.2f} s/{singular(unit)}"
    return f"{rate:,.0f} {unit}/s" if rate >= _MANY else f"{rate:.2f} {unit}/s"


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
