"""One file of tensors, as a user gives it: its content, or what it is where it is no checkpoint.

Nothing is unpickled but tensors and what the caller allows (`torch.load(weights_only=True)`).
"""

import json
import os
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from clipvip.media.errors import one_line
from clipvip.model.errors import CheckpointError

# What a name ends with that means a file, not a folder or a repository of the hub.
_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
_HEAD_BYTES = 512
_ZIP_MAGIC = b"PK\x03\x04"
_PICKLE_BEGINNING = b"\x80"  # what torch.save wrote before 1.6
_HTML_BEGINNINGS = (b"<!doctype", b"<html", b"<head", b"<?xml")
_LFS_BEGINNING = b"version https://git-lfs"
_LENGTH_BYTES = 8  # of a .safetensors header, little-endian, before it
_MOST_HEADER_BYTES = 100_000_000  # what safetensors itself takes


def read_checkpoint(path: Path, *, allowed: Sequence[Any] = ()) -> Any:
    """What a `.pt` or `.safetensors` file holds; `allowed` are classes besides tensors and plain values.

    Raises:
        CheckpointError: no such file, or one that is empty, cut off, damaged, something else (a page, a Git
            LFS pointer, ...), or that would run code.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    if problem := file_problem(path):
        raise CheckpointError(f"{path}: {problem}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(list(allowed)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles of other protocols
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError as error:
        raise CheckpointError(f"{path}: does not fit into memory, or is damaged") from error
    except pickle.UnpicklingError as error:  # torch's own text tells how to run it all the same
        raise CheckpointError(
            f"{path}: not a checkpoint of tensors alone (it is damaged, or holds objects that would run code "
            "when loaded)"
        ) from error
    # Of arbitrary bytes the unpickler raises anything: KeyError, IndexError, UnicodeDecodeError, ...
    except Exception as error:
        detail = one_line(error, most=200)
        what = detail if isinstance(error, OSError | RuntimeError | SafetensorError) else type(error).__name__
        raise CheckpointError(f"{path}: no checkpoint, or a damaged one ({what})") from error


def file_problem(path: Path) -> str:
    """What a file is that is no checkpoint, and what to do; empty where nothing is seen to be wrong.

    A zip archive, which a `.pt` is, is read once for its checksums, which torch does not look at.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        size = path.stat().st_size
        if not head:
            return "is empty; fetch it again"
        if head.startswith(_LFS_BEGINNING):
            return "is a Git LFS pointer, not the file that it stands for; fetch that with 'git lfs pull'"
        if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_HTML_BEGINNINGS):
            return "is an HTML page, not a checkpoint; fetch the file itself"
        if path.suffix == ".safetensors":
            return _safetensors_problem(path, head, size)
        if head.startswith(_ZIP_MAGIC):
            return _zip_problem(path)
        return "" if head.startswith(_PICKLE_BEGINNING) else "is no checkpoint of torch"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"


def require_no_file(folder_or_name: str) -> None:
    """Refuse the name of a file, there or not, where a model folder or a name on the hub is asked for.

    Raises:
        CheckpointError: what the file is, or that it is absent; it is not looked for on the hub.
    """
    path = Path(folder_or_name)
    is_checkpoint = path.suffix in _SUFFIXES
    if path.is_file():
        problem = (file_problem(path) if is_checkpoint else "") or (
            "is a file, a model folder is needed; 'clipvip-data convert-released', 'convert-openclip' and "
            "'convert-ofa' make them of checkpoints"
        )
        raise CheckpointError(f"{folder_or_name}: {problem}")
    if is_checkpoint and not path.is_dir():
        raise CheckpointError(f"{folder_or_name}: no such checkpoint file")


def weights_problem(folder: Path) -> str:
    """What is wrong with a file of weights in a model folder, with its name; empty where nothing is seen."""
    # In the order in which transformers looks for them.
    used = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    for path in used:
        if problem := file_problem(path):
            return f"{path.name} {problem}"
    return ""


def _safetensors_problem(path: Path, head: bytes, size: int) -> str:
    no_checkpoint = "is no .safetensors file; fetch it again"
    if size < _LENGTH_BYTES:
        return no_checkpoint
    (length,) = struct.unpack("<Q", head[:_LENGTH_BYTES])
    if length > _MOST_HEADER_BYTES or head[_LENGTH_BYTES : _LENGTH_BYTES + 1] not in (b"{", b""):
        return no_checkpoint
    if _LENGTH_BYTES + length > size:
        return "is cut off; fetch it again"
    with path.open("rb") as file:
        file.seek(_LENGTH_BYTES)
        content = file.read(length)
    try:
        entries = json.loads(content)
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
        needed = _LENGTH_BYTES + length + max(ends, default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return no_checkpoint
    return f"is cut off: {size} bytes of {needed}; fetch it again" if size < needed else ""


def _zip_problem(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if any(name.endswith("/constants.pkl") for name in names):
                return "is a TorchScript program, not a checkpoint; save the model's state_dict"
            if not any(os.path.basename(name) == "data.pkl" for name in names):
                return "is a zip archive, but no checkpoint of torch"
            damaged = archive.testzip()
    except zipfile.BadZipFile as error:
        # The list of contents stands at a zip's end.
        cut = "not a zip file" in str(error)
        return "is cut off; fetch it again" if cut else f"is damaged ({error}); fetch it again"
    except (ValueError, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        return f"is damaged ({one_line(error, most=100)}); fetch it again"
    return f"is damaged (the checksum of {damaged} is wrong); fetch it again" if damaged else ""
