"""How many processor cores this process may use."""

import os


def num_cores() -> int:
    """The cores that this process is allowed on, which a scheduler may have limited."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
