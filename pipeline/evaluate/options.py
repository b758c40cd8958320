"""The options that every stage has that encodes the clips of shards."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from clipvip.pipeline.runtime.device import num_cores
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.models import model_at_hand
from clipvip.pipeline.runtime.options import (
    ALSO,
    LAST,
    MOST_AT_ONCE,
    MOST_DRAWS,
    MOST_FRAMES,
    MOST_PROCESSES,
    Device,
    MaxPixels,
    Opt,
    PlaceType,
    at_least,
    opt,
    options,
)
from clipvip.pipeline.runtime.stage import StageOptions
from clipvip.shards.errors import DatasetError
from clipvip.shards.files.atomic import require_no_other_kind
from clipvip.shards.files.stores import Location
from clipvip.shards.format.manifest import num_samples
from clipvip.shards.tar.reader import DEFAULT_MAX_PIXELS

if TYPE_CHECKING:
    from clipvip.model import ClipVip
    from clipvip.pipeline.evaluate.embeddings import ClipEncoder

DEFAULT_RESAMPLES = 1000
_MOST_WORKERS = 16
Page = Annotated[
    Location | None,
    Opt("Write a page with the model's and the baselines' scores to this file.", PlaceType(dir_okay=False)),
]
Bootstrap = Annotated[int, Opt("Resamples for the 95% intervals; 0: none.", at_least(0, MOST_DRAWS))]

BatchSize = Annotated[int, Opt("Clips in a batch.", at_least(1, MOST_AT_ONCE))]
Readers = Annotated[
    int | None,
    Opt(
        "Processes that read and decode clips, used if there are many clips; 0: none.",
        at_least(0, MOST_PROCESSES),
        shown=f"with a GPU one per core, at most {_MOST_WORKERS}; else 0",
    ),
]


def require_page_folder(page: Location | None, option: str = "--page") -> None:
    """UserError where a page, or another file, cannot be written to this place on this machine."""
    if isinstance(page, Path) and not page.parent.is_dir():
        raise UserError(f"{option} {page}: there is no folder {page.parent}; make it")
    if page is not None:
        try:
            require_no_other_kind(page)
        except DatasetError as error:
            raise UserError(f"{option} {error}") from error


def result_folder(name: str) -> Any:
    """A folder, such as `--out` of a stage that writes its result to the file `name`."""
    kind = PlaceType(file_okay=False)
    return opt(f"Folder for {name} and report.json; {ALSO}.", kind, shown="none is written", default=None)


@options
class EncodingOptions(StageOptions):
    """How clips and texts are encoded, whatever encodes them."""

    num_frames: Annotated[int | None, LAST] = opt(
        "Frames per clip that are encoded.",
        at_least(1, MOST_FRAMES),
        shown="as the model was trained",
        default=None,
    )
    max_text_tokens: Annotated[int | None, LAST] = opt(
        "Tokens that texts are cut to.", at_least(3), shown="as the model was trained", default=None
    )
    batch_size: Annotated[BatchSize, LAST] = 16
    workers: Annotated[Readers, LAST] = None
    max_pixels: Annotated[MaxPixels, LAST] = DEFAULT_MAX_PIXELS
    device: Annotated[Device, LAST] = "auto"

    def load(self, model: str, *, like: "ClipVip | None" = None, needs_tokenizer: bool = True) -> "ClipVip":
        """A model, ready to encode; raises as `load_clip_vip`, or where there is no GPU as asked for."""
        # torch is imported only now, so that mistakes in other options are told at once.
        from clipvip.pipeline.evaluate.embeddings import load_clip_vip
        from clipvip.pipeline.runtime.device import torch_device

        device = torch_device(self.device)
        with model_at_hand(model) as name:
            return load_clip_vip(
                name,
                device=device,
                num_frames=self.num_frames,
                max_text_tokens=self.max_text_tokens,
                like=like,
                needs_tokenizer=needs_tokenizer,
            )

    def encoder_for(self, model: "ClipVip", shards: Location) -> "ClipEncoder":
        """The model, and how the clips of a folder go through it."""
        from clipvip.pipeline.evaluate.embeddings import ClipEncoder

        workers = self.workers
        if workers is None:
            # Without a GPU the model itself keeps all cores busy.
            workers = min(num_cores(), _MOST_WORKERS) if model.device.type == "cuda" else 0
        total = num_samples(shards)
        return ClipEncoder(model, self.batch_size, total, self.max_pixels, workers=workers)


@options
class ClipsOptions(EncodingOptions):
    """A model, clips, and how these are encoded."""

    model: str = opt(
        f"A CLIP-ViP model, or a plain CLIP or SigLIP, whose frames are averaged; {ALSO}.",
        metavar="FOLDER_OR_NAME",
    )
    shards: Location = opt(f"Folder of shards; {ALSO}.")
    baselines: Annotated[tuple[str, ...], LAST] = opt(
        "Another model to show beside it, such as the plain CLIP that it started from; repeatable.",
        names=("--baseline",),
        metavar="FOLDER_OR_NAME",
        default=(),
    )

    def load_models(self, *, needs_tokenizer: bool = True) -> "dict[str, ClipVip]":
        """The model and then the baselines, ready to encode, by the names that they were given by.

        Baselines see as many frames as the model, and as much of each text, or as much as they take.

        Raises:
            UserError: one is named twice, or there is no GPU as asked for; and as `load_clip_vip`.
        """
        names = (self.model, *self.baselines)
        for number, given in enumerate(names):
            if given in names[:number]:
                raise UserError(
                    f"--baseline {given}: is given twice, or is the --model; give each model once"
                )
        models: dict[str, ClipVip] = {}
        for given in names:
            like = models.get(self.model)
            models[given] = self.load(given, like=like, needs_tokenizer=needs_tokenizer)
        return models

    def compared(self) -> dict[str, list[str]]:
        """What reports say of the baselines: nothing where there are none."""
        return {"baselines": list(self.baselines)} if self.baselines else {}

    def encoder(self, model: "ClipVip") -> "ClipEncoder":
        """The model, and how clips go through it."""
        return self.encoder_for(model, self.shards)
