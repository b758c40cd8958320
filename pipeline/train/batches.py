"""Batches: which samples make up step k, and what is made of them. The processes that do so are in `loading`.

The samples of step k are a function of the recipe and the data set only. Encoding and the loss see a batch
as a list of chunks, each from one source.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from clipvip.model.preprocess import tokenize
from clipvip.model.variants import inputs_of
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.train.order import (
    ORDER_VERSION,
    BatchOrder,
    SampleOrder,
    SamplePlace,
    share,
    split_by_weight,
)
from clipvip.pipeline.train.pixels import Pixels, PixelsWriter, SharedMemory
from clipvip.pipeline.train.recipe import Recipe, Source
from clipvip.pipeline.train.samples import Example, SampleLoader, SampleSettings
from clipvip.pipeline.train.shard_set import ShardSet, open_shards
from clipvip.shards.errors import DatasetError, Skip

_FRAME_DRAWS = 2  # a random stream beside those of order.py
_MAX_SUBSTITUTES = 300
_MAX_REMEMBERED = 100_000


@dataclass(frozen=True)
class ChunkSpec:
    """Which samples a chunk holds: rows [start, stop) of the batch of `step`, of those that a source has in
    it."""

    source: int
    step: int
    start: int
    stop: int
    ends_batch: bool


@dataclass(frozen=True)
class Chunk:
    """Some rows of a batch, from one source.

    `frame` is the middle frame, as a video of one frame. Token ids and masks are int64 (rows, tokens).
    `has_caption` is bool (rows,). The fields that the loss has no use for are None.
    """

    source: str
    keys: tuple[str, ...]
    video: Pixels
    frame: Pixels | None
    text_ids: torch.Tensor | None
    text_mask: torch.Tensor | None
    caption_ids: torch.Tensor | None
    caption_mask: torch.Tensor | None
    has_caption: torch.Tensor | None
    skips: tuple[Skip, ...]
    ends_batch: bool

    @property
    def num_rows(self) -> int:
        return len(self.keys)

    @property
    def num_rows_without_caption(self) -> int:
        return 0 if self.has_caption is None else int((~self.has_caption).sum())

    def _map(self, function: Any) -> Self:
        parts = {
            field.name: function(value)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), torch.Tensor | Pixels)
        }
        return replace(self, **parts)

    def pin_memory(self) -> Self:
        """A copy that a GPU can fetch while it computes; DataLoader calls this."""
        return self._map(lambda part: part.pin_memory())

    def to(self, device: torch.device) -> Self:
        """The chunk on `device`; from pinned memory without waiting."""
        return self._map(lambda part: part.to(device, non_blocking=True))


@dataclass(frozen=True)
class SourcePart:
    """A source with its share of each batch."""

    shards: ShardSet
    order: BatchOrder
    settings: SampleSettings

    @property
    def name(self) -> str:
        return self.shards.name

    @property
    def rows(self) -> int:
        """Samples in a batch."""
        return self.order.rows


@dataclass(frozen=True)
class BatchPlan:
    """The make-up of every batch. Epochs are those of the first source; the others go through their own."""

    parts: tuple[SourcePart, ...]
    seed: int
    order_version: int = ORDER_VERSION

    @property
    def order(self) -> BatchOrder:
        """The order of the first source, which counts the epochs."""
        return self.parts[0].order

    def num_steps(self, recipe: Recipe) -> int:
        """Steps of the whole training: as in the reference, epochs x samples / batch size, rounded up."""
        return recipe.optim.steps or self.order.num_steps(recipe.optim.epochs or 1)

    def chunks(self, step: int, *, rank: int, world_size: int, chunk_size: int | None) -> Iterator[ChunkSpec]:
        """This process's rows of the batch of `step`, source by source, in chunks."""
        specs = []
        for source, part in enumerate(self.parts):
            start, stop = share(part.rows, rank, world_size)
            size = chunk_size or max(stop - start, 1)
            for begin in range(start, stop, size):
                specs.append(ChunkSpec(source, step, begin, min(begin + size, stop), ends_batch=False))
        yield from specs[:-1]
        yield replace(specs[-1], ends_batch=True)


