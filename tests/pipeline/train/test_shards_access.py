"""Random access to samples of tar files, on disk and behind URLs."""

import io
import os
import re
import sys
import tarfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.train.recipe import Source
from clipvip.pipeline.train.shard_set import ShardReader, open_shards
from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.tar.index import ShardFile
from make_shards import make_shard_folder
from s3_server import s3_server, use_s3

MEMBERS = {
    "a.json": b"{}",
    "a.mjpg": b"x" * 1500,
    "b.json": b"{1}",
    "b.mjpg": b"",
    "sub/c.txt": b"words",
    "sub/c.JPG": b"y" * 512,
}


def write_tar(path: Path, tar_format: int, members: dict[str, bytes] = MEMBERS) -> Path:
    with tarfile.open(path, "w", format=tar_format) as tar:
        folder = tarfile.TarInfo("sub")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("long_name", [False, True])
def test_index_finds_the_bytes_of_every_member(tmp_path: Path, tar_format: int, long_name: bool) -> None:
    members = dict(MEMBERS)
    if long_name:  # GNU and PAX write an extra header, USTAR splits the name
        members["d" * 90 + "/" + "e" * 90 + ".txt"] = b"far"
    path = write_tar(tmp_path / "x.tar", tar_format, members)
    found = {}
    with ShardFile(path) as file:
        for span in file.spans():
            for extension in span.members:
                found[f"{span.key}.{extension}"] = file.read(span, extension)
    assert found == {name.replace(".JPG", ".jpg"): data for name, data in members.items()}


def test_index_of_a_tar_cut_short_keeps_what_is_before(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", tarfile.USTAR_FORMAT)
    os.truncate(path, 512 * 9)
    with ShardFile(path) as file:
        spans, damage = file.index()
    assert [span.key for span in spans] == ["a"]  # of b there is only half
    assert re.search(r"x\.tar: not a readable tar file \(cut off.* at byte \d+", damage)


def test_index_refuses_what_is_no_tar(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(b"no tar at all" * 100)
    with ShardFile(path) as file, pytest.raises(DatasetError, match=r"x\.tar: not a readable tar"):
        next(file.spans())


def keys_by_reading(source: Source, cache: Path) -> list[str]:
    shards = open_shards("clips", source, cache=cache, in_use=1)
    reader = ShardReader(shards)
    keys = []
    for shard, count in enumerate(shards.num_samples):
        for number in range(count):
            found = reader.entry(shard, number)
            assert not isinstance(found, Skip), found
            keys.append(found[0].key)
    return keys


def test_a_folder_and_urls_give_the_same_samples(tmp_path: Path) -> None:
    folder = make_shard_folder(tmp_path / "clips", num_shards=3, clips_per_shard=4)
    expected = [f"video{shard}_{number:05d}" for shard in range(3) for number in range(4)]
    urls = f"file:{folder}/{{000000..000002}}.tar"
    pipes = [f"pipe:cat {folder}/{shard:06d}.tar" for shard in range(3)]
    sources = [
        Source(shards=str(folder)),
        Source(shards=f"{folder}/{{000000..000002}}.tar"),
        Source(shards=f"file:{folder}"),
        Source(shards=urls),
        Source(shards=pipes, samples_per_shard=4),
        Source(shards=f"pipe:cat {folder}/{{000000..000002}}.tar", samples_per_shard=4),
    ]
    for number, source in enumerate(sources):
        assert keys_by_reading(source, tmp_path / f"cache{number}") == expected
    copies = list((tmp_path / "cache4" / "clips").glob("*.tar"))
    assert len(copies) == 1  # older copies make room


def test_shards_behind_http(tmp_path: Path) -> None:
    folder = make_shard_folder(tmp_path / "clips", num_shards=2, clips_per_shard=3)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/clips"
        expected = keys_by_reading(Source(shards=str(folder)), tmp_path)
        assert keys_by_reading(Source(shards=url), tmp_path / "a") == expected
        assert keys_by_reading(Source(shards=f"{url}/{{000000..000001}}.tar"), tmp_path / "b") == expected
        shards = open_shards("c", Source(shards=url), cache=tmp_path / "c", in_use=2)
        (folder / "000001.tar").unlink()
        skip = ShardReader(shards).entry(1, 0)
        assert isinstance(skip, Skip) and skip.reason == "unreadable_shard"
        server.shutdown()


@pytest.mark.needs("s3fs")
def test_shards_in_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_shard_folder(tmp_path / "bucket" / "clips", num_shards=2, clips_per_shard=3)
    with s3_server(tmp_path) as address:
        use_s3(monkeypatch, address)
        expected = keys_by_reading(Source(shards=str(folder)), tmp_path)
        assert keys_by_reading(Source(shards="s3://bucket/clips"), tmp_path / "a") == expected
        urls = "s3://bucket/clips/{000000..000001}.tar"
        assert keys_by_reading(Source(shards=urls), tmp_path / "b") == expected
        with pytest.raises(DatasetError, match=r"s3://bucket/none/manifest\.json"):
            open_shards("c", Source(shards="s3://bucket/none"), cache=tmp_path / "c", in_use=2)


def test_a_store_whose_package_is_missing_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for scheme, package in (("s3", "s3fs"), ("gs", "gcsfs")):
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, scheme, raising=False)
        with pytest.raises(DatasetError, match=rf"{package}, which is not installed; run"):
            open_shards("c", Source(shards=f"{scheme}://bucket/clips"), cache=tmp_path, in_use=2)


def test_shards_that_a_command_fetches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_shard_folder(tmp_path / "bucket" / "clips", num_shards=2, clips_per_shard=3)
    command = tmp_path / "bin" / "gsutil"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\n[ "$1" = cat ] && exec cat "{tmp_path}/${{2#gs://}}"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(command.parent), prepend=os.pathsep)
    expected = keys_by_reading(Source(shards=str(folder)), tmp_path)
    urls = "pipe:gsutil cat gs://bucket/clips/{000000..000001}.tar"
    assert keys_by_reading(Source(shards=urls, samples_per_shard=3), tmp_path / "a") == expected


