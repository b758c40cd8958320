"""Commands of the data stages with small inputs of their own, without --out.

Each takes a second or two of work.
"""

import shutil
from pathlib import Path

from make_shards import make_shard_folder
from make_sound import make_talk
from make_videos import make_video, write_metadata
from resources import need
from tiny_clip import make_text_tower
from tiny_ofa import make_ofa
from tiny_whisper import make_whisper


def shard_command(folder: Path) -> tuple[object, ...]:
    """Twelve videos of eight clips, one that is broken, one that is not there; a shard holds ten clips."""
    videos = folder / "videos"
    make_video(videos / "v0.mp4", num_frames=240)
    for number in range(1, 12):
        shutil.copy(videos / "v0.mp4", videos / f"v{number}.mp4")
    (videos / "broken.mp4").write_bytes((videos / "v0.mp4").read_bytes()[:500])
    names = [*(f"v{number}" for number in range(12)), "broken", "missing"]
    clips = write_metadata(folder / "clips.jsonl", {name: [(n, n + 1) for n in range(8)] for name in names})
    return ("shard", "--metadata", clips, "--videos", videos, "--shard-size", 10, "--workers", 2)


def subset_command(folder: Path) -> tuple[object, ...]:
    shards = make_shard_folder(folder / "shards", num_shards=12, clips_per_shard=12)
    return ("subset", shards, "--num", 100, "--workers", 2)


def caption_command(folder: Path) -> tuple[object, ...]:
    shards = make_shard_folder(folder / "shards", num_shards=6, clips_per_shard=5)
    model = make_ofa(folder / "ofa")
    return ("caption", "--shards", shards, "--model", model, "--gpus", 0, "--workers", 2)


def nmi_command(folder: Path) -> tuple[object, ...]:
    texts = {}
    for name in ("one", "two"):
        texts[name] = folder / f"{name}.txt"
        texts[name].write_text("".join(f"{name} text {n % 7} of {n}\n" for n in range(3000)))
    sides = ("--source", f"one={texts['one']}", "--target", f"two={texts['two']}")
    return ("nmi", *sides, "--model", make_text_tower(folder / "clip"), "--device", "cpu")


def transcribe_command(folder: Path) -> tuple[object, ...]:
    """Twelve videos of four seconds, and one without sound."""
    need("faster_whisper")
    videos = folder / "videos"
    make_talk(videos / "v0.mkv", seconds=4)
    for number in range(1, 12):
        shutil.copy(videos / "v0.mkv", videos / f"v{number}.mkv")
    make_video(videos / "silent.mp4")
    model = make_whisper(folder / "whisper")
    return ("transcribe", videos, "--model", model, "--gpus", 0, "--workers", 2, "--no-vad")


COMMANDS = {
    "shard": shard_command,
    "subset": subset_command,
    "caption": caption_command,
    "nmi": nmi_command,
    "transcribe": transcribe_command,
}
