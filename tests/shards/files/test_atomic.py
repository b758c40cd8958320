"""Files that appear when they are complete, and what they must not take the place of."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from clipvip.shards.errors import DatasetError
from clipvip.shards.files.atomic import atomic_write_bytes, require_no_other_kind


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_link_to_device(path: Path) -> None:
    path.symlink_to("/dev/null")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (Path.mkdir, "is a folder"),
        (make_pipe, "is a device or a pipe"),
        (make_link_to_device, "is a device or a pipe"),
    ],
)
def test_only_a_file_is_replaced(make: Callable[[Path], None], says: str, tmp_path: Path) -> None:
    place = tmp_path / "out.html"
    make(place)
    before = place.lstat()
    with pytest.raises(DatasetError, match=f"out.html: {says}"):
        atomic_write_bytes(place, b"x")
    assert place.lstat() == before
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize("name", ["stdout", "fd/1", "none-such"])
def test_what_the_system_names_is_not_replaced(name: str) -> None:
    """Also where standard output is a file."""
    with pytest.raises(DatasetError, match=f"/dev/{name}: is a device or a pipe"):
        require_no_other_kind(Path("/dev") / name)


def test_a_file_and_a_link_to_one_are_replaced(tmp_path: Path) -> None:
    file, link, gone = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    file.write_bytes(b"old")
    link.symlink_to(file)
    gone.symlink_to(tmp_path / "nothing")
    for place in (file, link, gone):
        atomic_write_bytes(place, b"new")
        assert place.read_bytes() == b"new"


def test_an_error_names_the_file_and_not_its_temporary_one(tmp_path: Path) -> None:
    place = tmp_path / "none" / "out.html"
    with pytest.raises(FileNotFoundError) as error:
        atomic_write_bytes(place, b"x")
    assert error.value.filename == str(place)
