"""The main path of training, top to bottom: prepare, resume at a checkpoint, step, log, save, report."""

import time
from collections.abc import Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import click
import torch

from clipvip.model.optim import learning_rate
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.progress import Progress
from clipvip.pipeline.runtime.report import StageReport
from clipvip.pipeline.runtime.stopping import StopSignal
from clipvip.pipeline.train import distributed, memory, start
from clipvip.pipeline.train.average import WeightAverage
from clipvip.pipeline.train.baseline import baseline_scores, recalls_of
from clipvip.pipeline.train.batches import Chunk, ChunkDataset, plan_batches
from clipvip.pipeline.train.checkpoint import (
    DamagedCheckpoint,
    TrainState,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
    set_aside,
)
from clipvip.pipeline.train.data_record import order_of_run, require_same_data
from clipvip.pipeline.train.distributed import Place
from clipvip.pipeline.train.failures import (
    diverged,
    has_finite_weights,
    naming_failed_compilation,
    naming_lack_of_memory,
)
from clipvip.pipeline.train.gradients import GradientSums
from clipvip.pipeline.train.journal import Done, Journal, diverged_in
from clipvip.pipeline.train.loading import load_batches
from clipvip.pipeline.train.logs import Logs, open_logs
from clipvip.pipeline.train.recipe import Recipe
from clipvip.pipeline.train.report import finish
from clipvip.pipeline.train.step import (
    Job,
    NotFinite,
    StepResult,
    make_encoder,
    step_flops,
    train_step,
)
from clipvip.pipeline.train.store_run import local_folder, publish
from clipvip.pipeline.train.uploads import Uploads
from clipvip.pipeline.train.validation import validate, write_rows


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `stopped_by` is a signal's number, or 0 where training is complete."""

    step: int
    num_steps: int
    stopped_by: int
    report: StageReport


def train(recipe: Recipe, *, place: Place) -> Outcome:
    """Train as the recipe says, from the last checkpoint in its folder where there is one.

    SIGTERM and Ctrl-C end it after the current step, with a checkpoint; several processes do one more, while
    they tell each other. Raises as the stage does.
    """
    began = time.perf_counter()
    optim, run = recipe.optim, recipe.run
    with (
        distributed.shared_temporary_folder() as folder,
        StopSignal() as stop,
        naming_lack_of_memory(recipe) as at_once,
        ExitStack() as stack,
    ):
        job = prepare(recipe, place, cache=folder if run.cache is None else Path(run.cache))
        state = resume(job)
        first_step = state.step
        logs: Logs | None = None
        if place.is_first:
            bar = stack.enter_context(
                Progress("train", total=job.num_steps, unit="steps", initial=first_step)
            )
            logs = stack.enter_context(open_logs(recipe, job.out, bar, step=first_step))
        batches = stack.enter_context(closing(batches_of(job, state)))
        at_once.chosen, at_once.number = state.chunk_size, most_rows(job, state)
        upload, stop_signals = Uploads(place.device), distributed.LateLargest(place=place)
        journal = stack.enter_context(Journal(job, logs))
        met = TrainState()  # in this process since the last checkpoint

        score_before(job, state, logs)
        while state.step < job.num_steps:
            wait_from = time.perf_counter()
            chunks = next(batches)
            waited = time.perf_counter() - wait_from

            state.step += 1
            fraction = optim.warmup_fraction
            rate = learning_rate(optim.learning_rate, state.step, job.num_steps, warmup_fraction=fraction)
            result = step_or_explain(job, upload(chunks), step=state.step, rate=rate)
            flops = step_flops(chunks, job.model.config)
            journal.add(Done(state.step, result, rate, flops, waited, time.perf_counter()))
            for chunk in chunks:
                met.add(chunk.num_rows_without_caption, chunk.skips)

            is_last = state.step == job.num_steps
            if place.world_size == 1:
                stop_signals.begin(stop.number)
            stop_signal = stop_signals.read()
            if place.world_size > 1 and not is_last and not stop_signal:
                stop_signals.begin(stop.number)
            scores = is_scored(job, state.step)
            keeps = run.keep_models_every_steps is not None and state.step % run.keep_models_every_steps == 0
            saves = is_last or stop_signal or scores or state.step % run.save_every_steps == 0
            if saves or keeps:
                journal.settle()
            if (saves or keeps) and not has_finite_weights(job.model):
                why = "its update made weights that are not finite"
                raise diverged(job.out, state.step, why, last_good=state.step - 1)
            if scores:
                score(job, state, logs)
            if keeps:
                keep_model(job, state.step)
            if saves:
                for others in distributed.gather_objects(met, place=place):
                    state.add(others.rows_without_caption, others.skips.values())
                met = TrainState()
                save(job, state)
                distributed.together(lambda: publish(recipe) if place.is_first else None, place=place)
            if stop_signal and not is_last:
                return Outcome(state.step, job.num_steps, stop_signal, StageReport(content={}, text=""))

    seconds = time.perf_counter() - began
    with job.weights_to_keep():
        report = finish(job, state, steps_now=state.step - first_step, seconds=seconds)
    return Outcome(state.step, job.num_steps, 0, report)


def prepare(recipe: Recipe, place: Place, *, cache: Path) -> Job:
    """Model, optimizer and the plan of all batches, as at step 0."""
    model = start.start_model(recipe)
    torch.nn.Module.to(model, place.device).train()
    distributed.copy_from_first(model, place=place)
    plan = plan_batches(recipe, cache=cache, order_version=order_of_run(local_folder(recipe)))
    require_same_data(plan, place=place)
    precision, compiled = start.chosen_precision(recipe, place), start.chosen_compile(recipe, place)
    optimizer = start.start_optimizer(recipe, model)
    ema = recipe.optim.ema
    of_loss = {"logit_scale", "logit_bias"}
    trained = (parameter for name, parameter in model.named_parameters() if name not in of_loss)
    return Job(
        recipe=recipe,
        place=place,
        out=local_folder(recipe),
        model=model,
        optimizer=optimizer,
        gradient_sums=GradientSums(trained, place=place),
        encode=make_encoder(model, precision=precision, device=place.device, compiled=compiled),
        precision=precision,
        plan=plan,
        num_steps=plan.num_steps(recipe),
        average=None if ema is None else WeightAverage(model, decay=ema),
    )


