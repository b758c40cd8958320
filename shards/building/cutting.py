"""Cut clips out of one video: a single pass over its frames, from which every clip takes its own."""

import dataclasses
import io
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipvip.media.container import UnreadableVideo
from clipvip.media.decode import Needed, Video, open_video
from clipvip.media.jpeg import encode_jpeg_planes
from clipvip.media.mp4 import Mp4Encoder
from clipvip.media.pictures import split_planes
from clipvip.media.sampling import uniform_indices
from clipvip.shards.errors import Skip
from clipvip.shards.format.clip import Clip, StoredClip

# Spans are often a little longer than the video, since they were made from its sound or its subtitles.
END_TOLERANCE_SECONDS = 1.0

# Matroska's clock ticks in milliseconds: a frame at 1.333 s is the one asked for at 1 + 1/3 s.
_SAME_TIME_SECONDS = 1e-3

# So long the picture at a clip's start may stand without being stored: usual videos show the next far sooner.
_STANDS_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class CutOptions:
    """How clips are stored.

    `store` is `frames` (JPEGs, `quality` 1 to 100) or `video` (H.264, `quality` is x264's CRF, 0 to 51, less
    is better). `fps` frames a second are kept, and at most `max_frames` a clip (0: no limit), evenly spread;
    of a whole video only with `frames`. `size` is the short side in pixels.
    """

    fps: float
    size: int
    store: str
    quality: int
    max_frames: int = 0


def cut_clips(
    path: Path | str | io.BytesIO,
    clips: Sequence[Clip],
    *,
    subtitles: Sequence[str],
    options: CutOptions,
    heartbeat: Callable[[], None] = lambda: None,
) -> Iterator[StoredClip | Skip]:
    """Yield, for each of `clips` in order, the stored clip or why there is none.

    A clip's frames are the first at or after each of start, start + 1/fps, ... (to a millisecond) that are
    shown from its start on and before its end; none is taken twice. Where the first of them comes more than
    half a second and a step after the start, or none at all, the picture that stands there is taken at the
    start: what is on the screen is the frame last shown.

    The file is read once, and only as far as the last clip needs; clips may overlap, and what lies between
    them is hardly decoded. In memory are at most the compressed frames of clips that wait for an earlier one.
    `heartbeat` is called for each frame.

    Reasons of skips: `undecodable_video` (also a clip that reaches into damage), `no_video_stream`,
    `span_past_end` (starts after the end of the video, or ends more than 1 s after it), `no_frames` (it ends
    before the first picture).
    """
    if not clips:
        return
    jobs = [_Job(clip, text, options) for clip, text in zip(clips, subtitles, strict=True)]
    num_yielded = 0
    try:
        with open_video(path, size=options.size) as video:
            for _ in _feed(video, jobs, heartbeat):
                while num_yielded < len(jobs) and jobs[num_yielded].result is not None:
                    yield _take_result(jobs[num_yielded])
                    num_yielded += 1
            for job in jobs[num_yielded:]:
                if job.result is None:
                    job.finish_at_end(video)
                yield _take_result(job)
    except UnreadableVideo as error:
        for job in jobs:
            yield Skip(error.reason, job.clip.clip_id, str(error))


def _feed(video: Video, jobs: Sequence["_Job"], heartbeat: Callable[[], None]) -> Iterator[None]:
    """Give every job its frames; yields after each frame that finished one."""
    waiting = sorted(jobs, key=lambda job: job.clip.start_seconds, reverse=True)
    current: list[_Job] = []
    shown: Any = None
    for seconds, frame in video.frames(_needed_by(jobs, heartbeat)):
        heartbeat()
        while waiting and waiting[-1].clip.start_seconds <= seconds:
            job = waiting.pop()
            current.append(job)
            if shown is not None and not video.follows_loss and job.begins_standing(seconds):
                _store(video, shown, job.clip.start_seconds, [job])
        shown = frame
        ended = [job for job in current if job.clip.end_seconds <= seconds]
        for job in ended:
            job.finish(video)
        if ended:
            current = [job for job in current if not job.finished]
            yield
        if not current and not waiting:
            return
        _store(video, frame, seconds, [job for job in current if job.wants(seconds)])
    for job in waiting:
        if shown is not None and not video.follows_loss and job.clip.start_seconds < video.end_seconds:
            _store(video, shown, job.clip.start_seconds, [job])


def _store(video: Video, frame: Any, seconds: float, takers: Sequence["_Job"]) -> None:
    """Give the clips `takers`, which have the same options, a frame at that time."""
    if not takers:
        return
    options, data = takers[0].options, b""
    picture = video.scale(frame)
    if options.store == "frames":
        assert video.geometry is not None
        planes = split_planes(picture, video.geometry.width, video.geometry.height)
        data = encode_jpeg_planes(*planes, quality=options.quality)
    for job in takers:
        job.take(seconds, picture, data, video)


def _needed_by(jobs: Sequence["_Job"], heartbeat: Callable[[], None]) -> Needed:
    """Whether any job will take a frame, or end by it.

    It is asked in about the order of time, some frames ahead of what the jobs have been given.
    """
    last_end = max(job.clip.end_seconds for job in jobs)
    waiting = sorted(jobs, key=lambda job: job.clip.start_seconds, reverse=True)
    current: list[_Job] = []

    def needed(previous_seconds: float, seconds: float, next_seconds: float) -> bool:
        heartbeat()
        while waiting and waiting[-1].clip.start_seconds <= seconds:
            current.append(waiting.pop())
        if any(job.finished for job in current):
            current[:] = [job for job in current if not job.finished]
        if previous_seconds < last_end <= seconds:
            return True
        if waiting and waiting[-1].clip.start_seconds < next_seconds and _stands(waiting, next_seconds):
            return True
        return any(job.slot(seconds) > job.slot(previous_seconds) for job in current)

    return needed


