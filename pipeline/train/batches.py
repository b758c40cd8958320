"""Batches: which samples make up step k, and what is made of them.

The samples of step k are a function of the recipe and the data set only. Encoding and the loss see a batch
as a list of chunks, each from one source.
"""

from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from clipvip.model.preprocess import tokenize
from clipvip.model.seen import EVERYTHING, Seen
from clipvip.model.variants import inputs_of
from clipvip.pipeline.loading.pixels import Pixels, PixelsWriter, SharedMemory
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.report import counted
from clipvip.pipeline.train.kept import keep_listed, keys_to_keep, notes_on
from clipvip.pipeline.train.order import (
    ORDER_VERSION,
    BatchOrder,
    SampleOrder,
    SamplePlace,
    share,
    split_by_weight,
)
from clipvip.pipeline.train.recipe import Recipe, Source
from clipvip.pipeline.train.samples import Example, SampleLoader, SampleSettings, seen_of
from clipvip.pipeline.train.shard_set import ShardSet, open_shards
from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.format.clip_captions import most_captions

_FRAME_DRAWS = 2  # a random stream beside those of order.py
_MAX_SUBSTITUTES = 300
_MAX_REMEMBERED = 100_000
# Texts of a chunk are cut to a multiple of this: each length costs a compiled encoder some seconds, once.
_TOKENS_STEP = 8


@dataclass(frozen=True)
class ChunkSpec:
    """Which samples a chunk holds: of a source's rows in the batch of `step`, those in [start, stop)."""

    source: int
    step: int
    start: int
    stop: int
    ends_batch: bool


