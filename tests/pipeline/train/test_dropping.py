"""Patches and frames that training drops: what of a batch is seen, and that the update is by that alone."""

import json
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import simplejpeg
import torch
import webdataset as wds
from safetensors.torch import load_file
from torch import Tensor

from clipvip.model import ClipVip, ClipVipConfig
from clipvip.pipeline.train import memory
from clipvip.pipeline.train.batches import Chunk
from clipvip.pipeline.train.checkpoint import TrainState, list_checkpoints
from clipvip.pipeline.train.distributed import Place
from clipvip.pipeline.train.launch import launch
from clipvip.pipeline.train.loop import batches_of, prepare
from clipvip.pipeline.train.memory import saved_bytes
from clipvip.pipeline.train.recipe import recipe_from_tree
from clipvip.pipeline.train.samples import SampleSettings
from clipvip.pipeline.train.step import Job, batch_terms, compute_gradients, step_flops
from clipvip.shards.format.captions import write_captions
from make_shards import make_captioned_folder, make_shard_folder
from plain_tower import plain_embedding
from tiny_clip import MAX_TOKENS, make_clip
from train_functions import gradients_and_steps, save_gradients_and_steps
from train_runs import RECIPE, run

ALONE = Place(0, 1, torch.device("cpu"))
NUM_STEPS, NUM_FRAMES, PATCHES = 3, 5, 9
KEPT_FRAMES, KEPT_PATCHES = 3, 5
DROPS = ("--set", "model.drop_patches=0.5", "--set", "data.drop_frames=0.4")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dropping")
    make_clip(folder / "clip")
    (folder / "recipe.yaml").write_text(RECIPE)
    make_shard_folder(folder / "clips", num_shards=2, clips_per_shard=8)
    make_captioned_folder(folder / "val", [[f"picture {number}"] for number in range(21)])
    (folder / "captions").mkdir()
    for shard in range(2):
        keys = [f"video{shard}_{number:05d}" for number in range(8) if number % 4]
        write_captions(
            folder / "captions" / f"{shard:06d}.parquet", [(key, f"picture {key}") for key in keys]
        )
    (folder / "images").mkdir()
    generator = torch.Generator().manual_seed(0)
    with wds.TarWriter(str(folder / "images" / "000000.tar")) as writer:
        for number in range(8):
            picture = torch.randint(0, 256, (40, 40, 3), dtype=torch.uint8, generator=generator)
            jpeg = simplejpeg.encode_jpeg(picture.numpy())
            writer.write({"__key__": f"image{number}", "jpg": jpeg, "txt": f"image {number}"})
    return folder


def tree_of(world: Path, *, patches: float = 0.5, frames: float = 0.4, **run_settings: Any) -> dict[str, Any]:
    """A recipe over clips and images, a batch that no two processes divide evenly, and nine patches."""
    clips = {"shards": str(world / "clips"), "captions": str(world / "captions")}
    images = {"shards": str(world / "images"), "kind": "images", "weight": 0.4}
    return {
        "data": {"sources": {"clips": clips, "images": images}, "num_frames": NUM_FRAMES,
                 "drop_frames": frames, "max_text_tokens": MAX_TOKENS},
        "model": {"init": str(world / "clip"), "logit_scale": 2.0, "image_size": 48, "drop_patches": patches,
                  "temporal_start": 0.3},
        "optim": {"batch_size": 13, "steps": NUM_STEPS, "learning_rate": 1e-4},
        "run": {"workers": 0, "device": "cpu", **run_settings},
    }  # fmt: skip


def job_of(tree: dict[str, Any]) -> Job:
    return prepare(recipe_from_tree(tree, name="test"), ALONE, cache=Path("unused"))


def batch_of(job: Job, *, step: int = 0) -> list[Chunk]:
    return next(batches_of(job, TrainState(step=step)))


@pytest.fixture(scope="module")
def alone(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    save_gradients_and_steps(tree_of(world), folder, NUM_STEPS, ALONE)
    return folder


def plain_gradients(job: Job, chunks: list[Chunk]) -> dict[str, Tensor]:
    """In float64, of a plain tower that is fed what is kept alone, one video at a time."""
    model = deepcopy(job.model).double()
    config = model.config
    everything = torch.arange(PATCHES).expand(NUM_FRAMES, -1)
    embeddings: dict[tuple[str, str], Tensor] = {}
    for chunk in chunks:
        videos = {"video": (chunk.video, chunk.video_seen), "frame": (chunk.frame, chunk.frame_seen)}
        for role, (pixels, seen) in videos.items():
            if pixels is None:
                continue
            of_rows = []
            for row, frames in enumerate(pixels.normalized(48, config.normalization).double()):
                num_frames = seen.num_frames or len(frames)
                places = list(range(num_frames)) if seen.frames is None else seen.frames[row].tolist()
                kept = everything[: len(frames)] if seen.patches is None else seen.patches[row]
                of_rows.append(plain_embedding(model, frames, places, num_frames, kept))
            embeddings[chunk.source, role] = torch.stack(of_rows)
        for role, ids in (("text", chunk.text_ids), ("caption", chunk.caption_ids)):
            if ids is not None:
                embeddings[chunk.source, role] = model.get_text_features(ids[:, : chunk.num_tokens])
    has_caption = {chunk.source: chunk.has_caption for chunk in chunks if chunk.has_caption is not None}
    terms = batch_terms(embeddings, has_caption, model.logit_scale, plan=job.plan, loss=job.recipe.loss)
    torch.stack(list(terms.values())).sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], most: float = 1e-5) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = gradient.abs().max().clamp(min=1e-2)
        assert (gradient - found[name].to(gradient.dtype)).abs().max() / scale < most, name


