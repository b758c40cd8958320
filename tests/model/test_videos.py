"""What `encode_video` takes: every form of a video, one by one or in a list, and what becomes of bad ones."""

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from clipvip.media.container import ANY_TAGS
from clipvip.media.whole_file import read_frames
from clipvip.model import ClipVip
from clipvip.model.preprocess import preprocess_frames
from goldens import assert_close
from make_videos import make_video
from tiny_clip import IMAGE_SIZE, make_clip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ClipVip:
    model = ClipVip.from_clip(make_clip(tmp_path_factory.mktemp("models") / "clip"))
    torch.nn.init.normal_(model.vision_model.embeddings.temporal_embedding, std=0.3)
    return model


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 40, 48, 3), np.uint8)


# --- forms ---


def test_pictures_and_lists_of_frames(model: ClipVip, frames: np.ndarray) -> None:
    pictures = [Image.fromarray(frame) for frame in frames]
    whole, first = model.encode_video([frames]), model.encode_video([frames[:1]])
    planes = torch.from_numpy(frames).movedim(-1, 1)
    for video in (
        pictures,
        tuple(pictures),
        list(frames),
        list(planes),
        iter(pictures),
        [*pictures[:2], *planes[2:]],
    ):
        assert_close(model.encode_video([video]), whole, atol=1e-6)
    assert_close(model.encode_video(pictures[0]), first, atol=1e-6)
    assert_close(model.encode_video([pictures[0]]), first, atol=1e-6)
    assert_close(model.encode_video([[frames[0]]]), first, atol=1e-6)
    # A list is always of videos: a picture in it is a video of one frame.
    assert model.encode_video(pictures).shape == (4, 16)
    assert_close(model.encode_video(pictures)[:1], first, atol=1e-6)
    normalised = list(preprocess_frames(frames, IMAGE_SIZE))
    assert_close(model.encode_video([normalised, frames]), whole.expand(2, -1), atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_pictures_of_other_modes_become_rgb(model: ClipVip, frames: np.ndarray, mode: str) -> None:
    picture = Image.fromarray(frames[0]).convert(mode)
    expected = model.encode_video(np.array(picture.convert("RGB"))[None])
    assert_close(model.encode_video(picture), expected, atol=1e-6)
    for deep in ("I", "F", "I;16"):
        with pytest.raises(ValueError, match=f"a PIL image of mode {deep}: give one of 8 bits"):
            model.encode_video([Image.new(deep, (8, 8))])


def test_a_list_of_frames_of_different_sizes(model: ClipVip, frames: np.ndarray) -> None:
    small = frames[:, ::2, ::2].copy()
    mixed = [Image.fromarray(frames[0]), small[1]]
    pixels = torch.cat([preprocess_frames(frames[:1], IMAGE_SIZE), preprocess_frames(small[1:2], IMAGE_SIZE)])
    assert_close(model.encode_video([mixed]), model.encode_video(pixels), atol=1e-6)


@pytest.mark.parametrize(
    ("video", "message"),
    [
        ([], "a list without frames is no video"),
        (["a.jpg", "b.jpg"], "a str is no video: give the path of a file, frames as an array"),
        (
            [np.zeros((2, 8, 8, 3), np.uint8)],
            r"a frame of shape \(2, 8, 8, 3\): expected \(height, width, 3\)",
        ),
        (np.zeros((8, 8, 3), np.uint8), "a list of the frames of one video is itself put in a list"),
        (np.zeros((2, 0, 8, 3), np.uint8), "expected"),
        (np.zeros((2, 8, 8, 4), np.uint8), "expected"),
        (np.zeros((2, 8, 8, 3), np.int64), "expected"),
        ({"a": 1}, "a dict is no video"),
        (b"bytes", "a bytes is no video"),
    ],
)
def test_what_is_no_video(model: ClipVip, video: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.encode_video([video])
    embeds, failures = model.encode_video([video], on_error="nan")
    assert embeds.isnan().all() and [failure.index for failure in failures] == [0]


# --- numbers that are not normalised ---


def floats(low: float, high: float) -> torch.Tensor:
    return torch.linspace(low, high, 2 * 3 * IMAGE_SIZE**2).reshape(2, 3, IMAGE_SIZE, IMAGE_SIZE)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16, torch.float32, torch.bfloat16])
