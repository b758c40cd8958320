"""The shards of a source, on disk or behind URLs: what there are, how many samples, and one sample's bytes.

A remote shard is copied once per machine into a folder that all loading processes share, and dropped when
newer ones need the room. Order and decoding are elsewhere.
"""

import fcntl
import json
import os
import re
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import webdataset as wds

from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.training.recipe import Source
from clipvip.shards.atomic import atomic_path
from clipvip.shards.errors import DatasetError
from clipvip.shards.manifest import MANIFEST_NAME, read_manifest
from clipvip.shards.object_store import copy_url, read_url
from clipvip.shards.reader import is_clip, list_shards
from clipvip.shards.shard_file import IMAGE_EXTENSIONS, SampleSpan, ShardFile
from clipvip.shards.skips import Skip

_SHARD_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*\.tar")
_URL_SCHEMES = ("http://", "https://", "s3://", "gs://", "ais://", "hf://", "file:", "pipe:")
_FETCH_ATTEMPTS = 3


@dataclass(frozen=True)
class ShardSet:
    """The shards of a source: file names or URLs, and the number of samples in each.

    `in_use` is how many shards a reader goes back and forth between; so many copies of remote shards are
    kept in the folder `cache`.
    """

    name: str
    kind: str
    locations: tuple[str, ...]
    num_samples: tuple[int, ...]
    cache: Path
    in_use: int


def is_url(location: str) -> bool:
    return location.startswith(_URL_SCHEMES)


def open_shards(name: str, source: Source, *, cache: Path, in_use: int) -> ShardSet:
    """List the shards of a source and count their samples.

    Raises:
        UserError, DatasetError: no shards, or shards of which nobody says how many samples they hold.
    """
    given = [source.shards] if isinstance(source.shards, str) else list(source.shards)
    if not any(given):
        raise UserError(f"no shards for source {name}; give --shards or data.sources.{name}.shards")
    if any(is_url(location) for location in given):
        locations, counts = _remote_shards(name, given, source.samples_per_shard)
    else:
        locations, counts = _local_shards(given, source.kind)
    if sum(counts) == 0:
        raise UserError(f"{given[0]}: its shards hold no samples of kind {source.kind}")
    kept = [(location, count) for location, count in zip(locations, counts, strict=True) if count]
    return ShardSet(
        name,
        source.kind,
        tuple(location for location, _ in kept),
        tuple(count for _, count in kept),
        cache=cache / name,
        in_use=in_use,
    )


def _local_shards(given: list[str], kind: str) -> tuple[list[str], list[int]]:
    """Files in the order given; counts from the manifests, or else from the tar files themselves."""
    paths: list[Path] = []
    known: dict[Path, int] = {}
    for location in given:
        for expanded in _expand(location):
            folder = Path(expanded)
            if expanded.endswith(".tar"):
                paths.append(folder)
                continue
            paths += list_shards(folder)
            manifest = read_manifest(folder)
            if manifest and kind != "clips":
                raise UserError(f"{folder}: holds clips, and the source is of kind {kind}")
            for row in manifest["shards"] if manifest else []:
                known[folder / str(row["name"])] = int(row["samples"])
    unknown = [path for path in paths if path not in known]
    with ThreadPoolExecutor(8) as threads:
        counts = threads.map(lambda path: _count_samples(path, kind), unknown)
        known.update(zip(unknown, counts, strict=True))
    return [str(path) for path in paths], [known[path] for path in paths]


def _expand(location: str) -> list[str]:
    """Ranges and lists in braces written out, as webdataset does, also in a command behind `pipe:`."""
    try:
        expanded: list[str] = wds.shardlists.expand_urls(location)
    except ValueError as error:
        raise UserError(f"{location}: cannot be written out ({error}); check its braces") from error
    return expanded


def _count_samples(path: Path, kind: str) -> int:
    """The samples of a shard; where it is damaged, one more stands for those that are lost, to be told."""
    with ShardFile(path) as shard:
        spans, damage = shard.index()
        return len(samples_of(spans, kind)) + bool(damage)


def _remote_shards(name: str, given: list[str], samples_per_shard: int | None) -> tuple[list[str], list[int]]:
    locations: list[str] = []
    counts: list[int] = []
    for location in given:
        for url in _expand(location):
            if url.startswith("pipe:") or url.endswith(".tar"):
                locations.append(url)
                counts.append(samples_per_shard or _count_of_neighbour(url))
            else:
                rows = _remote_manifest(url)["shards"]
                locations += [f"{url.rstrip('/')}/{row['name']}" for row in rows]
                counts += [int(row["samples"]) for row in rows]
    if not all(counts):
        raise UserError(
            f"nothing says how many samples the shards of source {name} hold; give the folder that has "
            f"manifest.json, or data.sources.{name}.samples_per_shard"
        )
    return locations, counts


