"""Evaluation that is stopped or killed while processes read for it ends in time, and leaves nothing."""

import os
import signal
import subprocess
import uuid
from pathlib import Path

import pytest

from clipvip.model import ClipVip
from commands import start
from left_over import MARK, loaders_of, orphaned, processes_of, shared_memory, wait_until
from make_shards import make_shard_folder
from tiny_clip import make_clip, tiny_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
SECONDS_TO_BEGIN, SECONDS_TO_END = 180, 30


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_test_that_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    model = ClipVip.from_clip(str(make_clip(tmp_path / "clip")))
    model.save_pretrained(tmp_path / "vip")
    tiny_tokenizer().save_pretrained(tmp_path / "vip")
    shards = make_shard_folder(tmp_path / "clips", num_shards=6, clips_per_shard=2000)
    before, mark = shared_memory(), uuid.uuid4().hex
    command = ["retrieval", "--model", tmp_path / "vip", "--shards", shards, "--out", tmp_path / "out"]
    process = start(
        *map(str, [*command, "--workers", 2, "--device", "cpu"]),
        program="clipvip.pipeline.evaluate.cli",
        env={**os.environ, MARK: mark},
    )
    try:
        assert wait_until(lambda: len(loaders_of(mark)) == 2, SECONDS_TO_BEGIN)
        process.send_signal(number)
        _, said = process.communicate(timeout=SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number), said
    assert wait_until(lambda: not processes_of(mark), SECONDS_TO_END)
    assert not orphaned(shared_memory() - before)
    assert not (tmp_path / "out").exists() and "Traceback" not in said
