"""The stage `clipvip-data caption`: the middle frame of every clip -> a caption, one file beside each shard.

The work is done by processes that run `caption_work`; this file decides what they do, and sums up.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipvip.media.errors import one_line
from clipvip.pipeline.runtime.errors import StageCommand, UserError
from clipvip.pipeline.runtime.options import (
    LocalName,
    dry_run_option,
    json_option,
    max_pixels_option,
    print_result,
)
from clipvip.pipeline.runtime.progress import Progress
from clipvip.pipeline.runtime.ray_units import RayCluster, ray_option, share_machines
from clipvip.pipeline.runtime.workers import run_units
from clipvip.shards.errors import DatasetError
from clipvip.shards.files.claims import SKIPPED_NAME, Options, claim_folder, require_free_folder
from clipvip.shards.files.hashes import sha256_of_file
from clipvip.shards.format.manifest import Manifest, read_manifest
from clipvip.shards.tar.reader import list_shards

if TYPE_CHECKING:
    from clipvip.pipeline.caption.work import CaptionSetup, CaptionTask

_MODEL_FILES = ("config.json", "vocab.*", "merges.txt", "*.safetensors", "*.bin", "*.index.json")
_CPU_BATCH_SIZE = 4
_GPU_THREADS = 4
# A process on the CPU is worth it for every so many cores: each holds the model.
_CORES_PER_WORKER = 4


_EPILOG = """\b
Examples:
  clipvip-data caption --shards clips/ --out captions/ --model OFA-Sys/ofa-base
  clipvip-data caption --shards clips/ --out captions/ --model ofa/ --gpus 0 --workers 4
