"""What the tests of captioning share."""

from pathlib import Path

import numpy as np
import pytest

from caption_runs import BAD, CLIPS_PER_SHARD, MARKUP, NUM_SHARDS, caption
from clipvip.media.jpeg import encode_jpeg
from clipvip.shards.format.manifest import write_manifest
from clipvip.shards.tar.writer import write_shard
from make_shards import changed, stored_clip
from tiny_ofa import make_ofa


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_ofa(tmp_path_factory.mktemp("model") / "tiny-ofa")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of coloured blocks, three frames each; the middle frame of one is damaged."""
    folder = tmp_path_factory.mktemp("shards")
    random = np.random.default_rng(0)
    records = []
    for shard in range(NUM_SHARDS):
        clips = []
        for number in range(CLIPS_PER_SHARD):
            blocks = random.integers(0, 256, (3, 3, 4, 3), dtype=np.uint8)
            frames = np.kron(blocks, np.ones((1, 16, 16, 1), np.uint8))
            jpegs = [encode_jpeg(frame, quality=95) for frame in frames]
            clip = stored_clip(f"video{shard}", number, num_frames=3, subtitle=MARKUP)
            if clip.record.key == BAD:
                jpegs[1] = b"\x00" * len(jpegs[1])
            clips.append(
                changed(clip, b"".join(jpegs), frame_bytes=list(map(len, jpegs)), width=64, height=48)
            )
        records.append(write_shard(folder / f"{shard:06d}.tar", clips))
    write_manifest(folder, stage="shard", options={}, shards=records)
    return folder


@pytest.fixture(scope="module")
def undisturbed(shards: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "captions"
    result = caption(shards, out, model, "--workers", "1")
    assert result.exit_code == 0, result.output
    return out
