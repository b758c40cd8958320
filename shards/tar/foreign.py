"""Samples of others: KEY.mp4 or a picture with KEY.txt and KEY.json, as video2dataset and img2dataset write.

What is known of one becomes a record like ours. A video is a clip as it is; a picture is a clip of one frame.
"""

from dataclasses import dataclass, field

from pydantic import JsonValue, ValidationError

from clipvip.media.errors import MediaError, one_line
from clipvip.media.images import image_size
from clipvip.shards.errors import DatasetError
from clipvip.shards.files.text import parse_object
from clipvip.shards.format.clip import VIDEO_EXTENSION, video_of_key
from clipvip.shards.format.record import SCHEMA_VERSION, ClipRecord, SentencesAre

_TEXT_FIELDS = ("caption", "captions", "text", "sentences")
# What KEY.json may hold besides, such as all that a site says of a video, is not carried along.
_MOST_METADATA_BYTES = 1 << 16
_MAX_KEY_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class ForeignClip:
    """What a sample of others says of itself without its pixels. `metadata` is its KEY.json."""

    key: str
    extension: str
    subtitle: str = ""
    sentences: list[str] | None = None
    metadata: dict[str, JsonValue] = field(default_factory=dict)

    @property
    def video_id(self) -> str:
        return video_of_key(self.key)

    @property
    def clip_id(self) -> str:
        return self.key

    @property
    def sentences_are(self) -> SentencesAre | None:
        return "alternatives" if self.sentences else None

    def record(self, pixels: bytes, *, max_pixels: int) -> ClipRecord:
        """All that is known, with the times and sizes that the pixels have. Raises as `describe_mp4`."""
        others: dict[str, JsonValue] = {}
        if self.extension == VIDEO_EXTENSION:
            # FFmpeg takes a while to import.
            from clipvip.media.mp4 import describe_mp4

            facts = describe_mp4(pixels, max_pixels=max_pixels)
            times, end, fps = facts.frame_seconds, facts.end_seconds, facts.fps
            width, height = facts.width, facts.height
            others = {"source_transfer": facts.transfer} if facts.transfer else {}
        else:
            width, height = image_size(pixels, max_pixels)
            times, end, fps = [0.0], 0.0, 0.0
        found = {
            "schema": SCHEMA_VERSION,
            "key": self.key,
            "video_id": self.video_id,
            "clip_id": self.clip_id,
            "span_seconds": (0.0, end),
            "frame_seconds": times,
            "frame_bytes": [],
            "width": width,
            "height": height,
            "source_width": width,
            "source_height": height,
            "source_fps": fps,
            "subtitle": self.subtitle,
        }
        if self.sentences:
            others |= {"sentences": [*self.sentences], "sentences_are": self.sentences_are}
        if self.metadata:
            others["metadata"] = self.metadata
        try:
            return ClipRecord.model_validate(found | others)
        except ValidationError as error:
            raise MediaError(
                f"has times or sizes that none can have ({one_line(error, most=100)})"
            ) from error


def is_foreign_key(key: str) -> bool:
    """Whether a key of others can be used as it is: it may hold folders and spaces, and is never a path."""
    return 0 < len(key) <= _MAX_KEY_CHARACTERS and key.isprintable()


def foreign_clip(key: str, extension: str, *, json: bytes | None, text: bytes | None) -> ForeignClip | None:
    """What the members of a sample say, pixels aside; None where its KEY.json is one of ours.

    Raises DatasetError where KEY.json or KEY.txt is damaged.
    """
    metadata: dict[str, JsonValue] = {}
    if json is not None:
        try:
            metadata = parse_object(json)
        except ValueError as error:
            raise DatasetError(f"record: its KEY.json is not a JSON object ({str(error)[:80]})") from error
        if "schema" in metadata:
            return None
        metadata = metadata if len(json) <= _MOST_METADATA_BYTES else _texts_of(metadata)
    if text is not None:
        try:
            return ForeignClip(key, extension, text.decode("utf-8"), None, metadata)
        except UnicodeDecodeError as error:
            raise DatasetError(f"its KEY.txt is not UTF-8 (byte {error.start})") from error
    texts = _captions(metadata)
    if len(texts) == 1:
        return ForeignClip(key, extension, texts[0], None, metadata)
    return ForeignClip(key, extension, "", texts or None, metadata)


def _texts_of(metadata: dict[str, JsonValue]) -> dict[str, JsonValue]:
    return {name: metadata[name] for name in _TEXT_FIELDS if name in metadata}


def _captions(metadata: dict[str, JsonValue]) -> list[str]:
    """The different captions in a KEY.json."""
    found: dict[str, None] = {}
    for value in _texts_of(metadata).values():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and text.strip():
                found[" ".join(text.encode("utf-8", "replace").decode("utf-8").split())] = None
    return list(found)
