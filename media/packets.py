"""Which packets of a video a decoder must see for the frames that are needed to come out right.

The others cost most of a sparse set's time. Files are read from front to back all the same: reading costs
hardly anything, and seeking is as exact as a file's index.
"""

import bisect
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

# No codec moves a frame by more than 16 places.
_PACKETS_AHEAD = 32
# What is held back until it is known whether it is of use. A group of pictures is far below it, as a rule.
_MOST_BYTES_HELD = 32 << 20


@dataclass(slots=True)
class Step:
    """What to do with one packet.

    `is_decoded` false: leave it out. Else decode it, where `is_needed` is false only if others may be built
    on it. `begins_anew`: packets before it were left out, so the decoder must first give what it has and
    forget it, and frames with an earlier time are not to be used. `is_incomplete`: bytes of it may be lost,
    since it is marked, or the one before; `has_gap_behind`: time is missing between it and the next.
    """

    packet: Any
    seconds: float | None
    is_needed: bool | None = None
    is_decoded: bool = True
    begins_anew: bool = False
    is_incomplete: bool = False
    has_gap_behind: bool = False


def plan_steps(
    packets: Iterable[Any],
    needed: Callable[[float, float, float], bool],
    seconds_of: Callable[[Any], float | None],
    may_leave_out: bool,
) -> Iterator[Step]:
    """Yield a step for each packet, in the order of the file.

    `needed(time of the frame before, its time, time of the next)` says in seconds whether a packet's frame is
    of use (before the first is -1, after the last infinity); `seconds_of` gives a packet's time, or None.
    Where `may_leave_out`, the packets between the last needed one and a
    keyframe are left out, unless frames that follow that keyframe but are shown before it are needed.
    """
    held: list[Step] = []
    held_bytes, may_hold = 0, False
    for step, following in _with_following(packets, needed, seconds_of):
        if step.packet.is_keyframe and step.seconds is not None:
            may_hold = may_leave_out and _nothing_needed_before(step.seconds, following)
            if may_hold and held:
                step.begins_anew = True
                yield from _left_out(held)
                held, held_bytes = [], 0
        is_end = not step.packet.size
        if is_end:
            yield from _left_out(held)
            held = []
        held_bytes += step.packet.size
        if may_hold and not step.is_needed and not is_end and held_bytes <= _MOST_BYTES_HELD:
            held.append(step)
            continue
        may_hold = may_hold and held_bytes <= _MOST_BYTES_HELD
        yield from held
        held, held_bytes = [], 0
        yield step
    yield from _left_out(held)


def _left_out(steps: list[Step]) -> Iterator[Step]:
    for step in steps:
        step.is_decoded = False
        yield step


def _with_following(
    packets: Iterable[Any],
    needed: Callable[[float, float, float], bool],
    seconds_of: Callable[[Any], float | None],
) -> Iterator[tuple[Step, list[Step]]]:
    """Each packet's step, and for a keyframe those of the next packets, with what `needed` says of them.

    They are read a little ahead, since a frame's predecessor in time may come after it in the file.
    """
    ahead: deque[Step] = deque()
    known: list[float] = []  # times of the packets around, sorted
    marks = _Marks()

    def ask(step: Step) -> None:
        if step.is_needed is None:
            step.is_needed = True
            if step.seconds is not None:
                place = bisect.bisect_left(known, step.seconds)
                previous = known[place - 1] if place else -1.0
                after = bisect.bisect_right(known, step.seconds, place)
                following = known[after] if after < len(known) else math.inf
                step.is_needed = needed(previous, step.seconds, following)
                del known[: place - _PACKETS_AHEAD if place > 2 * _PACKETS_AHEAD else 0]

    def first() -> tuple[Step, list[Step]]:
        step = ahead.popleft()
        ask(step)
        marks.note(step, ahead[0].packet.dts if ahead else None)
        if not step.packet.is_keyframe or step.seconds is None:
            return step, []
        following = [other for other in ahead if other.seconds is None or other.seconds < step.seconds]
        for other in following:
            ask(other)
        return step, following

    for packet in packets:
        step = Step(packet, seconds_of(packet))
        ahead.append(step)
        if step.seconds is not None:
            bisect.insort(known, step.seconds)
        if len(ahead) > _PACKETS_AHEAD:
            yield first()
    while ahead:
        yield first()


class _Marks:
    """Which packets may lack bytes: those that are marked, and each one behind them."""

    def __init__(self) -> None:
        self._was_marked = False
        self._last_dts: int | None = None
        self._ticks: deque[int] = deque(maxlen=8)  # between packets, since not all tell their length

    def note(self, step: Step, next_dts: int | None) -> None:
        packet = step.packet
        step.is_incomplete = packet.is_corrupt or self._was_marked
        self._was_marked = packet.is_corrupt
        if packet.dts is None:
            return
        usual = packet.duration or max(self._ticks, default=0)
        if step.is_incomplete and next_dts is not None:
            step.has_gap_behind = next_dts - packet.dts > 1.5 * usual > 0
        if self._last_dts is not None:
            self._ticks.append(packet.dts - self._last_dts)
        self._last_dts = packet.dts


def _nothing_needed_before(seconds: float, following: list[Step]) -> bool:
    return not any(
        step.packet.size and (step.seconds is None or (step.is_needed and step.seconds < seconds))
        for step in following
    )
