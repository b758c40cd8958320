"""The command `clipvip-data transcribe`: from videos to subtitles that `shard` reads, and what it refuses."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import Result

import clipvip
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.stage import StageFailed
from clipvip.shards.sources.subtitles import Cue, read_subtitles
from commands import error_of, run, run_well
from make_sound import damage_middle, make_talk
from make_videos import make_video, write_metadata
from outputs import content, report, samples, skipped
from s3_server import s3_server, use_s3
from tiny_whisper import WORDS, make_whisper

pytestmark = pytest.mark.needs("faster_whisper")

TEXT = " ".join(WORDS)
ALL_HEARD = ("--no-vad", "--no-word-times", "--beam-size", 1)


@pytest.fixture(scope="module")
def english(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_whisper(tmp_path_factory.mktemp("whisper") / "english")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of sound, forty in a folder below, one without sound, one cut off, one that is none."""
    folder = tmp_path_factory.mktemp("videos")
    talk = make_talk(folder / "talk.mkv", seconds=4)
    make_talk(folder / "below" / "long.mkv", seconds=40)
    make_video(folder / "silent.mp4")
    (folder / "broken.mp4").write_bytes(talk.read_bytes()[:300])
    (folder / "text.webm").write_text("no video")
    (folder / "notes.txt").write_text("no video by its name")
    return folder


def transcribe(videos: Path, out: Path, model: Path, *options: object) -> Result:
    return run("transcribe", videos, "--out", out, "--model", model, "--gpus", 0, "--workers", 1, *options)