def _count_of_neighbour(url: str) -> int:
    """Samples in a shard by the manifest beside it; 0 where there is none."""
    folder, _, name = url.rpartition("/")
    return 0 if url.startswith("pipe:") else _remote_counts(folder).get(name, 0)


@lru_cache(maxsize=16)
def _remote_counts(folder: str) -> dict[str, int]:
    try:
        return {row["name"]: int(row["samples"]) for row in _remote_manifest(folder)["shards"]}
    except DatasetError:
        return {}


def _remote_manifest(folder: str) -> dict[str, Any]:
    url = f"{folder.rstrip('/')}/{MANIFEST_NAME}"
    try:
        manifest = json.loads(read_url(url))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{url}: cannot be read ({' '.join(str(error).split())})") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("shards"), list):
        raise DatasetError(f"{url}: not a clipvip manifest")
    for row in manifest["shards"]:
        # Names become parts of URLs, which webdataset hands to a shell.
        if not _SHARD_NAME.fullmatch(str(row["name"])):
            raise DatasetError(f"{url}: names a shard {str(row['name'])[:80]!r}, which is no plain file name")
    return manifest


def samples_of(spans: list[SampleSpan], kind: str) -> list[SampleSpan]:
    """The spans that are samples of the kind, whatever else the tar holds."""
    if kind == "clips":
        return [span for span in spans if is_clip(span)]
    return [span for span in spans if "txt" in span.members and span.first_of(IMAGE_EXTENSIONS)]


@dataclass(frozen=True)
class _OpenShard:
    """A shard that stays open, its samples, and what damage there is behind them."""

    file: ShardFile
    spans: list[SampleSpan]
    damage: str


class ShardReader:
    """Reads single samples of a shard set.

    The last `in_use` shards stay open: each costs a file descriptor, its index (half a megabyte for a
    thousand samples) and, of a remote shard, the room of its copy.
    """

    def __init__(self, shards: ShardSet) -> None:
        self._shards = shards
        self._open: OrderedDict[int, _OpenShard | Skip] = OrderedDict()

    def entry(self, shard: int, index: int) -> tuple[SampleSpan, ShardFile] | Skip:
        """Sample `index` of a shard with the shard's open file, or why there is none."""
        opened = self._opened(shard)
        if isinstance(opened, Skip):
            return opened
        if index >= len(opened.spans):
            what, detail = f"{self.stem(shard)}[{index}]", f"holds {len(opened.spans)} samples"
            if opened.damage:
                return Skip("unreadable_shard", self.stem(shard), f"{opened.damage}; {detail} before that")
            return Skip("shard_too_short", what, detail)
        return opened.spans[index], opened.file

    def keys(self, shard: int) -> list[str]:
        """The keys of a shard's samples; none where it cannot be read."""
        opened = self._opened(shard)
        return [] if isinstance(opened, Skip) else [span.key for span in opened.spans]

    def stem(self, shard: int) -> str:
        """The name of a shard without folder and extension, by which its captions are found."""
        return self._shards.locations[shard].rpartition("/")[2].partition(".")[0]

    def _opened(self, shard: int) -> _OpenShard | Skip:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        while len(self._open) >= max(self._shards.in_use, 1):
            _, oldest = self._open.popitem(last=False)
            if isinstance(oldest, _OpenShard):
                oldest.file.close()
        self._open[shard] = self._open_shard(shard)
        return self._open[shard]

    def _open_shard(self, shard: int) -> _OpenShard | Skip:
        location = self._shards.locations[shard]
        try:
            if is_url(location):
                path = self._shards.cache / f"{shard:08d}.tar"
                file = _fetch(location, path, keep=self._shards.in_use)
            else:
                file = ShardFile(location)
        except (OSError, DatasetError) as error:
            return Skip("unreadable_shard", self.stem(shard), " ".join(str(error).split()))
        spans, damage = file.index()
        return _OpenShard(file, samples_of(spans, self._shards.kind), damage)


def _fetch(url: str, path: Path, *, keep: int) -> ShardFile:
    """Open the local copy of a remote shard, making it first where it is missing.

    One process copies while the others that want the same shard wait. Of the copies, the `keep` last used
    stay; a dropped one stays readable for whoever has it open.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _copy(url, path)
        file = ShardFile(path)
        os.utime(path)
    copies = []
    for copy in path.parent.glob("*.tar"):
        with suppress(FileNotFoundError):
            copies.append((copy.stat().st_mtime, copy))
    for _, copy in sorted(copies)[: -max(keep, 1)]:
        copy.unlink(missing_ok=True)
    return file


def _copy(url: str, path: Path) -> None:
    for attempt in range(1, _FETCH_ATTEMPTS + 1):
        try:
            with atomic_path(path) as temporary, temporary.open("wb") as out:
                copy_url(url, out)
            return
        except OSError:
            if attempt == _FETCH_ATTEMPTS:
                raise
