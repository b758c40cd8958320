"""Embeddings of all clips of a shard folder, one file per shard: build, update, load, search by faiss.

Each file tells which shard and which model made it, so that a killed build can be resumed.
"""

import json
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from clipvip.analysis.faiss_tools import largest_products, require_faiss
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.report import counted
from clipvip.shards.errors import Skip
from clipvip.shards.files.atomic import (
    TEMPORARY_SUFFIX,
    atomic_write_bytes,
    remove_temporary_files,
    write_json,
)
from clipvip.shards.files.hashes import sha256_of_file
from clipvip.shards.files.locks import locked
from clipvip.shards.files.places import at_hand, is_file, make_folder, read_whole, sorted_glob
from clipvip.shards.files.stores import Location, store_errors
from clipvip.shards.format.manifest import read_manifest
from clipvip.shards.tar.reader import list_shards

if TYPE_CHECKING:
    from clipvip.pipeline.evaluate.embeddings import ClipEmbeddings

INDEX_NAME = "index.json"
_SCHEMA = 1
_LOCK_NAME = ".lock"
_PIECE_SUFFIX = ".safetensors"
_VECTORS = "embeddings"
# One entry: safetensors writes several in any order.
_ABOUT = "clipvip"


@dataclass(frozen=True)
class Maker:
    """What made the embeddings of an index: a hash of the model, frames per clip, numbers per embedding."""

    model_sha256: str
    num_frames: int
    dim: int


@dataclass(frozen=True)
class Shard:
    """A shard to have in the index, the hash of its file, and how many clips it has, where that is known."""

    path: Location
    sha256: str
    num_clips: int | None


@dataclass(frozen=True)
class Piece:
    """One shard's part of an index: keys of clips in the order of the embeddings, what was passed over.

    `crc32` is that of the embeddings' bytes; None in pieces of earlier versions.
    """

    path: Location
    shard: Location
    shard_sha256: str
    keys: list[str]
    skips: list[Skip]
    crc32: int | None = None

    def vectors(self) -> np.ndarray:
        """The embeddings: float32 (clips, dim), each of unit length; a UserError where they are damaged."""
        try:
            with at_hand(self.path) as local, safe_open(local, framework="numpy") as file:
                found: np.ndarray = file.get_tensor(_VECTORS)
        except SafetensorError as error:
            raise UserError(f"{self.path}: damaged ({error}); remove it to have it made again") from error
        if self.crc32 not in (None, _sum_of(found)):
            raise UserError(f"{self.path}: damaged, its checksum differs; remove it to have it made again")
        return found


@dataclass(frozen=True)
class Hit:
    """A clip that was found: cosine similarity, its shard and key."""

    similarity: float
    shard: Location
    key: str


def shards_of(folder: Location) -> list[Shard]:
    """The shards of a folder with their hashes: of its manifest, or without one of the files themselves."""
    paths = list_shards(folder)
    manifest = read_manifest(folder)
    if manifest is None:
        return [Shard(path, sha256_of_file(path), None) for path in paths]
    listed = zip(paths, manifest.shards, strict=True)
    return [Shard(path, record.sha256, record.num_samples) for path, record in listed]


def require_index(folder: Location, maker: Maker, *, rebuild: bool) -> None:
    """Refuse, by a UserError, a folder of other things, or without `rebuild` an index of another model."""
    found = _read_maker(folder)
    if found is None or found == maker or rebuild:
        return
    if found.num_frames != maker.num_frames and found.model_sha256 == maker.model_sha256:
        frames = counted(found.num_frames, "frames")
        raise UserError(
            f"{folder}: this index was made with {frames} a clip, not {maker.num_frames}; "
            f"give --num-frames {found.num_frames}, another --index, or --rebuild of 'clipvip-eval search'"
        )
    raise UserError(
        f"{folder}: this index was made by another model; give that one, another --index, or --rebuild "
        "of 'clipvip-eval search'"
    )


