"""The shards of a source, on disk or behind URLs: how many samples they hold, and one sample's bytes."""

import hashlib
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache as cache_of
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import webdataset as wds

from clipvip.media.errors import one_line
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.report import counted
from clipvip.pipeline.train.recipe import Source
from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.files.claims import MANIFEST_NAME
from clipvip.shards.files.copies import shared_copy, url_hash
from clipvip.shards.files.hashes import sha256_of_file
from clipvip.shards.files.stores import COMMAND, is_remote, read_url
from clipvip.shards.format.manifest import (
    CAPTION_STAGE,
    Manifest,
    ShardRecord,
    listed_files,
    parse_manifest,
    read_manifest,
)
from clipvip.shards.tar.index import IMAGE_EXTENSIONS, SampleSpan, ShardFile
from clipvip.shards.tar.reader import is_clip, list_shards

_MOST_READ_AGAIN = 16


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard: a file name or URL, and what is known of its content without reading it.

    `record` is what the manifest of its folder says. `identity` tells its content from any other: `sha256:`
    and the manifest's checksum; without a manifest `structure:` and a hash of the names and sizes of what a
    local file holds, or `url:` and a hash of the URL, which says nothing of the content. Where only some of
    its samples are used, `kept` has a bit for each, the first the highest, and `num_samples` counts these.
    """

    location: str
    num_samples: int
    identity: str
    record: ShardRecord | None = None
    kept: bytes | None = None

    @property
    def stem(self) -> str:
        """Its name without folder and extension, by which its captions are found."""
        return self.location.rpartition("/")[2].partition(".")[0]


@dataclass(frozen=True)
class ShardSet:
    """The shards of a source.

    `in_use` is how many shards a reader goes back and forth between; so many copies of remote shards are kept
    in the folder `cache`. `empty` are the locations of shards without a sample, which are not among them.
    """

    name: str
    kind: str
    shards: tuple[Shard, ...]
    cache: Path
    in_use: int
    empty: tuple[str, ...] = ()

    @property
    def num_samples(self) -> tuple[int, ...]:
        return tuple(shard.num_samples for shard in self.shards)


def open_shards(name: str, source: Source, *, cache: Path, in_use: int) -> ShardSet:
    """List the shards of a source and count their samples.

    A UserError or DatasetError where there are none, or nobody says how many samples they hold.
    """
    given = [source.shards] if isinstance(source.shards, str) else list(source.shards)
    if not any(given):
        raise UserError(f"no shards for source {name}; give --shards or data.sources.{name}.shards")
    if any(is_remote(location) for location in given):
        shards = _remote_shards(name, given, source)
    else:
        shards = _local_shards(given, source.kind)
    kept = tuple(shard for shard in shards if shard.num_samples)
    if not kept:
        raise UserError(f"{given[0]}: its shards hold no samples of kind {source.kind}")
    empty = tuple(shard.location for shard in shards if not shard.num_samples)
    return ShardSet(name, source.kind, kept, cache=cache / name, in_use=in_use, empty=empty)


def _local_shards(given: list[str], kind: str) -> list[Shard]:
    """Files in the order given; what they hold by the manifests, or else by the tar files themselves."""
    paths: list[Path] = []
    records: dict[Path, ShardRecord] = {}
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
            if manifest:
                records |= {folder / record.name: record for record in manifest.shards}
    records_in = cache_of(_records_in)
    for path in paths if kind == "clips" else []:
        if path not in records and (record := records_in(path.parent).get(path.name)):
            records[path] = record
    known = {path: _listed(str(path), record) for path, record in records.items()}
    for path, sha256 in _read_again(records).items():
        known[path] = replace(known[path], identity=f"sha256:{sha256}")
    unknown = [path for path in dict.fromkeys(paths) if path not in known]
    with ThreadPoolExecutor(8) as threads:
        known.update(zip(unknown, threads.map(lambda path: _look_into(path, kind), unknown), strict=True))
    return [known[path] for path in paths]


def _read_again(records: dict[Path, ShardRecord]) -> dict[Path, str]:
    """Those of the shards that may not be what their manifest says, with the checksum that they have now.

    Of another size than listed, or written after the manifest. Where more than _MOST_READ_AGAIN are newer,
    the folder has been copied, and reading all of it may take days: then the manifest is believed.
    """
    by_folder: dict[Path, list[ShardRecord]] = {}
    for path, record in records.items():
        by_folder.setdefault(path.parent, []).append(record)
    files = {
        folder / file.record.name: file
        for folder, listed in by_folder.items()
        for file in listed_files(folder, listed)
    }
    reads_newer = sum(file.is_newer for file in files.values()) <= _MOST_READ_AGAIN
    doubtful = [p for p, file in files.items() if not file.has_size or (file.is_newer and reads_newer)]
    with ThreadPoolExecutor(8) as threads:
        return dict(zip(doubtful, threads.map(sha256_of_file, doubtful), strict=True))


def _listed(location: str, record: ShardRecord) -> Shard:
    return Shard(location, record.num_samples, f"sha256:{record.sha256}", record)


def _records_in(folder: Path) -> dict[str, ShardRecord]:
    """What a folder's manifest says of its tar files; nothing where there is none, or it is not ours."""
    try:
        manifest = read_manifest(folder)
    except DatasetError:
        return {}
    return manifest.by_name() if manifest else {}


