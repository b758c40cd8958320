"""A run whose folder is in a store: made in a folder of this machine, and uploaded whenever a part is whole.

What marks a part as whole is uploaded last: a checkpoint's checksums, a model's configuration, the report. A
run goes on from the last whole checkpoint in the store, on whichever machine. A store has no locks: two runs
of one machine are kept apart, those of two machines overwrite each other's files.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from upath import UPath

from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.train.recipe import Recipe
from clipvip.shards.files.atomic import write_json
from clipvip.shards.files.claims import REPORT_NAME, STATE_FOLDER
from clipvip.shards.files.copies import url_hash
from clipvip.shards.files.locks import locked
from clipvip.shards.files.places import location_of
from clipvip.shards.files.stores import copy_url, store_errors, upload

CHECKPOINTS = "checkpoints"
MODELS = "models"
_TOP = "."
_ORDER = {_TOP: 1, CHECKPOINTS: 2}  # a checkpoint tells of models, validations and logs
_MARKS = ("checksums.json", "config.json", REPORT_NAME)
_KEPT_HERE = (STATE_FOLDER, "wandb")
_KNOWN_NAME = "in_store.json"
_Stamp = tuple[int, int]  # size in bytes, time of the last change in nanoseconds
_NOT_HERE = (-1, 0)


def local_folder(recipe: Recipe) -> Path:
    """Where this machine makes the run: its folder, or for one in a store a folder in run.cache or TMPDIR."""
    out = location_of(recipe.run.out)
    if isinstance(out, Path):
        return out
    name = f"clipvip-run-{os.getuid()}-{url_hash(str(out))[:16]}"
    return Path(recipe.run.cache or tempfile.gettempdir(), name, out.name or "run")


@contextmanager
def run_folder(recipe: Recipe) -> Iterator[None]:
    """Let `local_folder` be what the run's store holds, for as long as the context lasts; a disk's folder is.

    Raises:
        UserError: another run of this machine is at work there; those of the context name the store.
        OSError, DatasetError: the store does not answer.
    """
    store, folder = location_of(recipe.run.out), local_folder(recipe)
    if isinstance(store, Path):
        yield
        return
    if "WORLD_SIZE" in os.environ:
        raise UserError(
            f"{store}: a launcher's processes need a folder on a disk that all share; or use --gpus"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder.with_name(".lock"), waits=False):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            try:
                _fetch(store, folder)
                with naming_store(recipe):
                    yield
            finally:
                shutil.rmtree(folder.parent, ignore_errors=True)
    except BlockingIOError:
        raise UserError(f"{store}: another run is writing here; wait for it or give another --out") from None


@contextmanager
def naming_store(recipe: Recipe) -> Iterator[None]:
    """Let errors name the run's folder in the store, and not the one of this machine."""
    try:
        yield
    except UserError as error:
        told = in_store(recipe, error.message)
        if told == error.message:
            raise
        raise UserError(told) from error


def in_store(recipe: Recipe, text: str) -> str:
    """A text in which the run's folder of this machine is called by its name in the store."""
    return text.replace(str(local_folder(recipe)), str(location_of(recipe.run.out)))


def publish(recipe: Recipe) -> None:
    """Upload what is new in the run's folder, and drop from the store the checkpoints that are gone here.

    Nothing is done for a folder on a disk. Raises OSError, DatasetError: the store does not take it.
    """
    store, folder = location_of(recipe.run.out), local_folder(recipe)
    if isinstance(store, Path):
        return
    known, here = _read_known(folder), _files_of(folder)
    for part in sorted(set(map(_part_of, here)), key=lambda part: _ORDER.get(part.partition("/")[0], 0)):
        names = [name for name in here if _part_of(name) == part]
        changed = {name for name in names if known.get(name) != here[name]}
        marks = {name for name in names if _is_mark(name)}
        if changed and part != _TOP:  # what is half old and half new is neither
            _remove(store, marks & known.keys())
        for name in sorted(changed | marks, key=_is_mark) if changed else ():
            upload(folder / name, store / name)
    gone = {name for name in known if name not in here and name.startswith(f"{CHECKPOINTS}/")}
    _remove(store, sorted(gone, key=_is_mark, reverse=True))
    _write_known(folder, {name: known[name] for name in known.keys() - gone} | here)
    shutil.rmtree(folder / MODELS, ignore_errors=True)  # they may be many, and nothing here reads them


def _fetch(store: UPath, folder: Path) -> None:
    """Copy what a run goes on from: its whole checkpoints, its best model, and the files beside them."""
    with store_errors(store), suppress(FileNotFoundError):
        prefix = f"{store.path.rstrip('/')}/"
        names = {path.removeprefix(prefix) for path in store.fs.find(store.path)}
        whole = {_part_of(name) for name in names if _is_mark(name)}
        for name in sorted(names):
            part = _part_of(name)
            if part == _TOP or (part in whole and part.partition("/")[0] in (CHECKPOINTS, "best")):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                with (folder / name).open("wb") as file:
                    copy_url(str(store / name), file)
        _write_known(folder, dict.fromkeys(names, _NOT_HERE) | _files_of(folder))


def _part_of(name: str) -> str:
    return str(PurePosixPath(name).parent)


def _is_mark(name: str) -> bool:
    return name.rpartition("/")[2] in _MARKS


def _remove(store: UPath, names: Iterable[str]) -> None:
    for name in names:
        with store_errors(store / name):
            (store / name).unlink(missing_ok=True)


def _files_of(folder: Path) -> dict[str, _Stamp]:
    """What is to be in the store: each whole file by its name below the folder."""
    files = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        is_kept = name.parts[0] not in _KEPT_HERE and not any(part.startswith(".") for part in name.parts)
        if is_kept and path.is_file():
            found = path.stat()
            files[name.as_posix()] = (found.st_size, found.st_mtime_ns)
    return files


def _read_known(folder: Path) -> dict[str, _Stamp]:
    """What is in the store, each file with what it was like here when it was last the same."""
    with suppress(FileNotFoundError):
        found = json.loads((folder.parent / _KNOWN_NAME).read_bytes())
        return {name: (size, time) for name, (size, time) in found.items()}
    return {}


def _write_known(folder: Path, known: dict[str, _Stamp]) -> None:
    write_json(folder.parent / _KNOWN_NAME, known)
