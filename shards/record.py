"""What KEY.json must look like: types and ranges of every field, checked strictly.

Reading for training trusts its shards (`reader`); this is for what inspects them.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clipvip.shards.errors import DatasetError
from clipvip.shards.sample import SCHEMA_VERSION

_Count = Annotated[int, Field(gt=0)]
_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class SampleRecord(BaseModel):
    """KEY.json, as docs/format.md has it; fields of later versions are let through."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    schema_version: int = Field(alias="schema", ge=SCHEMA_VERSION, le=SCHEMA_VERSION)
    key: str
    video_id: str
    clip_id: str
    span_seconds: tuple[_Seconds, _Seconds]
    frame_seconds: Annotated[list[_Seconds], Field(min_length=1)]
    frame_bytes: list[_Count]
    width: _Count
    height: _Count
    source_width: _Count
    source_height: _Count
    source_fps: _Seconds
    subtitle: str
    sentences: list[str] | None = None
    sentences_are: Literal["alternatives", "paragraph"] | None = None


def parse_record(data: bytes) -> SampleRecord:
    """The record that `data`, the bytes of a KEY.json, holds.

    Raises:
        DatasetError: it is none; the message names the first field that is wrong.
    """
    try:
        return SampleRecord.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "record"
        raise DatasetError(f"{where}: {' '.join(first['msg'].split())}") from error
