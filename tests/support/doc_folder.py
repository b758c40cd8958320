"""A folder with made-up data under the names that the documentation uses, for its commands to be run in."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import torch

from clipvip.experiments.demo.corpus import write_corpus
from clipvip.experiments.demo.world import WEIGHTS, World
from clipvip.model import ClipVip
from clipvip.shards.files.hashes import sha256_of_file
from clipvip.shards.format.captions import captions_path, shard_source, write_captions
from clipvip.shards.format.manifest import ShardRecord, write_manifest
from clipvip.shards.tar.writer import write_shard
from foreign_shards import make_video2dataset
from make_shards import make_captioned_folder, make_shard_folder, stored_clip
from tiny_ofa import make_fairseq, make_model, write_vocabulary

_SHARDS, _CLIPS_PER_SHARD = 16, 70  # more than the 1000 texts that `nmi` draws


def make_doc_folder(folder: Path) -> None:
    """Write all of it: a corpus of 24 clips, finished shards and captions of 1,120, models, tables."""
    corpus = folder / "corpus"
    write_corpus(World(num_train_videos=4, num_test_videos=1), corpus, workers=1)
    for name, given in (("metadata.jsonl", "clips.jsonl"), ("videos", "videos"), ("subtitles", "subtitles")):
        (corpus / "train" / name).rename(folder / given)
    videos = [path.stem for path in sorted((folder / "videos").iterdir())]
    shutil.copy(folder / "videos" / f"{videos[0]}.mp4", folder / "clip.mp4")
    shutil.copy(corpus / "texts" / "descriptions.txt", folder / "queries.txt")
    shutil.rmtree(corpus)
    _make_shards(folder)
    _make_models(folder)
    _make_tables(folder, videos)


def _make_shards(folder: Path) -> None:
    """What `shard` and `caption` would have made of many videos; one has the id that the pages use."""
    (folder / "clips").mkdir()
    records, caption_files, origin = [], [], {"model": "ofa", "revision": "1"}
    for number in range(_SHARDS):
        video = "QMi8x8o55Ns" if number == 12 else f"video{number}"
        clips = [stored_clip(video, clip, num_frames=3) for clip in range(_CLIPS_PER_SHARD)]
        path = folder / "clips" / f"{number:06d}.tar"
        records.append(write_shard(path, clips))
        rows = [
            (clip.record.key, f"a picture of thing {number} in place {n}") for n, clip in enumerate(clips)
        ]
        target = captions_path(folder / "captions", path.stem)
        target.parent.mkdir(exist_ok=True)
        write_captions(target, rows, **origin, source=shard_source(path))
        size, digest = target.stat().st_size, sha256_of_file(target)
        caption_files.append(ShardRecord(target.name, len(rows), size, digest))
    write_manifest(folder / "clips", stage="shard", options={}, shards=records)
    write_manifest(folder / "captions", stage="caption", options=origin, shards=caption_files)
    make_captioned_folder(folder / "shards" / "msrvtt-train9k", [["a dog runs", "a dog"]] * 4)
    sets = (
        "test-clips",
        "first",
        "shards/msrvtt-val",
        "shards/msrvtt-1ka",
        "shards/msrvtt-test",
        "shards/hmdb51",
        "demo-out/shards-test",
    )
    for name in sets:
        make_shard_folder(folder / name, num_shards=1, clips_per_shard=12)
    for name in ("monday", "tuesday"):
        (folder / name).mkdir()
        record = write_shard(folder / name / "000000.tar", [stored_clip(name, clip) for clip in range(4)])
        write_manifest(folder / name, stage="shard", options={}, shards=[record])


def _make_models(folder: Path) -> None:
    """The demo's models under the names of published ones, and two as their authors save them."""
    for name, given in (("clip", "openai/clip-vit-base-patch32"), ("ofa", "OFA-Sys/ofa-base")):
        shutil.copytree(WEIGHTS / name, folder / given)
    model = ClipVip.from_clip(WEIGHTS / "clip", temporal_size=8)
    for name in ("runs/b32/model", "runs/msrvtt/model"):
        model.save_pretrained(folder / name)
    ClipVip.from_clip(WEIGHTS / "clip", temporal_size=4).save_pretrained(folder / "demo-out/tuned/model")
    released = {f"clipmodel.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save(released, folder / "pretrain_clipvip_base_32.pt")
    captioner = make_model(write_vocabulary(folder / "ofa-base"))
    make_fairseq(folder / "caption_large_best_clean.pt", captioner)


def _make_tables(folder: Path, videos: list[str]) -> None:
    """Tables of video sets, in their published forms, about the videos that are there."""
    _write_table(folder / "captions.csv", ["video", "text"], [[video, f"about {video}"] for video in videos])
    steps = [[video, n, n + 1.5, f"step {n} of {video}"] for video in videos for n in range(3)]
    _write_table(folder / "steps.csv", ["video", "start", "end", "sentence"], steps)
    (folder / "test-videos.txt").write_text("video1\nvideo2\n")
    (folder / "msrvtt").mkdir()
    _write_table(folder / "msrvtt" / "MSRVTT_train.9k.csv", ["video_id"], [[video] for video in videos[:2]])
    test = [[f"ret{n}", f"msr{n}", video, f"sentence of {video}"] for n, video in enumerate(videos[2:])]
    _write_table(
        folder / "msrvtt" / "MSRVTT_JSFUSION_test.csv", ["key", "vid_key", "video_id", "sentence"], test
    )
    sentences = [
        {"video_id": video, "caption": f"{word} {video}"} for video in videos for word in ("see", "hear")
    ]
    listed = [{"video_id": video, "split": "train"} for video in videos]
    content = {"videos": listed, "sentences": sentences}
    (folder / "msrvtt" / "MSRVTT_data.json").write_text(json.dumps(content))
    keys = [f"video0_{number:05d}" for number in range(12)]
    questions = [[n, key, *(f"option {k}" for k in range(5)), n % 5] for n, key in enumerate(keys)]
    header = ["", "vid_key", "a1", "a2", "a3", "a4", "a5", "answer"]
    _write_table(folder / "MSR_MC_test.csv", header, questions)
    make_video2dataset(folder / "video2dataset")
    clip_ids = [f"video{shard}.{clip}.mp4" for shard in range(_SHARDS) for clip in range(_CLIPS_PER_SHARD)]
    rows = [{"clip_id": clip_id, "caption": f"about {clip_id}"} for clip_id in clip_ids]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "classes.txt").write_text("dive\nrun\njump\n")
    (folder / "tests.yaml").write_text("msrvtt: {shards: test-clips}\n")
    labels = [[key, ("dive", "run", "jump")[n % 3]] for n, key in enumerate(keys)]
    _write_table(folder / "labels.csv", ["key", "label"], labels)


def _write_table(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def copy_doc_folder(source: Path, folder: Path, *, written: set[str]) -> None:
    """Copy what `make_doc_folder` made, without what commands are going to write themselves."""
    outputs = [Path(name) for name in written]

    def ignored(parent: str, names: list[str]) -> set[str]:
        inside = Path(parent).relative_to(source)
        return {name for name in names if inside / name in outputs}

    shutil.copytree(source, folder, ignore=ignored, dirs_exist_ok=True)
