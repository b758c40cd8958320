"""A Ray cluster on this machine whose nodes can be lost."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from resources import need


@contextmanager
def ray_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`ray.cluster_utils.Cluster` with a head that takes no work; this process is not connected to it yet."""
    need("ray")
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parent))  # for functions of tests
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()
