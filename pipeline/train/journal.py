"""What steps gave, read a step late: a GPU then has the next step to compute, and is not waited for."""

from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Self

from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.train.failures import diverged
from clipvip.pipeline.train.logs import Logs, Speed
from clipvip.pipeline.train.step import Job, NotFinite, StepResult, StepValues


@dataclass(frozen=True)
class Done:
    """A step that was given to the device, with what this process did for it.

    `at` is when it was given, by `time.perf_counter`: results are read in ones and twos, so rates go by this.
    """

    step: int
    result: StepResult
    rate: float
    flops: float
    wait_seconds: float
    at: float


class Journal:
    """Reads the results of steps and logs them, one step late at most; `settle` reads what is unread."""

    def __init__(self, job: Job, logs: Logs | None) -> None:
        self._job, self._logs = job, logs
        self._speed = Speed(device=job.place.device)
        self._unread: Done | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Also after an error what was done before it is logged; unless it is a stop in haste."""
        if kind is None or issubclass(kind, Exception):
            # A GPU that failed fails again when it is asked, which adds nothing.
            with nullcontext() if kind is None else suppress(RuntimeError):
                self.settle()

    def add(self, done: Done) -> None:
        """Take the step just begun; the one before is read. Raises as `settle`."""
        self.settle()
        self._unread = done

    def settle(self) -> None:
        """Read and log what was added last. A UserError where that step's loss or gradient is not finite."""
        done, self._unread = self._unread, None
        if done is None:
            return
        job, logs, speed = self._job, self._logs, self._speed
        try:
            values = done.result.read()
        except NotFinite as error:
            raise diverged_in(job, done.step, error) from error
        speed.samples += job.recipe.optim.batch_size
        speed.flops += done.flops
        speed.wait_seconds += done.wait_seconds
        if logs is None:
            return
        logs.bar.add(1)
        is_first_or_last = done.step in (1, job.num_steps)
        if is_first_or_last or done.step % job.recipe.run.log_every_steps == 0:
            logs.write(log_row(job, done, values), speed.take(done.at))


def diverged_in(job: Job, step: int, error: NotFinite) -> UserError:
    """What to say of a step whose loss or gradient is not finite."""
    # The weights of the step before gave this: a checkpoint of that step is no good either.
    return diverged(job.out, step, str(error), last_good=step - 2)


def log_row(job: Job, done: Done, values: StepValues) -> dict[str, float]:
    """What log.jsonl keeps of a step."""
    return {
        "step": done.step,
        "epoch": round(job.plan.order.epochs_after(done.step), 4),
        "loss": values.loss,
        **{f"loss/{name}": value for name, value in values.terms.items()},
        "logit_scale": values.logit_scale,
        "grad_norm": values.grad_norm,
        "learning_rate": done.rate,
    }