def _stands(waiting: Sequence["_Job"], next_seconds: float) -> bool:
    """Whether a clip begins with the picture that stands until then; they are sorted, the earliest last."""
    begun = itertools.takewhile(lambda job: job.clip.start_seconds < next_seconds, reversed(waiting))
    return any(job.begins_standing(next_seconds) for job in begun)


def _take_result(job: "_Job") -> StoredClip | Skip:
    """Hand the result over, and drop it here: a long video has many."""
    result, job.result = job.result, None
    assert result is not None
    return result


@dataclass
class _Job:
    """One clip while its video is decoded."""

    clip: Clip
    subtitle: str
    options: CutOptions
    result: StoredClip | Skip | None = None
    finished: bool = False
    _seconds: list[float] = field(default_factory=list)
    _jpegs: list[bytes] = field(default_factory=list)
    _encoder: Mp4Encoder | None = None
    _last_slot: int = -1
    _step_seconds: float = field(init=False)

    def __post_init__(self) -> None:
        length = self.clip.end_seconds - self.clip.start_seconds
        self._step_seconds = 1 / self.options.fps
        # How long a whole video is, is known at its end: then too many frames are thinned out.
        if self.options.max_frames and math.isfinite(length):
            self._step_seconds = max(self._step_seconds, length / self.options.max_frames)

    def slot(self, seconds: float) -> int:
        """How many steps of the grid begin after the clip's start up to `seconds`; -1 outside the clip."""
        if not self.clip.start_seconds <= seconds < self.clip.end_seconds:
            return -1
        # At 3 frames a second a clip from 10 s on has slots at 10, 10.333 and 10.667 s: 10.5 s is in slot 1.
        return math.floor((seconds - self.clip.start_seconds + _SAME_TIME_SECONDS) / self._step_seconds)

    def wants(self, seconds: float) -> bool:
        """Whether a frame shown at `seconds` is the first of its slot."""
        return self.slot(seconds) > self._last_slot

    def begins_standing(self, next_seconds: float) -> bool:
        """Whether the picture at the clip's start stands: the next one comes late, or after the clip."""
        stands_long = next_seconds - self.clip.start_seconds > _STANDS_SECONDS
        return next_seconds >= self.clip.end_seconds or (stands_long and self.slot(next_seconds) > 0)

    def take(self, seconds: float, picture: Any, jpeg: bytes, video: Video) -> None:
        self._last_slot = self.slot(seconds)
        self._seconds.append(seconds)
        if self.options.store == "frames":
            self._jpegs.append(jpeg)
            return
        if self._encoder is None:
            assert video.geometry is not None
            size = (video.geometry.width, video.geometry.height)
            self._encoder = Mp4Encoder(*size, fps=self.options.fps, crf=self.options.quality)
        self._encoder.add(picture, seconds - self.clip.start_seconds)

    def finish(self, video: Video) -> None:
        """All frames before the clip's end have been seen."""
        shape = video.geometry
        if not self._seconds or shape is None:
            detail = f"no frame from {self.clip.start_seconds:.3f} to {self.clip.end_seconds:.3f} s"
            self._drop("no_frames", detail)
            return
        self._thin_out()
        pixels = b"".join(self._jpegs) if self._encoder is None else self._encoder.finish()
        result = StoredClip.of(
            self.clip,
            subtitle=self.subtitle,
            pixels=pixels,
            frame_seconds=self._seconds,
            frame_bytes=list(map(len, self._jpegs)),
            width=shape.width,
            height=shape.height,
            source_width=shape.source_width,
            source_height=shape.source_height,
            source_fps=video.fps,
            **({} if video.transfer is None else {"source_transfer": video.transfer}),
        )
        self._end(result)

    def _thin_out(self) -> None:
        """Keep `max_frames` of the frames, evenly spread, where there are more."""
        if self.options.max_frames and len(self._seconds) > self.options.max_frames and not self._encoder:
            kept = uniform_indices(len(self._seconds), self.options.max_frames).tolist()
            if len(kept) == 1:
                kept = [len(self._seconds) // 2]
            self._seconds = [self._seconds[index] for index in kept]
            self._jpegs = [self._jpegs[index] for index in kept]

    def finish_at_end(self, video: Video) -> None:
        """The video has ended before the clip did."""
        clip, end = self.clip, video.end_seconds
        if math.isinf(clip.end_seconds) and not video.damage:
            self.clip = dataclasses.replace(clip, end_seconds=end)
            self.finish(video)
            return
        span = f"span {clip.start_seconds:.3f} to {clip.end_seconds:.3f} s"
        if video.damage and clip.end_seconds > video.passed_seconds:
            self._drop("undecodable_video", f"{span}; readable to {end:.2f} s: {video.damage}")
        elif clip.start_seconds >= end or clip.end_seconds > end + END_TOLERANCE_SECONDS:
            self._drop("span_past_end", f"{span}; the video ends at {end:.3f} s")
        else:
            self.finish(video)

    def _drop(self, reason: str, detail: str) -> None:
        self._end(Skip(reason, self.clip.clip_id, detail))

    def _end(self, result: StoredClip | Skip) -> None:
        self.finished, self.result = True, result
        self._jpegs.clear()
        self._encoder = None
