"""The demo's corpus: the same bytes for a seed, and files that the stages' own readers understand."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clipvip.experiments.demo.corpus import (
    as_json,
    is_complete,
    is_of_another,
    plan_videos,
    read_truth,
    task_descriptions,
    write_corpus,
)
from clipvip.experiments.demo.render import render_clip
from clipvip.experiments.demo.world import DEMO_WORLD, QUICK_WORLD, REVERSED, World
from clipvip.media.decode import open_video
from clipvip.shards.sources.hdvila import index_videos, read_sources
from clipvip.shards.sources.subtitles import index_subtitles, read_subtitles, text_in_span
from clipvip.shards.sources.text_tables import load_text_table

SMALL = World(num_train_videos=5, num_test_videos=2, clips_per_video=3, num_descriptions=20)


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(SMALL, folder, workers=1)
    return folder


def test_a_seed_gives_the_same_bytes_however_many_workers(corpus: Path, tmp_path: Path) -> None:
    write_corpus(SMALL, tmp_path, workers=2)
    assert _digests(tmp_path) == _digests(corpus)
    assert is_complete(SMALL, tmp_path)


def test_what_is_missing_is_made_again_with_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    write_corpus(SMALL, tmp_path, workers=1)
    next((tmp_path / "train" / "videos").glob("*.mp4")).unlink()
    (tmp_path / "corpus.json").unlink()
    assert not is_complete(SMALL, tmp_path)
    write_corpus(SMALL, tmp_path, workers=1)
    assert _digests(tmp_path) == _digests(corpus)


def test_another_seed_gives_another_corpus() -> None:
    assert plan_videos(SMALL, "train") != plan_videos(replace(SMALL, seed=1), "train")


def test_a_folder_of_another_world_is_refused(corpus: Path) -> None:
    with pytest.raises(ValueError, match="other settings"):
        write_corpus(replace(SMALL, seed=1), corpus, workers=1)


def test_a_corpus_that_is_too_old_to_name_a_knob_is_as_by_default(tmp_path: Path) -> None:
    settings = as_json(SMALL)
    del settings["distinct_test"]
    (tmp_path / "world.json").write_text(json.dumps(settings))
    assert not is_of_another(SMALL, tmp_path)
    assert is_of_another(replace(SMALL, distinct_test=True), tmp_path)


def test_clips_cover_their_videos(corpus: Path) -> None:
    paths = index_videos(corpus / "train" / "videos")
    sources = list(read_sources(corpus / "train" / "metadata.jsonl"))
    assert len(sources) == SMALL.num_train_videos
    for source in sources:
        assert not source.skips and len(source.clips) == 3
        with open_video(paths[source.video_id], size=96) as video:
            times = [seconds for seconds, _ in video.frames()]
        assert source.clips[0].start_seconds == 0
        assert times[-1] < source.clips[-1].end_seconds <= times[-1] + 0.2


@pytest.mark.parametrize("format_", [".vtt", ".srt", ".json3"])
def test_subtitles_read_back_as_they_were_planned(corpus: Path, format_: str) -> None:
    num_read = 0
    index = index_subtitles(corpus / "train" / "subtitles")
    for video in plan_videos(SMALL, "train"):
        path = index[video.video_id]
        if not path.endswith(format_):
            continue
        cues = read_subtitles(path)
        for clip in video.clips:
            assert text_in_span(cues, *clip.span_seconds) == clip.subtitle
            num_read += 1
    assert num_read >= 3


def test_rolling_captions_repeat_their_lines(corpus: Path) -> None:
    video = plan_videos(SMALL, "train")[0]
    words = next(clip.subtitle for clip in video.clips if clip.subtitle).split()[:6]
    file = (corpus / "train" / "subtitles" / f"{video.video_id}.en.vtt").read_text()
    assert file.count(" ".join(words)) >= 2


def test_test_clips_have_descriptions_that_are_also_the_tasks(corpus: Path) -> None:
    table = load_text_table(corpus / "test" / "descriptions.jsonl")
    clips = [clip for source in read_sources(corpus / "test" / "metadata.jsonl") for clip in source.clips]
    lines = (corpus / "texts" / "descriptions.txt").read_text().splitlines()
    assert [table[clip.clip_id] for clip in clips] == lines[: len(clips)]
    assert lines == task_descriptions(SMALL) and len(lines) == 6 + SMALL.num_descriptions


def test_truth_is_of_every_clip(corpus: Path) -> None:
    keys = {
        clip.key
        for split in ("train", "test")
        for source in read_sources(corpus / split / "metadata.jsonl")
        for clip in source.clips
    }
    truth = read_truth(corpus)
    assert set(truth) == keys
    planned = plan_videos(SMALL, "train")[1].clips[2].scene
    assert planned in truth.values()


def test_demo_corpus_is_large_enough_for_the_papers_protocol() -> None:
    said = [clip.subtitle for video in plan_videos(DEMO_WORLD, "train") for clip in video.clips]
    assert sum(map(bool, said)) >= 1000
    assert len(task_descriptions(DEMO_WORLD)) >= 1000


@pytest.mark.parametrize("world", [DEMO_WORLD, QUICK_WORLD])
def test_the_demos_test_clips_are_all_that_its_world_has(world: World) -> None:
    """Each appearance with each motion once: whoever knows all but the direction finds just a half."""
    clips = [clip.scene for video in plan_videos(world, "test") for clip in video.clips]
    assert len({(scene.appearance, scene.motion) for scene in clips}) == len(clips) == 144
    appearances = {scene.appearance for scene in clips}
    assert len(appearances) == 24 and len({clip.motion for clip in clips}) == 6


def test_settings_are_plain_json(corpus: Path) -> None:
    assert json.loads((corpus / "world.json").read_text()) == as_json(SMALL)


TWINS = World(
    num_train_videos=1,
    num_test_videos=4,
    num_finetune_videos=2,
    clips_per_video=3,
    twins=True,
    shapes=("circle", "star"),
    colours=("red", "blue"),
    sizes=("big",),
    places=("field",),
    motions=("left", "right", "grow", "shrink", "up", "down"),
)


def test_twins_show_the_same_frames_in_reverse_and_are_described_so() -> None:
    videos = plan_videos(TWINS, "test")
    assert len(videos) == 8
    for video, twin in zip(videos[::2], videos[1::2], strict=True):
        for clip, reverse in zip(video.clips, twin.clips, strict=True):
            assert clip.span_seconds == reverse.span_seconds
            frames = render_clip(clip.scene, num_frames=clip.num_frames)
            assert np.array_equal(frames[::-1], render_clip(reverse.scene, num_frames=clip.num_frames))
            assert reverse.scene.motion == REVERSED[clip.scene.motion]
            assert clip.scene.appearance == reverse.scene.appearance


def test_no_two_test_clips_of_a_world_of_twins_show_the_same() -> None:
    shown = [
        (clip.scene.appearance, clip.scene.motion) for v in plan_videos(TWINS, "test") for clip in v.clips
    ]
    assert len(set(shown)) == len(shown) == 24
    with pytest.raises(ValueError, match="12 clips that differ"):
        plan_videos(replace(TWINS, num_test_videos=5), "test")


def test_a_world_of_twins_has_no_motion_that_looks_the_same_both_ways() -> None:
    with pytest.raises(ValueError, match="motions are"):
        replace(TWINS, motions=("left", "right", "circle"))


def test_finetuning_videos_are_a_split_with_descriptions(tmp_path: Path) -> None:
    write_corpus(replace(TWINS, num_test_videos=1), tmp_path, workers=1)
    rows = (tmp_path / "finetune" / "descriptions.jsonl").read_text().splitlines()
    assert len(rows) == 6
    assert len(list((tmp_path / "test" / "videos").glob("*.mp4"))) == 2
