"""A model's folder on a full disk."""

import errno
import resource
from pathlib import Path

import pytest

from clipvip.model import ClipVip
from clipvip.model.writing import writing
from tiny_clip import make_clip

LARGEST = 20_000  # bytes; more than config.json and less than the weights


def test_weights_that_find_no_room_are_an_os_error(tmp_path: Path) -> None:
    model = ClipVip.from_clip(make_clip(tmp_path / "clip"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST, before[1]))
    try:
        with pytest.raises(OSError, match="too large") as error:
            model.save_pretrained(tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error.value.errno == errno.EFBIG and error.value.filename == str(tmp_path / "model")


def test_a_tokenizer_that_finds_no_room_is_an_os_error(tmp_path: Path) -> None:
    model = ClipVip.from_clip(make_clip(tmp_path / "clip"))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "tokenizer.json").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as error:
        model.save_pretrained(folder)
    assert error.value.errno == errno.ENOSPC


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="another"), writing(tmp_path):
        raise RuntimeError("another")