def is_index_of(folder: Location, shards: Sequence[Shard]) -> bool:
    """Whether no piece in `folder` is of other shards than these, or of these with other content."""
    maker = _read_maker(folder)
    if maker is None:
        return True
    pieces = zip(shards, load_index(folder, shards, maker), strict=True)
    is_other = any(piece is None and is_file(_piece_path(folder, shard)) for shard, piece in pieces)
    return not _strays(folder, shards) and not is_other


def load_index(folder: Location, shards: Sequence[Shard], maker: Maker) -> list[Piece | None]:
    """The pieces of `shards` in their order; None for one that is missing or not of the shard as it is."""
    return [_read_piece(folder, shard, maker) for shard in shards]


def is_current(folder: Location, shards: Sequence[Shard], pieces: Sequence[Piece | None]) -> bool:
    """Whether an index is complete and has no piece of a shard that is gone."""
    return all(pieces) and not _strays(folder, shards) and is_file(folder / INDEX_NAME)


def update_index(
    folder: Location,
    shards: Sequence[Shard],
    maker: Maker,
    encode: "Callable[[Location], ClipEmbeddings[str]]",
    hash_of: Callable[[Location], str] = sha256_of_file,
) -> list[Piece]:
    """Make pieces that are missing or not by `maker`, remove those of shards that are gone; all, in order.

    `encode` gives the embeddings of a shard's clips `about` their keys, `hash_of` the hash of its file
    from before it was read.

    Raises:
        UserError: another run is at work in `folder`, or the embeddings hold a NaN.
        DatasetError: `encode` cannot read a shard; pieces made before it stay.
    """
    make_folder(folder)
    with ExitStack() as held:
        try:
            if isinstance(folder, Path):  # a store has no locks
                held.enter_context(locked(folder / _LOCK_NAME, waits=False))
        except BlockingIOError:
            raise UserError(f"{folder}: another run is building this index; wait for it") from None
        remove_temporary_files(folder)
        if _read_maker(folder) != maker:
            write_json(folder / INDEX_NAME, {"schema": _SCHEMA, "stage": "search", **asdict(maker)})
        for stray in _strays(folder, shards):
            with store_errors(stray):
                stray.unlink()
        return [
            _read_piece(folder, shard, maker) or _write_piece(folder, shard, maker, encode, hash_of)
            for shard in shards
        ]


def nearest(
    pieces: Sequence[Piece], queries: np.ndarray, *, top: int, use_gpu: bool = True
) -> list[list[Hit]]:
    """The `top` clips of the highest cosine similarity for each query, the best first; exact.

    `queries` is float32 (queries, dim) of unit length. Memory holds the embeddings of one shard at a time. Of
    equal similarities the first in the shards is first. Many queries are compared on a GPU where faiss has
    one, unless `use_gpu` is false. A UserError without faiss, or of a damaged piece.
    """
    try:
        require_faiss("search")
    except ImportError as error:
        raise UserError(str(error)) from error
    scores = np.empty((len(queries), 0), np.float32)
    places = np.empty((len(queries), 0), np.int64)
    first_place = 0
    for piece in pieces:
        if not piece.keys:
            continue
        most = min(top, len(piece.keys))
        found, rows = largest_products(queries, piece.vectors(), most, use_gpu=use_gpu)
        if (rows < 0).any() or np.isnan(found).any():
            raise UserError(f"{piece.path}: damaged, it holds NaN; remove it to have it made again")
        scores = np.concatenate([scores, found], axis=1)
        places = np.concatenate([places, rows + first_place], axis=1)
        best = np.lexsort((places, -scores), axis=1)[:, :top]
        scores, places = np.take_along_axis(scores, best, 1), np.take_along_axis(places, best, 1)
        first_place += len(piece.keys)
    ends = np.cumsum([len(piece.keys) for piece in pieces])

    def hit(score: float, place: int) -> Hit:
        number = int(np.searchsorted(ends, place, side="right"))
        piece = pieces[number]
        return Hit(float(score), piece.shard, piece.keys[place - int(ends[number])])

    return [
        [hit(score, int(place)) for score, place in zip(row, row_places, strict=True)]
        for row, row_places in zip(scores, places, strict=True)
    ]


