"""The moving average of a run's weights, which is what a run with one validates and writes as its model."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """After each step the average keeps `decay` of itself and takes the rest from the weights.

    It begins as the weights at the start, which are CLIP's, and so needs no correction of its first steps.
    Only what is trained is averaged, in float32 as the weights are. The same in every process.
    """

    def __init__(self, model: torch.nn.Module, *, decay: float) -> None:
        trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
        self._weights = list(trained.values())  # they share the memory of the parameters
        self._take_in = get_ema_multi_avg_fn(decay)
        self.tensors = {name: weight.clone() for name, weight in trained.items()}
        """The average, by parameter name."""

    def update(self) -> None:
        """Take in the weights of the step just done."""
        self._take_in(list(self.tensors.values()), self._weights, None)

    @contextmanager
    def in_the_model(self) -> Iterator[None]:
        """The model has the averaged weights in this block, and its own again after it, to the bit."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        with torch.no_grad():
            for weight, average in zip(self._weights, self.tensors.values(), strict=True):
                kept = weight.clone()
                weight.copy_(average)
                average.copy_(kept)