def test_floating_point_from_0_to_255_is_refused(model: ClipVip, kind: Any) -> None:
    wrong = floats(0, 255)
    video = wrong.to(kind) if isinstance(kind, torch.dtype) else wrong.numpy().astype(kind)
    with pytest.raises(
        ValueError, match=r"values from 0 to 255 are not normalised .* give 0 to 255 as uint8"
    ):
        model.encode_video([video])
    for wrong in (floats(-30, 1), floats(0, 1) / 0, floats(0, torch.inf)):
        with pytest.raises(ValueError, match="are not normalised"):
            model.encode_video(wrong)


def test_floating_point_from_0_to_1_is_taken_as_it_is_with_a_warning(model: ClipVip) -> None:
    with pytest.warns(UserWarning, match="taken for normalised ones, and these lie all in 0 to 1"):
        rows = model.encode_video(floats(0, 1))
    with torch.no_grad():
        assert_close(rows, model.get_video_features(floats(0, 1)[None]), atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.encode_video(floats(-1.8, 2.2))


# --- one bad file among good ones ---


def test_one_bad_video_costs_itself_alone(model: ClipVip, frames: np.ndarray, tmp_path: Path) -> None:
    good = make_video(tmp_path / "good.mp4", num_frames=20)
    (tmp_path / "text.mp4").write_text("no video")
    videos = [good, tmp_path / "gone.mp4", frames, tmp_path / "text.mp4", None, "a\0b", "a" * 300, good]
    expected = model.encode_video([good, frames])
    for batch_size in (1, 3, 16):
        embeds, failures = model.encode_video(
            videos,  # type: ignore[arg-type]
            batch_size=batch_size,
            on_error="nan",
        )
        assert_close(embeds[[0, 2, 7]], expected[[0, 1, 0]], atol=1e-6)
        assert embeds[[1, 3, 4, 5, 6]].isnan().all() and embeds.shape == (8, 16)
        assert [failure.index for failure in failures] == [1, 3, 4, 5, 6]
        assert str(tmp_path / "gone.mp4") in failures[0].reason and "does not decode" in failures[1].reason
        assert all("\n" not in failure.reason for failure in failures)
    embeds, failures = model.encode_video([good], on_error="nan")
    assert failures == [] and not embeds.isnan().any()
    with pytest.raises(ValueError, match=r"gone\.mp4: no such video file"):
        model.encode_video(videos)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="neither 'raise' nor 'nan'"):
        model.encode_video([good], on_error="ignore")  # type: ignore[call-overload]


def test_more_frames_than_a_frame_transformer_takes(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip")
    model = ClipVip.from_clip(clip, encoder="seq_transformer", num_frame_heads=4)
    videos = [np.zeros((length, 8, 8, 3), np.uint8) for length in (2, 30)]
    with pytest.raises(ValueError, match="30 frames, but the frame transformer has 24 positions"):
        model.encode_video(videos)
    embeds, failures = model.encode_video(videos, on_error="nan")
    assert not embeds[0].isnan().any() and embeds[1].isnan().all() and failures[0].index == 1


def test_a_generator_is_asked_for_a_batch_at_a_time(model: ClipVip, frames: np.ndarray) -> None:
    asked = 0
    done: list[int] = []
    forward = model.vision_model.register_forward_hook(lambda *_: done.append(asked))

    def videos() -> Iterator[np.ndarray]:
        nonlocal asked
        for _ in range(7):
            asked += 1
            yield frames

    rows = model.encode_video(videos(), batch_size=3)
    forward.remove()
    assert done == [3, 6, 7]
    assert_close(rows, model.encode_video([frames]).expand(7, -1), atol=1e-6)
    assert model.encode_video(iter([])).shape == (0, 16)


# --- all of it at once ---

ARRAYS = st.one_of(
    npst.arrays(np.uint8, st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 5), st.just(3))),
    npst.arrays(np.uint8, st.tuples(st.integers(1, 2), st.just(3), st.integers(1, 5), st.integers(1, 5))),
    npst.arrays(
        st.sampled_from([np.float32, np.float64, np.int32]),
        st.just((2, 3, IMAGE_SIZE, IMAGE_SIZE)),
        elements=st.sampled_from([0, 1, 2, 255]),
        fill=st.sampled_from([0, -1, 300]),
    ),
    npst.arrays(np.uint8, npst.array_shapes(max_dims=5, max_side=4)),
)
PICTURES = st.sampled_from(["RGB", "L", "RGBA", "I", "F"]).map(lambda mode: Image.new(mode, (5, 4)))
FRAMES = st.one_of(
    PICTURES, npst.arrays(np.uint8, (4, 6, 3)), npst.arrays(np.uint8, npst.array_shapes(max_side=4))
)
VIDEOS = st.one_of(
    ARRAYS, PICTURES, st.lists(FRAMES, max_size=3), st.none(), st.integers(), st.text(max_size=5)
)


