"""Models in a store: copied to this machine's disk for as long as it takes to load them."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clipvip.media.errors import one_line
from clipvip.model.errors import CheckpointError
from clipvip.pipeline.runtime.errors import UserError
from clipvip.shards.files.places import location_of, sizes_in
from clipvip.shards.files.stores import copy_url, is_url


@contextmanager
def named_by(option: str) -> Iterator[None]:
    """Have the errors of a model that cannot be used begin with the option or setting that names it."""
    try:
        yield
    except (UserError, CheckpointError) as error:
        line = one_line(error)
        raise UserError(line if line.startswith(option) else f"{option}: {line}") from error


@contextmanager
def model_at_hand(name: str) -> Iterator[str]:
    """The name of a model as libraries take it: a folder or a name on the hub as it is, a URL's copy.

    Raises:
        UserError: there is no such folder in the store; or what the context raises of the copy, by its URL.
        OSError, DatasetError: the store does not answer.
    """
    if not is_url(name):
        yield name
        return
    place = location_of(name)
    with tempfile.TemporaryDirectory(prefix="clipvip-model-") as folder:
        files = sizes_in(place)
        if not files:
            raise UserError(f"{name}: no such folder of a model")
        for file in files:
            with Path(folder, file).open("wb") as out:
                copy_url(str(place / file), out)
        try:
            yield folder
        except (UserError, CheckpointError) as error:
            raise UserError(one_line(error).replace(folder, name)) from error
