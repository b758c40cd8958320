"""Checkpoints of a run: everything that the next step depends on, saved all or nothing.

A checkpoint is a folder OUT/checkpoints/step-00001000 with the weights, their average where there is one, the
optimizer's state and the state of the random generators (tensors-00000.safetensors, one from each process
that took part), state.json with the rest, the run's recipe and what its data were, and checksums of all of
these. The position of the loader is the number of steps done. Checkpoints of earlier versions are read by
old_checkpoint.py.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.report import counted
from clipvip.pipeline.train import old_checkpoint, tensor_files
from clipvip.pipeline.train.distributed import Place, gather_objects, together
from clipvip.shards.errors import Skip
from clipvip.shards.files.atomic import flush_folder, write_json

RECIPE_NAME = "recipe.yaml"  # of the run, also in each checkpoint
DATA_NAME = "data.json"  # likewise, see data_record.py
_NAME = re.compile(r"step-(\d{8})")
_STATE_NAME = "state.json"


class DamagedCheckpoint(UserError):
    """A checkpoint that cannot be read in whole."""


@dataclass
class TrainState:
    """How far a run is, and what it has met.

    `validations` are the scores so far, see validation.py; `chunk_size` what run.chunk_size=auto chose when
    the run began, so that it ends in the same numbers.
    """

    step: int = 0
    rows_without_caption: int = 0
    skips: dict[tuple[str, str], Skip] = field(default_factory=dict)
    validations: list[dict[str, Any]] = field(default_factory=list)
    chunk_size: int | None = None

    def add(self, rows_without_caption: int, skips: Iterable[Skip]) -> None:
        self.rows_without_caption += rows_without_caption
        self.skips |= {(skip.reason, skip.what): skip for skip in skips}

    def as_json(self) -> dict[str, Any]:
        return vars(self) | {"skips": [asdict(self.skips[key]) for key in sorted(self.skips)]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "TrainState":
        state = cls(value["step"], validations=value["validations"], chunk_size=value.get("chunk_size"))
        state.add(value["rows_without_caption"], [Skip(**row) for row in value["skips"]])
        return state


def list_checkpoints(out: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    folder = out / "checkpoints"
    found = folder.iterdir() if folder.is_dir() else []
    return sorted(path for path in found if _NAME.fullmatch(path.name))


def save_checkpoint(
    out: Path,
    state: TrainState,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    average: Mapping[str, torch.Tensor] = MappingProxyType({}),
    keep: int,
    place: Place,
) -> Path:
    """Save a checkpoint under its final name once it is complete on disk, and drop all but the last `keep`.

    `average` is that of the weights, by parameter name, where there is one. What all processes hold is
    written once, each of them writing its part. An OSError in every process where one of them could not
    write; nothing is left of what was written.
    """
    final = out / "checkpoints" / f"step-{state.step:08d}"
    partial = final.with_name(f".{final.name}.partial")
    shared = _shared_tensors(model, optimizer, average)
    sizes = {name: tensor.nbytes for name, tensor in shared.items()}
    mine = {name: shared[name] for name in tensor_files.share_out(sizes, place.world_size)[place.rank]}

    def begin() -> None:
        if place.is_first:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)

    def write() -> tuple[str, tensor_files.Checksum]:
        name = f"tensors-{place.rank:05d}{tensor_files.TENSORS_SUFFIX}"
        return name, tensor_files.write_tensors(partial / name, {**mine, **_rng_tensors(place)})

    def end(sums: dict[str, tensor_files.Checksum]) -> None:
        if not place.is_first:
            return
        write_json(partial / _STATE_NAME, state.as_json())
        for name in (RECIPE_NAME, DATA_NAME):
            if (out / name).is_file():
                shutil.copy(out / name, partial / name)
        others = {
            path.name: tensor_files.sum_file(path) for path in partial.iterdir() if path.name not in sums
        }
        tensor_files.write_checksums(partial, sums | others)
        if final.exists():  # the same step of the same run: the same content
            shutil.rmtree(final)
        os.replace(partial, final)
        flush_folder(final.parent)
        for old in [*list_checkpoints(out)[:-keep], *final.parent.glob(".step-*.partial")]:
            shutil.rmtree(old)

    try:
        together(begin, place=place)
        written = dict(gather_objects(together(write, place=place), place=place))
        together(lambda: end(written), place=place)
    except OSError:
        if place.is_first:  # it failed in all of them, so that nobody is writing there
            shutil.rmtree(partial, ignore_errors=True)
        raise
    return final


def load_checkpoint(
    folder: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    average: Mapping[str, torch.Tensor] = MappingProxyType({}),
    place: Place,
) -> TrainState:
    """Put a checkpoint into model, optimizer and average of the same recipe; any number of processes may.

    A DamagedCheckpoint, in every process, may leave them half filled. A UserError: it is of another model.
    """
    try:
        state, names, fill = together(lambda: _open(folder), place=place)
        _make_optimizer_state(model, optimizer, names)
        tensors = {**_shared_tensors(model, optimizer, average), **_rng_tensors(place)}
        missing = sorted(name for name in tensors.keys() - names if not name.startswith("rng/"))
        if missing:
            tensors_lacking = counted(len(missing), "tensors")
            raise UserError(f"{folder}: is of another model, it lacks {tensors_lacking} such as {missing[0]}")
        wanted = {name: tensor for name, tensor in tensors.items() if name in names}
        together(lambda: fill(wanted), place=place)
    except OSError as error:
        raise DamagedCheckpoint(f"{folder}: not a whole checkpoint ({error})") from error
    for name, tensor in wanted.items():
        if name == f"rng/{place.rank}/cpu":
            torch.set_rng_state(tensor)
        elif name == f"rng/{place.rank}/cuda":
            torch.cuda.set_rng_state(tensor, place.device)
    return state


def _open(folder: Path) -> tuple[TrainState, set[str], Callable[[dict[str, torch.Tensor]], None]]:
    """A checkpoint's state, its tensors' names, and what fills some; OSError, also later: it is damaged."""
    is_old = (folder / old_checkpoint.TABLE_NAME).is_file()
    if (folder / tensor_files.CHECKSUMS_NAME).is_file() or not is_old:
        files = tensor_files.check_files(folder, needed=_STATE_NAME)
        names = {name for path in files for name in tensor_files.names_in(path)}
        fill = partial(tensor_files.read_tensors, files)
    else:
        table = old_checkpoint.read_table(folder)
        names = set(table)
        fill = partial(old_checkpoint.read_tensors, folder, table)
    try:
        content = json.loads((folder / _STATE_NAME).read_bytes())
        return TrainState.from_json(content), names, fill
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise OSError(f"{_STATE_NAME}: damaged ({type(error).__name__}: {error})") from error


def set_aside(folder: Path) -> None:
    """Rename a damaged checkpoint, so that it is neither resumed from nor counted among those kept."""
    aside = folder.with_name(f"damaged-{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)


def _shared_tensors(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Mapping[str, torch.Tensor] = MappingProxyType({}),
) -> dict[str, torch.Tensor]:
    """Weights, their average and the optimizer's state, by parameter name, whatever the groups' order."""
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"average/{name}": tensor for name, tensor in average.items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{name}/{key}"] = value
    return tensors


def _make_optimizer_state(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, names: Collection[str]
) -> None:
    """Give a fresh optimizer empty tensors for the state that `names` tell of."""
    for name, parameter in model.named_parameters():
        prefix = f"optimizer/{name}/"
        keys = sorted(stored.removeprefix(prefix) for stored in names if stored.startswith(prefix))
        for key in keys:
            value = torch.zeros((), device=parameter.device) if key == "step" else torch.zeros_like(parameter)
            optimizer.state[parameter][key] = value.detach()


def _rng_tensors(place: Place) -> dict[str, torch.Tensor]:
    tensors = {f"rng/{place.rank}/cpu": torch.get_rng_state()}
    if place.device.type == "cuda":
        tensors[f"rng/{place.rank}/cuda"] = torch.cuda.get_rng_state(place.device)
    return tensors
