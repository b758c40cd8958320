"""The progress line of a stage: done of total, rate, time left, skipped so far."""

import sys
from typing import Self

from tqdm import tqdm


class Progress:
    """A progress bar on a terminal; in a log, a plain line every half minute."""

    def __init__(
        self, label: str, *, total: int | None, unit: str, initial: int = 0, hidden: bool = False
    ) -> None:
        on_terminal = sys.stderr.isatty()
        self._bar = tqdm(
            desc=label,
            total=total,
            unit=unit,
            initial=initial,
            file=sys.stderr,
            dynamic_ncols=on_terminal,
            ascii=not on_terminal,
            mininterval=0.2 if on_terminal else 30.0,
            maxinterval=1.0 if on_terminal else 60.0,
            smoothing=0.1,
            disable=hidden,
        )

    def add(self, done: int, *, skipped: int | None = None) -> None:
        """Count `done` more units; `skipped` is the total skipped so far."""
        if skipped is not None:
            self._bar.set_postfix(skipped=skipped, refresh=False)
        self._bar.update(done)

    def note(self, line: str) -> None:
        """Print a line without tearing the bar."""
        self._bar.write(line, file=sys.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
