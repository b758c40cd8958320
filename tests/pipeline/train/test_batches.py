"""Batches: the same samples however they are loaded."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPTokenizer

from batch_plans import batches, frames_of, joined, plan_of, write_some_captions
from clipvip.media.sampling import uniform_indices
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.train.batches import (
    plan_batches,
)
from clipvip.pipeline.train.enough import check_samples
from clipvip.pipeline.train.order import SampleOrder
from clipvip.pipeline.train.recipe import recipe_from_tree
from clipvip.shards.format.captions import shard_source, write_captions
from clipvip.shards.format.manifest import write_manifest
from clipvip.shards.tar.reader import read_shard
from clipvip.shards.tar.writer import write_shard
from make_images import make_images
from make_shards import make_captioned_folder, make_shard_folder, stored_clip
from tiny_clip import IMAGE_SIZE, MAX_TOKENS


def test_a_batch_is_the_same_for_any_chunks_processes_workers_and_start(
    clips: Path, tokenizer: CLIPTokenizer, tmp_path: Path
) -> None:
    plan = plan_of({"clips": {"shards": str(clips)}}, tmp_path)
    whole = batches(plan, tokenizer, steps=range(8))
    for other in (
        batches(plan, tokenizer, steps=range(8), chunk_size=4),
        batches(plan, tokenizer, steps=range(8), chunk_size=4, workers=2),
        [
            [*a, *b]
            for a, b in zip(
                batches(plan, tokenizer, steps=range(8), rank=0, world_size=2),
                batches(plan, tokenizer, steps=range(8), rank=1, world_size=2),
                strict=True,
            )
        ],
        [*whole[:5], *batches(plan, tokenizer, steps=range(5, 8), chunk_size=5)],
    ):
        assert [joined(batch, "keys") for batch in other] == [joined(batch, "keys") for batch in whole]
        for batch, expected in zip(other, whole, strict=True):
            assert torch.equal(joined(batch, "video"), joined(expected, "video"))
            assert torch.equal(joined(batch, "text_ids"), joined(expected, "text_ids"))


def test_an_epoch_has_each_sample_once_and_the_next_another_order(
    clips: Path, tokenizer: CLIPTokenizer, tmp_path: Path
) -> None:
    plan = plan_of({"clips": {"shards": str(clips)}}, tmp_path)
    keys = [joined(batch, "keys") for batch in batches(plan, tokenizer, steps=range(7))]
    assert all(len(set(batch)) == 6 for batch in keys)
    seen = sum(keys, ())
    first, second = seen[:21], seen[21:]
    assert len(set(first)) == len(set(second)) == 21
    assert first != second
    assert plan.order.steps_per_epoch == 4
    assert [step for step in range(1, 15) if plan.order.ends_epoch(step)] == [4, 7, 11, 14]
    assert plan.order.epochs_after(7) == 2


@pytest.mark.parametrize(
    ("epochs", "batch_size", "steps"), [(1, 6, 4), (2, 6, 7), (3, 6, 11), (1, 21, 1), (5, 20, 6)]
)
def test_steps_are_counted_as_in_the_reference(
    clips: Path, tmp_path: Path, epochs: int, batch_size: int, steps: int
) -> None:
    """Its `num_train_steps`: epochs x samples / batch size, rounded up."""
    plan = plan_of({"clips": {"shards": str(clips)}}, tmp_path, batch_size=batch_size)
    recipe = recipe_from_tree({"optim": {"batch_size": batch_size, "epochs": epochs}}, name="test")
    assert plan.num_steps(recipe) == steps


def test_a_run_of_the_first_order_goes_on_with_it(
    clips: Path, tokenizer: CLIPTokenizer, tmp_path: Path
) -> None:
    tree = {
        "data": {"sources": {"clips": {"shards": str(clips)}}, "num_frames": 4, "shuffle_shards": 2},
        "loss": {"pairs": "baseline"},
        "optim": {"batch_size": 6, "epochs": 2},
    }
    recipe = recipe_from_tree(tree, name="test")
    plan = plan_batches(recipe, cache=tmp_path, order_version=1)
    assert (plan.order.steps_per_epoch, plan.num_steps(recipe)) == (3, 6)
    keys = [joined(batch, "keys") for batch in batches(plan, tokenizer, steps=range(6))]
    now = batches(plan_batches(recipe, cache=tmp_path), tokenizer, steps=range(3))
    assert keys[:3] == [joined(batch, "keys") for batch in now]
    # The fourth batch begins the second epoch; what did not fill one is left out.
    order = SampleOrder([7, 7, 7], seed=42, group_shards=2)
    expected = [order.locate(1, position) for position in range(18)]
    assert sum(keys[3:], ()) == tuple(f"video{shard}_{index:05d}" for shard, index in expected)


def test_each_pass_takes_one_of_a_clips_captions(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    texts = [[f"take {number} {word}" for word in ("one", "two", "three")] for number in range(12)]
    folder = make_captioned_folder(tmp_path / "clips", texts)
    plan = plan_of({"clips": {"shards": str(folder)}}, tmp_path)
    said: dict[str, set[str]] = {}
    whole = batches(plan, tokenizer, steps=range(20), chunk_size=4)
    for chunk in (chunk for batch in whole for chunk in batch):
        assert chunk.text_ids is not None
        for key, ids in zip(chunk.keys, chunk.text_ids, strict=True):
            said.setdefault(key, set()).add(tokenizer.decode(ids, skip_special_tokens=True))
    by_key = {sample.key: sample.sentences for sample in read_shard(folder / "000000.tar")}
    expected = {tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) for text in texts[0]}
    assert len(expected) == 3
    # Ten passes: each clip was seen with all of its captions, but for bad luck.
    assert sum(len(found) for found in said.values()) > 2.7 * len(said) == 2.7 * len(by_key)
    again = batches(plan, tokenizer, steps=range(7, 20), workers=2)
    for first, second in zip(whole[7:], again, strict=True):
        assert torch.equal(joined(first, "text_ids"), joined(second, "text_ids"))


def test_pixels_and_text_are_those_of_the_sample(
    clips: Path, tokenizer: CLIPTokenizer, tmp_path: Path
) -> None:
    plan = plan_of({"clips": {"shards": str(clips)}}, tmp_path, data={"sampling": "uniform"}, pairs="a")
    samples = {s.key: s for shard in sorted(clips.glob("*.tar")) for s in read_shard(shard)}
    plan.parts[0].settings.__dict__["captions"] = (str(tmp_path),)  # none there: all are missing
    (chunk,) = batches(plan, tokenizer, steps=range(1))[0]
    for row, key in enumerate(chunk.keys):
        sample = samples[key]
        # The frames are flat colours, which a resize keeps.
        expected = sample.decode(uniform_indices(sample.num_frames, 4))[:, 0, 0]
        assert np.array_equal(frames_of(chunk.video)[row, :, 5, 5].numpy(), expected)
        assert chunk.text_ids is not None and chunk.text_mask is not None
        assert np.array_equal(frames_of(chunk.frame)[row, 0, 5, 5].numpy(), sample.middle_frame()[0, 0])
        ids = chunk.text_ids[row][chunk.text_mask[row].bool()].tolist()
        assert ids == tokenizer(sample.subtitle, truncation=True, max_length=MAX_TOKENS)["input_ids"]
    assert chunk.num_rows_without_caption == 6


def test_images_mix_with_clips_by_weight(clips: Path, tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    images = make_images(tmp_path / "images.tar", 9)
    plan = plan_of(
        {"clips": {"shards": str(clips)}, "images": {"kind": "images", "shards": str(images), "weight": 0.5}},
        tmp_path,
    )
    for of_clips, of_images in batches(plan, tokenizer, steps=range(6)):
        assert (of_clips.source, len(of_clips.keys)) == ("clips", 4)
        assert (of_images.source, len(of_images.keys)) == ("images", 2)
        images_video = frames_of(of_images.video)
        assert images_video.shape == (2, 1, IMAGE_SIZE, IMAGE_SIZE, 3)
        for row, key in enumerate(of_images.keys):
            colour = images_video[row, 0, 9, 9].int() - torch.tensor([10 * int(key), 100, 200])
            assert colour.abs().max() <= 3  # JPEG


def test_equal_names_of_shards_do_not_cross_their_captions(
    tokenizer: CLIPTokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Data sets of the same file names, sizes and keys: each clip gets its own caption, or is counted."""
    for name in "ab":
        folder = make_shard_folder(tmp_path / name, num_shards=1, clips_per_shard=6)
        clips = [stored_clip("video0", n, subtitle=f"{name} says {n}") for n in range(6)]
        record = write_shard(folder / "000000.tar", clips)
        write_manifest(folder, stage="shard", options={}, shards=[record])
        (tmp_path / f"captions_{name}").mkdir()
        rows = [(stored.record.key, f"{name} shows") for stored in clips]
        target = tmp_path / f"captions_{name}" / "000000.parquet"
        write_captions(target, rows, source=shard_source(folder / "000000.tar", record.sha256))
    shards = [str(tmp_path / name) for name in "ab"]
    captions = [str(tmp_path / f"captions_{name}") for name in "ba"]

    def said(which: list[str]) -> set[tuple[str, str]]:
        plan = plan_of({"clips": {"shards": shards, "captions": which}}, tmp_path, pairs="d", batch_size=12)
        check_samples(plan)
        (chunk,) = batches(plan, tokenizer, steps=range(1))[0]
        assert chunk.text_ids is not None and chunk.caption_ids is not None and chunk.has_caption is not None
        texts = [tokenizer.decode(ids, skip_special_tokens=True)[0] for ids in chunk.text_ids]
        sights = [tokenizer.decode(ids, skip_special_tokens=True)[:1] for ids in chunk.caption_ids]
        assert [bool(sight) for sight in sights] == chunk.has_caption.tolist()
        notes.update(skip.reason for skip in chunk.skips)
        return set(zip(texts, sights, strict=True))

    notes: set[str] = set()
    assert said(captions) == {("a", "a"), ("b", "b")}
    assert not notes and not capsys.readouterr().err
    assert said(captions[:1]) == {("a", ""), ("b", "b")}
    assert notes == {"captions_of_another_shard"}
    assert "6 of the 12 samples checked have no caption" in (warning := capsys.readouterr().err)
    assert "captions_of_another_shard 1" in warning