@pytest.mark.parametrize("encoder", ["vip", "mean_pool"])
@pytest.mark.parametrize(("patches", "frames"), [(0.5, 0), (0, 0.4), (0.5, 0.4)])
def test_the_gradient_is_that_of_what_is_kept(
    world: Path, patches: float, frames: float, encoder: str
) -> None:
    tree = tree_of(world, patches=patches, frames=frames)
    job = job_of({**tree, "model": {**tree["model"], "encoder": encoder}})
    chunks = batch_of(job)
    assert [chunk.source for chunk in chunks] == ["clips", "images"]
    expected = plain_gradients(job, chunks)
    compute_gradients(job, chunks)
    found = {name: p.grad for name, p in job.model.named_parameters() if p.grad is not None}
    assert_close(found, {name: expected[name] for name in found})
    assert expected.keys() - found.keys() <= {name for name in expected if name.endswith("k_proj.bias")}


def assert_same_run(found: Path, expected: Path) -> None:
    one, other = (load_file(folder / "gradients.safetensors") for folder in (found, expected))
    assert_close(one, other)
    one, other = (load_file(folder / "weights.safetensors") for folder in (found, expected))
    assert max(float((one[name] - other[name]).abs().max()) for name in other) < 1e-6


@pytest.mark.parametrize("settings", [{"chunk_size": 2}, {"checkpoint_activations": True}])
def test_chunks_and_recomputation_give_the_same(
    world: Path, alone: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    save_gradients_and_steps(tree_of(world, **settings), tmp_path, NUM_STEPS, ALONE)
    assert_same_run(tmp_path, alone)


@pytest.mark.slow
def test_two_processes_give_the_same(world: Path, alone: Path, tmp_path: Path) -> None:
    tree = tree_of(world, chunk_size=2)
    assert launch(gradients_and_steps, tree, str(tmp_path), NUM_STEPS, processes=2) == 0
    assert_same_run(tmp_path, alone)


def seen_by_key(chunks: list[Chunk]) -> dict[str, list[Tensor]]:
    """Of each row: the frames, the patches of these, and those of the middle frame."""
    found = {}
    for chunk in chunks:
        drawn = (chunk.video_seen.frames, chunk.video_seen.patches, chunk.frame_seen.patches)
        for row, key in enumerate(chunk.keys):
            found[key] = [tensor[row] for tensor in drawn if tensor is not None]
    return found


def test_a_sample_has_one_draw_a_pass_whoever_loads_it(world: Path) -> None:
    job = job_of(tree_of(world))
    first = seen_by_key(batch_of(job))
    of_chunks = job_of(tree_of(world, chunk_size=3, workers=2))
    again = seen_by_key(batch_of(of_chunks))
    assert first.keys() == again.keys() and len(first) == 13
    for key, drawn in first.items():
        assert all(torch.equal(one, other) for one, other in zip(drawn, again[key], strict=True))
    # Each frame has a draw of its own, each clip, and each pass.
    clips = {key: drawn for key, drawn in first.items() if len(drawn) == 3}
    assert len({tuple(drawn[1].flatten().tolist()) for drawn in clips.values()}) == len(clips) == 9
    assert any((drawn[1] != drawn[1][0]).any() for drawn in clips.values())
    later = seen_by_key([chunk for step in (1, 2) for chunk in batch_of(job, step=step)])
    both = [key for key in clips if key in later]
    assert both and any((clips[key][1] != later[key][1]).any() for key in both)
    for frames, patches, middle in clips.values():
        assert frames.shape == (KEPT_FRAMES,) and (frames.diff() > 0).all() and frames.max() < NUM_FRAMES
        assert patches.shape == (KEPT_FRAMES, KEPT_PATCHES) and middle.shape == (1, KEPT_PATCHES)
        assert (patches.diff() > 0).all() and patches.min() >= 0 and patches.max() < PATCHES
    images = [drawn for drawn in first.values() if len(drawn) == 1]
    assert len(images) == 4 and all(drawn[0].shape == (1, KEPT_PATCHES) for drawn in images)


def test_frames_are_those_of_a_run_that_drops_none(world: Path) -> None:
    """And nothing else of the samples is another."""
    whole, dropped = (batch_of(job_of(tree_of(world, frames=of, patches=0)))[0] for of in (0, 0.4))
    places = dropped.video_seen.frames
    assert places is not None and whole.video_seen.frames is None and whole.keys == dropped.keys
    assert dropped.video.num_frames == KEPT_FRAMES and whole.frame is not None and dropped.frame is not None
    pixels, of_dropped = whole.video.normalized(48), dropped.video.normalized(48)
    for row, of_row in enumerate(places):
        assert torch.equal(of_dropped[row], pixels[row, of_row.long()])
    assert torch.equal(whole.frame.values, dropped.frame.values)
    assert whole.text_ids is not None and dropped.text_ids is not None
    assert torch.equal(whole.text_ids, dropped.text_ids)


def test_flops_and_memory_are_of_what_is_kept(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [job_of(tree_of(world, **of)) for of in ({"patches": 0, "frames": 0}, {})]
    flops = [step_flops(batch_of(job), job.model.config) for job in jobs]
    assert flops[1] < 0.75 * flops[0]  # with texts
    vision = {"hidden_size": 64, "num_attention_heads": 1, "num_hidden_layers": 4, "patch_size": 8}
    kinds = {"jitter": True, "fast_decode": False, "needs_subtitle": True, "needs_caption": False,
             "needs_frame": True}  # fmt: skip
    # 16 of 64 patches and 3 of 12 frames take what 16 patches and 3 frames of a smaller model take, but for
    # embedding all patches and choosing among them.
    needs = []
    for side, settings in ((64, {"num_frames": 12, "drop_frames": 0.75, "drop_patches": 0.75}),
                           (32, {"num_frames": 3}), (64, {"num_frames": 12})):  # fmt: skip
        config = ClipVipConfig(vision_config={**vision, "image_size": side})
        needs.append(
            saved_bytes(config, SampleSettings(**kinds, **settings), num_tokens=8, precision="bf16").per_row
        )
    assert needs[1] <= needs[0] < 1.15 * needs[1] < 0.3 * needs[2]
    # Loading processes hand over less.
    found = []

    def fitting(*_: int, chunk_bytes: float, **__: float) -> tuple[int, int]:
        found.append(chunk_bytes)
        return 0, 1

    monkeypatch.setattr(memory, "fitting_loaders", fitting)
    for of in ({"patches": 0, "frames": 0}, {}):
        batches_of(job_of(tree_of(world, **of, workers=1)), TrainState()).close()
    assert found[1] < 0.75 * found[0]


def test_it_goes_on_to_the_bit_and_what_is_scored_is_whole(world: Path, tmp_path: Path) -> None:
    more = ("--set", "optim.steps=4", "--set", "run.save_every_steps=1", "--set", "run.keep_checkpoints=9",
            "--validation", str(world / "val"), "--set", "evaluation.at_start=true")  # fmt: skip
    whole, plain = tmp_path / "whole", tmp_path / "plain"
    for out, drops in ((whole, DROPS), (plain, ())):
        result = run(world, out, *more, *drops)
        assert result.exit_code == 0, result.output
    scores = [json.loads((out / "validation.jsonl").read_text().splitlines()[0]) for out in (whole, plain)]
    assert scores[0] == scores[1] and scores[0]["step"] == 0
    weights = [load_file(out / "model" / "model.safetensors") for out in (whole, plain)]
    assert any(not torch.equal(weights[0][name], value) for name, value in weights[1].items())
    shutil.copytree(whole, tmp_path / "again")
    for folder in [*list_checkpoints(tmp_path / "again")[2:], tmp_path / "again" / "model"]:
        shutil.rmtree(folder)
    assert run(world, tmp_path / "again", *more, *DROPS, "--set", "run.chunk_size=null").exit_code == 0
    one, other = (tmp_path / name / "model" / "model.safetensors" for name in ("whole", "again"))
    assert one.read_bytes() == other.read_bytes()
    assert ClipVip.from_pretrained(whole / "model").config.num_frames == 3  # what scores are of
    card = (whole / "model" / "README.md").read_text()
    assert "50% of the patches, 40% of the frames" in card
    assert "dropped in training" not in (plain / "model" / "README.md").read_text()
    # Another fraction is another run.
    result = run(world, whole, *more, *DROPS, "--set", "model.drop_patches=0.25")
    assert result.exit_code == 1 and "model.drop_patches: 0.5, now 0.25" in result.output


@pytest.mark.parametrize("setting", ["model.drop_patches=1", "data.drop_frames=1.0", "data.drop_frames=-0.1"])
def test_all_cannot_be_dropped(world: Path, tmp_path: Path, setting: str) -> None:
    result = run(world, tmp_path / "out", "--set", setting)
    assert result.exit_code == 1 and setting.split("=")[0] in result.output
    assert result.output.count("\n") == 1
