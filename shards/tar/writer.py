"""Write one shard: a tar of samples whose bytes depend on nothing but the samples."""

import io
import json
import tarfile
from collections.abc import Iterable

from clipvip.shards.files.atomic import atomic_path
from clipvip.shards.files.hashes import sha256_of_file
from clipvip.shards.files.stores import Location
from clipvip.shards.format.clip import StoredClip
from clipvip.shards.format.manifest import ShardRecord


def write_shard(path: Location, clips: Iterable[StoredClip]) -> ShardRecord:
    """Write `clips` to the tar file `path`, which may be in a store, all or nothing, in the order given.

    Each clip becomes KEY.json, KEY.txt (its subtitle) and KEY.mjpg or KEY.mp4, next to each other. Raises
    OSError where the folder is missing, not writable or full; `path` is then as it was before.
    """
    num_samples = 0
    with atomic_path(path) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
            for stored in clips:
                _add_sample(tar, stored)
                num_samples += 1
        num_bytes = temporary.stat().st_size
        digest = sha256_of_file(temporary)
    return ShardRecord(path.name, num_samples, num_bytes, digest)


def _add_sample(tar: tarfile.TarFile, stored: StoredClip) -> None:
    record = stored.record
    content = json.dumps(record.as_dict(), ensure_ascii=False, allow_nan=False)
    members = {"json": content.encode(), "txt": record.subtitle.encode(), stored.extension: stored.pixels}
    for extension, data in members.items():
        info = tarfile.TarInfo(f"{record.key}.{extension}")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
