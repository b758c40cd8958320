"""Units of work in plain Python, which take no process down: with one worker they need no other process."""

from collections.abc import Callable, Iterable, Iterator

from clipvip.pipeline.runtime.workers import Outcome, Result, Unit, run_units


def run_plain_units(
    function: Callable[[Unit], Result], units: Iterable[Unit], *, workers: int
) -> Iterator[Outcome[Unit, Result]]:
    """As `run_units`, but one worker is this process itself, which starts at once."""
    if workers > 1:
        yield from run_units(function, units, workers=workers)
        return
    for unit in units:
        yield Outcome(unit, function(unit))
