"""Errors of writing a model's files: a full disk is an OSError, whichever library meets it."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Let what safetensors and tokenizers raise where the system cannot write be an OSError of `folder`."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # tokenizers raises no class of its own
        found = re.search(r"\(os error (\d+)\)", str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(folder)) from error