def plan_batches(recipe: Recipe, *, cache: Path, order_version: int = ORDER_VERSION) -> BatchPlan:
    """Open the sources of a recipe and divide the batch among them.

    `cache` is where copies of remote shards may be kept. `order_version` is that of the run which is gone on
    with.

    Raises:
        UserError, DatasetError: a source has no samples, or fewer than its share of one batch.
    """
    sources = recipe.data.sources
    rows = split_by_weight(recipe.optim.batch_size, [source.weight for source in sources.values()])
    parts = []
    for number, (name, source) in enumerate(sources.items()):
        shards = open_shards(name, source, cache=cache, in_use=2 * recipe.data.shuffle_shards)
        order = SampleOrder(
            list(shards.num_samples), seed=recipe.seed + number, group_shards=recipe.data.shuffle_shards
        )
        if rows[number] > order.num_samples or rows[number] < 1:
            raise UserError(
                f"a batch of {recipe.optim.batch_size} takes {rows[number]} samples of source {name}, which "
                f"has {order.num_samples}; change optim.batch_size or data.sources.{name}.weight"
            )
        batches = BatchOrder(order, rows=rows[number], version=order_version)
        parts.append(SourcePart(shards, batches, _settings(recipe, source)))
    return BatchPlan(tuple(parts), recipe.seed, order_version)


def _settings(recipe: Recipe, source: Source) -> SampleSettings:
    is_clips = source.kind == "clips"
    inputs = inputs_of(recipe.loss.pairs)
    captions = [source.captions] if isinstance(source.captions, str) else source.captions or []
    return SampleSettings(
        num_frames=recipe.data.num_frames if is_clips else 1,
        jitter=recipe.data.sampling == "jittered",
        fast_decode=recipe.data.fast_decode,
        needs_subtitle=not is_clips or "S" in inputs,
        needs_caption=is_clips and "C" in inputs,
        needs_frame=is_clips and "F" in inputs,
        captions=tuple(captions),
        max_pixels=recipe.data.max_pixels,
    )


@dataclass
class _Scratch:
    """What a loading process knows of the samples of a source, besides those that it is asked for."""

    video: PixelsWriter = field(default_factory=lambda: PixelsWriter(None))
    frame: PixelsWriter = field(default_factory=lambda: PixelsWriter(None))
    is_usable: dict[tuple[int, SamplePlace], bool] = field(default_factory=dict)
    step: int = -1
    num_usable: int = 0
    substitutes: dict[int, tuple[int, SamplePlace]] = field(default_factory=dict)


