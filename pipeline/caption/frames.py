"""Which frames of the clips of a shard are captioned, their pixels, and what comes of them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from threading import Lock
from typing import NamedTuple

import numpy as np

from clipvip.media.sampling import middles_of_parts
from clipvip.model.image_captioner import REPLACEMENT
from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.format.captions import FRAME_SKIP, SeenFrame
from clipvip.shards.format.clip import FRAMES_EXTENSION
from clipvip.shards.tar.reader import Sample


class ClipFrames:
    """The frames of a clip that are wanted, for several threads; a video is decoded once for all of them."""

    def __init__(self, sample: Sample, indices: list[int]) -> None:
        self.sample, self.indices = sample, indices
        self._lock = Lock()
        self._decoded: np.ndarray | DatasetError | None = None

    def decode(self, index: int) -> np.ndarray:
        """A frame, uint8 (height, width, 3), RGB; DatasetError: it, or a video, does not decode."""
        if self.sample.extension == FRAMES_EXTENSION:  # each stands for itself
            return np.asarray(self.sample.decode([index])[0])
        with self._lock:
            if self._decoded is None:
                try:
                    self._decoded = self.sample.decode(self.indices)
                except DatasetError as error:
                    self._decoded = error
            if isinstance(self._decoded, DatasetError):
                raise self._decoded
            return np.asarray(self._decoded[self.indices.index(index)])


class FrameOfClip(NamedTuple):
    """A frame of the clip that has this number in its shard."""

    number: int
    key: str
    frame: SeenFrame


@dataclass(frozen=True)
class LostFrame:
    """Why a frame of clip `number` of a shard has no caption; `index` -1: why the whole clip has none."""

    number: int
    skip: Skip
    index: int = -1


@dataclass(frozen=True)
class WantedFrame:
    """Frame `index` of clip `number` of a shard, which is to be captioned."""

    number: int
    index: int
    clip: ClipFrames

    @property
    def of_clip(self) -> FrameOfClip:
        sample = self.clip.sample
        return FrameOfClip(
            self.number, sample.key, SeenFrame(self.index, sample.record.frame_seconds[self.index])
        )

    def decode(self) -> np.ndarray | LostFrame:
        """Its pixels, uint8 (height, width, 3), RGB."""
        try:
            return self.clip.decode(self.index)
        except DatasetError as error:
            skip = Skip("undecodable_frame", self.clip.sample.key, str(error))
            return LostFrame(self.number, skip, self.index)


def wanted_frames(samples: Iterable[Sample | Skip], *, num_frames: int) -> Iterator[WantedFrame | LostFrame]:
    """The middles of `num_frames` equal parts of each clip, clip after clip; of shorter clips all frames."""
    for number, sample in enumerate(samples):
        if isinstance(sample, Skip):
            yield LostFrame(number, sample)
            continue
        clip = ClipFrames(sample, middles_of_parts(sample.num_frames, num_frames))
        yield from (WantedFrame(number, index, clip) for index in clip.indices)


class FrameCaption(NamedTuple):
    """A caption, and the frame that it is of."""

    frame: SeenFrame
    caption: str


@dataclass
class FoundCaptions:
    """What came of the frames of a shard, in whatever order; rows and skips of its file in the shard's."""

    _captions: dict[int, list[FrameCaption]] = field(default_factory=dict)
    _lost: dict[int, list[LostFrame]] = field(default_factory=dict)
    _keys: dict[int, str] = field(default_factory=dict)

    def lose(self, frames: Iterable[LostFrame]) -> None:
        """Note what has no caption."""
        for frame in frames:
            self._lost.setdefault(frame.number, []).append(frame)

    def take(self, frame: FrameOfClip, caption: str) -> None:
        """Note what a captioner says of a frame; what is no caption as lost."""
        skip = None
        if REPLACEMENT in caption:
            skip = Skip("garbled_caption", frame.key, caption)
        elif not caption:
            skip = Skip("empty_caption", frame.key, "the model had nothing to say")
        if skip is not None:
            self.lose([LostFrame(frame.number, skip, frame.frame.number)])
            return
        self._keys[frame.number] = frame.key
        self._captions.setdefault(frame.number, []).append(FrameCaption(frame.frame, caption))

    def rows(self) -> dict[str, list[FrameCaption]]:
        """Key -> captions in order of time; of clips with one key those of the first."""
        rows: dict[str, list[FrameCaption]] = {}
        for number in sorted(self._captions):
            rows.setdefault(self._keys[number], sorted(self._captions[number]))
        return rows

    def skips(self) -> list[Skip]:
        """Clips without a caption, by the reason of the first frame, and frames of clips that have one."""
        skips: list[tuple[int, Skip]] = []
        first: dict[str, int] = {}
        for number in sorted(self._captions):
            key = self._keys[number]
            if first.setdefault(key, number) != number:
                skips.append((number, Skip("duplicate_key", key, "another clip of this shard has the same")))
        for number, frames in self._lost.items():
            lost = sorted(frames, key=lambda frame: frame.index)
            if number not in self._captions:
                skips.append((number, lost[0].skip))
            elif first[self._keys[number]] == number:
                skips += [(number, _skip_of_frame(frame)) for frame in lost]
        return [skip for _, skip in sorted(skips, key=lambda placed: placed[0])]


def _skip_of_frame(frame: LostFrame) -> Skip:
    reason, detail = frame.skip.reason, frame.skip.detail
    return Skip(FRAME_SKIP, frame.skip.what, f"frame {frame.index}: {reason} {detail}".rstrip())
