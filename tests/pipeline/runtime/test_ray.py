"""`--ray`: the same files, byte for byte, as local workers make, also when a machine is lost on the way."""

import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from clipvip.pipeline.runtime.ray_units import RayCluster, share_machines
from clipvip.pipeline.runtime.workers import run_units
from commands import run_well, start
from make_shards import make_shard_folder
from make_videos import make_video, write_metadata
from outputs import content
from ray_nodes import ray_nodes
from tiny_clip import make_text_tower
from tiny_ofa import make_ofa
from unit_functions import visible_gpus

pytestmark = [pytest.mark.slow, pytest.mark.needs("ray")]


class _Loss:
    """Kills the processes of a node, as a power cut does, when `happens` says so."""

    def __init__(self, nodes: Any, node: Any, happens: Any) -> None:
        self._nodes, self._node, self._happens = nodes, node, happens
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.happened = False
        self._thread.start()

    def _watch(self) -> None:
        while not self._happens():
            time.sleep(0.01)
        self._nodes.remove_node(self._node, allow_graceful=False)
        self.happened = True


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Options of `shard`: 24 videos of 8 clips, one of them damaged, one missing, in shards of 8."""
    folder = tmp_path_factory.mktemp("corpus")
    first = make_video(folder / "videos" / "v00.mp4", num_frames=480)
    for number in range(1, 23):
        shutil.copy(first, folder / "videos" / f"v{number:02d}.mp4")
    (folder / "videos" / "v05.mp4").write_bytes(first.read_bytes()[:3000])
    spans = [(2 * n, 2 * n + 2) for n in range(8)]
    metadata = write_metadata(folder / "clips.jsonl", {f"v{number:02d}": spans for number in range(24)})
    return ["--metadata", metadata, "--videos", folder / "videos", "--shard-size", 8]


@pytest.fixture(scope="module")
def local(corpus: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("local") / "out"
    run_well("shard", *corpus, "--out", out, "--workers", 1)
    return out


def test_shards_with_a_machine_lost(
    corpus: list[object], local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with ray_nodes(monkeypatch) as nodes:
        nodes.add_node(num_cpus=1)
        victim = nodes.add_node(num_cpus=1)
        loss = _Loss(nodes, victim, lambda: len(list(out.glob("0*.tar"))) >= 3)
        run_well("shard", *corpus, "--out", out, "--ray", nodes.address)
        assert loss.happened
    assert content(out) == content(local)


def test_killed_and_started_again_it_ends_with_the_same_bytes(
    corpus: list[object], local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with ray_nodes(monkeypatch) as nodes:
        nodes.add_node(num_cpus=2)
        command = ["shard", *corpus, "--out", out, "--ray", nodes.address]
        process = start(*command)
        while len(list(out.glob("0*.tar"))) < 3 and process.poll() is None:
            time.sleep(0.01)
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        run_well(*command)
    assert content(out) == content(local)


def test_a_cluster_just_for_the_run(corpus: list[object], local: Path, tmp_path: Path) -> None:
    import ray

    try:
        run_well("shard", *corpus, "--out", tmp_path, "--ray", "local", "--workers", 2)
    finally:
        ray.shutdown()
    assert content(tmp_path) == content(local)


def test_captions_with_a_machine_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = make_shard_folder(tmp_path / "shards", num_shards=12, clips_per_shard=4)
    options = ["--shards", shards, "--model", make_ofa(tmp_path / "ofa"), "--gpus", 0, "--num-beams", 2]
    run_well("caption", *options, "--out", tmp_path / "local", "--workers", 1)
    out = tmp_path / "out"
    with ray_nodes(monkeypatch) as nodes:
        nodes.add_node(num_cpus=1)
        victim = nodes.add_node(num_cpus=1)
        loss = _Loss(nodes, victim, lambda: len(list(out.glob("0*.parquet"))) >= 3)
        run_well("caption", *options, "--out", out, "--ray", nodes.address)
        assert loss.happened
    assert content(out) == content(tmp_path / "local")


def test_each_captioner_has_a_gpu_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what Ray shows to its workers; the GPUs are there by their node's word only."""
    with ray_nodes(monkeypatch) as nodes:
        nodes.add_node(num_cpus=4, num_gpus=2)
        cluster = share_machines(nodes.address, gpus=None, workers=None, cpus_per_worker=4)
        assert cluster == RayCluster(nodes.address, None, cpus_per_worker=2, gpus_per_worker=1)
        outcomes = list(run_units(visible_gpus, range(8), workers=1, ray=cluster))
        assert {outcome.result for outcome in outcomes} == {"0", "1"}
        assert share_machines(nodes.address, gpus=0, workers=3, cpus_per_worker=2) == RayCluster(
            nodes.address, 3, cpus_per_worker=2
        )


def test_features_of_texts_with_a_machine_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = []
    for name, words in (("source", "chop the onion"), ("target", "0123 4567")):
        path = tmp_path / f"{name}.txt"
        path.write_text("".join(f"{words} {number} {'x' * (number % 13)}\n" for number in range(200)))
        pairs += [f"--{name}", f"{name}={path}"]
    options = [*pairs, "--model", make_text_tower(tmp_path / "clip"), "--samples", 150, "--repeats", 2]
    options += ["--batch-size", 2, "--device", "cpu"]
    run_well("nmi", *options, "--out", tmp_path / "local")
    out = tmp_path / "out"
    with ray_nodes(monkeypatch) as nodes:
        nodes.add_node(num_cpus=1)
        victim = nodes.add_node(num_cpus=1)
        loss = _Loss(nodes, victim, lambda: len(list(out.glob("features/*.parts/*.npy"))) >= 3)
        run_well("nmi", *options, "--out", out, "--ray", nodes.address)
        assert loss.happened
    assert content(out) == content(tmp_path / "local")


def test_ctrl_c_ends_it_cleanly(corpus: list[object], local: Path, tmp_path: Path) -> None:
    import ray

    command = ("shard", *corpus, "--out", tmp_path, "--ray", "local")
    process = start(*command, "--workers", 1)
    while len(list(tmp_path.glob("0*.tar"))) < 3 and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "same command goes on" in errors and "Traceback" not in errors
    try:
        run_well(*command)
    finally:
        ray.shutdown()
    assert content(tmp_path) == content(local)