def _expand(location: str) -> list[str]:
    """Ranges and lists in braces written out, as webdataset does, also in a command behind `pipe:`."""
    try:
        return list(wds.shardlists.expand_urls(location))
    except ValueError as error:
        raise UserError(f"{location}: cannot be written out ({error}); check its braces") from error


def _look_into(path: Path, kind: str) -> Shard:
    """A tar file that no manifest lists. Its identity is its structure: reading all of it may take days.

    Where it is damaged, one more sample stands for those that are lost, so that it is met and reported.
    """
    with ShardFile(path) as shard:
        digest = hashlib.sha256(f"{shard.num_bytes}\n".encode())
        spans, damage = shard.index()
    for span in spans:
        digest.update(f"{span.key} {sorted(span.members.items())}\n".encode("utf-8", "surrogateescape"))
    num_samples = len(samples_of(spans, kind)) + bool(damage)
    return Shard(str(path), num_samples, f"structure:{digest.hexdigest()}")


def _remote_shards(name: str, given: list[str], source: Source) -> list[Shard]:
    shards: list[Shard] = []
    records_in = cache_of(partial(_remote_records_in, source=source))
    for url in chain.from_iterable(map(_expand, given)):
        if not url.startswith(COMMAND) and not url.endswith(".tar"):
            records = _remote_manifest(url, kind=source.kind).shards
            shards += [_listed(f"{url.rstrip('/')}/{record.name}", record) for record in records]
            continue
        folder, _, file = url.rpartition("/")
        if not url.startswith(COMMAND) and (found := records_in(folder).get(file)):
            shards.append(_listed(url, found))
        else:
            shards.append(Shard(url, source.samples_per_shard or 0, f"url:{url_hash(url)}"))
    if not all(shard.num_samples or shard.record for shard in shards):
        raise UserError(
            f"nothing says how many samples the shards of source {name} hold; give the folder that has "
            f"manifest.json, or data.sources.{name}.samples_per_shard"
        )
    return shards


def _remote_records_in(folder: str, *, source: Source) -> dict[str, ShardRecord]:
    """What the manifest in a folder says; nothing where there is none, or where it is not needed."""
    if source.kind != "clips":
        return {}
    try:
        return _remote_manifest(folder).by_name()
    except DatasetError as error:
        if source.samples_per_shard is None and not isinstance(error, _NoManifest):
            raise
        return {}


class _NoManifest(DatasetError):
    """Behind a URL there is no manifest, or none that can be read."""


