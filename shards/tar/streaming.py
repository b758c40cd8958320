"""Our shards in the training loop of others: `webdataset.WebDataset(urls).map(decode_clip)`.

webdataset finds, opens, shuffles and splits the shards; what a clip is, and which of its frames are seen, is
said here. Importing this file also teaches webdataset to open URLs of stores, by fsspec.
"""

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import IO, Any, Literal, TypedDict
from urllib.parse import unquote, urlsplit

import fsspec
import numpy as np
import torch
from webdataset.gopen import gopen_schemes

from clipvip.media.sampling import jittered_indices, uniform_indices
from clipvip.shards.errors import DatasetError
from clipvip.shards.files.stores import store_errors
from clipvip.shards.format.clip_captions import ClipCaption, sourced_captions_of, with_middle_frame
from clipvip.shards.format.record import ClipRecord
from clipvip.shards.tar.foreign import foreign_clip
from clipvip.shards.tar.index import FOREIGN_EXTENSIONS, IMAGE_EXTENSIONS, PIXEL_EXTENSIONS
from clipvip.shards.tar.members import record_of
from clipvip.shards.tar.reader import DEFAULT_MAX_PIXELS, Sample, parse_sample

_CAPTION_FILES_KEPT = 64


class DecodedClip(TypedDict):
    """What `decode_clip` makes of a sample."""

    __key__: str
    __url__: str
    key: str
    frames: torch.Tensor
    """uint8 (frames, height, width, 3), RGB."""
    subtitle: str
    caption: str
    """The first of `captions`; empty where none were asked for, or the clip has none."""
    captions: list[ClipCaption]
    """All of the clip's, folder by folder, with the model and the frame that each is of."""
    record: ClipRecord


