"""Checkpoints that earlier versions wrote by torch.distributed.checkpoint, read without believing them.

Their table of contents, `.metadata`, is a pickle. It is read by an unpickler that makes inert records of the
few names that such a table holds and refuses all others, so that nothing out of the file is called. Each
tensor is a file of `torch.save` within a `.distcp` file, and read with `weights_only=True`.
"""

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

TABLE_NAME = ".metadata"
_MODULES = {"torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem"}
_NAMES = {
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("pathlib", "PosixPath"),
    ("pathlib._local", "PosixPath"),
    ("collections", "OrderedDict"),
}


# Where a tensor's bytes lie: file, offset, length.
Piece = tuple[str, int, int]


def read_table(folder: Path) -> dict[str, Piece]:
    """The tensors of a checkpoint by name; OSError where its table is missing, damaged or another thing's."""
    try:
        table = _Unpickler(io.BytesIO((folder / TABLE_NAME).read_bytes())).load()
        found = {}
        for index, place in table.state["storage_data"].items():
            file, *span = (place.state[name] for name in ("relative_path", "offset", "length"))
            name = index.state["fqn"]
            if name in found or Path(file).name != file:
                raise ValueError(f"{name} is in several pieces, or in a file outside the checkpoint")
            found[str(name)] = (file, *span)
        return found
    except OSError:
        raise
    except Exception as error:  # a damaged pickle may raise anything
        raise _damaged(TABLE_NAME, error) from error


def read_tensors(folder: Path, table: Mapping[str, Piece], into: Mapping[str, torch.Tensor]) -> None:
    """Fill the tensors of `into`, all of which the table names; OSError: a file is missing or damaged."""
    for name, tensor in into.items():
        file, offset, length = table[name]
        with (folder / file).open("rb") as opened:
            opened.seek(offset)
            data = io.BytesIO(opened.read(length))
        try:
            found = torch.load(_checked(data), map_location="cpu", weights_only=True)
            with torch.no_grad():
                tensor.copy_(found.reshape(tensor.shape))
        except Exception as error:  # as above
            raise _damaged(f"{file}: {name}", error) from error


def _checked(data: io.BytesIO) -> io.BytesIO:
    """The same archive, made anew of what its checksums say is right.

    torch reads archives by code of its own, which looks at no checksum and may find a file elsewhere: one
    flipped bit of the archive's table gave other numbers.
    """
    anew = io.BytesIO()
    with zipfile.ZipFile(data) as archive, zipfile.ZipFile(anew, "w") as copy:
        for name in archive.namelist():
            copy.writestr(name, archive.read(name))  # an error where its checksum is another
    anew.seek(0)
    return anew


def _damaged(what: str, error: Exception) -> OSError:
    return OSError(f"{what}: {' '.join(f'{type(error).__name__}: {error}'.split())[:200]}")


class _Record:
    """What stands for any object of the table: nothing but its fields."""

    def __init__(self, *made_of: Any) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        is_type = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if is_type or module in _MODULES or (module, name) in _NAMES:
            return _Record
        raise pickle.UnpicklingError(f"names {module}.{name}, which no checkpoint does"[:200])
