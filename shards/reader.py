"""Read shards: samples in tar order, and the frames of a sample that are asked for.

Shuffling, splitting over workers and turning frames into tensors happen elsewhere.
"""

import io
import itertools
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import simplejpeg

from clipvip.shards.errors import DatasetError
from clipvip.shards.manifest import CAPTION_STAGE, read_manifest
from clipvip.shards.sample import FRAMES_EXTENSION, VIDEO_EXTENSION, is_safe_key


@dataclass(frozen=True)
class Sample:
    """One clip read from a shard: its metadata and its still encoded pixels."""

    key: str
    meta: dict[str, Any]
    extension: str
    pixels: bytes = field(repr=False)

    @property
    def subtitle(self) -> str:
        return str(self.meta.get("subtitle", ""))

    @property
    def sentences(self) -> list[str]:
        """The captions that a video set's annotations have for the clip; none for other clips."""
        found = self.meta.get("sentences")
        return [str(sentence) for sentence in found] if isinstance(found, list) else []

    @property
    def sentences_are(self) -> str | None:
        """`alternatives`, `paragraph`, or None for clips without sentences."""
        found = self.meta.get("sentences_are")
        return found if isinstance(found, str) else None

    @property
    def num_frames(self) -> int:
        """How many frames are stored; DatasetError where the metadata is damaged."""
        seconds = self.meta.get("frame_seconds")
        if not isinstance(seconds, list) or not seconds:
            raise DatasetError(f"sample {self.key}: damaged metadata (frame_seconds)")
        return len(seconds)

    @cached_property
    def _offsets(self) -> list[int]:
        lengths = self.meta.get("frame_bytes")
        if not isinstance(lengths, list) or not all(isinstance(n, int) and n > 0 for n in lengths):
            raise DatasetError(f"sample {self.key}: damaged metadata (frame_bytes)")
        offsets = [0, *itertools.accumulate(lengths)]
        if len(lengths) != self.num_frames or offsets[-1] != len(self.pixels):
            raise DatasetError(f"sample {self.key}: its frames are not where its metadata says")
        return offsets

    def jpeg(self, index: int) -> bytes:
        """The JPEG file of frame `index` (only of shards made with `--store frames`)."""
        if self.extension != FRAMES_EXTENSION:
            raise DatasetError(f"sample {self.key} holds a video, not JPEG frames; use decode()")
        return self.pixels[self._offsets[index] : self._offsets[index + 1]]

    def decode(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Decode the frames at `indices` (any order, repeats allowed) and no others.

        Returns:
            uint8 array (len(indices), height, width, 3), RGB.

        Raises:
            DatasetError: the pixels are damaged.
        """
        wanted = [int(index) for index in indices]
        if self.extension == FRAMES_EXTENSION:
            # A short clip asks for the same frame several times: decode each once.
            decoded = {index: self._decode_jpeg(index) for index in dict.fromkeys(wanted)}
            return np.stack([decoded[index] for index in wanted])
        return _decode_video(self.key, self.pixels, wanted)

    def _decode_jpeg(self, index: int) -> np.ndarray:
        try:
            return simplejpeg.decode_jpeg(self.jpeg(index), colorspace="RGB")
        except ValueError as error:
            raise DatasetError(
                f"sample {self.key}: frame {index} is not a readable JPEG ({error})"
            ) from error

    def middle_frame(self) -> np.ndarray:
        """The frame that stands for the clip, index N//2 as in the reference: uint8 (height, width, 3)."""
        return self.decode([self.num_frames // 2])[0]


def _decode_video(key: str, data: bytes, indices: list[int]) -> np.ndarray:
    import decord  # takes a while to import, and only `--store video` needs it

    try:
        return decord.VideoReader(io.BytesIO(data), num_threads=1).get_batch(indices).asnumpy()
    except (decord.DECORDError, RuntimeError, IndexError) as error:  # decord raises any of these
        raise DatasetError(f"sample {key}: its video does not decode ({error})") from error


def list_shards(folder: Path | str) -> list[Path]:
    """The shards of a folder in order: those of its manifest, else every .tar file by name.

    Raises:
        DatasetError: the folder is missing or holds captions or no shard, or one that the manifest names is
            missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder of shards")
    manifest = read_manifest(folder)
    if manifest is not None and manifest.stage == CAPTION_STAGE:
        raise DatasetError(f"{folder}: holds captions, not shards; give the folder that they were made of")
    if manifest is None:
        shards = sorted(folder.glob("*.tar"))
    else:
        shards = [folder / record.name for record in manifest.shards]
        if not shards:
            raise DatasetError(f"{folder}: no clip could be stored there; its skipped.jsonl says why")
    if not shards:
        raise DatasetError(f"{folder}: holds no shards (*.tar); make them with 'clipvip-data shard'")
    for shard in shards:
        if not shard.is_file():
            raise DatasetError(f"{shard}: named in the manifest but missing; run 'clipvip-data shard' again")
    return shards


def read_shard(path: Path | str, *, with_pixels: bool = True) -> Iterator[Sample]:
    """Yield the samples of the tar file `path` in their order; their pixels are b"" where they are passed over.

    Members that are not part of a sample of ours are passed over. A sample whose metadata is damaged is
    yielded, so that it can be counted: asking it for frames raises DatasetError.

    Raises:
        DatasetError: not a tar file, or damaged; samples before the damage have been yielded.
    """
    with Path(path).open("rb") as file:
        yield from read_shard_stream(file, name=str(path), with_pixels=with_pixels)


def read_shard_stream(file: IO[bytes], *, name: str, with_pixels: bool = True) -> Iterator[Sample]:
    """As `read_shard`, from an open stream; `name` is for messages. It must seek only to pass over pixels."""
    try:
        with tarfile.open(fileobj=file, mode="r|" if with_pixels else "r:") as tar:
            meta: dict[str, Any] = {}
            for member in tar:
                key, _, extension = member.name.partition(".")
                if not is_safe_key(key):
                    continue
                if extension == "json":
                    meta = _parse_metadata(_member_bytes(tar, member), key)
                elif extension in {FRAMES_EXTENSION, VIDEO_EXTENSION}:
                    pixels = _member_bytes(tar, member) if with_pixels else b""
                    yield Sample(key, meta if meta.get("key") == key else {}, extension, pixels)
    except (tarfile.TarError, EOFError) as error:
        raise DatasetError(f"{name}: not a readable tar file ({error}); make this shard again") from error


def _parse_metadata(data: bytes, key: str) -> dict[str, Any]:
    """The content of KEY.json, or an empty record where it is damaged."""
    try:
        meta = json.loads(data)
    except ValueError:
        return {}
    return meta if isinstance(meta, dict) and meta.get("key") == key else {}


def _member_bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return b"" if file is None else file.read()