def test_a_manifest_cannot_smuggle_commands_into_urls(tmp_path: Path) -> None:
    folder = make_shard_folder(tmp_path / "clips")
    manifest = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(manifest.replace("000001.tar", "x.tar'; touch pwned; '.tar"))
    with pytest.raises(DatasetError, match=r"shards\.1\.name: String should match"):
        open_shards("c", Source(shards=f"file:{folder}"), cache=tmp_path, in_use=1)


def test_without_a_manifest_samples_are_counted(tmp_path: Path) -> None:
    folder = make_shard_folder(tmp_path / "clips", num_shards=2, clips_per_shard=3)
    (folder / "manifest.json").unlink()
    assert open_shards("c", Source(shards=str(folder)), cache=tmp_path, in_use=1).num_samples == (3, 3)


def test_unreadable_and_short_shards_are_skips(tmp_path: Path) -> None:
    folder = make_shard_folder(tmp_path / "clips", num_shards=2, clips_per_shard=3)
    shards = open_shards("c", Source(shards=str(folder)), cache=tmp_path, in_use=1)
    (folder / "000000.tar").write_bytes(b"gone" * 1000)
    os.truncate(folder / "000001.tar", 2048)
    reader = ShardReader(shards)
    assert isinstance(skip := reader.entry(0, 1), Skip) and skip.reason == "unreadable_shard"
    assert isinstance(skip := reader.entry(1, 2), Skip) and skip.reason == "unreadable_shard"
    assert "cut off" in skip.detail
    write_tar(folder / "000001.tar", tarfile.USTAR_FORMAT)
    # It holds two clips of ours, and sub/c, which is a sample as others write them.
    assert isinstance(skip := ShardReader(shards).entry(1, 3), Skip) and skip.reason == "shard_too_short"


def test_a_damaged_shard_without_a_manifest_has_a_sample_that_tells_of_it(tmp_path: Path) -> None:
    folder = make_shard_folder(tmp_path / "clips", num_shards=2, clips_per_shard=3)
    (folder / "manifest.json").unlink()
    with ShardFile(folder / "000000.tar") as file:
        last = list(file.spans())[-1]
    data = bytearray((folder / "000000.tar").read_bytes())
    data[last.start + 130] ^= 1
    (folder / "000000.tar").write_bytes(data)
    shards = open_shards("c", Source(shards=str(folder)), cache=tmp_path, in_use=1)
    assert shards.num_samples == (3, 3)
    reader = ShardReader(shards)
    assert reader.size_and_keys(0)[1] == ["video0_00000", "video0_00001"]
    assert not isinstance(reader.entry(0, 1), Skip)
    assert isinstance(skip := reader.entry(0, 2), Skip) and skip.reason == "unreadable_shard"
    assert f"byte {last.start}" in skip.detail and "000000.tar" in skip.detail


def test_mistakes_are_named(tmp_path: Path) -> None:
    def opened(source: Source) -> None:
        open_shards("clips", source, cache=tmp_path, in_use=1)

    with pytest.raises(UserError, match="no shards for source clips"):
        opened(Source())
    with pytest.raises(DatasetError, match="no such folder"):
        opened(Source(shards=str(tmp_path / "missing")))
    with pytest.raises(UserError, match="samples_per_shard"):
        opened(Source(shards="pipe:cat x.tar"))
    with pytest.raises(UserError, match=r"\{0\.\.2\.tar: cannot be written out .* check its braces"):
        opened(Source(shards="pipe:cat {0..2.tar", samples_per_shard=1))
    folder = make_shard_folder(tmp_path / "clips")
    with pytest.raises(UserError, match="clips: holds clips, and the source is of kind images"):
        opened(Source(shards=str(folder), kind="images"))
    with pytest.raises(UserError, match="no samples of kind images"):
        (folder / "manifest.json").unlink()
        opened(Source(shards=str(folder), kind="images"))
    with pytest.raises(DatasetError, match=r"nowhere/manifest\.json: cannot be read"):
        opened(Source(shards=f"file:{tmp_path}/nowhere"))
