"""Members of a sample that are read by themselves: its texts, and what stands in for a record of others."""

from clipvip.media.errors import MediaError
from clipvip.shards.errors import DatasetError
from clipvip.shards.format.clip import VIDEO_EXTENSION
from clipvip.shards.format.record import ClipRecord
from clipvip.shards.tar.foreign import ForeignClip, foreign_clip, is_foreign_key
from clipvip.shards.tar.index import SampleSpan, ShardFile

# Records and texts are kilobytes; what is larger is not read.
MAX_TEXT_BYTES = 16 << 20


def read_foreign(shard: ShardFile, span: SampleSpan) -> ForeignClip | None:
    """What a sample of others says, pixels aside; None where it is one of ours, or what is left of one.

    Raises DatasetError where KEY.json or KEY.txt is damaged or too large.
    """
    extension = span.foreign_extension
    if extension is None or not is_foreign_key(span.key):
        return None
    json, text = (
        read_text_member(shard, span, name) if name in span.members else None for name in ("json", "txt")
    )
    return foreign_clip(span.key, extension, json=json, text=text)


def record_of(foreign: ForeignClip, pixels: bytes, *, max_pixels: int) -> ClipRecord:
    """The record of a sample of others; DatasetError: its pixels do not decode."""
    try:
        return foreign.record(pixels, max_pixels=max_pixels)
    except MediaError as error:
        what = "video" if foreign.extension == VIDEO_EXTENSION else "picture"
        raise DatasetError(f"its {what} does not decode ({error})") from error


def read_text_member(shard: ShardFile, span: SampleSpan, extension: str) -> bytes:
    """A member that is a record or a text; DatasetError: it is absent or too large. Raises as `read`."""
    if extension not in span.members:
        raise DatasetError(f"has no KEY.{extension}")
    if (length := span.members[extension][1]) > MAX_TEXT_BYTES:
        raise DatasetError(f"its KEY.{extension} has {length:,} bytes")
    return shard.read(span, extension)
