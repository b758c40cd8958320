"""A machine or process without memory: how that shows and is said. Imports nothing that takes memory."""

import errno
import os
import sys
from types import TracebackType

# What libraries say when they could not be loaded, or could not have memory or a thread.
_SIGNS = (
    "failed to map segment",
    "cannot allocate memory",
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "can't start new thread",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one behind it, says that there was no memory on this machine (not on a GPU)."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    if isinstance(error, ImportError | RuntimeError | OSError) and any(
        sign in str(error).lower() for sign in _SIGNS
    ):
        return True
    cause = error.__cause__ or error.__context__
    return cause is not None and is_out_of_memory(cause)


def out_of_memory_line(error: BaseException) -> str:
    """What a user is told."""
    lines = [line.strip() for line in str(error).splitlines() if any(sign in line.lower() for sign in _SIGNS)]
    found = f" ({lines[-1][:120]})" if lines else ""
    return f"not enough memory{found}; free some, raise the limit (ulimit -v), or use fewer processes"


def say_it_in_one_line() -> None:
    """Let a program of clipvip's end in one line where memory is too short for its imports."""
    if not os.path.basename(sys.argv[0] if sys.argv else "").startswith("clipvip-"):
        return
    usual = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if is_out_of_memory(error):
            sys.stderr.write(f"Error: {out_of_memory_line(error)}\n")
        else:
            usual(kind, error, trace)

    sys.excepthook = hook
