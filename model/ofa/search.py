"""Beam search with static shapes: what `generate` with `authors_search` finds, to the token.

The device chooses which beams go on, and no step waits for the host. What has ended is kept by the host,
which reads the candidates of several steps at once, behind the device: captions that have ended do not change
which beams go on. On a GPU the steps are captured as graphs, and one call starts hundreds of kernels.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clipvip.model.ofa.folded import FoldedDecoder, Memory, aligned

# Steps that one graph holds: a search ends early at such a boundary only.
STEPS_AT_ONCE = 4
NO_REPEAT_NGRAM = 3


@dataclass(frozen=True)
class SearchRules:
    """Ids, and how far and wide to search."""

    num_beams: int
    max_length: int
    bos: int
    pad: int
    eos: int

    @property
    def num_steps(self) -> int:
        """With the one after the last token, at which only </s> can follow."""
        return self.max_length + 1


@dataclass(frozen=True)
class Beams:
    """What goes on. Before step t:

    tokens: (batch, beams, t + 1), from <s> on.
    scores: (batch, beams) float32, the sum of logarithms of probabilities.
    mask: (batch, beams, slots), 0 where the beam's own keys are, else -inf.
    memory: keys and values, in place.
    """

    tokens: Tensor
    scores: Tensor
    mask: Tensor
    memory: Memory


@dataclass(frozen=True)
class Candidates:
    """The best continuations at n steps, best first: twice as many as beams, so that enough of them go on.

    Of a single step, there is no n.

    scores, tokens, parents: (n, batch, 2 * beams): parents are the beams that they continue.
    chosen: (n, batch, beams): the candidates that become the next step's beams.
    last: (batch, beams) scores of </s> after the greatest length; None before that.
    """

    scores: Tensor
    tokens: Tensor
    parents: Tensor
    chosen: Tensor
    last: Tensor | None

    def to_host(self) -> "Candidates":
        """Copies on the host; of a GPU under way to it, to be read after an event recorded behind them."""
        return Candidates(
            scores=_to_host(self.scores),
            tokens=_to_host(self.tokens),
            parents=_to_host(self.parents),
            chosen=_to_host(self.chosen),
            last=None if self.last is None else _to_host(self.last),
        )


def _to_host(x: Tensor) -> Tensor:
    if x.device.type == "cpu":
        return x
    host = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    return host.copy_(x, non_blocking=True)


class Ended:
    """The best caption of each image that has ended, by mean logarithm of probability.

    A caption ends where </s> is among the best continuations, as many as there are beams; an image is done
    with as many ended captions as beams.
    """

    def __init__(self, batch_size: int, rules: SearchRules) -> None:
        self.rules = rules
        self.rows = np.arange(batch_size)[:, None]
        self.running = np.empty((batch_size, rules.num_beams, 0), np.int64)
        self.counts = np.zeros(batch_size, np.int64)
        self.best_scores = np.full(batch_size, -np.inf, np.float32)
        self.best: list[list[int]] = [[] for _ in range(batch_size)]

    def all_done(self) -> bool:
        return bool((self.counts >= self.rules.num_beams).all())

    def add(self, candidates: Candidates) -> None:
        """Take note of further steps."""
        beams = self.rules.num_beams
        steps = (candidates.scores, candidates.tokens, candidates.parents, candidates.chosen)
        for scores, tokens, parents, chosen in zip(*(x.numpy() for x in steps), strict=True):
            first = tokens[:, :beams]
            self._end(scores[:, :beams], parents[:, :beams], first == self.rules.eos)
            of_chosen = self.running[self.rows, parents[self.rows, chosen]]
            self.running = np.concatenate([of_chosen, tokens[self.rows, chosen][:, :, None]], axis=2)
        if candidates.last is not None:
            scores = candidates.last.numpy()
            parents = np.broadcast_to(np.arange(beams), scores.shape)
            self._end(scores, parents, np.ones_like(scores, dtype=bool))

    def _end(self, scores: np.ndarray, parents: np.ndarray, ends: np.ndarray) -> None:
        length = np.float32(self.running.shape[2] + 1)
        ends = ends & (self.counts < self.rules.num_beams)[:, None]
        means = np.where(ends, scores / length, -np.inf)
        best = means.argmax(1)
        means = means[self.rows[:, 0], best]
        for row in np.flatnonzero(means > self.best_scores):
            self.best_scores[row] = means[row]
            self.best[row] = self.running[row, parents[row, best[row]]].tolist()
        self.counts += ends.sum(1)


class BeamSearch:
    """A search over batches of `batch_size` images.

    Args:
        steps_at_once: after so many steps the host asks whether all captions have ended; 1 by default on the
            CPU, where asking costs nothing.
        captured: start steps as CUDA graphs; by default on GPUs.
    """

    def __init__(
        self,
        decoder: FoldedDecoder,
        rules: SearchRules,
        batch_size: int,
        *,
        steps_at_once: int | None = None,
        captured: bool | None = None,
    ) -> None:
        table = decoder.table
        on_gpu = table.device.type == "cuda"
        self.decoder, self.rules, self.batch_size = decoder, rules, batch_size
        self.captured = on_gpu if captured is None else captured
        size = steps_at_once or (STEPS_AT_ONCE if on_gpu else 1)
        self.parts = [range(n, min(n + size, rules.num_steps)) for n in range(0, rules.num_steps, size)]
        # Graphs read and write where they were captured; elsewhere memory is given back after each batch.
        self._memory = decoder.memory(batch_size) if self.captured else None
        beams, rows = rules.num_beams, batch_size * rules.num_beams
        self._first_rows = torch.arange(0, rows, beams, device=table.device)[:, None]
        # Slots of one step, of which each beam writes and reads its own; behind them, slots not yet written.
        self._own = torch.full(
            (beams, beams + aligned(1)), -torch.inf, dtype=table.dtype, device=table.device
        )
        self._own.fill_diagonal_(0)
        # All beams are the same at first, and all but one are out of the question.
        scores = torch.zeros(batch_size, beams, device=table.device)
        scores[:, 1:] = -1e9
        tokens = torch.full((batch_size, beams, 1), rules.bos, device=table.device)
        self._start = tokens, scores, self._mask(None, 0)
        self._graphs: list[tuple[torch.cuda.CUDAGraph, Candidates]] = []

    @torch.inference_mode()
    def __call__(self, states: Tensor) -> list[list[int]]:
        """Tokens of a caption for each of the encoder's (batch_size, S, width), without <s> and </s>."""
        beams = self.begin(states)
        ended = Ended(self.batch_size, self.rules)
        under_way = deque[tuple[Candidates, torch.cuda.Event | None]]()
        for candidates in self._run(beams):
            event = None
            host = candidates.to_host()
            if states.device.type == "cuda":
                event = torch.cuda.Event()
                event.record()
            under_way.append((host, event))
            # A GPU has the next steps already while the host reads these.
            if event is None or len(under_way) > 1:
                _add_first(ended, under_way)
                if ended.all_done():
                    return ended.best
        while under_way and not ended.all_done():
            _add_first(ended, under_way)
        return ended.best

    def begin(self, states: Tensor) -> Beams:
        """The beams before the first step, for the encoder's `states`."""
        memory = self._memory or self.decoder.memory(self.batch_size)
        self.decoder.remember(states, memory)
        return Beams(*self._start, memory)

    def _run(self, beams: Beams) -> Iterator[Candidates]:
        """The candidates of each part, as they are computed."""
        if self.captured:
            if not self._graphs:
                self._capture(beams)
            for graph, candidates in self._graphs:
                graph.replay()
                yield candidates
        else:
            for part in self.parts:
                beams, candidates = self.steps(part, beams)
                yield candidates

    def _capture(self, beams: Beams) -> None:
        """Record the kernels of each part; memory of all parts comes out of one pool."""
        device = self.decoder.table.device
        pool, stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):  # libraries allocate in their first calls, which no graph may hold
            tried = beams
            for part in self.parts:
                tried, _ = self.steps(part, tried)
        torch.cuda.current_stream(device).wait_stream(stream)
        for part in self.parts:
            graph = torch.cuda.CUDAGraph()
            # Threads that prepare images may allocate pinned memory meanwhile.
            with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                beams, candidates = self.steps(part, beams)
            self._graphs.append((graph, candidates))

    def steps(self, part: range, beams: Beams) -> tuple[Beams, Candidates]:
        """Some steps, which nothing but shapes decides: no value is looked at."""
        found: list[Candidates] = []
        last = None
        for step in part:
            log_probs = self._log_probs(beams, step)
            if step == self.rules.max_length:
                last = beams.scores + log_probs[..., self.rules.eos]
            else:
                beams, candidates = self._go_on(beams, log_probs, step)
                found.append(candidates)
        if not found:  # nothing but the last step
            none = beams.scores.new_empty(0, self.batch_size, 2 * self.rules.num_beams)
            ids = torch.empty_like(none, dtype=torch.int64)
            return beams, Candidates(none, ids, ids, ids[..., : self.rules.num_beams], last)
        names = ("scores", "tokens", "parents", "chosen")
        stacked = {name: torch.stack([getattr(of_step, name) for of_step in found]) for name in names}
        return beams, Candidates(**stacked, last=last)

    def _log_probs(self, beams: Beams, step: int) -> Tensor:
        """(batch, beams, vocabulary) float32; -inf at padding and what would repeat three tokens."""
        logits = self.decoder(beams.tokens[..., -1], step, beams.mask, beams.memory)
        log_probs = torch.log_softmax(logits.float(), dim=-1).unflatten(0, (self.batch_size, -1))
        log_probs.select(-1, self.rules.pad).fill_(-torch.inf)
        tokens, before = beams.tokens, NO_REPEAT_NGRAM - 1
        if tokens.shape[-1] > before:
            # Where the last two tokens came before, what followed them must not follow again.
            windows = tokens.unfold(-1, before, 1)
            differ = (windows[..., :-1, :] != windows[..., -1:, :]).any(-1)
            log_probs.scatter_(-1, tokens[..., before:].masked_fill(differ, self.rules.pad), -torch.inf)
        return log_probs

    def _go_on(self, beams: Beams, log_probs: Tensor, step: int) -> tuple[Beams, Candidates]:
        num_beams, num_candidates = self.rules.num_beams, 2 * self.rules.num_beams
        # The best of all beams are among the best of each.
        of_each, ids = log_probs.topk(min(num_candidates, self.decoder.num_tokens))
        best, places = (of_each + beams.scores[..., None]).flatten(1).topk(num_candidates)
        tokens = ids.flatten(1).gather(1, places)
        parents = places // of_each.shape[-1]
        scores, chosen = best.masked_fill(tokens == self.rules.eos, -torch.inf).topk(num_beams)
        rows = (parents.gather(1, chosen) + self._first_rows).flatten()
        past = beams.tokens.flatten(0, 1).index_select(0, rows).unflatten(0, scores.shape)
        grown = torch.cat([past, tokens.gather(1, chosen)[..., None]], dim=-1)
        mask = beams.mask.flatten(0, 1).index_select(0, rows).unflatten(0, scores.shape)
        going_on = Beams(grown, scores, self._mask(mask, step + 1), beams.memory)
        return going_on, Candidates(best, tokens, parents, chosen, last=None)

    def _mask(self, past: Tensor | None, step: int) -> Tensor:
        """The mask of `step`: its beams' own slots of the steps `past`, and those that it writes."""
        num_beams = self.rules.num_beams
        used = step * num_beams
        slots = min(aligned(used + num_beams), self.decoder.num_slots)
        own = self._own[:, : slots - used].expand(self.batch_size, -1, -1)
        return own.contiguous() if past is None else torch.cat([past[..., :used], own], dim=-1)


def _add_first(ended: Ended, under_way: deque[tuple[Candidates, torch.cuda.Event | None]]) -> None:
    candidates, event = under_way.popleft()
    if event is not None:
        event.synchronize()
    ended.add(candidates)