"""


@click.command(cls=StageCommand, epilog=_EPILOG)
@click.option(
    "--shards", required=True, type=Path, help="Folder of shards, as 'clipvip-data shard' writes them."
)
@click.option("--out", required=True, type=Path, help="Folder for the captions, one file a shard.")
@click.option("--model", required=True, type=LocalName(), metavar="FOLDER_OR_NAME",
              help="OFA in Hugging Face layout; 'clipvip-data convert-ofa' makes one of a fairseq file.")  # fmt: skip
@click.option("--gpus", type=click.IntRange(min=0), show_default="all there are, else 0",
              help="Processes with a GPU each; 0: compute on the CPU.")  # fmt: skip
@click.option("--workers", type=click.IntRange(min=1), show_default="one per 4 cores, or 4 threads",
              help="Processes on the CPU, or threads that prepare images for each GPU.")  # fmt: skip
@click.option("--batch-size", type=click.IntRange(min=1), show_default=f"32 to 256 by a GPU's memory, {_CPU_BATCH_SIZE} on the CPU",
              help="Frames at once.")  # fmt: skip
@click.option("--num-beams", type=click.IntRange(min=1), default=5, show_default=True,
              help="Width of the beam search; 1 is greedy.")  # fmt: skip
@click.option("--max-length", type=click.IntRange(min=1), default=16, show_default=True,
              help="Most tokens of a caption.")  # fmt: skip
@click.option("--prompt", default=" what does the image describe?", show_default=True,
              help="What the model is asked, with the leading space it was trained on.")  # fmt: skip
@click.option("--image-size", type=click.IntRange(min=16), show_default="the model's",
              help="Side in pixels that frames are resized to.")  # fmt: skip
@max_pixels_option
@ray_option
@json_option
@dry_run_option("what there is to do, and what is done already")
def command(
    shards: Path,
    out: Path,
    model: str,
    gpus: int | None,
    workers: int | None,
    batch_size: int | None,
    max_pixels: int,
    ray_address: str | None,
    as_json: bool,
    dry_run: bool,
    **decoding: Any,
) -> None:
    """Caption the middle frame of every clip with OFA, by its authors' settings.

    Shards are left as they are: captions go into one Parquet file for each, by sample key. Run the same command
    again after an interruption: it makes what is missing, with the same bytes.
    """
    started = time.monotonic()
    paths = list_shards(shards)
    manifest = _check_against_manifest(shards)
    num_clips = manifest.num_samples if manifest else None
    checksums = {record.name: record.sha256 for record in manifest.shards} if manifest else {}
    if out.exists() and out.samefile(shards):
        raise UserError(f"--out {out}: is the folder of the shards; give another one")
    # torch is imported from here on, so that mistakes above are told at once.
    import torch

    from clipvip.model.ofa.captioner import default_dtype
    from clipvip.pipeline.caption.report import finish_captions
    from clipvip.pipeline.caption.work import CaptionSetup

    where = _share_cluster(ray_address, gpus, workers) if ray_address else _share_machine(gpus, workers)
    num_gpus = where.num_gpus
    folder, name, revision, fingerprint = _find_model(model)
    setup = CaptionSetup(
        folder=str(folder),
        model=name,
        revision=revision,
        num_gpus=num_gpus,
        threads=where.threads,
        has_own_gpu=where.ray is not None,
        batch_size=batch_size or where.batch_size,
        max_pixels=max_pixels,
        **decoding,
    )
    # Loaded here once for the check alone: a model that does not fit must not leave half an output.
    dtype = default_dtype(torch.device("cuda" if num_gpus else "cpu"))
    checked = setup.load(torch.device("cpu"), dtype=dtype)
    setup = replace(setup, image_size=checked.image_size, dtype=dtype)
    options: Options = {
        "model": name,
        "revision": revision,
        "model_sha256": fingerprint,
        **setup.decoding_options(checked),
    }
    del checked
    if dry_run:
        require_free_folder(out, options, outputs="*.parquet")
        done = sum(_num_done(path, out, checksums.get(path.name)) is not None for path in paths)
        counts = {"clips": num_clips, "shards": len(paths), "shards_done": done}
        text = f"caption: would caption {len(paths) - done:,} of {len(paths):,} shards -> {out}; the others are done"
        print_result({"stage": "caption", "counts": counts}, text, as_json=as_json)
        return
    with claim_folder(out, options, outputs="*.parquet"):
        num_made = _make_captions(paths, checksums, num_clips, out, setup, where)
        report = finish_captions(out, paths, options)
        content = report.write(out, seconds=time.monotonic() - started, done_now=num_made, unit="captions")
    print_result(content, report.summary(out), as_json=as_json)
    if not report.counts["captions"]:
        why = "".join(
            f" ({skip.reason}, as of {skip.what}: {skip.detail})" for skip in islice(report.skips, 1)
        )
        raise UserError(f"no frame could be captioned{why}; {out / SKIPPED_NAME} says why")


@dataclass(frozen=True, slots=True)
class _Where:
    """What computes: `threads` of each worker, and `num_gpus`, of all workers here or of one on a cluster."""

    num_gpus: int
    num_workers: int
    threads: int
    ray: RayCluster | None = None

    @property
    def batch_size(self) -> int:
        """Frames at once where --batch-size does not say."""
        if not self.num_gpus:
            return _CPU_BATCH_SIZE
        import torch

        # Of a cluster's GPUs nothing is known here.
        found = range(0 if self.ray else torch.cuda.device_count())
        memory = [torch.cuda.get_device_properties(number).total_memory for number in found]
        return gpu_batch_size(min(memory, default=0))


def gpu_batch_size(memory_bytes: int) -> int:
    """Frames at once on a GPU of so much memory.

    Up to 256 a batch takes hardly longer than one of 8, since the host starts kernels one by one (docs/benchmarks.md);
    OFA large takes 0.1 GiB a frame, so 256 take 24 GiB and leave room on a GPU of 40.
    """
    gib = memory_bytes / 2**30
    return 256 if gib >= 36 else 64 if gib >= 14 else 32


def _share_machine(gpus: int | None, workers: int | None) -> _Where:
    import torch

    from clipvip.pipeline.caption.work import share_of_cores

    found = torch.cuda.device_count()
    if gpus is not None and gpus > found:
        raise UserError(f"--gpus {gpus}: this machine shows {found} GPUs to torch; give --gpus {found}")
    num_gpus = found if gpus is None else gpus
    if num_gpus:
        return _Where(num_gpus, num_gpus, workers or min(_GPU_THREADS, share_of_cores(num_gpus)))
    num_workers = workers or share_of_cores(_CORES_PER_WORKER)
    return _Where(0, num_workers, share_of_cores(num_workers))


def _share_cluster(address: str, gpus: int | None, workers: int | None) -> _Where:
    ray = share_machines(address, gpus=gpus, workers=workers, cpus_per_worker=_CORES_PER_WORKER)
    return _Where(ray.gpus_per_worker, 1, ray.cpus_per_worker, ray)


def _find_model(name: str) -> tuple[Path, str, str, str]:
    """The model's folder, what to call it, its revision, and a hash of all that captions depend on."""
    folder, called, revision = Path(name), Path(name).resolve().name, ""
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        from clipvip.model.checkpoint_file import require_no_file

        require_no_file(name)
        try:
            folder = Path(snapshot_download(name, allow_patterns=list(_MODEL_FILES)))
        except (OSError, ValueError) as error:
            reason = one_line(error, most=200)
            raise UserError(
                f"--model {name}: no such folder, and not to be had from the hub ({reason})"
            ) from error
        called, revision = name, folder.name
    files = sorted({path for pattern in _MODEL_FILES for path in folder.glob(pattern)})
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name} {sha256_of_file(path)}\n".encode())
    fingerprint = digest.hexdigest()
    return folder, called, revision or f"sha256:{fingerprint}", fingerprint