def averaged_tensors(job: Job) -> dict[str, torch.Tensor]:
    """What a checkpoint holds of the average of the weights."""
    return {} if job.average is None else job.average.tensors


def resume(job: Job) -> TrainState:
    """The state of the last checkpoint, put into model and optimizer; or that of a run not begun.

    Damaged checkpoints newer than a whole one are set aside: the steps since are done again. A UserError
    where all are damaged, or the last is of another model.
    """
    checkpoints = list_checkpoints(job.out)
    state = TrainState()
    damaged: list[Path] = []
    for folder in reversed(checkpoints):
        try:
            state = load_checkpoint(
                folder, job.model, job.optimizer, average=averaged_tensors(job), place=job.place
            )
            if not has_finite_weights(job.model):
                raise DamagedCheckpoint(f"{folder}: holds weights that are not finite numbers")
            break
        except DamagedCheckpoint as error:
            damaged.append(folder)
            if folder == checkpoints[0]:
                raise UserError(
                    f"{error}, and there is no older one; remove {job.out} to begin anew"
                ) from error
            if job.place.is_first:
                click.echo(f"{error}; going on from an older one", err=True)
    if job.place.is_first:
        for folder in damaged:
            set_aside(folder)
        write_rows(job.out, state.validations)
    distributed.barrier(job.place)
    return state


def batches_of(job: Job, state: TrainState) -> Generator[list[Chunk], None, None]:
    """This process's part of the batches that remain."""
    place = job.place
    pins = place.device.type == "cuda"
    dataset = ChunkDataset(
        job.plan,
        job.model.tokenizer,
        image_size=job.model.config.vision_config.image_size,
        max_text_tokens=job.recipe.data.max_text_tokens,
        num_patches=job.model.config.num_patches,
        resizes=not start.resizes_on_device(job.recipe, place.device),
    )
    frame_bytes = memory.bytes_of_frames(dataset)
    row_bytes = [
        num_bytes * part.settings.frames_of_row
        for num_bytes, part in zip(frame_bytes, job.plan.parts, strict=True)
    ]
    state.chunk_size = memory.choose_chunk_size(job, state.chunk_size, max(row_bytes))
    mine = partial(job.plan.chunks, rank=place.rank, world_size=place.world_size, chunk_size=state.chunk_size)
    specs = chain.from_iterable(mine(step) for step in range(state.step, job.num_steps))
    largest = max(mine(state.step), key=lambda spec: (spec.stop - spec.start) * row_bytes[spec.source])
    workers, prefetch = memory.choose_loaders(job, largest, frame_bytes[largest.source])
    dataset = replace(dataset, reuses_memory=pins, frame_bytes=frame_bytes)
    return load_batches(dataset, specs, workers=workers, prefetch=prefetch, pin_memory=pins)


def most_rows(job: Job, state: TrainState) -> int:
    """The rows of this process's largest chunk."""
    place = job.place
    specs = job.plan.chunks(0, rank=place.rank, world_size=place.world_size, chunk_size=state.chunk_size)
    return max(spec.stop - spec.start for spec in specs)


def step_or_explain(job: Job, chunks: list[Chunk], *, step: int, rate: float) -> StepResult:
    """One step; what cannot be compiled, or is known to give no finite loss, ends the run in one line."""
    try:
        with naming_failed_compilation():
            return train_step(job, chunks, learning_rate=rate)
    except NotFinite as error:
        raise diverged_in(job, step, error) from error


def is_scored(job: Job, step: int) -> bool:
    """Whether the validation split is to be scored after `step`."""
    wanted = job.recipe.evaluation
    if wanted.validation is None:
        return False
    if step == 0:
        return wanted.at_start
    every = wanted.every_steps
    is_due = job.plan.order.ends_epoch(step) if every is None else step % every == 0
    return is_due or step == job.num_steps


def score_before(job: Job, state: TrainState, logs: Logs | None) -> None:
    """Score what there is to score before the first step: the baseline, and the start where that is asked."""
    for name, found in baseline_scores(job, "validation").items():
        if logs is not None:
            logs.show_baseline(name, recalls_of(found), step=state.step)
    if state.step == 0 and is_scored(job, 0):
        score(job, state, logs)


def score(job: Job, state: TrainState, logs: Logs | None) -> None:
    """Score the validation split, and keep what comes of it."""
    # Its batches have other shapes than training's, each of which would have to be compiled.
    with torch.compiler.set_stance("force_eager"), job.weights_to_keep():
        row = validate(job, state)
    if logs is not None:
        logs.write_validation(row)


def save(job: Job, state: TrainState) -> None:
    """Save a checkpoint, with the average of the weights where the run has one."""
    save_checkpoint(
        job.out,
        state,
        job.model,
        job.optimizer,
        average=averaged_tensors(job),
        keep=job.recipe.run.keep_checkpoints,
        place=job.place,
    )


def keep_model(job: Job, step: int) -> None:
    """Write the model of this step beside the checkpoints."""
    if job.place.is_first:
        folder = job.out / "models"
        folder.mkdir(exist_ok=True)
        with job.weights_to_keep():
            start.save_model(job.model, folder / f"step-{step:06d}")
    distributed.barrier(job.place)
