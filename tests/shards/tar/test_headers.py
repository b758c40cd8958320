"""What Python's and GNU's tar write is found as these find it, member by member."""

import io
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipvip.shards.errors import DatasetError
from clipvip.shards.tar.headers import iter_members
from clipvip.shards.tar.index import ShardFile

NAMES = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=300
).filter(lambda name: name.strip("/") == name)


def found_in(data: bytes) -> list[tuple[str, bytes]]:
    members = iter_members(lambda offset, length: data[offset : offset + length], len(data))
    return [(member.name, data[member.offset : member.offset + member.length]) for member in members]


@settings(max_examples=100, deadline=None)
@given(
    members=st.lists(st.tuples(NAMES, st.binary(max_size=1100)), max_size=6),
    tar_format=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    mtime=st.sampled_from([0, 1.5, 10**11, -3]),
)
def test_members_are_those_that_tarfile_wrote(
    members: list[tuple[str, bytes]], tar_format: int, mtime: float
) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tar_format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), mtime if tar_format == tarfile.PAX_FORMAT else int(mtime)
            tar.addfile(info, io.BytesIO(data))
    assert found_in(out.getvalue()) == members


def test_a_size_in_gnus_binary_way_and_a_signed_checksum_are_read() -> None:
    info = tarfile.TarInfo("é.json")
    info.size = 5
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\x80" + (5).to_bytes(11, "big")
    signed = sum(byte - 256 * (byte > 127) for byte in header[:148] + header[156:]) + 8 * 32
    header[148:156] = b"%06o\0 " % signed
    data = bytes(header) + b"12345" + bytes(507) + bytes(1024)
    assert found_in(data) == [("é.json", b"12345")]


@pytest.mark.needs("tar")
def test_what_gnu_tar_packs_is_read_and_what_is_no_file_is_named(tmp_path: Path) -> None:
    """Links, sparse files and names that are too long for a header, as people make them."""
    folder = tmp_path / "clips"
    folder.mkdir()
    long = "k" * 150
    for key in ("a", "b", "c", long):
        for extension in ("json", "txt", "mjpg"):
            (folder / f"{key}.{extension}").write_bytes(f"{key}.{extension}".encode() * 100)
    (folder / "b.txt").unlink()
    (folder / "b.txt").symlink_to("nowhere.txt")
    with (folder / "c.txt").open("wb") as file:
        file.truncate(1 << 20)
    names = [f"./{key}.{extension}" for key in ("a", "b", "c", long) for extension in ("json", "txt", "mjpg")]
    for way in ("gnu", "pax"):
        path = tmp_path / f"{way}.tar"
        command = ["tar", f"--format={way}", "--sparse", "-cf", path, "-C", folder, *names]
        subprocess.run(command, check=True)
        with ShardFile(path) as shard:
            spans = {span.key: span for span in shard.spans()}
            assert list(spans) == ["a", "b", "c", long]
            assert (spans["a"].problem, spans[long].problem) == ("", "")
            assert spans["b"].problem == "KEY.txt is a symbolic link"
            assert spans["c"].problem == "KEY.txt is a sparse file"
            for key in ("a", long):
                assert shard.read(spans[key], "mjpg") == f"{key}.mjpg".encode() * 100


def test_the_end_of_a_tar_is_looked_at(tmp_path: Path) -> None:
    """Tars joined as bytes, as `cat` does: those after the first are told, not left out in silence."""
    path = tmp_path / "joined.tar"
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("a.json")
        tar.addfile(info, io.BytesIO())
    path.write_bytes(path.read_bytes() * 2)
    with ShardFile(path) as shard:
        spans = shard.spans()
        with pytest.raises(DatasetError, match=r"joined\.tar: .*data after its end"):
            list(spans)
    with pytest.raises(DatasetError, match="no such shard"):
        ShardFile(tmp_path)


@pytest.mark.parametrize(("at", "is_seen"), [(0, True), (15 << 20, True), (3 << 30, True), (None, False)])
def test_gigabytes_of_zeros_after_the_end_cost_no_time(tmp_path: Path, at: int | None, is_seen: bool) -> None:
    """A sparse tail: its first 16 MiB and its last are looked at."""
    path = tmp_path / "000000.tar"
    with tarfile.open(path, "w") as tar:
        tar.addfile(tarfile.TarInfo("a.json"))
        tar.addfile(tarfile.TarInfo("a.mjpg"))
    end = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(end + (3 << 30) + 1)
        if at is not None:
            file.seek(end + at)
            file.write(b"x")
    began = time.monotonic()
    with ShardFile(path) as shard:
        spans, damage = shard.index()
    assert [span.key for span in spans] == ["a"]
    assert ("has data after its end" in damage) == is_seen
    assert time.monotonic() - began < 5
