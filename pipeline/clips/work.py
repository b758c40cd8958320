"""What a worker process of `clipvip-data clips` does: look into one video, and divide it into clips."""

import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from av.video.reformatter import Interpolation, VideoReformatter

from clipvip.media.container import UnreadableVideo
from clipvip.media.decode import Video, open_video
from clipvip.media.errors import one_line
from clipvip.pipeline.clips.spans import Span, inside, pieces, sentences, shots
from clipvip.pipeline.runtime.time_limit import time_limit
from clipvip.shards.errors import NO_ROOM, DatasetError, Skip
from clipvip.shards.files.stores import local_copy
from clipvip.shards.sources.subtitles import Cue, read_subtitles

_TICKS_PER_SECOND = 1_000_000
# Cuts show in small pictures too, and less noise does; PySceneDetect scales to about as much.
_SHOT_WIDTH = 256


@dataclass(frozen=True, slots=True)
class Division:
    """How videos are divided, as `ClipsOptions` has it."""

    by: Literal["pieces", "shots", "subtitles"]
    seconds: float
    shortest: float
    threshold: float
    subtitle_encoding: str | None = None


@dataclass(frozen=True, slots=True)
class ClipsTask:
    """A video to look into: a file or URL, `name` in messages; `file` is its name, size and time.

    `subtitles` are its own. One that yields no frame for `timeout_seconds` ends the process by SIGALRM, even
    inside native code.
    """

    video_id: str
    name: str
    file: str
    path: str
    subtitles: str | None
    division: Division
    timeout_seconds: float


@dataclass(frozen=True, slots=True)
class Divided:
    """The clips of a video in order of time, and what was left out: all of it, or what follows on damage."""

    spans: tuple[Span, ...]
    skip: Skip | None = None


def divide_video(task: ClipsTask) -> Divided:
    """Divide one video; files that crash or block their readers end the process."""
    try:
        with (
            time_limit(task.timeout_seconds) as allow_more_time,
            local_copy(task.path, heartbeat=allow_more_time) as path,
        ):
            cues = _cues(task)
            with open_video(path) as video:
                return _divide(task, video, cues, allow_more_time)
    except (UnreadableVideo, DatasetError) as error:
        reason = error.reason if isinstance(error, UnreadableVideo) else "unreadable_subtitles"
        return Divided((), Skip(reason, task.name, one_line(error, most=200)))
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
        return Divided((), Skip("unreachable_video", task.name, one_line(error, most=200)))


def _divide(task: ClipsTask, video: Video, cues: list[Cue], heartbeat: Callable[[], None]) -> Divided:
    by, limits = task.division.by, {"seconds": task.division.seconds, "shortest": task.division.shortest}
    cuts: list[float] = []
    watched = _watch(video, task.division, cuts, heartbeat) if by == "shots" else _skim(video, heartbeat)
    if watched is None:
        return Divided((), Skip("undecodable_video", task.name, video.damage or "has no pictures"))
    (start, last), end = watched, video.end_seconds
    if by == "subtitles":
        spans = sentences(cues, **limits)
    elif by == "shots":
        spans = shots(cuts, start, end, **limits)
    else:
        spans = pieces(start, end, **limits)
    if not video.damage:
        return Divided(tuple(inside(spans, end)))
    # A clip that reaches the damage would be lost later, when it is cut.
    kept = inside(spans, last)
    if kept and kept[-1][1] - kept[-1][0] < task.division.shortest:
        kept.pop()
    detail = f"readable to {end:.2f} s: {video.damage}"
    return Divided(tuple(kept), Skip("cut_short" if kept else "undecodable_video", task.name, detail))


def _skim(video: Video, heartbeat: Callable[[], None]) -> tuple[float, float] | None:
    """The time of the first frame, and one before the last second; all is read, and next to none decoded."""

    def is_needed(*times: float) -> bool:
        heartbeat()
        return False

    start = None
    for seconds, _ in video.frames(is_needed):
        start = seconds if start is None else start
    # How much of the last second is whole only decoding would tell.
    return None if start is None else (start, video.end_seconds - 1.0)


def _watch(
    video: Video, division: Division, cuts: list[float], heartbeat: Callable[[], None]
) -> tuple[float, float] | None:
    """The times of the first frame and the last; `cuts` gets those between shots, by PySceneDetect."""
    import cv2
    from scenedetect import ContentDetector, FrameTimecode
    from scenedetect.common import Timecode

    cv2.setNumThreads(1)
    detector = ContentDetector(division.threshold, min_scene_len=float(division.shortest))
    start = code = None
    for seconds, picture in _small_pictures(video):
        heartbeat()
        start = seconds if start is None else start
        ticks = Timecode(max(0, round(seconds * _TICKS_PER_SECOND)), Fraction(1, _TICKS_PER_SECOND))
        code = FrameTimecode(ticks, video.fps or 25.0)
        cuts += [cut.seconds for cut in detector.process_frame(code, picture)]
    if start is None or code is None:
        return None
    cuts += [cut.seconds for cut in detector.post_process(code)]
    return start, code.seconds


def _small_pictures(video: Video) -> Iterator[tuple[float, Any]]:
    """Time and picture of every frame: uint8 (height, width, 3), BGR."""
    reformatter, size = VideoReformatter(), (0, 0)
    for seconds, frame in video.frames():
        if size == (0, 0):
            width = min(_SHOT_WIDTH, frame.width)
            size = width, max(1, round(frame.height * width / frame.width))
        small = reformatter.reformat(
            frame, width=size[0], height=size[1], format="bgr24", interpolation=Interpolation.AREA, threads=1
        )
        yield seconds, small.to_ndarray()


def _cues(task: ClipsTask) -> list[Cue]:
    """What is said in the video; none where it is not divided by that. DatasetError: it cannot be read."""
    place = task.subtitles
    if place is None:
        return []
    return read_subtitles(place, name=posixpath.basename(place), encoding=task.division.subtitle_encoding)
