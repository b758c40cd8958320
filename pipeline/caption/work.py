"""What a worker process of `clipvip-data caption` does: caption the frames of one shard."""

import itertools
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from transformers.utils import logging as transformers_logging

from clipvip.model.captioners import captioner_kind
from clipvip.model.image_captioner import BatchCaptioner, Decoding, default_batch_size
from clipvip.pipeline.caption.frames import FoundCaptions, FrameOfClip, LostFrame, WantedFrame, wanted_frames
from clipvip.pipeline.runtime.device import claim_gpu
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.models import model_at_hand
from clipvip.shards.files.stores import Location
from clipvip.shards.format.captions import FRAME_SKIP, captions_path, shard_source, write_captions
from clipvip.shards.format.clip_captions import NUM_FRAMES
from clipvip.shards.tar.reader import read_samples

if TYPE_CHECKING:
    from clipvip.pipeline.caption.stage import CaptionOptions, Where

# Batches that wait for the model while it is at work, and frames that one thread prepares at a time.
_BATCHES_AHEAD = 3
_PIECE = 16


@dataclass(frozen=True, slots=True)
class CaptionSetup:
    """The captioner of a run. `model` and `revision` are what the output says of its `folder`."""

    folder: str
    model: str
    revision: str
    options: "CaptionOptions"
    where: "Where"
    dtype: torch.dtype  # one for all workers, whatever their GPUs
    decoding: Decoding

    def load(self, device: torch.device) -> BatchCaptioner[Any]:
        """The captioner on a device, which decides how many frames it takes at once where none is asked."""
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        asked, decoding = self.options, self.decoding
        with model_at_hand(self.folder) as folder:
            return captioner_kind(folder)(
                folder,
                device=device,
                dtype=self.dtype,
                batch_size=asked.batch_size or default_batch_size(device),
                prompt=decoding.prompt,
                num_beams=decoding.num_beams,
                max_length=decoding.max_length,
                image_size=asked.image_size,
            )

    def decoding_options(self, captioner: BatchCaptioner[Any]) -> dict[str, str | int]:
        """What of the setup a caption depends on, besides the model."""
        size = {"image_size": captioner.image_size} if captioner.image_size else {}
        frames = {NUM_FRAMES: self.options.frames} if self.options.frames > 1 else {}
        dtype = {"dtype": str(captioner.dtype).removeprefix("torch.")}
        return asdict(self.decoding) | size | frames | dtype


@dataclass(frozen=True, slots=True)
class CaptionTask:
    """One shard to caption. `sha256`: of the shard, where a manifest says it."""

    shard: Location
    sha256: str | None
    setup: CaptionSetup


@dataclass(frozen=True, slots=True)
class CaptionsMade:
    """How many captions a shard has now, of how many clips, and how many clips were left out."""

    clips: int
    captions: int
    skipped: int


# Of some frames of a shard: those with pixels, these as the captioner takes them or None, and the others.
_Batch = tuple[list[FrameOfClip], Any, list[LostFrame]]


def caption_shard(task: CaptionTask) -> CaptionsMade:
    """Write the caption file of one shard.

    Raises:
        DatasetError: the shard is damaged as a whole; nothing is written then.
        UserError: the GPU's memory does not suffice.
    """
    setup = task.setup
    captioner = _captioner(setup)
    source = shard_source(task.shard, task.sha256)
    found = FoundCaptions()
    try:
        with closing(_batches_ahead(task.shard, captioner, setup)) as batches:
            for frames, pixels, lost in batches:
                found.lose(lost)
                captions = captioner.caption_pixels(pixels) if pixels is not None else []
                for frame, caption in zip(frames, captions, strict=True):
                    found.take(frame, caption)
    except torch.cuda.OutOfMemoryError as error:
        raise UserError(
            f"--batch-size {captioner.batch_size}: the GPU's memory is too small for it; give a smaller one"
        ) from error
    rows, skips = found.rows(), found.skips()
    is_of_several = setup.options.frames > 1
    write_captions(
        captions_path(setup.options.out, task.shard.stem),
        [(key, some[0].caption) for key, some in rows.items()],
        model=setup.model,
        revision=setup.revision,
        options=setup.decoding_options(captioner),
        skips=skips,
        source=source,
        alternatives={key: [one.caption for one in some] for key, some in rows.items() if len(some) > 1},
        frames={key: [one.frame for one in some] for key, some in rows.items() if is_of_several},
    )
    num_lost = sum(skip.reason != FRAME_SKIP for skip in skips)
    return CaptionsMade(len(rows), sum(map(len, rows.values())), num_lost)


