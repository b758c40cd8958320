"""Batches: which samples make up step k, and what is made of them. The processes that do so are in `loading`.

The samples of step k are a function of the recipe and the data set only. Encoding and the loss see a batch
as a list of chunks, each from one source.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from clipvip.model.preprocess import tokenize
from clipvip.model.variants import inputs_of
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.training.order import SampleOrder, share, split_by_weight
from clipvip.pipeline.training.pixels import Pixels, PixelsWriter, SharedMemory
from clipvip.pipeline.training.recipe import Recipe, Source
from clipvip.pipeline.training.samples import Example, SampleLoader, SampleSettings
from clipvip.pipeline.training.shard_set import ShardReader, ShardSet, open_shards
from clipvip.shards.captions import captions_path, read_captions
from clipvip.shards.errors import DatasetError
from clipvip.shards.skips import Skip

_FRAME_DRAWS = 2  # a random stream beside those of order.py
_MAX_REPLACEMENTS = 100
_SHARDS_CHECKED_FOR_CAPTIONS = 4


@dataclass(frozen=True)
class ChunkSpec:
    """Which samples a chunk holds: positions [start, stop) of an epoch of a source."""

    source: int
    epoch: int
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

    name: str
    kind: str
    shards: ShardSet
    order: SampleOrder
    settings: SampleSettings
    rows: int

    @property
    def batches_per_epoch(self) -> int:
        return self.order.num_samples // self.rows


@dataclass(frozen=True)
class BatchPlan:
    """The make-up of every batch."""

    parts: tuple[SourcePart, ...]
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Steps in an epoch of the first source; the others go through their own epochs."""
        return self.parts[0].batches_per_epoch

    def num_steps(self, recipe: Recipe) -> int:
        """Steps of the whole training."""
        return recipe.optim.steps or self.steps_per_epoch * (recipe.optim.epochs or 1)

    def chunks(self, step: int, *, rank: int, world_size: int, chunk_size: int | None) -> Iterator[ChunkSpec]:
        """This process's rows of the batch of `step`, source by source, in chunks."""
        specs = []
        for source, part in enumerate(self.parts):
            epoch, batch = divmod(step, part.batches_per_epoch)
            first = batch * part.rows
            start, stop = (first + row for row in share(part.rows, rank, world_size))
            size = chunk_size or max(stop - start, 1)
            for begin in range(start, stop, size):
                specs.append(ChunkSpec(source, epoch, begin, min(begin + size, stop), ends_batch=False))
        yield from specs[:-1]
        yield replace(specs[-1], ends_batch=True)


def plan_batches(recipe: Recipe, *, cache: Path) -> BatchPlan:
    """Open the sources of a recipe and divide the batch among them.

    `cache` is where copies of remote shards may be kept.

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
        settings = _settings(recipe, source)
        parts.append(SourcePart(name, source.kind, shards, order, settings, rows[number]))
    return BatchPlan(tuple(parts), recipe.seed)


def _settings(recipe: Recipe, source: Source) -> SampleSettings:
    is_clips = source.kind == "clips"
    inputs = inputs_of(recipe.loss.pairs)
    return SampleSettings(
        num_frames=recipe.data.num_frames if is_clips else 1,
        jitter=recipe.data.sampling == "jittered",
        fast_decode=recipe.data.fast_decode,
        needs_subtitle=not is_clips or "S" in inputs,
        needs_caption=is_clips and "C" in inputs,
        needs_frame=is_clips and "F" in inputs,
        captions=source.captions,
        max_pixels=recipe.data.max_pixels,
    )


def check_shares(plan: BatchPlan, *, processes: int) -> None:
    """UserError where a batch has too few samples of a source for each process to get one."""
    for part in plan.parts:
        if part.rows < processes:
            raise UserError(
                f"source {part.name} has {part.rows} samples in a batch, fewer than the {processes} processes; "
                "raise optim.batch_size or its weight"
            )


def check_captions(plan: BatchPlan) -> None:
    """Look into a few shards whether the captions belong to them.

    Raises:
        UserError: the loss needs captions and none are given, or none of the samples looked at has one.
        DatasetError: a caption file is damaged.
    """
    for part in plan.parts:
        if not part.settings.needs_caption:
            continue
        if part.settings.captions is None:
            raise UserError(
                f"the loss needs captions for source {part.name}; give --captions, or train without them "
                "(--set loss.pairs=baseline)"
            )
        folder = Path(part.settings.captions)
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder of captions; make them with 'clipvip-data caption'")
        reader = ShardReader(part.shards)
        num_shards = len(part.shards.locations)
        checked = np.linspace(0, num_shards - 1, min(_SHARDS_CHECKED_FOR_CAPTIONS, num_shards)).astype(int)
        matched = total = 0
        for shard in dict.fromkeys(checked.tolist()):
            keys = reader.keys(shard)
            stem = reader.stem(shard)
            captions = read_captions(folder, stem) if captions_path(folder, stem).is_file() else {}
            matched += sum(bool(captions.get(key)) for key in keys)
            total += len(keys)
        if not matched:
            raise UserError(
                f"{folder}: captions for 0 of the {total} samples looked at in {part.shards.locations[0]} "
                "and others; they were made for other shards"
            )


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

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaders": [], "_writers": []}

    def __getitem__(self, spec: ChunkSpec) -> Chunk | DatasetError:
        if not self._loaders:
            self._loaders = [
                SampleLoader(part.shards, part.settings, image_size=self._image_size, resizes=self._resizes)
                for part in self._plan.parts
            ]
            self._writers = [(self._make_writer(), self._make_writer()) for _ in self._plan.parts]
        video, frame = self._writers[spec.source]
        video.begin()
        frame.begin()
        skips: list[Skip] = []
        try:
            examples = [self._example(spec, position, skips) for position in range(spec.start, spec.stop)]
        except DatasetError as error:
            return error
        part = self._plan.parts[spec.source]
        pixels = video.finish(), frame.finish() if part.settings.needs_frame else None
        return self._collate(part, examples, pixels, tuple(skips), ends_batch=spec.ends_batch)

    def _make_writer(self) -> PixelsWriter:
        return PixelsWriter(SharedMemory() if self._reuses_memory else None)

    def _example(self, spec: ChunkSpec, position: int, skips: list[Skip]) -> Example:
        """The sample at `position`, or if it is unusable, the one half an epoch further on.

        So a batch stays full and what is in it does not depend on who loads it, and the replacement is
        not in the same batch unless the data set is tiny.
        """
        order = self._plan.parts[spec.source].order
        for attempt in range(_MAX_REPLACEMENTS):
            shift = order.num_samples // 2 + attempt - 1 if attempt else 0
            shard, index = order.locate(spec.epoch, (position + shift) % order.num_samples)
            rng = np.random.default_rng(
                [self._plan.seed, _FRAME_DRAWS, spec.source, spec.epoch, shard, index]
            )
            video, frame = self._writers[spec.source]
            loaded = self._loaders[spec.source].load(shard, index, rng, video=video, frame=frame)
            if isinstance(loaded, Example):
                return loaded
            skips.append(loaded)
        reasons = ", ".join(sorted({skip.reason for skip in skips}))
        raise DatasetError(
            f"source {self._plan.parts[spec.source].name}: {_MAX_REPLACEMENTS} samples in a row are "
            f"unusable ({reasons}), the last {skips[-1].what} {skips[-1].detail}"
        )

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
