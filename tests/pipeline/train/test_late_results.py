"""What is known of a step when the next one is under way, and what comes of a step that gave no numbers."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.train.batches import Chunk
from clipvip.pipeline.train.checkpoint import TrainState
from clipvip.pipeline.train.distributed import LateLargest, Place
from clipvip.pipeline.train.journal import Done, Journal
from clipvip.pipeline.train.launch import launch
from clipvip.pipeline.train.logs import Logs
from clipvip.pipeline.train.loop import batches_of, prepare
from clipvip.pipeline.train.recipe import load_recipe
from clipvip.pipeline.train.step import Job, NotFinite, StepResult, make_encoder, train_step
from clipvip.pipeline.train.uploads import Uploads
from resources import DEVICES
from train_functions import signals_seen

ALONE = Place(0, 1, torch.device("cpu"))


def opened(world: Path, *settings: str, device: str = "cpu") -> tuple[Job, list[Chunk]]:
    places = (f"data.sources.clips.shards={world / 'clips'}", f"model.init={world / 'clip'}",
              f"data.sources.clips.captions={world / 'captions'}", "run.compile=false")  # fmt: skip
    recipe = load_recipe(str(world / "recipe.yaml"), (*places, *settings))
    place = Place(0, 1, torch.device(device))
    job = prepare(recipe, place, cache=world / "cache")
    return job, next(batches_of(job, TrainState()))


class _Kept(Logs):
    """Logs that keep rows in memory."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.rates: list[dict[str, float]] = []
        self.bar: Any = self
        self.num_steps = 0

    def add(self, number: int) -> None:
        self.num_steps += number

    def write(self, row: dict[str, float], rates: dict[str, float]) -> None:
        self.rows.append(row)
        self.rates.append(rates)


def done(step: int, loss: float, *, at: float = 0.0) -> Done:
    values = [torch.tensor(value) for value in (loss, 4.5, 0.25)]
    return Done(step, StepResult(values[0], {"V->S": values[0]}, *values[1:]), 1e-3, 1e9, 0.0, at)


@pytest.fixture
def job(world: Path) -> Iterator[Job]:
    yield opened(world, "run.log_every_steps=2")[0]


def test_a_step_is_read_when_the_next_one_is_there(job: Job) -> None:
    logs = _Kept()
    with Journal(job, logs) as journal:
        for step in (1, 2, 3):
            journal.add(done(step, step / 2))
            assert logs.num_steps == step - 1
        assert [row["step"] for row in logs.rows] == [1, 2]
        journal.add(done(4, 2.0))
        journal.settle()
        journal.settle()
        assert [(row["step"], row["loss"], row["loss/V->S"]) for row in logs.rows] == [
            (1, 0.5, 0.5), (2, 1.0, 1.0), (4, 2.0, 2.0)]  # fmt: skip
        assert logs.rows[0]["grad_norm"] == 0.25 and logs.rows[0]["logit_scale"] == 4.5
        journal.add(done(6, 3.0))
    assert logs.rows[-1]["step"] == 6


def test_rates_go_by_when_steps_were_made_and_not_by_when_they_are_read(job: Job) -> None:
    logs = _Kept()
    with Journal(job, logs) as journal:
        start = time.perf_counter()
        for step in range(1, job.num_steps + 1):
            journal.add(done(step, 2.0, at=start + 10.0 * step))
    last = logs.rates[-1]["samples_per_second"]
    assert last == pytest.approx(job.recipe.optim.batch_size / 10.0, rel=1e-3)


def test_the_last_step_is_logged_when_something_else_fails(job: Job) -> None:
    logs = _Kept()
    with pytest.raises(UserError, match="no disk"), Journal(job, logs) as journal:
        journal.add(done(2, 1.0))
        raise UserError("no disk")
    assert [row["step"] for row in logs.rows] == [2]
    with pytest.raises(UserError, match=r"diverged at step 4 \(loss nan, gradient norm 0.25\)"), \
            Journal(job, logs) as journal:  # fmt: skip
        journal.add(done(4, float("nan")))
        raise UserError("no disk")
    with pytest.raises(KeyboardInterrupt), Journal(job, logs) as journal:
        journal.add(done(6, 1.0))
        raise KeyboardInterrupt
    assert [row["step"] for row in logs.rows] == [2]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("spoilt", ["loss", "gradient"])
