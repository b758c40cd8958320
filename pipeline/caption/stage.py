"""The stage `caption`: the middle frame of every clip, or several -> captions, one file beside each shard.

Processes that run `work` do the work; this file decides what they do, and sums up.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from clipvip.pipeline.runtime.device import share_of_cores
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.models import model_at_hand
from clipvip.pipeline.runtime.options import (
    ALSO,
    MOST_AT_ONCE,
    MOST_BEAMS,
    MOST_FRAMES,
    MOST_PROCESSES,
    MOST_TOKENS,
    DryRun,
    Gpus,
    MaxPixels,
    RayAddress,
    at_least,
    opt,
    options,
)
from clipvip.pipeline.runtime.progress import Progress
from clipvip.pipeline.runtime.ray_units import RayCluster, share_machines
from clipvip.pipeline.runtime.report import StageReport, counted, planned
from clipvip.pipeline.runtime.stage import StageFailed, StageOptions, stage
from clipvip.pipeline.runtime.workers import run_units
from clipvip.shards.files.claims import SKIPPED_NAME, Options, claim_folder, require_free_folder
from clipvip.shards.files.places import is_same_folder, sizes_in
from clipvip.shards.files.stores import Location
from clipvip.shards.format.manifest import Manifest, read_manifest
from clipvip.shards.tar.reader import DEFAULT_MAX_PIXELS, list_shards

if TYPE_CHECKING:
    from clipvip.pipeline.caption.work import CaptionSetup

_GPU_THREADS = 8
# A process on the CPU is worth it for every so many cores: each holds the model.
_CORES_PER_WORKER = 4


class _Frames(click.ParamType):
    """How many frames: `middle` for one, or a number."""

    name = "frames"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if value == "middle":
            return 1
        if not (str(value).isascii() and str(value).isdecimal() and str(value).strip("0")):
            self.fail(f"{value!r} is neither 'middle' nor a number from 1 on", param, ctx)
        return int(at_least(1, MOST_FRAMES).convert(value, param, ctx))


@options
class CaptionOptions(StageOptions):
    """Options of `caption`."""

    shards: Location = opt(f"Folder of shards, as 'clipvip-data shard' writes them; {ALSO}.")
    out: Location = opt(f"Folder for the captions, one file a shard; {ALSO}.")
    model: str = opt(
        "OFA in Hugging Face layout ('clipvip-data convert-ofa' makes one of a fairseq file), or an "
        f"image-to-text model of transformers (BLIP, GIT, Florence-2, chat models that take images); {ALSO}.",
        metavar="FOLDER_OR_NAME",
    )
    gpus: Gpus = None
    workers: int | None = opt(
        "Processes on the CPU, or threads that prepare images for each GPU.",
        at_least(1, MOST_PROCESSES),
        shown="one per 4 cores, or up to 8 threads",
        default=None,
    )
    batch_size: int | None = opt(
        "Frames in a batch.",
        at_least(1, MOST_AT_ONCE),
        shown="32 to 256, depending on the GPU's memory; 4 on the CPU",
        default=None,
    )
    num_beams: int | None = opt(
        "Width of the beam search; 1 is greedy.",
        at_least(1, MOST_BEAMS),
        shown="5; chat models 1",
        default=None,
    )
    max_length: int | None = opt(
        "Most tokens of a caption.", at_least(1, MOST_TOKENS), shown="16; chat models 64", default=None
    )
    prompt: str | None = opt(
        "What the model is asked; an OFA, with the leading space it was trained on.",
        shown="' what does the image describe?'; BLIP and the like nothing, Florence-2 its task <CAPTION>, "
        "chat models to describe the picture in one sentence",
        default=None,
    )
    image_size: int | None = opt(
        "Side in pixels that frames are resized to, for an OFA.",
        at_least(16),
        shown="the model's",
        default=None,
    )
    frames: int = opt(
        "Frames of each clip to caption, a caption each: the middle one, or the middles of N equal parts.",
        _Frames(),
        metavar="[middle|N]",
        shown="middle, the same as 1",
        default=1,
    )
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS
    ray: RayAddress = None
    dry_run: DryRun = False


@stage(
    CaptionOptions,
    "clipvip-data caption",
    "--shards clips/ --out captions/ --model OFA-Sys/ofa-base",
    "--shards clips/ --out captions/ --model ofa/ --gpus 0 --workers 4",
    "--shards clips/ --out captions-blip/ --model Salesforce/blip-image-captioning-large --frames 3",
    "--shards s3://bucket/clips --out s3://bucket/captions --model OFA-Sys/ofa-base",
)
def caption(options: CaptionOptions) -> StageReport:
    """Caption the middle frame of every clip: with OFA by its authors' settings, or another captioner.

    Shards are not changed: captions go into one Parquet file for each shard, by sample key. Captions of
    another captioner, or of other frames, go into a separate folder; training takes several. Run the same
    command again after an interruption: it makes what is missing, with the same bytes.

    Raises:
        UserError, DatasetError: what was given cannot be used; StageFailed: no frame could be captioned.

    Examples:
        >>> import clipvip
        >>> report = clipvip.caption(
        ...     shards="test-clips", model="OFA-Sys/ofa-base", out="cut-captions", gpus=0, workers=1
        ... )
        >>> report.counts["captions"]
        12
    """
    started = time.monotonic()
    out = options.out
    paths = list_shards(options.shards)
    manifest = _check_against_manifest(options.shards)
    num_clips = manifest.num_samples if manifest else None
    sums = {record.name: record.sha256 for record in manifest.shards} if manifest else {}
    shards = {path: sums.get(path.name) for path in paths}
    if is_same_folder(out, options.shards):
        raise UserError(f"--out {out}: is the folder of the shards; give another one")
    # torch is imported from here on, so that mistakes above are told at once.
    from clipvip.pipeline.caption.report import finish_captions

    where = _share_out(options)
    setup, made_by = _set_up(options, where)
    if options.dry_run:
        require_free_folder(out, made_by, outputs="*.parquet")
        done = sum(_num_done(path, out, sha256) is not None for path, sha256 in shards.items())
        counts = {"clips": num_clips, "shards": len(shards), "shards_done": done}
        text = planned("caption: would caption", len(shards) - done, len(shards), "shards", out)
        return StageReport(content={"stage": "caption", "counts": counts}, text=text)
    with claim_folder(out, made_by, outputs="*.parquet"):
        num_made = _make_captions(shards, num_clips, setup)
        report = finish_captions(out, paths, made_by)
        made = report.finish(out, started=started, done_now=num_made, unit="captions")
    if not made.counts["captions"]:
        first = next(iter(report.skips), None)
        why = f" (such as {first.what}: {first.reason}, {first.detail})" if first else ""
        raise StageFailed(f"no frame could be captioned{why}; {out / SKIPPED_NAME} says why", made)
    return made


@dataclass(frozen=True, slots=True)
class Where:
    """What computes: `threads` of each worker, and `num_gpus`, of all workers here or of one on a cluster."""

    num_gpus: int
    num_workers: int
    threads: int
    ray: RayCluster | None = None


def _share_out(options: CaptionOptions) -> Where:
    gpus, workers = options.gpus, options.workers
    if options.ray:
        ray = share_machines(options.ray, gpus=gpus, workers=workers, cpus_per_worker=_CORES_PER_WORKER)
        return Where(ray.gpus_per_worker, 1, ray.cpus_per_worker, ray)
    import torch

    found = torch.cuda.device_count()
    if gpus is not None and gpus > found:
        raise UserError(f"--gpus {gpus}: torch finds {counted(found, 'GPUs')} here; give --gpus {found}")
    num_gpus = found if gpus is None else gpus
    if num_gpus:
        return Where(num_gpus, num_gpus, workers or min(_GPU_THREADS, share_of_cores(num_gpus)))
    num_workers = workers or share_of_cores(_CORES_PER_WORKER)
    return Where(0, num_workers, share_of_cores(num_workers))


def _set_up(options: CaptionOptions, where: Where) -> tuple["CaptionSetup", Options]:
    """The captioner of this run, and what captions depend on, which a folder is known by."""
    import torch

    from clipvip.model.captioners import find_captioner
    from clipvip.model.image_captioner import Decoding, default_dtype
    from clipvip.pipeline.caption.model_files import find_model
    from clipvip.pipeline.caption.work import CaptionSetup

    folder, name, revision, fingerprint = find_model(options.model)
    dtype = default_dtype(torch.device("cuda" if where.num_gpus else "cpu"))
    with model_at_hand(folder) as at_hand:
        default = find_captioner(at_hand).default
        decoding = Decoding(
            default.prompt if options.prompt is None else options.prompt,
            options.num_beams or default.num_beams,
            options.max_length or default.max_length,
        )
        setup = CaptionSetup(folder, name, revision, options, where, dtype, decoding)
        # Loaded here once for the check alone: a model that does not fit must not leave half an output.
        checked = replace(setup, folder=at_hand).load(torch.device("cpu"))
    made_by = {"model": name, "revision": revision, "model_sha256": fingerprint}
    return setup, made_by | setup.decoding_options(checked)


def _check_against_manifest(shards: Location) -> Manifest | None:
    """The manifest, if there is one. Its shards must have the sizes it says: a tar cut off is still a tar."""
    manifest = read_manifest(shards)
    sizes = sizes_in(shards) if manifest else {}
    for record in manifest.shards if manifest else ():
        path, size = shards / record.name, sizes.get(record.name)
        if size != record.num_bytes:
            raise UserError(
                f"{path}: has {size} bytes, not {record.num_bytes} as in its manifest; make this shard again"
            )
    return manifest


def _make_captions(
    shards: Mapping[Location, str | None], num_clips: int | None, setup: "CaptionSetup"
) -> int:
    """Caption every shard whose captions are not there yet; the number of captions made."""
    from clipvip.pipeline.caption.work import CaptionTask, caption_shard

    done = {shard: _num_done(shard, setup.options.out, sha256) for shard, sha256 in shards.items()}
    todo = [CaptionTask(shard, shards[shard], setup) for shard, number in done.items() if number is None]
    num_made = num_skipped = 0
    num_there = sum(number or 0 for number in done.values())
    with Progress("caption", total=num_clips, unit="captions", initial=num_there) as progress:
        num_workers = max(1, min(setup.where.num_workers, len(todo)))
        for outcome in run_units(caption_shard, todo, workers=num_workers, ray=setup.where.ray):
            if outcome.failure is not None:
                raise UserError(
                    f"{outcome.unit.shard}: {outcome.failure.detail} (out of memory?). What is done is kept: "
                    "run it again, with fewer --workers or a smaller --batch-size"
                )
            assert outcome.result is not None
            made = outcome.result
            num_made, num_skipped = num_made + made.captions, num_skipped + made.skipped
            progress.add(made.clips + made.skipped, skipped=num_skipped)
    return num_made


def _num_done(shard: Location, out: Location, sha256: str | None) -> int | None:
    """How many clips of a shard are done; None: the captions are missing, damaged, or of other content."""
    from clipvip.shards.format.captions import finished_captions

    found = finished_captions(out, shard, sha256)
    return None if found is None else found.num_clips