def _remote_manifest(folder: str, *, kind: str = "clips") -> Manifest:
    url = f"{folder.rstrip('/')}/{MANIFEST_NAME}"
    try:
        data = read_url(url)
    except OSError as error:
        raise _NoManifest(f"{url}: cannot be read ({one_line(error)})") from error
    manifest = parse_manifest(data, name=url)
    if manifest.stage == CAPTION_STAGE:
        raise DatasetError(f"{folder}: holds captions, not shards; give the folder that they were made of")
    if kind != "clips":
        raise UserError(f"{folder}: holds clips, and the source is of kind {kind}")
    return manifest


def samples_of(spans: list[SampleSpan], kind: str) -> list[SampleSpan]:
    """The spans that are samples of the kind, whatever else the tar holds."""
    if kind == "clips":
        return [span for span in spans if is_clip(span)]
    return [span for span in spans if "txt" in span.members and span.first_of(IMAGE_EXTENSIONS)]


@dataclass(frozen=True)
class OpenShard:
    """A shard that is open, its samples that are used, and what damage there is behind them."""

    file: ShardFile
    spans: list[SampleSpan]
    damage: str


class ShardReader:
    """Reads single samples of a shard set.

    The last `in_use` shards stay open: each costs a file descriptor, its index (half a megabyte for a
    thousand samples) and, if remote, the room of its copy.
    """

    def __init__(self, shards: ShardSet) -> None:
        self._shards = shards
        self._open: OrderedDict[int, OpenShard | Skip] = OrderedDict()

    def entry(self, shard: int, index: int) -> tuple[SampleSpan, ShardFile] | Skip:
        """Sample `index` of a shard with the shard's open file, or why there is none."""
        opened = self._opened(shard)
        if isinstance(opened, Skip):
            return opened
        if index >= len(opened.spans):
            stem, detail = self._shards.shards[shard].stem, f"holds {counted(len(opened.spans), 'samples')}"
            if opened.damage:
                return Skip("unreadable_shard", stem, f"{opened.damage}; {detail} before that")
            return Skip("shard_too_short", f"{stem}[{index}]", detail)
        return opened.spans[index], opened.file

    def size_and_keys(self, shard: int) -> tuple[int, list[str]]:
        """A shard's size in bytes and the keys of its samples; nothing where it cannot be read."""
        opened = self._opened(shard)
        if isinstance(opened, Skip):
            return 0, []
        return opened.file.num_bytes, [span.key for span in opened.spans]

    def _opened(self, shard: int) -> OpenShard | Skip:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        while len(self._open) >= max(self._shards.in_use, 1):
            _, oldest = self._open.popitem(last=False)
            if isinstance(oldest, OpenShard):
                oldest.file.close()
        self._open[shard] = self.open_shard(shard)
        return self._open[shard]

    def open_shard(self, shard: int) -> OpenShard | Skip:
        """Open a shard for the caller, who closes it; may be called by several threads."""
        wanted = self._shards.shards[shard]
        row, cache, keep = wanted.record, self._shards.cache, self._shards.in_use
        sha256, num_bytes = (row.sha256, row.num_bytes) if row else (None, None)
        try:
            if is_remote(wanted.location):
                copy = shared_copy(wanted.location, cache, keep=keep, sha256=sha256, num_bytes=num_bytes)
                with copy as path:
                    file = ShardFile(path)
            else:
                file = ShardFile(wanted.location)
        except (OSError, DatasetError) as error:
            return Skip("unreadable_shard", wanted.stem, one_line(error))
        spans, damage = file.index()
        samples = samples_of(spans, self._shards.kind)
        if wanted.kept is not None:
            places = np.flatnonzero(np.unpackbits(np.frombuffer(wanted.kept, np.uint8))).tolist()
            samples = [samples[place] for place in places if place < len(samples)]
        return OpenShard(file, samples, damage)