def test_a_step_without_numbers_leaves_weights_and_moments(world: Path, device: str, spoilt: str) -> None:
    """They are as after the step before, and so is the optimizer, though nobody has looked yet."""
    job, chunks = opened(world, device=device)
    upload = Uploads(job.place.device)
    train_step(job, upload(chunks), learning_rate=1e-3).read()

    def state() -> list[torch.Tensor]:
        moments = [value for of_one in job.optimizer.state.values() for value in of_one.values()]
        return [tensor.clone() for tensor in [*job.model.state_dict().values(), *moments]]

    class Spoil(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
            return rows * torch.nan if spoilt == "loss" else rows.clone()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            return gradient * torch.inf

    def encode(chunk: Chunk) -> dict[str, torch.Tensor]:
        return {role: Spoil.apply(rows) for role, rows in job.encode(chunk).items()}

    before = state()
    result = train_step(replace(job, encode=encode), upload(chunks), learning_rate=1e-3)
    assert all(torch.equal(one, other) for one, other in zip(before, state(), strict=True))
    with pytest.raises(NotFinite, match="loss nan" if spoilt == "loss" else r"loss \d.*, gradient norm"):
        result.read()
    train_step(job, upload(chunks), learning_rate=1e-3).read()
    assert not all(torch.equal(one, other) for one, other in zip(before, state(), strict=True))


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_texts_in_one_short_pass_are_the_texts_one_by_one(world: Path, chunk_size: int | None) -> None:
    job, chunks = opened(world, f"run.chunk_size={chunk_size or 'null'}")
    model = job.model.double()
    encode = make_encoder(model, precision="fp32", device=ALONE.device, compiled=False)
    for chunk in chunks:
        assert chunk.text_mask is not None and chunk.caption_mask is not None
        longest = max(int(mask.sum(1).max()) for mask in (chunk.text_mask, chunk.caption_mask))
        assert longest <= chunk.num_tokens <= min(longest + 7, job.recipe.data.max_text_tokens)
        assert chunk.num_tokens % 8 == 0 or chunk.num_tokens == job.recipe.data.max_text_tokens
        found = encode(replace(chunk, video=chunk.video, frame=None))
        for role, ids, mask in (("text", chunk.text_ids, chunk.text_mask),
                                ("caption", chunk.caption_ids, chunk.caption_mask)):  # fmt: skip
            plain = model(input_ids=ids, attention_mask=mask).text_embeds
            # Embeddings are handed on in float32.
            torch.testing.assert_close(found[role], plain.float(), rtol=0, atol=1e-7)


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_uploaded_is_the_same_bytes(world: Path, device: str) -> None:
    job, chunks = opened(world, "run.chunk_size=2", device=device)
    upload = Uploads(job.place.device)
    for _ in range(3):  # later ones while the first are in use
        for chunk, copy in zip(chunks, upload(chunks), strict=True):
            assert copy.video.values.device.type == device
            assert torch.equal(copy.video.values.cpu(), chunk.video.values)
            assert torch.equal(copy.text_ids.cpu(), chunk.text_ids)


@pytest.mark.gpu
def test_a_step_on_a_gpu_is_not_waited_for(world: Path) -> None:
    job, chunks = opened(world, device="cuda")
    upload = Uploads(job.place.device)
    chunks = [chunk.pin_memory() for chunk in chunks]
    for _ in range(2):  # the first makes the optimizer's state
        train_step(job, upload(chunks), learning_rate=1e-3).read()
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = train_step(job, upload(chunks), learning_rate=1e-3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert result.read().loss > 0


@pytest.mark.gpu
def test_auto_finds_a_chunk_size_on_a_gpu(world: Path) -> None:
    state = TrainState()
    recipe = opened(world, device="cuda")[0].recipe
    job = prepare(recipe, Place(0, 1, torch.device("cuda")), cache=world / "cache")
    next(batches_of(job, state))
    assert state.chunk_size is None  # a batch of 6 fits any


def test_a_signal_is_known_when_it_is_next_asked_for() -> None:
    alone = LateLargest(place=ALONE)
    assert alone.read() == 0
    alone.begin(15)
    assert alone.read() == 15


@pytest.mark.slow
def test_several_processes_see_a_signal_at_the_same_step(tmp_path: Path) -> None:
    assert launch(signals_seen, str(tmp_path), processes=2) == 0
    seen = [(tmp_path / str(rank)).read_text() for rank in range(2)]
    assert seen[0] == seen[1] == "0 0 0 15"
