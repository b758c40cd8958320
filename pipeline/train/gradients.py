"""The sum of the gradients over the processes, made in parts while the backward pass still goes on."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch

from clipvip.pipeline.train.distributed import Place, begin_sum, gather_objects

# One collective moves this much: big enough for full bandwidth, small enough that the last, for which nothing
# is left to wait for beside it, is short. As in torch's DistributedDataParallel.
_BUCKET_BYTES = 25 * 2**20


class GradientSums:
    """Replaces each gradient by its sum over all processes; a missing gradient counts as zero.

    torch's DistributedDataParallel does the same for models that run once a step; ours runs for each chunk
    and each kind of input, and only the backward pass of the last chunk completes the gradients.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], *, place: Place) -> None:
        self._place = place
        self._parameters = [p for p in parameters if p.requires_grad] if place.world_size > 1 else []
        self._bucket_of: dict[torch.nn.Parameter, int] = {}
        # In the order in which gradients are complete, once a first pass has shown it.
        self._buckets: list[list[torch.nn.Parameter]] = []
        self._is_last_pass = False
        for parameter in self._parameters:
            parameter.register_post_accumulate_grad_hook(self._arrive)

    @contextmanager
    def last_pass(self) -> Iterator[None]:
        """A backward pass in this block completes the gradients; after the block they are summed."""
        self._arrived: list[torch.nn.Parameter] = []
        self._missing = [len(bucket) for bucket in self._buckets]
        self._sums: list[Callable[[], object]] = []
        self._is_last_pass = True
        try:
            yield
        finally:
            self._is_last_pass = False
        if not self._buckets:
            self._deal_out()
        while len(self._sums) < len(self._buckets):
            self._sum_next()
        for wait in self._sums:
            wait()

    def _arrive(self, parameter: torch.Tensor) -> None:
        if not self._is_last_pass:
            return
        assert isinstance(parameter, torch.nn.Parameter)
        self._arrived.append(parameter)
        if self._buckets:
            self._missing[self._bucket_of[parameter]] -= 1
        # In the same order in every process, whatever its own pass completes first.
        while len(self._sums) < len(self._buckets) and self._missing[len(self._sums)] == 0:
            self._sum_next()

    def _sum_next(self) -> None:
        bucket = self._buckets[len(self._sums)]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        self._sums.append(begin_sum(flat))
        for parameter, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
            parameter.grad = part.view_as(parameter)  # the sum, once it is there

    def _deal_out(self) -> None:
        """Make buckets in the order in which the first process has just seen the gradients come."""
        number = {parameter: index for index, parameter in enumerate(self._parameters)}
        seen = [number[parameter] for parameter in self._arrived]
        order = gather_objects(seen, place=self._place)[0]
        late = sorted(set(range(len(self._parameters))) - set(order))
        # Those that did not come must not hold up the others.
        for group in (order, late):
            num_bytes = _BUCKET_BYTES
            for index in group:
                parameter = self._parameters[index]
                if num_bytes >= _BUCKET_BYTES:
                    self._buckets.append([])
                    num_bytes = 0
                self._buckets[-1].append(parameter)
                self._bucket_of[parameter] = len(self._buckets) - 1
                num_bytes += parameter.nbytes