class ChunkDataset(Dataset[Chunk | DatasetError]):
    """Loads the chunk that a ChunkSpec describes; lives in a loading process.

    Frames have the model's size, or with `resizes=False` that in which they are stored. With `reuses_memory`
    the reader has to copy the pixels of each chunk (`pin_memory` does), and they are overwritten after that.
    An error is given back as a value: DataLoader would make a page of traceback of it.
    """

    def __init__(
        self,
        plan: BatchPlan,
        tokenizer: PreTrainedTokenizerBase,
        *,
        image_size: int,
        max_text_tokens: int,
        resizes: bool = True,
        reuses_memory: bool = False,
    ) -> None:
        self._plan = plan
        self._tokenizer = tokenizer
        self._max_text_tokens = max_text_tokens
        self._image_size = image_size
        self._resizes = resizes
        self._reuses_memory = reuses_memory
        # Made in the process that loads, since they hold open files and memory.
        self._loaders: list[SampleLoader] = []
        self._writers: list[tuple[PixelsWriter, PixelsWriter]] = []
        self._scratch: list[_Scratch] = []

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaders": [], "_writers": [], "_scratch": []}

    def __getitem__(self, spec: ChunkSpec) -> Chunk | DatasetError:
        if not self._loaders:
            self._loaders = [
                SampleLoader(part.shards, part.settings, image_size=self._image_size, resizes=self._resizes)
                for part in self._plan.parts
            ]
            self._writers = [(self._make_writer(), self._make_writer()) for _ in self._plan.parts]
            self._scratch = [_Scratch() for _ in self._plan.parts]
        video, frame = self._writers[spec.source]
        video.begin()
        frame.begin()
        skips: list[Skip] = []
        try:
            examples = [self._example(spec, row, skips) for row in range(spec.start, spec.stop)]
        except DatasetError as error:
            return error
        skips += self._loaders[spec.source].take_notes()
        part = self._plan.parts[spec.source]
        pixels = video.finish(), frame.finish() if part.settings.needs_frame else None
        return self._collate(part, examples, pixels, tuple(skips), ends_batch=spec.ends_batch)

    def _make_writer(self) -> PixelsWriter:
        return PixelsWriter(SharedMemory() if self._reuses_memory else None)

    def _example(self, spec: ChunkSpec, row: int, skips: list[Skip]) -> Example:
        """The sample of a row, or if it is unusable, the first of its substitutes that is not.

        So a batch stays full, what is in it does not depend on who loads it, and no sample is in it twice.
        """
        order = self._plan.parts[spec.source].order
        before = len(skips)
        wanted = order.at(spec.step, row)
        for epoch, place in chain([wanted], order.substitutes(spec.step, row, most=_MAX_SUBSTITUTES)):
            loaded = self._load(spec.source, epoch, place, self._writers[spec.source])
            if isinstance(loaded, Example):
                return loaded
            skips.append(loaded)
        if order.num_substitutes(spec.step) >= _MAX_SUBSTITUTES:
            raise DatasetError(
                f"{self._name(spec)}: {len(skips) - before} samples in a row are unusable {_reasons(skips)}"
            )
        scratch = self._scratch[spec.source]
        if scratch.step != spec.step:
            self._deal_out(spec)
        if row in scratch.substitutes:
            loaded = self._load(spec.source, *scratch.substitutes[row], self._writers[spec.source])
            if isinstance(loaded, Example):
                return loaded
        raise DatasetError(
            f"{self._name(spec)}: {scratch.num_usable} of its {order.num_samples} samples are usable, "
            f"and a batch takes {order.rows} {_reasons(skips)}; lower optim.batch_size, or give more data"
        )

    def _load(
        self, source: int, epoch: int, place: SamplePlace, writers: tuple[PixelsWriter, PixelsWriter]
    ) -> Example | Skip:
        rng = np.random.default_rng([self._plan.seed, _FRAME_DRAWS, source, epoch, *place])
        video, frame = writers
        return self._loaders[source].load(*place, rng, video=video, frame=frame)

    def _deal_out(self, spec: ChunkSpec) -> None:
        """Find what the rows of a batch get whose own substitutes are all unusable: a small data set has few
        for each.

        The whole batch is looked at, and what no row needs is dealt out in order, so that every process finds
        the same.
        """
        scratch = self._scratch[spec.source]
        order = self._plan.parts[spec.source].order
        taken: set[SamplePlace] = set()
        needy = []
        for row in range(order.rows):
            own = order.substitutes(spec.step, row, most=_MAX_SUBSTITUTES)
            places = chain([order.at(spec.step, row)], own)
            found = next(
                (place for epoch, place in places if self._is_usable(spec.source, epoch, place)), None
            )
            if found is None:
                needy.append(row)
            else:
                taken.add(found)
        left = (
            (epoch, place)
            for epoch, place in order.outside(spec.step)
            if place not in taken and self._is_usable(spec.source, epoch, place)
        )
        scratch.substitutes = dict(zip(needy, left, strict=False))
        scratch.num_usable = len(taken) + len(scratch.substitutes)
        scratch.step = spec.step

    def _is_usable(self, source: int, epoch: int, place: SamplePlace) -> bool:
        scratch = self._scratch[source]
        if (epoch, place) not in scratch.is_usable:
            scratch.video.begin()
            scratch.frame.begin()
            if len(scratch.is_usable) >= _MAX_REMEMBERED:
                scratch.is_usable.clear()
            loaded = self._load(source, epoch, place, (scratch.video, scratch.frame))
            scratch.is_usable[epoch, place] = isinstance(loaded, Example)
        return scratch.is_usable[epoch, place]

    def _name(self, spec: ChunkSpec) -> str:
        return f"source {self._plan.parts[spec.source].name}"

    def _collate(
        self,
        part: SourcePart,
        examples: list[Example],
        pixels: tuple[Pixels, Pixels | None],
        skips: tuple[Skip, ...],
        *,
        ends_batch: bool,
    ) -> Chunk:
        wanted = part.settings
        text_ids = text_mask = caption_ids = caption_mask = has_caption = None
        if wanted.needs_subtitle:
            text_ids, text_mask = self._tokenize([example.text for example in examples])
        if wanted.needs_caption:
            has_caption = torch.tensor([example.caption is not None for example in examples])
            caption_ids, caption_mask = self._tokenize([example.caption or "" for example in examples])
        return Chunk(
            source=part.name,
            keys=tuple(example.key for example in examples),
            video=pixels[0],
            frame=pixels[1],
            text_ids=text_ids,
            text_mask=text_mask,
            caption_ids=caption_ids,
            caption_mask=caption_mask,
            has_caption=has_caption,
            skips=skips,
            ends_batch=ends_batch,
        )

    def _tokenize(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = tokenize(self._tokenizer, texts, max_tokens=self._max_text_tokens)
        return tokens["input_ids"], tokens["attention_mask"]


def _reasons(skips: list[Skip]) -> str:
    reasons = ", ".join(sorted({skip.reason for skip in skips}))
    return f"({reasons}), the last {skips[-1].what} {skips[-1].detail}".rstrip()