def decode_clip(
    sample: Mapping[str, Any],
    *,
    num_frames: int = 12,
    sampling: Literal["uniform", "jittered"] = "uniform",
    image_size: int | None = None,
    captions: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> DecodedClip:
    """One clip from a sample as webdataset reads it, still in bytes; only the frames taken are decoded.

    `functools.partial` sets the options: `.map(partial(decode_clip, num_frames=8, image_size=224))`.

    Args:
        sampling: `uniform`, the same frames each time, or `jittered`, as in training; that draws from torch's
            own random numbers, which `torch.manual_seed` sets and a DataLoader sets anew in each worker.
        image_size: resize to a square of so many pixels, as the trainer does; None leaves frames as stored.
        captions: folders that `clipvip-data caption` wrote; a clip has the captions of all of them.
        max_pixels: a frame of more is taken for damage.

    Raises:
        DatasetError: the sample is damaged or none of ours, or no folder has captions of its shard. The
            message is one line with the key; webdataset's handlers catch it.

    Examples:
        >>> import webdataset
        >>> from clipvip.shards import decode_clip
        >>> clips = webdataset.WebDataset("clips/000000.tar", shardshuffle=False).map(decode_clip)
        >>> clip = next(iter(clips))
        >>> clip["key"], clip["frames"].shape
        ('video0_00000', torch.Size([12, 32, 48, 3]))
    """
    key, url = str(sample.get("__key__", "")), str(sample.get("__url__", ""))
    try:
        clip = _parse(key, sample, max_pixels)
    except DatasetError as error:
        raise DatasetError(f"sample {key}: {error}") from error
    if sampling == "uniform":
        indices = uniform_indices(clip.num_frames, num_frames)
    elif sampling == "jittered":
        rng = np.random.default_rng(int(torch.randint(2**62, ()).item()))
        indices = jittered_indices(clip.num_frames, num_frames, rng)
    else:
        raise ValueError(f"{sampling = }: 'uniform' or 'jittered'")
    folders = (captions,) if isinstance(captions, str | os.PathLike) else tuple(captions)
    names = tuple(os.fspath(folder) for folder in folders)
    found = _captions_of(names, url, key).get(key, []) if names else []
    # A short clip gives some frames several times: each is decoded and resized once.
    distinct, places = np.unique(indices, return_inverse=True)
    frames = torch.from_numpy(clip.decode(distinct))
    if image_size is not None:
        frames = resize(frames, image_size)
    return DecodedClip(
        __key__=key,
        __url__=url,
        key=key,
        frames=frames if len(distinct) == num_frames else frames[torch.from_numpy(places)],
        subtitle=clip.subtitle,
        caption=found[0].text if found else "",
        captions=with_middle_frame(found, clip.record),
        record=clip.record,
    )


def _parse(key: str, sample: Mapping[str, Any], max_pixels: int) -> Sample:
    """A clip of ours, or of others, from the bytes of its members."""
    extension = next((name for name in (*PIXEL_EXTENSIONS, *IMAGE_EXTENSIONS) if name in sample), "")
    record, text, pixels = sample.get("json"), sample.get("txt"), sample.get(extension)
    has_words = _are_bytes(record, text) and (record, text) != (None, None)
    if isinstance(pixels, bytes) and extension in FOREIGN_EXTENSIONS and has_words:
        foreign = foreign_clip(key, extension, json=record, text=text)
        if foreign is not None:
            return Sample(
                key, record_of(foreign, pixels, max_pixels=max_pixels), extension, pixels, max_pixels
            )
    if isinstance(record, bytes) and isinstance(pixels, bytes):
        return parse_sample(key, record, extension, pixels, max_pixels=max_pixels)
    raise DatasetError(
        "needs KEY.json and KEY.mjpg or KEY.mp4 as bytes (without .decode()), "
        f"has {', '.join(name for name in sample if not name.startswith('__'))[:200]}"
    )


def _are_bytes(*members: object) -> bool:
    return all(member is None or isinstance(member, bytes) for member in members)


def resize(frames: torch.Tensor, image_size: int) -> torch.Tensor:
    """uint8 (n, height, width, 3) -> uint8 (n, image_size, image_size, 3), bicubic with antialiasing.

    The aspect ratio is not kept, as in the reference. Torch's kernel for bytes rounds its weights: it is
    within 2 of 255 of the same resize in floating point (but beside black and white, where the latter
    overshoots and bytes cannot), and several times faster.
    """
    planes = frames.permute(0, 3, 1, 2)
    if planes.shape[-2:] != (image_size, image_size):
        planes = torch.nn.functional.interpolate(
            planes, size=(image_size, image_size), mode="bicubic", antialias=True, align_corners=False
        )
    return planes.permute(0, 2, 3, 1)


def _captions_of(folders: tuple[str, ...], url: str, key: str) -> dict[str, list[ClipCaption]]:
    """The captions of a clip's shard by key; DatasetError where no folder has any, or a file is damaged."""
    try:
        return _captions(folders, url)
    except DatasetError as error:
        raise DatasetError(f"sample {key}: {error}") from error


@lru_cache(maxsize=_CAPTION_FILES_KEPT)
def _captions(folders: tuple[str, ...], url: str) -> dict[str, list[ClipCaption]]:
    """All folders' captions for the shard behind a URL, by key.

    Those of another shard are told where the shard is on a disk.
    """
    stem = url.rpartition("/")[2].partition(".")[0]
    shard = unquote(urlsplit(url).path) if url.startswith("file:") else url
    num_bytes = os.path.getsize(shard) if os.path.isfile(shard) else None
    return sourced_captions_of(folders, stem, num_bytes=num_bytes, where=f"no captions of {url}")


def _open_in_store(url: str, mode: str = "rb", bufsize: int = -1, **_: Any) -> IO[bytes]:
    """A stream over a file in a store, in webdataset's terms. Errors as `store_errors` has them."""
    with store_errors(url):
        return fsspec.open(url, mode).open()


gopen_schemes.setdefault("s3", _open_in_store)
if find_spec("gcsfs"):  # else by a program of Google's, which may be there
    gopen_schemes["gs"] = _open_in_store
