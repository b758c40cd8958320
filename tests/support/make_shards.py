"""Small shards made without any video file, for tests of what reads shards."""

from pathlib import Path

import numpy as np

from clipvip.media.jpeg import encode_jpeg
from clipvip.shards.format.clip import Clip, StoredClip, make_key
from clipvip.shards.format.manifest import write_manifest
from clipvip.shards.format.record import SentencesAre
from clipvip.shards.tar.writer import write_shard


def stored_clip(
    video_id: str, number: int, *, num_frames: int = 9, width: int = 48, height: int = 32, subtitle: str = ""
) -> StoredClip:
    """A clip whose frames are flat colours that tell clip (red) and frame (green) apart."""
    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    frames[..., 0] = (37 * number) % 256
    frames[..., 1] = (np.arange(num_frames) * 20 % 256)[:, None, None]
    jpegs = [encode_jpeg(frame, quality=95) for frame in frames]
    start = 10.0 * number
    return StoredClip.of(
        Clip(make_key(video_id, number), video_id, f"{video_id}.{number}.mp4", start, start + num_frames / 3),
        subtitle=subtitle or f"words of clip {number} of {video_id}",
        pixels=b"".join(jpegs),
        frame_seconds=[start + index / 3 for index in range(num_frames)],
        frame_bytes=list(map(len, jpegs)),
        width=width,
        height=height,
        source_width=2 * width,
        source_height=2 * height,
        source_fps=30.0,
    )


def changed(stored: StoredClip, pixels: bytes | None = None, **fields: object) -> StoredClip:
    """The clip with other pixels, and other fields in its record."""
    record = stored.record.model_copy(update=fields)
    return StoredClip(record, stored.pixels if pixels is None else pixels)


def make_shard_folder(folder: Path, *, num_shards: int = 2, clips_per_shard: int = 4, **options: int) -> Path:
    """Write shards 000000.tar ... and their manifest into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for shard in range(num_shards):
        clips = [
            stored_clip(f"video{shard}", number, **options)  # type: ignore[arg-type]
            for number in range(clips_per_shard)
        ]
        records.append(write_shard(folder / f"{shard:06d}.tar", clips))
    write_manifest(folder, stage="shard", options={}, shards=records)
    return folder


def make_captioned_folder(
    folder: Path, sentences: list[list[str]], sentences_are: SentencesAre = "alternatives", **options: int
) -> Path:
    """One shard as `clipvip-data shard --dataset` makes it: clip i is a whole video with `sentences[i]`."""
    folder.mkdir(parents=True)
    clips = []
    for number, texts in enumerate(sentences):
        stored = stored_clip(f"{folder.name}{number}", number, **options)  # type: ignore[arg-type]
        text = Clip("", "", "", 0, 1, tuple(texts), sentences_are).text
        clips.append(changed(stored, sentences=texts, sentences_are=sentences_are, subtitle=text))
    record = write_shard(folder / "000000.tar", clips)
    write_manifest(folder, stage="shard", options={"dataset": "captions"}, shards=[record])
    return folder
