"""Text files that list things, one a line, are read in whatever encoding they were saved in."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clipvip.pipeline.filter.leaks import TestSet
from clipvip.pipeline.train.recipe_names import read_recipe
from clipvip.shards.files.hashes import key_hashes
from clipvip.shards.sources.download_list import Wanted, read_wanted
from clipvip.shards.sources.key_list import KeyList


def keys(path: Path) -> list[str]:
    """The keys of the clips that a list has."""
    mine = ["a_00000", "b_00001", "c_00002"]
    chosen = KeyList(path).choose(key_hashes(mine))
    return [mine[place] for place in np.flatnonzero(chosen)]


def ids(path: Path) -> list[str]:
    return [one.video_id for one in read_wanted(path) if isinstance(one, Wanted)]


READERS: list[tuple[Callable[[Path], object], str, object]] = [
    (keys, "a_00000\r\n\r\nc_00002\r\n", ["a_00000", "c_00002"]),
    (ids, "abcdefghijk\nlmnopqrstuv\n", ["abcdefghijk", "lmnopqrstuv"]),
    (lambda path: TestSet.read("x", path).texts, "un été\nдва\n", ["un été", "два"]),
    (lambda path: TestSet.read("x", path).items, "one\n\ntwo\n", ["line 1", "line 3"]),
    (lambda path: read_recipe(str(path)), "seed: 3\n", "seed: 3\n"),
]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize(("read", "text", "wanted"), READERS)
def test_lists_are_read_in_any_encoding(
    read: Callable[[Path], object], text: str, wanted: object, encoding: str, tmp_path: Path
) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(text.encode(encoding))
    assert read(path) == wanted
