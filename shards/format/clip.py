"""What one clip is, before and after decoding, and the rule for its key. Reads and writes nothing."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from clipvip.shards.errors import DatasetError
from clipvip.shards.format.record import SCHEMA_VERSION, ClipRecord, SentencesAre

FRAMES_EXTENSION = "mjpg"
VIDEO_EXTENSION = "mp4"

_SAFE = re.compile(r"[A-Za-z0-9_-]+")
_NOT_SAFE = re.compile(r"[^A-Za-z0-9_-]")
_DANGEROUS = re.compile(r"[/\\\x00-\x1f\x7f]|^\.+$")
# With number, hash and extension a member name then fits the 100 bytes of a plain tar header.
_MAX_ID_CHARACTERS = 76
_MAX_KEY_CHARACTERS = 100


def make_key(video_id: str, clip_number: int) -> str:
    """The key of a clip: `{video_id}_{clip_number:05d}`, made of [A-Za-z0-9_-] only.

    WebDataset splits a tar member's name at the first dot, so keys have none. An id with other harmless
    characters is rewritten and gets eight digits of its hash, so that no two ids share a key.

    Raises:
        DatasetError: the id is empty, too long, or holds a path separator or a control character.
    """
    if not video_id or len(video_id) > _MAX_ID_CHARACTERS or _DANGEROUS.search(video_id):
        raise DatasetError(f"video id {video_id[:80]!r} is empty, too long or could name a path")
    if clip_number < 0:
        raise DatasetError(f"clip number {clip_number} of video {video_id!r} is negative")
    if not _SAFE.fullmatch(video_id):
        digest = hashlib.sha256(video_id.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        video_id = f"{_NOT_SAFE.sub('-', video_id)}-{digest}"
    return f"{video_id}_{clip_number:05d}"


def video_of_key(key: str) -> str:
    """What of a key stands for its video: all before the clip's number, which keys of others may lack."""
    video_id, _, number = key.rpartition("_")
    return video_id if video_id and number.isdecimal() else key


def is_safe_key(key: str) -> bool:
    """Whether `key` has only the characters that `make_key` produces, and fits a tar header."""
    return len(key) <= _MAX_KEY_CHARACTERS and _SAFE.fullmatch(key) is not None


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip that is asked for: a span of a source video; one that ends at infinity is all of it.

    `sentences` are the captions of a video set's annotations: `alternatives`, each for itself, or a
    `paragraph`, in order of time.
    """

    key: str
    video_id: str
    clip_id: str
    start_seconds: float
    end_seconds: float
    sentences: tuple[str, ...] = ()
    sentences_are: SentencesAre | None = None

    @property
    def text(self) -> str:
        """A paragraph's sentences joined by spaces, or the only alternative; else empty."""
        if self.sentences_are == "paragraph":
            return " ".join(self.sentences)
        return self.sentences[0] if len(self.sentences) == 1 else ""


@dataclass(frozen=True, slots=True)
class StoredClip:
    """A clip as it goes into a shard: what KEY.json says, and the bytes of its pixels.

    `pixels` are JPEGs one after another (`store="frames"`) or an MP4 file (`store="video"`). The record's
    values are not checked here, but wherever it is read.
    """

    record: ClipRecord
    pixels: bytes

    @classmethod
    def of(
        cls, clip: Clip, *, pixels: bytes, frame_seconds: Sequence[float], source_fps: float, **others: Any
    ) -> Self:
        """The stored clip of `clip`; `others` are fields of `ClipRecord` as they are."""
        if clip.sentences_are is not None:
            others |= {"sentences": list(clip.sentences), "sentences_are": clip.sentences_are}
        record = ClipRecord.model_construct(
            schema_version=SCHEMA_VERSION,
            key=clip.key,
            video_id=clip.video_id,
            clip_id=clip.clip_id,
            span_seconds=(clip.start_seconds, clip.end_seconds),
            frame_seconds=[round(seconds, 6) for seconds in frame_seconds],
            source_fps=round(source_fps, 6),
            **others,
        )
        return cls(record, pixels)

    @property
    def extension(self) -> str:
        return FRAMES_EXTENSION if self.record.frame_bytes else VIDEO_EXTENSION