@lru_cache(maxsize=1)
def _captioner(setup: CaptionSetup) -> BatchCaptioner[Any]:
    """This worker's captioner, loaded when the first shard comes."""
    where = setup.where
    if where.num_gpus:
        # On a cluster a worker is shown one GPU, its own.
        device = torch.device("cuda", 0 if where.ray else claim_gpu(setup.options.out, where.num_gpus))
        torch.cuda.set_device(device)  # else libraries take a part of the first GPU's memory for each worker
        return setup.load(device)
    torch.set_num_threads(min(where.threads, torch.get_num_threads()))
    return setup.load(torch.device("cpu"))


def _batches_ahead(
    shard: Location, captioner: BatchCaptioner[Any], setup: CaptionSetup
) -> Generator[_Batch, None, None]:
    """The batches of a shard in order, read, decoded and resized in threads while the model is at work.

    A batch is prepared in pieces by several threads: at the start of a shard the model waits for one.
    """
    samples = read_samples(shard, max_pixels=setup.options.max_pixels)
    wanted = wanted_frames(samples, num_frames=setup.options.frames)
    size = captioner.batch_size
    piece = _PIECE if captioner.in_pieces else size
    pieces = [min(piece, size - first) for first in range(0, size, piece)]
    pinned = captioner.device.type == "cuda"  # memory that is copied to a GPU several times as fast

    def read(number: int) -> list[WantedFrame | LostFrame]:
        return list(itertools.islice(wanted, number))

    def prepare(frames: Future[list[WantedFrame | LostFrame]]) -> _Batch | None:
        return _prepare(frames.result(), captioner) if frames.result() else None

    def join(parts: list[Future[_Batch | None]]) -> _Batch | None:
        done = [batch for batch in (part.result() for part in parts) if batch is not None]
        return _join(done, pinned=pinned) if done else None

    waiting = deque[Future[_Batch | None]]()
    # One thread reads, so that samples are in order, and one puts the pieces together; those of the pool may
    # each wait for what has not been read yet.
    with (
        ThreadPoolExecutor(1) as reader,
        ThreadPoolExecutor(setup.where.threads) as pool,
        ThreadPoolExecutor(1) as joiner,
    ):
        try:
            while True:
                while len(waiting) <= _BATCHES_AHEAD:
                    parts = [pool.submit(prepare, reader.submit(read, number)) for number in pieces]
                    waiting.append(joiner.submit(join, parts))
                batch = waiting.popleft().result()
                if batch is None:
                    return
                yield batch
        finally:
            # The one that waits for the others' results first: what is cancelled under it ends it.
            for executor in (joiner, pool, reader):
                executor.shutdown(wait=False, cancel_futures=True)


def _join(parts: list[_Batch], *, pinned: bool) -> _Batch:
    found = [frame for frames, _, _ in parts for frame in frames]
    lost = [frame for _, _, frames in parts for frame in frames]
    pixels = [part for _, part, _ in parts if part is not None]
    if not pixels:
        return found, None, lost
    if len(pixels) == 1 and not (pinned and isinstance(pixels[0], torch.Tensor)):
        return found, pixels[0], lost
    joined = torch.empty(len(found), *pixels[0].shape[1:], dtype=pixels[0].dtype, pin_memory=pinned)
    return found, torch.cat(pixels, out=joined), lost


def _prepare(frames: Sequence[WantedFrame | LostFrame], captioner: BatchCaptioner[Any]) -> _Batch:
    found, images, lost = [], [], []
    for frame in frames:
        image = frame if isinstance(frame, LostFrame) else frame.decode()
        if isinstance(image, LostFrame):
            lost.append(image)
        elif isinstance(frame, WantedFrame):
            images.append(image)
            found.append(frame.of_clip)
    return found, captioner.preprocess(images) if images else None, lost
