"""A clip's record, KEY.json: types and ranges of every field, checked strictly wherever shards are read."""

import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from clipvip.shards.errors import DatasetError

SCHEMA_VERSION = 1

SentencesAre = Literal["alternatives", "paragraph"]
SourceTransfer = Literal["pq", "hlg"]

# Larger than any file, and any video, and small enough to be computed with.
_Count = Annotated[int, Field(gt=0, lt=1 << 40)]
_Seconds = Annotated[float, Field(ge=0, lt=1e12, allow_inf_nan=False)]


class ClipRecord(BaseModel):
    """KEY.json, as docs/format.md describes it; unknown fields of later versions are ignored.

    `frame_seconds` are presentation times in the source, one per stored frame; `frame_bytes` the lengths of
    the JPEGs, none of a clip that is stored as video. Widths and heights are in pixels as shown, after
    rotation. `source_transfer` is of clips of HDR sources, tone-mapped to SDR. `sentences` are the captions
    in a video set's annotations; `metadata` is the KEY.json of a sample that others made.
    """

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
    source_transfer: SourceTransfer | None = None
    subtitle: str
    sentences: list[str] | None = None
    sentences_are: SentencesAre | None = None
    metadata: dict[str, JsonValue] | None = None

    @property
    def has_text(self) -> bool:
        """Whether there is a subtitle, or a sentence of a video set."""
        return bool(self.subtitle or self.sentences)

    def as_dict(self) -> dict[str, JsonValue]:
        """The fields under their names in KEY.json, those of later versions behind the others."""
        return self.model_dump(by_alias=True, exclude_unset=True, warnings=False)


def parse_record(data: bytes) -> ClipRecord:
    """The record in the bytes of a KEY.json; DatasetError names what lacks, or the first wrong field."""
    try:
        record = ClipRecord.model_validate_json(data)
        if record.model_extra:  # can be written again: it holds no infinite number, which JSON lacks
            json.dumps(record.model_extra, allow_nan=False)
        return record
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
    except ValueError as error:
        raise DatasetError(f"record: holds what is no JSON ({error})") from error
    lacking = [str(found["loc"][0]) for found in errors if found["type"] == "missing"]
    if lacking:
        raise DatasetError(f"its KEY.json lacks {', '.join(lacking)}")
    where = ".".join(map(str, errors[0]["loc"]))[:100] or "record"
    raise DatasetError(f"{where}: {' '.join(errors[0]['msg'].split())[:200]}")