@pytest.fixture(scope="module")
def undisturbed(videos: Path, english: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    result = transcribe(videos, out, english, *ALL_HEARD)
    assert result.exit_code == 0, result.output
    return out


def test_each_video_with_sound_has_a_subtitle_file(undisturbed: Path) -> None:
    assert sorted(path.name for path in undisturbed.glob("*.vtt")) == ["long.vtt", "talk.vtt"]
    assert read_subtitles(undisturbed / "talk.vtt") == [Cue(0.0, 2.0, TEXT)]
    assert read_subtitles(undisturbed / "long.vtt") == [Cue(0.0, 2.0, TEXT), Cue(30.0, 32.0, TEXT)]


def test_what_cannot_be_heard_is_counted_and_named(undisturbed: Path) -> None:
    assert sorted(skipped(undisturbed)) == [
        ("no_sound", "silent"),
        ("undecodable_video", "broken"),
        ("undecodable_video", "text"),
    ]
    found = report(undisturbed)
    assert found["counts"] == {"videos": 5, "transcripts": 2, "without_speech": 0}
    assert found["this_run"]["transcripts"] == 2
    assert found["languages"] == {"en": 2}


def test_the_same_command_again_hears_nothing_twice(
    undisturbed: Path, videos: Path, english: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    (out / "long.vtt").unlink()
    (out / ".long.vtt.partial").write_text("half of it")
    kept = (out / "talk.vtt").stat().st_mtime_ns
    assert transcribe(videos, out, english, *ALL_HEARD).exit_code == 0
    assert content(out) == content(undisturbed)
    assert (out / "talk.vtt").stat().st_mtime_ns == kept
    assert report(out)["this_run"]["transcripts"] == 1
    assert report(out)["counts"] == report(undisturbed)["counts"]
    planned = transcribe(videos, out, english, *ALL_HEARD, "--dry-run", "--json")
    assert json.loads(planned.stdout)["counts"] == {"videos": 5, "videos_done": 2}
    other = transcribe(videos, out, english, "--no-vad", "--no-word-times", "--beam-size", 2)
    assert "made with other options (beam_size: 1 there, 2 asked)" in error_of(other)


def test_shard_reads_what_was_heard(undisturbed: Path, videos: Path, tmp_path: Path) -> None:
    clips = write_metadata(tmp_path / "clips.jsonl", {"talk": [(0, 2), (2, 4)], "long": [(29, 33)]})
    out = tmp_path / "clips"
    run_well("shard", "--metadata", clips, "--videos", videos, "--subtitles", undisturbed, "--out", out)
    texts = {key: sample.subtitle for key, sample in samples(out).items()}
    assert texts == {"talk_00000": TEXT, "talk_00001": "", "long_00000": TEXT}
    assert report(out)["subtitle_warnings"]["count"] == 0


def test_sound_that_begins_late_is_heard_where_it_is(english: Path, tmp_path: Path) -> None:
    make_talk(tmp_path / "videos" / "late.mkv", seconds=70, tones=[(60, 70)], sound_from=60.0, clock_from=3.0)
    assert transcribe(tmp_path / "videos", tmp_path / "out", english, *ALL_HEARD).exit_code == 0
    assert read_subtitles(tmp_path / "out" / "late.vtt") == [Cue(60.0, 62.0, TEXT)]


def test_damaged_sound_is_heard_as_far_as_it_goes_and_told(english: Path, tmp_path: Path) -> None:
    damage_middle(make_talk(tmp_path / "videos" / "bad.mp4", seconds=40, tones=[(0, 40)], codec="aac"))
    assert transcribe(tmp_path / "videos", tmp_path / "out", english, *ALL_HEARD).exit_code == 0
    assert read_subtitles(tmp_path / "out" / "bad.vtt")[0] == Cue(0.0, 2.0, TEXT)
    told = report(tmp_path / "out")["sound_warnings"]
    assert told["count"] == 1
    assert told["examples"][0].startswith("bad: damaged packets of sound, left silent: ")


def test_a_video_that_takes_too_long_is_given_up(videos: Path, english: Path, tmp_path: Path) -> None:
    result = transcribe(videos, tmp_path / "out", english, *ALL_HEARD, "--video-timeout", 0.001)
    assert "no video has a transcript" in error_of(result)
    assert {("timeout", "long"), ("timeout", "talk")} <= set(skipped(tmp_path / "out"))
    assert list((tmp_path / "out").glob("*.vtt")) == []


@pytest.mark.slow
@pytest.mark.needs("s3fs")
def test_videos_and_subtitles_may_be_in_a_store(
    undisturbed: Path, videos: Path, english: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(videos, tmp_path / "store" / "bucket" / "videos")
    with s3_server(tmp_path / "store") as address:
        use_s3(monkeypatch, address)
        words = ("--model", english, "--gpus", 0, "--workers", 1, *ALL_HEARD)
        for out in (tmp_path / "out", "s3://bucket/out"):
            run_well("transcribe", "s3://bucket/videos", "--out", out, *words)
        (tmp_path / "store" / "bucket" / "out" / "long.vtt").unlink()
        run_well("transcribe", "s3://bucket/videos", "--out", "s3://bucket/out", *words)
    expected = content(undisturbed)
    assert content(tmp_path / "out") == expected
    del expected["_state/lock"]
    assert content(tmp_path / "store" / "bucket" / "out") == expected
    assert report(tmp_path / "store" / "bucket" / "out")["this_run"]["transcripts"] == 1


def test_words_have_times_of_their_own(videos: Path, english: Path, tmp_path: Path) -> None:
    assert transcribe(videos, tmp_path / "out", english, "--no-vad").exit_code == 0
    cues = read_subtitles(tmp_path / "out" / "talk.vtt")
    assert [cue.text for cue in cues] == list(WORDS)
    starts = [cue.start_seconds for cue in cues]
    assert starts == sorted(starts) and len(set(starts)) > 1 and starts[-1] <= 4.0


def test_what_is_no_speech_is_left_out(videos: Path, english: Path, tmp_path: Path) -> None:
    """A tone is none."""
    assert transcribe(videos, tmp_path / "out", english).exit_code == 0
    assert (tmp_path / "out" / "talk.vtt").read_text() == "WEBVTT\n\n"
    assert report(tmp_path / "out")["counts"]["without_speech"] == 2


def test_the_language_is_found_out_or_given(videos: Path, english: Path, tmp_path: Path) -> None:
    many = make_whisper(tmp_path / "many", language="de")
    for language, given in (("de", ()), ("fr", ("--language", "fr"))):
        out = tmp_path / language
        assert transcribe(videos, out, many, *ALL_HEARD, *given).exit_code == 0
        assert f"\nLanguage: {language}\n" in (out / "talk.vtt").read_text()
    assert report(tmp_path / "de")["languages"] == {"de": 2}
    for model, language in ((many, "klingon"), (english, "de")):
        wrong = transcribe(videos, tmp_path / "wrong", model, "--language", language)
        assert f"--language {language}: " in error_of(wrong)
    assert not (tmp_path / "wrong").exists()


def test_models_that_cannot_be_used_leave_nothing(videos: Path, english: Path, tmp_path: Path) -> None:
    layout = english.with_name("english-hf")
    damaged = shutil.copytree(english, tmp_path / "damaged")
    (damaged / "model.bin").write_bytes((english / "model.bin").read_bytes()[:1000])
    no_words = shutil.copytree(english, tmp_path / "no_words")
    (no_words / "tokenizer.json").write_text("{")
    for model, message in (
        (layout, "has no model.bin, so it is no Whisper of CTranslate2's; convert one"),
        (damaged, "cannot be loaded"),
        (no_words, "cannot be loaded"),
        (tmp_path / "nowhere", "no such folder"),
        (Path("gigantic"), "sizes are tiny"),
        (Path("someone/whisper"), "no such folder, and not in the cache of the Hugging Face Hub"),
    ):
        error = error_of(transcribe(videos, tmp_path / "out", model))
        assert message in error and f"--model {model}" in error
    assert not (tmp_path / "out").exists()


def test_from_python(videos: Path, english: Path, undisturbed: Path, tmp_path: Path) -> None:
    given = {"model": str(english), "gpus": 0, "vad": False, "word_times": False, "beam_size": 1}
    found = clipvip.transcribe(str(videos), out=tmp_path / "out", workers=2, **given)
    assert found.counts["transcripts"] == 2
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.vtt")} == {
        path.name: path.read_bytes() for path in undisturbed.glob("*.vtt")
    }
    (tmp_path / "only").mkdir()
    shutil.copy(videos / "silent.mp4", tmp_path / "only")
    with pytest.raises(StageFailed, match="no video has a transcript"):
        clipvip.transcribe(str(tmp_path / "only"), out=tmp_path / "none", **given)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no video files"):
        clipvip.transcribe(str(tmp_path / "empty"), out=tmp_path / "none", **given)
    with pytest.raises(UserError, match="--gpus 64: CTranslate2 finds"):
        clipvip.transcribe(str(videos), out=tmp_path / "gpus", **given | {"gpus": 64})