def _check_against_manifest(shards: Path) -> Manifest | None:
    """The manifest, if there is one, when the shards have the sizes that it says. A tar that was cut off is still a tar."""
    manifest = read_manifest(shards)
    if manifest is None:
        return None
    for record in manifest.shards:
        path = shards / record.name
        if path.stat().st_size != record.num_bytes:
            raise UserError(
                f"{path}: has {path.stat().st_size} bytes, its manifest says {record.num_bytes}; make this shard again"
            )
    return manifest


def _make_captions(
    shards: Sequence[Path],
    checksums: Mapping[str, str],
    num_clips: int | None,
    out: Path,
    setup: "CaptionSetup",
    where: _Where,
) -> int:
    """Caption every shard whose captions are not there yet; the number of captions made."""
    from clipvip.pipeline.caption.work import CaptionTask, caption_shard

    todo: list[CaptionTask] = []
    num_there = num_made = num_skipped = 0
    for shard in shards:
        sha256 = checksums.get(shard.name)
        done = _num_done(shard, out, sha256)
        if done is None:
            todo.append(CaptionTask(shard, sha256, out, setup))
        else:
            num_there += done
    with Progress("caption", total=num_clips, unit="caption", initial=num_there) as progress:
        num_workers = max(1, min(where.num_workers, len(todo)))
        for outcome in run_units(caption_shard, todo, workers=num_workers, ray=where.ray):
            if outcome.failure is not None:
                raise UserError(_describe_death(outcome.unit, outcome.failure.detail))
            assert outcome.result is not None
            made, skipped = outcome.result
            num_made, num_skipped = num_made + made, num_skipped + skipped
            progress.add(made + skipped, skipped=num_skipped)
    return num_made


def _num_done(shard: Path, out: Path, sha256: str | None) -> int | None:
    """How many clips of a shard are done; None where they are missing, damaged, or of another shard's content."""
    from clipvip.shards.format.captions import captions_path, is_made_of, read_caption_file

    try:
        content = read_caption_file(captions_path(out, shard.stem))
    except DatasetError:
        return None
    same = is_made_of(content.source, num_bytes=shard.stat().st_size, sha256=sha256)
    return len(content.rows) + len(content.skips) if content.source and same else None


def _describe_death(task: "CaptionTask", detail: str) -> str:
    return (
        f"{task.shard}: {detail} (out of memory?); what is done is kept, run it again, "
        "with fewer --workers or a smaller --batch-size"
    )
