"""Frames of transport streams of which packets are marked as incomplete: which of them can be used."""

from dataclasses import dataclass
from typing import Any

from clipvip.media.packets import Step

Timed = tuple[float, Any]

# No codec moves a frame by more than 16 places; and a stream that has no keyframes heals without.
_MOST_WAITING, _MOST_SENT = 32, 1000


@dataclass(frozen=True, slots=True)
class _Sent:
    pts: int
    is_keyframe: bool
    has_gap_behind: bool
    frame_pts: tuple[int, ...] = ()  # of a doubtful packet: which times its frame may have


class Losses:
    """What a mark costs: nothing if all is there, else frames up to the next keyframe.

    Packets are marked where their numbers are out of order: bytes were lost, there or in the next packet, or
    streams were joined, and nothing is missing. The decoder tells: the frames of both come out undamaged, or
    they do not. Until both should have come, frames wait. If one is damaged, or time is missing behind it,
    frames that were sent from there to the next keyframe are built on what is not there. `have_been` is set
    when something is lost, and is its reader's to reset.
    """

    def __init__(self) -> None:
        self.have_been = False
        self._sent: list[_Sent] = []  # from the first mark on
        self._came_clean: set[int] = set()
        self._waiting: list[Timed] = []
        self._last_doubted_pts = -1
        self._first_pts: int | None = None

    @property
    def are_watched(self) -> bool:
        return bool(self._sent)

    def begin_anew(self, first_pts: int | None) -> None:
        """Decoding begins at a keyframe; packets that are shown before it do not count."""
        self._sent.clear()
        self._came_clean.clear()
        self._first_pts = first_pts

    def sends(self, step: Step, *, has_fields: bool) -> None:
        """Note the next packet that the decoder is given."""
        pts = step.packet.pts
        if pts is None or (self._first_pts is not None and pts < self._first_pts):
            return
        if step.is_incomplete:
            # The frame of a second field has the time of the first.
            frame_pts = (pts, pts - step.packet.duration) if has_fields else (pts,)
            self._last_doubted_pts = max(self._last_doubted_pts, pts) if self._sent else pts
            self._sent.append(_Sent(pts, step.packet.is_keyframe, step.has_gap_behind, frame_pts))
        elif len(self._sent) > _MOST_SENT:
            self._sent.clear()
        elif self._sent:
            self._sent.append(_Sent(pts, step.packet.is_keyframe, False))

    def passes(self, seconds: float, frame: Any) -> list[Timed]:
        """The frames that can be used, now that the decoder has yielded this one; in order."""
        if not self._sent or frame.pts is None:
            return [(seconds, frame)]
        if not frame.is_corrupt:
            self._came_clean.add(frame.pts)
        self._waiting.append((seconds, frame))
        is_open = frame.pts < self._last_doubted_pts and len(self._waiting) < _MOST_WAITING
        return [] if is_open else self.rest()

    def rest(self) -> list[Timed]:
        """The frames that can be used of those that wait."""
        lost, goes_on_from = self._lost()
        waiting, self._waiting = self._waiting, []
        self.have_been = self.have_been or bool(lost) or any(sent.has_gap_behind for sent in self._sent)
        if goes_on_from is not None and waiting and waiting[-1][1].pts >= goes_on_from:
            self._sent.clear()
            self._came_clean.clear()
        return [(t, frame) for t, frame in waiting if not frame.is_corrupt and frame.pts not in lost]

    def _lost(self) -> tuple[set[int], int | None]:
        """Times of frames not to be used; and from which time on nothing is amiss, if that is known."""
        lost: set[int] = set()
        is_lost, goes_on_from = False, self._last_doubted_pts
        for sent in self._sent:
            is_damaged = bool(sent.frame_pts) and self._came_clean.isdisjoint(sent.frame_pts)
            if is_damaged:
                is_lost = True
            elif sent.is_keyframe and is_lost:
                is_lost, goes_on_from = False, max(goes_on_from, sent.pts)
            if is_lost or (lost and sent.pts < goes_on_from and not sent.frame_pts):
                lost.add(sent.pts)
            is_lost = is_lost or sent.has_gap_behind
        return lost, None if is_lost else goes_on_from