@dataclass(frozen=True)
class Chunk:
    """Some rows of a batch, from one source.

    `frame` is the middle frame, as a video of one frame. Token ids and masks are int64 (rows, tokens).
    `has_caption` is bool (rows,). Where rows may have several captions, it is (rows, the most that they may
    have), and ids and masks have as many for each row as one of the chunk has, and a few, one after the
    other. The fields that the loss has no use for are None. Of the tokens only the first `num_tokens` are
    needed: those of the longest text, and a few. So chunks have few shapes.
    """

    source: str
    keys: tuple[str, ...]
    skips: tuple[Skip, ...]
    ends_batch: bool
    video: Pixels
    frame: Pixels | None
    text_ids: torch.Tensor | None = None
    text_mask: torch.Tensor | None = None
    caption_ids: torch.Tensor | None = None
    caption_mask: torch.Tensor | None = None
    has_caption: torch.Tensor | None = None
    num_tokens: int = 0
    video_seen: Seen = EVERYTHING
    frame_seen: Seen = EVERYTHING

    @property
    def num_rows_without_caption(self) -> int:
        if self.has_caption is None:
            return 0
        return int((~self.has_caption.view(len(self.keys), -1).any(1)).sum())

    @property
    def num_texts(self) -> int:
        """Texts and captions that are encoded, filled up ones among them."""
        return sum(len(ids) for ids in (self.text_ids, self.caption_ids) if ids is not None)

    @property
    def num_pixel_bytes(self) -> int:
        """Of its videos and single frames."""
        return len(self.video.values) + (0 if self.frame is None else len(self.frame.values))

    def _parts(self) -> dict[str, Any]:
        """What of it is on a device: tensors and pixels, by field."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: value for name, value in values.items() if isinstance(value, torch.Tensor | Pixels | Seen)
        }

    def _map(self, function: Any) -> Self:
        return replace(self, **{name: function(value) for name, value in self._parts().items()})

    def pin_memory(self) -> Self:
        """A copy that a GPU can fetch while it computes; DataLoader calls this."""
        return self._map(lambda part: part.pin_memory())

    def to(self, device: torch.device) -> Self:
        """The chunk on `device`; from pinned memory without waiting."""
        return self._map(lambda part: part.to(device, non_blocking=True))

    def record_stream(self, stream: torch.Stream) -> None:
        """Its memory on a GPU is not given to others before what `stream` has now to do is done."""
        for part in self._parts().values():
            part.record_stream(stream)


@dataclass(frozen=True)
class SourcePart:
    """A source with its share of each batch."""

    shards: ShardSet
    order: BatchOrder
    settings: SampleSettings


@dataclass(frozen=True)
class BatchPlan:
    """The make-up of every batch. Epochs are those of the first source; the others go through their own.

    `notes` are for the user.
    """

    parts: tuple[SourcePart, ...]
    seed: int
    order_version: int = ORDER_VERSION
    notes: tuple[str, ...] = ()

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
            start, stop = share(part.order.rows, rank, world_size)
            size = chunk_size or max(stop - start, 1)
            for begin in range(start, stop, size):
                specs.append(ChunkSpec(source, step, begin, min(begin + size, stop), ends_batch=False))
        yield from specs[:-1]
        yield replace(specs[-1], ends_batch=True)


def plan_batches(recipe: Recipe, *, cache: Path, order_version: int = ORDER_VERSION) -> BatchPlan:
    """Open the sources of a recipe and divide the batch among them.

    `cache` is where copies of remote shards may be kept; `order_version` that of a run that is resumed. A
    UserError or DatasetError where a source has no samples, or fewer than its share of one batch.
    """
    sources = recipe.data.sources
    rows = split_by_weight(recipe.optim.batch_size, [source.weight for source in sources.values()])
    parts = []
    keys = keys_to_keep(recipe.data)
    for number, (name, source) in enumerate(sources.items()):
        shards = open_shards(name, source, cache=cache, in_use=2 * recipe.data.shuffle_shards)
        if keys is not None and source.kind == "clips":
            shards = keep_listed(shards, keys)
        order = SampleOrder(
            list(shards.num_samples), seed=recipe.seed + number, group_shards=recipe.data.shuffle_shards
        )
        if rows[number] > order.num_samples or rows[number] < 1:
            remedy = f"change optim.batch_size or data.sources.{name}.weight"
            if len(sources) == 1:
                remedy = f"give --set optim.batch_size={order.num_samples} or less"
            raise UserError(
                f"a batch of {recipe.optim.batch_size} takes {counted(rows[number], 'samples')} of source "
                f"{name}, which has {order.num_samples}; {remedy}"
            )
        batches = BatchOrder(order, rows=rows[number], version=order_version)
        parts.append(SourcePart(shards, batches, _settings(recipe, source, order_version)))
    return BatchPlan(tuple(parts), recipe.seed, order_version, notes_on(keys))


def _settings(recipe: Recipe, source: Source, order_version: int) -> SampleSettings:
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
        num_captions=_num_captions(recipe, captions) if is_clips and "C" in inputs else 1,
        first_counts=order_version < 3,
        max_pixels=recipe.data.max_pixels,
        drop_frames=recipe.data.drop_frames,
        drop_patches=recipe.model.drop_patches,
    )


def _num_captions(recipe: Recipe, folders: list[str]) -> int:
    """The most captions of a clip that are encoded: what the folders may hold, as far as that is known."""
    if recipe.data.captions == "one":
        return 1
    most, of_folders = recipe.data.max_captions, [most_captions(folder) for folder in folders]
    return max(1, min(most, sum(most if number is None else number for number in of_folders)))


@dataclass
class _Open:
    """A source in a loading process: files, memory, and what it knows of samples that it is not asked for.

    The pixels of a chunk's videos go to `video`, of their middle frames to `frame`.
    """

    loader: SampleLoader
    is_usable: Callable[[int, SamplePlace], bool]
    video: PixelsWriter
    frame: PixelsWriter
    step: int = -1
    num_usable: int = 0
    substitutes: dict[int, tuple[int, SamplePlace]] = field(default_factory=dict)


@dataclass(eq=False, repr=False)
class ChunkDataset(Dataset[Chunk | DatasetError]):
    """Loads the chunk that a ChunkSpec describes; lives in a loading process.

    Frames have the model's size, or with `resizes=False` that in which they are stored; of the `num_patches`
    of each some are dropped where the plan says so. With `reuses_memory` the reader has to copy the pixels of
    each chunk (`pin_memory` does), and they are overwritten after that.
    `frame_bytes` are those that a frame of each source is expected to have, where that is known.
    An error is given back as a value: DataLoader would make a page of traceback of it.
    """

    plan: BatchPlan
    tokenizer: PreTrainedTokenizerBase
    _: KW_ONLY
    image_size: int
    max_text_tokens: int
    resizes: bool = True
    num_patches: int = 0
    reuses_memory: bool = False
    frame_bytes: tuple[int, ...] = ()
    _open: list[_Open] = field(default_factory=list, init=False)  # in the process that loads

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": []}

    def __getitem__(self, spec: ChunkSpec) -> Chunk | DatasetError:
        if not self._open:
            self._open = [self._opened(source) for source in range(len(self.plan.parts))]
        settings = self.plan.parts[spec.source].settings
        of_frame = self.frame_bytes[spec.source] if self.frame_bytes else 0
        of_frames = (spec.stop - spec.start) * of_frame
        self._open[spec.source].video.begin(expected=of_frames * settings.kept_frames)
        self._open[spec.source].frame.begin(expected=of_frames * settings.needs_frame)
        skips: list[Skip] = []
        try:
            examples = [self._example(spec, row, skips) for row in range(spec.start, spec.stop)]
        except DatasetError as error:
            return error
        skips += self._open[spec.source].loader.take_notes()
        return self._collate(spec, examples, tuple(skips))

    def _opened(self, source: int) -> _Open:
        part = self.plan.parts[source]
        sizes = {"image_size": self.image_size, "num_patches": self.num_patches}
        loader = SampleLoader(part.shards, part.settings, **sizes, resizes=self.resizes)
        is_usable = lru_cache(_MAX_REMEMBERED)(partial(self._is_usable, source))
        video, frame = (PixelsWriter(SharedMemory() if self.reuses_memory else None) for _ in range(2))
        return _Open(loader, is_usable, video, frame)

    def _example(self, spec: ChunkSpec, row: int, skips: list[Skip]) -> Example:
        """The sample of a row, or if it is unusable, the first of its substitutes that is not.

        So a batch stays full, what is in it does not depend on who loads it, and no sample is in it twice.
        """
        part, opened = self.plan.parts[spec.source], self._open[spec.source]
        before = len(skips)
        for epoch, place in self._places(spec, row):
            loaded = self._load(spec.source, epoch, place)
            if isinstance(loaded, Example):
                return loaded
            skips.append(loaded)
        if part.order.num_substitutes(spec.step) >= _MAX_SUBSTITUTES:
            found = f"{len(skips) - before} samples in a row are unusable {_reasons(skips)}"
            raise DatasetError(f"source {part.shards.name}: {found}")
        if opened.step != spec.step:
            self._deal_out(spec)
        if row in opened.substitutes:
            loaded = self._load(spec.source, *opened.substitutes[row])
            if isinstance(loaded, Example):
                return loaded
        raise DatasetError(
            f"source {part.shards.name}: {opened.num_usable} of its {part.order.num_samples} samples are "
            f"usable, and a batch takes {part.order.rows} {_reasons(skips)}; lower optim.batch_size, or give "
            "more data"
        )

    def _places(self, spec: ChunkSpec, row: int) -> Iterator[tuple[int, SamplePlace]]:
        """The sample of a row and its substitutes, best first."""
        order = self.plan.parts[spec.source].order
        return chain([order.at(spec.step, row)], order.substitutes(spec.step, row, most=_MAX_SUBSTITUTES))

    def _load(self, source: int, epoch: int, place: SamplePlace, *, keeps: bool = True) -> Example | Skip:
        rng = np.random.default_rng([self.plan.seed, _FRAME_DRAWS, source, epoch, *place])
        opened = self._open[source]
        return opened.loader.load(*place, rng, video=opened.video, frame=opened.frame, keeps=keeps)

    def _deal_out(self, spec: ChunkSpec) -> None:
        """Find what the rows get whose own substitutes are all unusable: a small data set has few for each.

        The whole batch is looked at, and what no row needs dealt out in order: every process finds the same.
        In the example of `BatchOrder.substitutes`, with 3, 2 and 8 damaged, row 1 has nothing; rows 0 and 2
        are content with 1 and 6, and of 7 0 4 5, which are left, row 1 gets 7.
        """
        opened = self._open[spec.source]
        order = self.plan.parts[spec.source].order
        taken: set[SamplePlace] = set()
        needy = []
        for row in range(order.rows):
            places = self._places(spec, row)
            usable = (place for epoch, place in places if opened.is_usable(epoch, place))
            found = next(usable, None)
            if found is None:
                needy.append(row)
            else:
                taken.add(found)
        left = (
            (epoch, place)
            for epoch, place in order.outside(spec.step)
            if place not in taken and opened.is_usable(epoch, place)
        )
        opened.substitutes = dict(zip(needy, left, strict=False))
        opened.num_usable = len(taken) + len(opened.substitutes)
        opened.step = spec.step

    def _is_usable(self, source: int, epoch: int, place: SamplePlace) -> bool:
        return isinstance(self._load(source, epoch, place, keeps=False), Example)

    def _collate(self, spec: ChunkSpec, examples: list[Example], skips: tuple[Skip, ...]) -> Chunk:
        part, opened = self.plan.parts[spec.source], self._open[spec.source]
        video = opened.video.finish()
        frame = opened.frame.finish() if part.settings.needs_frame else None
        tensors: dict[str, torch.Tensor] = {}
        if part.settings.needs_subtitle:
            tensors |= self._tokenize("text", [example.text for example in examples])
        if part.settings.needs_caption:
            most = part.settings.num_captions
            numbers = torch.tensor([len(example.captions) for example in examples])
            has_caption = torch.arange(most) < numbers[:, None]
            tensors["has_caption"] = has_caption if most > 1 else has_caption[:, 0]
            of_row = min(1 << max(int(numbers.max()) - 1, 0).bit_length(), most)
            filled = [(*example.captions, *[""] * of_row)[:of_row] for example in examples]
            tensors |= self._tokenize("caption", list(chain.from_iterable(filled)))
        keys = tuple(example.key for example in examples)
        longest = max(int(mask.sum(1).max()) for name, mask in tensors.items() if name.endswith("_mask"))
        num_tokens = min(-(-longest // _TOKENS_STEP) * _TOKENS_STEP, self.max_text_tokens)
        video_seen, frame_seen = seen_of(examples, part.settings)
        return Chunk(
            part.shards.name,
            keys,
            skips,
            spec.ends_batch,
            video,
            frame,
            **tensors,
            num_tokens=num_tokens,
            video_seen=video_seen,
            frame_seen=frame_seen,
        )

    def _tokenize(self, what: str, texts: list[str]) -> dict[str, torch.Tensor]:
        tokens = tokenize(self.tokenizer, texts, max_tokens=self.max_text_tokens)
        return {f"{what}_ids": tokens["input_ids"], f"{what}_mask": tokens["attention_mask"]}


def _reasons(skips: list[Skip]) -> str:
    reasons = ", ".join(sorted({skip.reason for skip in skips}))
    return f"({reasons}), the last {skips[-1].what} {skips[-1].detail}".rstrip()
