"""What a worker process of `clipvip-data verify` does: check one shard and its captions. It may die of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import JsonValue

from clipvip.pipeline.runtime.time_limit import time_limit
from clipvip.shards.checking.findings import Findings
from clipvip.shards.checking.shard import ShardCheck, check_captions, check_shard, decode_all
from clipvip.shards.files.hashes import key_hashes
from clipvip.shards.files.stores import Location
from clipvip.shards.format.captions import captions_path
from clipvip.shards.format.manifest import ShardRecord
from clipvip.shards.tar.reader import DEFAULT_MAX_PIXELS, Sample

# After these nobody knows which keys the shard should have.
_KEYS_UNKNOWN = {
    "missing", "size_differs", "checksum_differs", "damaged_tar", "samples_differ", "wrong_members",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class CaptionTask:
    """A folder of captions beside a shard: what its manifest says of one file, and of how all are made."""

    folder: Location
    record: ShardRecord | None
    options: dict[str, JsonValue] | None


@dataclass(frozen=True, slots=True)
class CheckTask:
    """One shard to check. `number` is its place in the folder.

    `num_decoded` samples at even distances are decoded (None: all), or with `only` the one at that place.
    A single sample that takes longer than `timeout_seconds` ends the process.
    """

    number: int
    path: Location
    record: ShardRecord | None
    num_decoded: int | None
    timeout_seconds: float
    captions: tuple[CaptionTask, ...] = ()
    only: int | None = None
    decode: Callable[[Sample], None] = decode_all
    max_pixels: int = DEFAULT_MAX_PIXELS


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What came of it: what is in the shard, hashes of its keys, what is wrong with captions by folder."""

    shard: ShardCheck
    hashes: np.ndarray
    captions: list[Findings]


def check_unit(task: CheckTask) -> CheckResult:
    """Check a shard and its captions, with the process at stake."""
    with time_limit(task.timeout_seconds) as allow_more_time:
        found = check_shard(
            task.path,
            record=task.record,
            places=lambda num_samples: places_to_decode(task, num_samples),
            decode=task.decode,
            max_pixels=task.max_pixels,
            heartbeat=allow_more_time,
        )
        captions = []
        for beside in () if _KEYS_UNKNOWN & set(found.findings.counts) else task.captions:
            allow_more_time()
            findings = check_captions(
                captions_path(beside.folder, task.path.stem),
                keys=found.keys,
                shard=task.path,
                options=beside.options,
                record=beside.record,
                shard_sha256=task.record.sha256 if task.record and task.record.sha256 else None,
            )
            captions.append(findings)
    return CheckResult(found, key_hashes(dict.fromkeys(found.keys)), captions)


def places_to_decode(task: CheckTask, num_samples: int) -> Sequence[int]:
    """The samples of a shard that are decoded."""
    if task.only is not None:
        return [task.only]
    if task.num_decoded is None or task.num_decoded >= num_samples:
        return range(num_samples)
    if task.num_decoded == 0:
        return []
    # The first and the last are among them: 3 of 10 are 0, 4 and 9.
    return np.linspace(0, num_samples - 1, task.num_decoded).astype(int).tolist()
