"""Files of tensors in safetensors' format, with checksums: a checkpoint's bytes to the disk and back."""

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from clipvip.media.errors import one_line
from clipvip.shards.files.atomic import atomic_path, atomic_write_bytes

CHECKSUMS_NAME = "checksums.json"
TENSORS_SUFFIX = ".safetensors"
_SCHEMA = 1
_BLOCK_BYTES = 1 << 22
_TYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8",
    torch.bool: "BOOL",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Checksum:
    """The size of a file and its CRC-32, which finds every flipped bit, at the speed of the disk."""

    num_bytes: int
    crc32: int


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> Checksum:
    """Write tensors to a new file, one after another, so that no more than one is held twice.

    (For `safetensors.torch.save_file` all would have to be copied to the CPU's memory first.)
    """
    header: dict[str, object] = {}
    offset = 0
    for name, tensor in tensors.items():
        stop = offset + tensor.numel() * tensor.element_size()
        place = [offset, stop]
        header[name] = {"dtype": _TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": place}
        offset = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    flat = (tensor.detach().cpu().contiguous().reshape(-1) for tensor in tensors.values())
    bodies = (values.view(torch.uint8).numpy().data for values in flat)
    pieces: Iterator[bytes | memoryview] = chain([len(text).to_bytes(8, "little") + text], bodies)
    num_bytes = crc32 = 0
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for data in pieces:
            file.write(data)
            num_bytes += len(data)
            crc32 = zlib.crc32(data, crc32)
    return Checksum(num_bytes, crc32)


def names_in(path: Path) -> list[str]:
    """The names of the tensors in a file. Raises OSError where it is damaged."""
    try:
        with safe_open(path, "pt") as file:
            return list(file.keys())
    except SafetensorError as error:
        raise OSError(f"{path.name}: {one_line(error, most=200)}") from error


def read_tensors(paths: list[Path], into: Mapping[str, torch.Tensor]) -> None:
    """Fill the tensors of `into` that are in the files. Raises OSError where one does not fit."""
    for path in paths:
        try:
            with safe_open(path, "pt") as file, torch.no_grad():
                for name in into.keys() & set(file.keys()):
                    found, wanted = file.get_tensor(name), into[name]
                    if found.shape != wanted.shape:
                        raise OSError(
                            f"{path.name}: {name} is {tuple(found.shape)}, not {tuple(wanted.shape)}"
                        )
                    wanted.copy_(found)
        except SafetensorError as error:
            raise OSError(f"{path.name}: {one_line(error, most=200)}") from error


def sum_file(path: Path) -> Checksum:
    """The checksum of a file as it is on the disk."""
    num_bytes = crc32 = 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK_BYTES):
            num_bytes += len(block)
            crc32 = zlib.crc32(block, crc32)
    return Checksum(num_bytes, crc32)


def write_checksums(folder: Path, sums: Mapping[str, Checksum]) -> None:
    """Write down what every file of `folder` is to be; to be written last."""
    files = {name: asdict(sums[name]) for name in sorted(sums)}
    content = json.dumps({"schema": _SCHEMA, "files": files}, indent=1)
    atomic_write_bytes(folder / CHECKSUMS_NAME, content.encode())


def check_files(folder: Path, *, needed: str) -> list[Path]:
    """Read all files of a checkpoint, `needed` among them, and return those with tensors.

    Raises OSError where one is missing, or not what its checksum says, or nobody can say.
    """
    sums = _read_checksums(folder)
    if needed not in sums or not any(name.endswith(TENSORS_SUFFIX) for name in sums):
        raise OSError(f"{CHECKSUMS_NAME}: damaged (does not list {needed} and tensors)")
    for name in sums:
        if not (folder / name).is_file():
            raise OSError(f"{name}: missing")
    for name, expected in sums.items():
        if sum_file(folder / name) != expected:
            raise OSError(f"{name}: is not what its checksum says")
    return [folder / name for name in sums if name.endswith(TENSORS_SUFFIX)]


def is_whole(path: Path) -> bool:
    """Whether a file of a checkpoint is there and as its checksum says."""
    try:
        return _read_checksums(path.parent).get(path.name) == sum_file(path)
    except OSError:
        return False


def _read_checksums(folder: Path) -> dict[str, Checksum]:
    try:
        content = json.loads((folder / CHECKSUMS_NAME).read_bytes())
        if content["schema"] != _SCHEMA:
            raise ValueError(f"schema {content['schema']!r:.40}")
        sums = {
            str(name): Checksum(int(row["num_bytes"]), int(row["crc32"]))
            for name, row in content["files"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise OSError(f"{CHECKSUMS_NAME}: damaged ({one_line(error, most=100)})") from error
    for name in sums:
        if Path(name).name != name:
            raise OSError(f"{CHECKSUMS_NAME}: names {name[:80]!r}")
    return sums


def share_out(sizes: Mapping[str, int], parts: int) -> list[list[str]]:
    """Divide names into `parts` of about equal sizes: of a 8, b 5, c 4, d 3 two parts are [a d] and [b c]."""
    shares: list[list[str]] = [[] for _ in range(parts)]
    loads = [0] * parts
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        lightest = loads.index(min(loads))
        shares[lightest].append(name)
        loads[lightest] += sizes[name]
    return [sorted(share) for share in shares]