@settings(max_examples=60)
@given(videos=st.lists(VIDEOS, max_size=5), batch_size=st.integers(1, 6))
def test_whatever_is_given_has_its_row(model: ClipVip, videos: list[Any], batch_size: int) -> None:
    """Each video has the row that it has alone, or NaN and a reason: the same that `raise` gives."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        embeds, failures = model.encode_video(videos, batch_size=batch_size, on_error="nan")
        reasons = {failure.index: failure.reason for failure in failures}
        assert embeds.shape == (len(videos), 16)
        for index, video in enumerate(videos):
            if index in reasons:
                assert embeds[index].isnan().all()
                with pytest.raises(ValueError, match=r".") as caught:
                    model.encode_video([video])
                assert " ".join(str(caught.value).split()) == reasons[index]
            else:
                assert_close(embeds[index : index + 1], model.encode_video([video]), atol=1e-5)


# --- playlists and scripts that are named like videos ---


@pytest.mark.parametrize(
    "script",
    [
        "ffconcat version 1.0\nfile secret.mp4\n",
        "#EXTM3U\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\nfile:secret.mp4\n#EXT-X-ENDLIST\n",
        (
            "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
            "a=rtpmap:96 H264/90000\n"
        ),
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"></MPD>',
    ],
)
@pytest.mark.parametrize("name", ["innocent.mp4", "innocent.webm", "innocent"])
def test_no_other_file_is_opened(
    model: ClipVip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make_video(tmp_path / "secret.mp4", num_frames=5)
    Path(name).write_text(script)
    with pytest.raises(ValueError, match=rf"{name}: does not decode as video") as caught:
        model.encode_video([name])
    assert "\n" not in str(caught.value)


def test_a_name_that_looks_like_a_protocol_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = make_video(tmp_path / "concat:a.mp4", num_frames=5)
    assert np.array_equal(read_frames("concat:a.mp4", 3), read_frames(path, 3))
    with pytest.raises(ValueError, match="no such video file"):
        read_frames("concat:a.mp4|b.mp4", 3)


def test_without_decord_embeddings_are_the_same(
    model: ClipVip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no wheels for Arm."""
    paths = [make_video(tmp_path / name, num_frames=50) for name in ("a.mp4", "b.mkv", "c.ts")]
    expected = model.encode_video(paths)
    monkeypatch.setitem(sys.modules, "decord", None)  # importing it then fails
    assert_close(model.encode_video(paths), expected, atol=1e-5)


def test_a_picture_cut_off_costs_itself_alone(model: ClipVip, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match="does not decode"):
        model.encode_video([Image.open(path)])
    embeds, failures = model.encode_video([Image.open(path)], on_error="nan")
    assert embeds.isnan().all() and len(failures) == 1


@pytest.mark.needs_shared
@pytest.mark.parametrize(
    "name",
    [
        "cases/video/hls_joined.ts",
        "cases/video/field_coded.ts",
        "data/videos/exo_roadtrip_vp9_10bit.webm",
        "data/videos/exo_desks_h263.3gp",
        "data/videos/nasa_13013.mp4",
    ],
)
def test_the_frames_are_those_at_their_places_by_another_count(shared_dir: Path, name: str) -> None:
    """By PyAV alone: decord seeks elsewhere in these, counts fields or hidden frames, or refuses them."""
    with av.open(str(shared_dir / name), **ANY_TAGS) as container:
        all_frames = [
            frame.to_ndarray(format="rgb24") for frame in container.decode(container.streams.best("video"))
        ]
    wanted = np.linspace(0, len(all_frames) - 1, 8).astype(int)
    found = read_frames(shared_dir / name, 8)
    for frame, index in zip(found, wanted, strict=True):
        expected = all_frames[index]
        assert frame.shape == expected.shape
        assert np.abs(frame.astype(int) - expected.astype(int)).mean() < 1.5
