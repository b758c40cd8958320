"""Files and folders of a store, read as those of a disk."""

import os
from pathlib import Path

import pytest

from clipvip.shards.errors import DatasetError
from clipvip.shards.files import places
from clipvip.shards.files.hashes import sha256_of_file
from clipvip.shards.files.places import at_hand, location_of, open_file, read_whole, size_of, sizes_in
from clipvip.shards.tar.index import ShardFile
from s3_server import s3_server, use_s3


def test_a_disk_and_a_store_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket, temporary = tmp_path / "store" / "bucket", tmp_path / "temporary"
    (bucket / "in" / "deeper").mkdir(parents=True)
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    contents = {"a.bin": bytes(range(256)) * 9000, "b.bin": b"", "c.bin": b"third", "deeper/d.bin": b"x"}
    for name, data in contents.items():
        (bucket / "in" / name).write_bytes(data)
    with s3_server(bucket.parent) as address:
        use_s3(monkeypatch, address)
        folders = [location_of(bucket / "in"), location_of("s3://bucket/in")]
        for folder in folders:
            assert sizes_in(folder) == {n: len(data) for n, data in contents.items() if "/" not in n}
            assert sizes_in(folder / "none") == {}
            for name, data in contents.items():
                path = folder / name
                assert (size_of(path), read_whole(path)) == (len(data), data)
                with at_hand(path) as local, open_file(path) as file:
                    assert local.read_bytes() == data == os.pread(file.fileno(), len(data) + 1, 0)
            for missing in (read_whole, size_of, open_file, sha256_of_file):
                with pytest.raises(FileNotFoundError):
                    missing(folder / "e.bin")
            with pytest.raises(DatasetError, match=r"in/e\.tar: no such shard"):
                ShardFile(folder / "e.tar")
        assert len(places._copies) <= 2
        (bucket / "in" / "c.bin").write_bytes(b"anew")
        assert len({sha256_of_file(folder / "c.bin") for folder in folders}) == 1
        assert [size_of(folder / "c.bin") for folder in folders] == [4, 4]
    assert list(temporary.iterdir()) == []