def _read_maker(folder: Location) -> Maker | None:
    """What made the index in `folder`; None where there is nothing yet."""
    path = folder / INDEX_NAME
    try:
        content = json.loads(read_whole(path))
    except FileNotFoundError:
        # A run that was killed before it wrote the file may have left a lock and temporary files.
        names = (found.name for found in sorted_glob(folder, "*"))
        if any(name != _LOCK_NAME and not name.endswith(TEMPORARY_SUFFIX) for name in names):
            raise UserError(
                f"{folder}: holds other things than a search index; give another --index"
            ) from None
        return None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}); remove the folder to have it made again") from error
    if not isinstance(content, dict) or content.get("stage") != "search" or content.get("schema") != _SCHEMA:
        raise UserError(f"{path}: this version cannot read the index; give another --index")
    values: list[Any] = [content.get(name) for name in ("model_sha256", "num_frames", "dim")]
    if [type(value) for value in values] != [str, int, int]:
        raise UserError(f"{path}: damaged; remove the folder to have it made again")
    return Maker(*values)


def _piece_path(folder: Location, shard: Shard) -> Location:
    return folder / f"{shard.path.stem}{_PIECE_SUFFIX}"


def _strays(folder: Location, shards: Sequence[Shard]) -> list[Location]:
    """Pieces of shards that are gone."""
    wanted = {_piece_path(folder, shard) for shard in shards}
    return [path for path in sorted_glob(folder, f"*{_PIECE_SUFFIX}") if path not in wanted]


def _read_piece(folder: Location, shard: Shard, maker: Maker) -> Piece | None:
    """The piece of `shard` as it is now; None where missing, damaged, or made of or by something else."""
    path = _piece_path(folder, shard)
    with suppress(FileNotFoundError, SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        with at_hand(path) as local, safe_open(local, framework="numpy") as file:
            about: dict[str, Any] = json.loads(file.metadata()[_ABOUT])
            vectors = file.get_slice(_VECTORS)
            form = (vectors.get_shape(), vectors.get_dtype())
        keys = [str(key) for key in about["keys"]]
        skips = [Skip.from_json(skip) for skip in about["skips"]]
        is_of_it = _origin(shard.sha256, maker).items() <= about.items()
        # In pieces of earlier versions nothing is summed.
        is_whole = "about_crc32" not in about or about.pop("about_crc32") == _sum_of(about)
        if form == ([len(keys), maker.dim], "F32") and is_of_it and is_whole:
            return Piece(path, shard.path, shard.sha256, keys, skips, about.get("crc32"))
    return None


def _write_piece(
    folder: Location,
    shard: Shard,
    maker: Maker,
    encode: "Callable[[Location], ClipEmbeddings[str]]",
    hash_of: Callable[[Location], str],
) -> Piece:
    # The file's own hash: a damaged shard is encoded again once it is repaired.
    sha256 = hash_of(shard.path)
    encoded = encode(shard.path)
    if not np.isfinite(encoded.videos).all():
        raise UserError(
            f"{shard.path}: the embeddings hold NaN or infinity; the model's weights may be damaged"
        )
    vectors = np.ascontiguousarray(encoded.videos.reshape(len(encoded.about), maker.dim), np.float32)
    about: dict[str, Any] = {
        **_origin(sha256, maker),
        "keys": encoded.about,
        "skips": [skip.as_dict() for skip in encoded.skips],
        "crc32": _sum_of(vectors),
    }
    about["about_crc32"] = _sum_of(about)
    path = _piece_path(folder, shard)
    atomic_write_bytes(path, save({_VECTORS: vectors}, metadata={_ABOUT: json.dumps(about)}))
    return Piece(path, shard.path, sha256, encoded.about, encoded.skips, about["crc32"])


def _sum_of(content: np.ndarray | dict[str, Any]) -> int:
    """The checksum of an array's bytes, or of what is written as JSON."""
    if isinstance(content, dict):
        return zlib.crc32(json.dumps(content).encode())
    return zlib.crc32(np.ascontiguousarray(content).data)


def _origin(shard_sha256: str, maker: Maker) -> dict[str, Any]:
    return {"schema": _SCHEMA, "shard_sha256": shard_sha256, **asdict(maker)}