def test_a_missing_caption_is_masked_or_skipped(
    clips: Path, tokenizer: CLIPTokenizer, tmp_path: Path
) -> None:
    missing = {"video0_00002", "video2_00006"}
    source = {"shards": str(clips), "captions": str(write_some_captions(tmp_path / "captions", missing))}
    plan = plan_of({"clips": source}, tmp_path, pairs="d", batch_size=21)
    (chunk,) = batches(plan, tokenizer, steps=range(1))[0]
    assert chunk.has_caption is not None and chunk.caption_ids is not None
    assert {key for key, has in zip(chunk.keys, chunk.has_caption, strict=True) if not has} == missing
    row = int(chunk.has_caption.int().argmax())
    expected = tokenizer(f"a caption of {chunk.keys[row]}", truncation=True, max_length=MAX_TOKENS)
    assert chunk.caption_ids[row][: len(expected["input_ids"])].tolist() == expected["input_ids"]

    # Where captions are all that the loss has, a sample without one is replaced.
    plan = plan_of({"clips": source}, tmp_path, pairs="V-C", batch_size=19)
    (chunk,) = batches(plan, tokenizer, steps=range(1))[0]
    assert not set(chunk.keys) & missing
    assert chunk.text_ids is None and chunk.frame is None
    assert {skip.what for skip in chunk.skips} <= missing
    assert len(set(chunk.keys)) == 19


