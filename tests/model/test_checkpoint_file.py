"""Files that are no checkpoints, wherever one is asked for.

One line with the file and what it is, nothing written.
"""

import io
import pickle
import struct
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from clipvip.model import ClipVip
from clipvip.model.checkpoint_file import read_checkpoint
from clipvip.model.errors import CheckpointError
from clipvip.model.ofa.convert import read_fairseq
from clipvip.pipeline.tools.convert import ofa as convert_ofa
from clipvip.pipeline.tools.convert import released as convert_released
from goldens import tensors, tiny_config
from tiny_clip import make_clip, wide_model

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 605247071\n"
STATE = {"clipmodel.logit_scale": torch.tensor(4.6), "clipmodel.other": torch.arange(5000.0)}


def saved(content: object, **options: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def archive(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in names:
            file.writestr(name, "x")
    return buffer.getvalue()


WHOLE, OLD_FORMAT = saved(STATE), saved(STATE, _use_new_zipfile_serialization=False)
SAFE = save(STATE)
MIDDLE = len(WHOLE) // 2

NO_CHECKPOINTS = {
    "empty.pt": (b"", "is empty"),
    "junk.pt": (b"junk\n", "is no checkpoint of torch"),
    "pointer.pt": (LFS_POINTER, "is a Git LFS pointer, not the file that it stands for"),
    "page.pt": (b"<!DOCTYPE html><title>404</title>", "is an HTML page, not a checkpoint"),
    "page_with_space.pt": (b"\xef\xbb\xbf\n <HTML>no such file", "is an HTML page, not a checkpoint"),
    "cut.pt": (WHOLE[:MIDDLE], "is cut off"),
    "flipped.pt": (WHOLE[:MIDDLE] + bytes([WHOLE[MIDDLE] ^ 1]) + WHOLE[MIDDLE + 1 :], "is damaged"),
    "old_cut.pt": (OLD_FORMAT[: len(OLD_FORMAT) // 2], "no checkpoint, or a damaged one"),
    "old_head.pt": (OLD_FORMAT[:7], "no checkpoint, or a damaged one"),
    "photos.pt": (archive("a.jpg", "b.jpg"), "is a zip archive, but no checkpoint of torch"),
    "program.pt": (archive("m/data.pkl", "m/constants.pkl", "m/code/m.py"), "is a TorchScript program"),
    "pickle.pt": (pickle.dumps({"a": [1, 2]}, protocol=4), ""),
    "nan_key.pt": (saved({3: torch.zeros(1)}), ""),
    "empty.safetensors": (b"", "is empty"),
    "junk.safetensors": (b"no weights at all" * 10, "is no .safetensors file"),
    "short.safetensors": (b"abc", "is no .safetensors file"),
    "json.safetensors": (struct.pack("<Q", 5) + b'{"a":', "is no .safetensors file"),
    "pointer.safetensors": (LFS_POINTER, "is a Git LFS pointer"),
    "page.safetensors": (b"<html>", "is an HTML page"),
    "head.safetensors": (SAFE[:20], "is cut off"),
    "cut.safetensors": (SAFE[:-100], "is cut off"),
}


def one_line(error: BaseException | None, path: Path) -> str:
    assert isinstance(error, CheckpointError), repr(error)
    assert "\n" not in str(error) and str(path) in str(error)
    return str(error)


@pytest.fixture(params=NO_CHECKPOINTS)
def broken(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    content, message = NO_CHECKPOINTS[request.param]
    (tmp_path / request.param).write_bytes(content)
    return tmp_path / request.param, message


@pytest.mark.parametrize(
    "load",
    [ClipVip.from_pretrained, ClipVip.from_clip, ClipVip.from_released, lambda path: read_fairseq(path)],
)
def test_what_is_no_checkpoint_is_named(load: object, broken: tuple[Path, str]) -> None:
    path, message = broken
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(CheckpointError) as caught:
            load(path)  # type: ignore[operator]
    told = one_line(caught.value, path)
    if load != ClipVip.from_clip or "a damaged one" not in message:  # which only looks at the outside
        assert message in told


def test_commands_end_with_that_line_and_write_nothing(broken: tuple[Path, str], tmp_path: Path) -> None:
    path, message = broken
    vocabulary = tmp_path / "vocabulary"
    vocabulary.mkdir()
    (vocabulary / "vocab.json").write_text("{}")
    (vocabulary / "merges.txt").touch()

    def check(result: Result) -> None:
        lines = result.stderr.strip().splitlines()
        assert result.exit_code == 1 and len(lines) == 1, result.output
        assert str(path) in lines[0] and message in lines[0]
        assert sorted(tmp_path.iterdir()) == sorted([path, vocabulary])

    out = str(tmp_path / "out")
    check(CliRunner().invoke(convert_released, [str(path), "--out", out, "--tokenizer", "none"]))
    check(CliRunner().invoke(convert_ofa, [str(path), "--vocab", str(vocabulary), "--out", out]))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".safetensors"])
@pytest.mark.parametrize("folder", ["", "weights/"])
def test_a_file_that_is_absent_is_not_looked_for_elsewhere(suffix: str, folder: str) -> None:
    name = f"{folder}pretrain_clipvip_base_32{suffix}"
    for load in (ClipVip.from_pretrained, ClipVip.from_clip, ClipVip.from_released):
        with pytest.raises(CheckpointError, match=f"^{name}: no such checkpoint file$"):
            load(name)


@pytest.mark.parametrize("name", ["empty", "pointer", "page", "cut", "junk"])
def test_weights_in_a_folder(name: str, tmp_path: Path) -> None:
    ClipVip.from_clip(make_clip(tmp_path / "clip")).save_pretrained(tmp_path / "model")
    content, message = NO_CHECKPOINTS[f"{name}.safetensors"]
    for folder, load in (("clip", ClipVip.from_clip), ("model", ClipVip.from_pretrained)):
        (tmp_path / folder / "model.safetensors").write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"does not load \(model\.safetensors {message}") as caught:
            load(tmp_path / folder)
        one_line(caught.value, tmp_path / folder)
        (tmp_path / folder / "model.safetensors").rename(tmp_path / folder / "pytorch_model.bin")
        with pytest.raises(CheckpointError, match=r"does not load \(pytorch_model\.bin") as caught:
            load(tmp_path / folder)
        one_line(caught.value, tmp_path / folder)


@given(place=st.integers(0, len(WHOLE) - 1), byte=st.integers(1, 255), cut=st.booleans())
def test_a_damaged_file_is_refused_or_read_as_it_was(
    place: int, byte: int, cut: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Nothing but CheckpointError comes out, and never other tensors."""
    path = tmp_path_factory.mktemp("damaged") / "file.pt"
    changed = WHOLE[:place] + bytes([WHOLE[place] ^ byte]) + WHOLE[place + 1 :]
    path.write_bytes(WHOLE[:place] if cut else changed)
    try:
        found = read_checkpoint(path)
    except CheckpointError as error:
        one_line(error, path)
    else:
        assert found.keys() == STATE.keys() and all(torch.equal(found[name], STATE[name]) for name in STATE)


@given(head=st.sampled_from([b"", b"\x80\x02", b"\x80\x04", OLD_FORMAT[:200]]), rest=st.binary(max_size=60))
def test_arbitrary_bytes_are_refused(
    head: bytes, rest: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("bytes") / "file.pt"
    path.write_bytes(head + rest)
    with pytest.raises(CheckpointError) as caught:
        ClipVip.from_released(path)
    one_line(caught.value, path)


def test_the_temporal_table_may_be_missing(tmp_path: Path) -> None:
    """The reference's `if_use_temporal_embed: 0`: as with a table of zeros."""
    state = dict(tensors("vip_tiny.weights"))
    name = "clipmodel.vision_model.embeddings.temporal_embedding"
    config = tiny_config("vip_tiny", encoder="vip")
    with_zeros = ClipVip.from_released(state | {name: torch.zeros_like(state.pop(name))}, config)
    torch.save(state, tmp_path / "released.pt")
    video = torch.rand(2, 5, 3, config.vision_config.image_size, config.vision_config.image_size)
    for source in (state, tmp_path / "released.pt"):
        model = ClipVip.from_released(source, config)
        with torch.no_grad():
            assert torch.equal(model.get_video_features(video), with_zeros.get_video_features(video))
    guessed = ClipVip.from_released(state)
    assert guessed.config.temporal_size == 12
    assert not guessed.vision_model.embeddings.temporal_embedding.any()


def test_a_folder_to_convert_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New, empty, the working directory, or with what a run that was killed left.

    But nothing of anybody else's.
    """
    state = {f"clipmodel.{name}": tensor for name, tensor in wide_model().state_dict().items()}
    torch.save(state, tmp_path / "released.pt")

    def convert(out: Path) -> Result:
        arguments = [str(tmp_path / "released.pt"), "--out", str(out), "--tokenizer", "none"]
        return CliRunner().invoke(convert_released, arguments)

    for name in ("new/inner", "empty", "left", "here"):
        if name != "new/inner":
            (tmp_path / name).mkdir()
    (tmp_path / "left" / ".partial").mkdir()
    (tmp_path / "left" / ".partial" / "config.json").write_text("{")
    for name in ("new/inner", "empty", "left"):
        assert convert(tmp_path / name).exit_code == 0
    monkeypatch.chdir(tmp_path / "here")
    assert convert(Path()).exit_code == 0
    for name in ("new/inner", "empty", "left", "here"):
        files = {path.name for path in (tmp_path / name).iterdir()}
        assert files == {"README.md", "config.json", "model.safetensors"}
        assert ClipVip.from_pretrained(tmp_path / name).config.num_proxies == 3
    refused = convert(tmp_path / "empty")
    assert refused.exit_code == 1 and "already exists; give a new or empty folder" in refused.stderr
