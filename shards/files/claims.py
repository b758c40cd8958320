"""How a run makes a folder its own: locked against a second run, all of it made by the same options.

A folder in a store has no locks: two runs there have the same options, and so write the same bytes.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from pydantic import JsonValue
from upath import UPath

from clipvip.shards.errors import DatasetError
from clipvip.shards.files.atomic import remove_temporary_files, write_json
from clipvip.shards.files.locks import locked
from clipvip.shards.files.stores import Location, store_errors
from clipvip.shards.files.text import parse_object

# What a stage's folder holds beside its outputs.
MANIFEST_NAME = "manifest.json"
REPORT_NAME = "report.json"
SKIPPED_NAME = "skipped.jsonl"
STATE_FOLDER = "_state"
OPTIONS_NAME = "options.json"  # in STATE_FOLDER

Options = Mapping[str, JsonValue]
"""What a folder is made by: names and values as JSON has them."""


def require_free_folder(out: Location, options: Options, *, outputs: str = "*.tar") -> None:
    """What `claim_folder` checks, but for other runs at work. Changes nothing. Raises as there."""
    state = out / STATE_FOLDER
    with store_errors(out):
        if out.exists() and not out.is_dir():
            raise DatasetError(f"{out}: is a file; give a folder to --out")
        if not state.is_dir() and (any(out.glob(outputs)) or (out / MANIFEST_NAME).exists()):
            raise DatasetError(f"{out}: holds {outputs} that are not of an earlier run; give another --out")
    _require_recorded(out, options)


@contextmanager
def claim_folder(out: Location, options: Options, *, outputs: str = "*.tar") -> Iterator[None]:
    """Make `out` this run's own: locked, its options fixed, old temporary files and notes gone.

    `outputs` is the pattern of the files that the stage makes.

    Raises:
        DatasetError: other options made what is there, another run is at work in it, or it holds outputs
            that no run made. Nothing is changed then.
    """
    require_free_folder(out, options, outputs=outputs)
    state = out / STATE_FOLDER
    with lock_folder(out):
        _require_recorded(out, options)
        remove_temporary_files(out)
        remove_temporary_files(state)
        with store_errors(out):
            for note in state.glob("*.open"):
                note.unlink(missing_ok=True)
        try:
            write_json(state / OPTIONS_NAME, dict(options))
            yield
        finally:
            # Workers that were lost leave theirs, and on a full disk they take the room that is left.
            remove_temporary_files(out)
            remove_temporary_files(state)


@contextmanager
def lock_folder(out: Location) -> Iterator[None]:
    """Lock `out`, made if need be, against a second run; DatasetError: one is at work. No-op in a store."""
    if isinstance(out, UPath):
        yield
        return
    state = out / STATE_FOLDER
    state.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            held.enter_context(locked(state / "lock", waits=False))
        except BlockingIOError:
            raise DatasetError(
                f"{out}: another run is writing here; wait for it or give another --out"
            ) from None
        yield


def _require_recorded(out: Location, options: Options) -> None:
    path = out / STATE_FOLDER / OPTIONS_NAME
    try:
        with store_errors(path):
            data = path.read_bytes()
        found = parse_object(data)
    except FileNotFoundError:
        return
    except ValueError as error:
        raise DatasetError(f"{path}: not JSON ({error}); give another --out") from error
    differing = [
        f"{name}: {_shown(found.get(name))} there, {_shown(options.get(name))} asked"
        for name in sorted(found.keys() | options.keys())
        if found.get(name) != options.get(name)
    ]
    if differing:
        raise DatasetError(
            f"{out} was made with other options ({'; '.join(differing)}); "
            "give the same options or another --out"
        )


def _shown(value: JsonValue) -> str:
    """What was asked for; an option that is as by default is not among the recorded ones, or null."""
    return "the default" if value is None else repr(value)