def test_mistakes_are_named(clips: Path, tmp_path: Path) -> None:
    source = {"shards": str(clips)}
    with pytest.raises(UserError, match="a batch of 22 takes 22 samples of source clips, which has 21"):
        plan_of({"clips": source}, tmp_path, batch_size=22)
    two = {"clips": source, "again": source}
    with pytest.raises(UserError, match=r"change optim\.batch_size or data\.sources\.clips\.weight"):
        plan_of(two, tmp_path, batch_size=44)
    with pytest.raises(UserError, match="needs captions for source clips; give --captions"):
        check_samples(plan_of({"clips": source}, tmp_path, pairs="d"))
    with pytest.raises(UserError, match="no such folder of captions"):
        check_samples(plan_of({"clips": {**source, "captions": str(tmp_path / "x")}}, tmp_path, pairs="d"))
    twice = tmp_path / "twice"
    twice.mkdir()
    (tmp_path / "link").symlink_to(twice)
    for other in (twice, f"{twice}/", tmp_path / "link"):
        captions = {"captions": [str(twice), str(other)]}
        with pytest.raises(
            UserError, match=r"data\.sources\.clips\.captions .*: is given twice; give it once"
        ):
            check_samples(plan_of({"clips": {**source, **captions}}, tmp_path, pairs="d"))
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    write_captions(foreign / "000000.parquet", [("other_00000", "words")])
    with pytest.raises(UserError, match=r"captions for none of the 21 samples .*captions_of_another_shard 1"):
        check_samples(plan_of({"clips": {**source, "captions": str(foreign)}}, tmp_path, pairs="d"))
    (foreign / "000000.parquet").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"000000\.parquet: not readable as captions"):
        check_samples(plan_of({"clips": {**source, "captions": str(foreign)}}, tmp_path, pairs="d"))
    check_samples(plan_of({"clips": source}, tmp_path))


def test_fast_decode_keeps_pictures_alike(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    folder = make_shard_folder(tmp_path / "clips", num_shards=1, clips_per_shard=6, width=128, height=96)
    exact, fast = (
        frames_of(
            batches(
                plan_of({"clips": {"shards": str(folder)}}, tmp_path, data={"fast_decode": value}),
                tokenizer,
                steps=range(1),
            )[0][0].video
        )
        for value in (False, True)
    )
    assert (exact.int() - fast.int()).abs().max() <= 4
