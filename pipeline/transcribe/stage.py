"""The stage `transcribe`: the sound of videos -> a subtitle file for each, as `shard` reads it.

Processes that run `work` do the work; this file decides what they do, and sums up.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from clipvip.hub_errors import hub_problem
from clipvip.media.errors import one_line
from clipvip.pipeline.runtime.device import share_of_cores
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.options import ALSO, DryRun, Gpus, LocalName, at_least, finite, opt, options
from clipvip.pipeline.runtime.progress import Progress
from clipvip.pipeline.runtime.report import Report, StageReport, counted, planned
from clipvip.pipeline.runtime.stage import StageFailed, StageOptions, stage
from clipvip.pipeline.runtime.workers import run_units
from clipvip.pipeline.transcribe.webvtt import read_head, transcript_path
from clipvip.shards.errors import Skip
from clipvip.shards.files.claims import SKIPPED_NAME, Options, claim_folder, require_free_folder
from clipvip.shards.files.hashes import sha256_of_file
from clipvip.shards.files.places import is_file
from clipvip.shards.files.stores import Location
from clipvip.shards.sources.hdvila import index_videos

if TYPE_CHECKING:
    from clipvip.pipeline.transcribe.work import TranscribeTask, WhisperSetup

_OUTPUTS = "*.vtt"
# A process on the CPU is worth it for every so many cores: each holds the model.
_CORES_PER_WORKER = 4
_MAX_EXAMPLES = 100
_CONVERT = "ct2-transformers-converter --copy_files tokenizer.json preprocessor_config.json"


@options
class TranscribeOptions(StageOptions):
    """What `transcribe` is asked for."""

    videos: str = opt("Folder of video files, named by video id.", argument=True, kw_only=False)
    out: Location = opt(f"Folder for the subtitles, one .vtt file a video; {ALSO}.")
    model: str = opt(
        "Whisper in CTranslate2's format: a size (tiny, base, small, medium, large-v3, turbo, ...), a name on"
        " the Hugging Face hub, or a folder.",
        LocalName(),
        metavar="FOLDER_OR_NAME",
        default="small",
    )
    language: str | None = opt(
        "The language that is spoken, such as en or de.",
        metavar="CODE",
        shown="detected for each video",
        default=None,
    )
    gpus: Gpus = None
    workers: int | None = opt(
        "Processes on the CPU.", at_least(1), shown=f"one per {_CORES_PER_WORKER} cores", default=None
    )
    compute_type: Literal["int8", "int8_float16", "float16", "bfloat16", "float32"] | None = opt(
        "Number format to compute in.", shown="float16 on GPUs, int8 on the CPU", default=None
    )
    beam_size: int = opt("Width of the beam search; 1 is greedy.", at_least(1), default=5)
    vad: bool = opt(
        "Leave out music and silence, in which Whisper invents words.",
        names=("--vad/--no-vad",),
        default=True,
    )
    word_times: bool = opt(
        "Write a time for each word, so that each clip gets its own words.",
        names=("--word-times/--no-word-times",),
        default=True,
    )
    video_timeout: float = opt(
        "Give up a video after this many seconds without a new word.", finite(0, above=True), default=600.0
    )
    dry_run: DryRun = False

    def packages(self) -> dict[str, str]:
        return super().packages() | {"faster_whisper": "transcribe"}


@stage(
    TranscribeOptions,
    "clipvip-data transcribe",
    "videos/ --out subtitles/ --model small",
    "videos/ --out subtitles/ --model large-v3 --language en --gpus 8",
)
def transcribe(options: TranscribeOptions) -> StageReport:
    """Write what is said in videos as subtitles for `shard`, with Whisper (faster-whisper).

    VIDEOS is a folder of video files, named by video id; also s3://, gs:// and hf://. Subtitles that
    are there are not made again: run the same command again after an interruption, or when videos were
    added. A video without sound, or a damaged one, is skipped, counted and named.

    Raises:
        UserError, DatasetError: what was given cannot be used; StageFailed: no video has a transcript.

    Examples:
        >>> import clipvip
        >>> report = clipvip.transcribe("videos", model="whisper", out="heard", gpus=0, dry_run=True)
        >>> report.counts["videos"]
        4
    """
    started = time.monotonic()
    videos = index_videos(options.videos)
    if not videos:
        raise UserError(f"{options.videos}: holds no video files; give a folder of videos")
    out = options.out
    # CTranslate2 is imported from here on, so that mistakes above are told at once.
    setup, made_by = _set_up(options)
    if options.dry_run:
        require_free_folder(out, made_by, outputs=_OUTPUTS)
        counts = {"videos": len(videos), "videos_done": sum(_is_done(out, name) for name in videos)}
        todo = counts["videos"] - counts["videos_done"]
        text = planned("transcribe: would transcribe", todo, len(videos), "videos", out)
        return StageReport(content={"stage": "transcribe", "counts": counts}, text=text)
    with claim_folder(out, made_by, outputs=_OUTPUTS):
        num_made, skips = _hear(videos, setup)
        report = _report(out, videos, made_by, skips)
        made = report.finish(out, started=started, done_now=num_made, unit="transcripts")
    if not made.counts["transcripts"]:
        first = next(iter(report.skips))
        why = f"such as {first.what}: {first.reason}, {first.detail}"
        raise StageFailed(f"no video has a transcript ({why}); {out / SKIPPED_NAME} says why", made)
    return made


def _is_done(out: Location, video_id: str) -> bool:
    return is_file(transcript_path(out, video_id))


@dataclass(frozen=True, slots=True)
class Where:
    """What computes: a GPU for each worker, or `threads` of each."""

    num_gpus: int
    num_workers: int
    threads: int


def _share_out(options: TranscribeOptions) -> Where:
    import ctranslate2

    found = ctranslate2.get_cuda_device_count()
    if options.gpus is not None and options.gpus > found:
        raise UserError(
            f"--gpus {options.gpus}: CTranslate2 finds {counted(found, 'GPUs')} here; give --gpus {found}"
        )
    num_gpus = found if options.gpus is None else options.gpus
    num_workers = num_gpus or options.workers or share_of_cores(_CORES_PER_WORKER)
    return Where(num_gpus, num_workers, share_of_cores(num_workers))


def _set_up(options: TranscribeOptions) -> tuple["WhisperSetup", Options]:
    """The model of this run, and what transcripts depend on, which a folder is known by."""
    from clipvip.pipeline.transcribe.work import WhisperSetup

    where = _share_out(options)
    folder = _find_model(options.model)
    compute_type = options.compute_type or ("float16" if where.num_gpus else "int8")
    setup = WhisperSetup(str(folder), options, where, compute_type)
    # Loaded here once for the check alone: a model that does not fit must not leave half an output.
    setup.check()
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in {".bin", ".json", ".txt"}):
        digest.update(f"{path.name} {sha256_of_file(path)}\n".encode())
    made_by: Options = {
        "model": Path(options.model).resolve().name if Path(options.model).is_dir() else options.model,
        "model_sha256": digest.hexdigest(),
        "language": options.language,
        "compute_type": compute_type,
        "beam_size": options.beam_size,
        "vad": options.vad,
        "word_times": options.word_times,
    }
    return setup, made_by


def _find_model(name: str) -> Path:
    """The folder of a model, of which the files are there."""
    folder = Path(name)
    if not folder.is_dir():
        from faster_whisper.utils import available_models, download_model

        from clipvip.model.checkpoint_file import require_no_file

        require_no_file(name)
        try:
            folder = Path(download_model(name))
        except (OSError, ValueError) as error:
            hint = "" if "/" in name else f"; sizes are {', '.join(available_models())}"
            absent = f"{name}: no such folder, and not to be had from the Hub ({one_line(error, most=200)})"
            raise UserError(f"--model {hub_problem(name, error) or absent}{hint}") from error
    for file in ("model.bin", "config.json", "tokenizer.json"):
        if not (folder / file).is_file():
            raise UserError(
                f"--model {name}: has no {file}, so it is no Whisper of CTranslate2's; convert one in Hugging"
                f" Face layout by: {_CONVERT} --model {name} --output_dir FOLDER"
            )
    return folder


def _hear(videos: Mapping[str, str], setup: "WhisperSetup") -> tuple[int, dict[str, Skip]]:
    """Transcribe every video that has no transcript yet; how many were, and why others were not, by id."""
    from clipvip.pipeline.transcribe.work import TranscribeTask, transcribe_video

    num_made = 0
    skips: dict[str, Skip] = {}

    def missing() -> Iterator["TranscribeTask"]:
        for video_id, place in videos.items():
            if _is_done(setup.options.out, video_id):
                progress.add(1)
            else:
                yield TranscribeTask(video_id, place, setup)

    with Progress("transcribe", total=len(videos), unit="videos") as progress:
        for outcome in run_units(transcribe_video, missing(), workers=setup.where.num_workers):
            video_id = outcome.unit.video_id
            if outcome.failure is not None:
                skips[video_id] = Skip(outcome.failure.reason, video_id, outcome.failure.detail)
            elif outcome.result is not None:
                skips[video_id] = outcome.result
            else:
                num_made += 1
            progress.add(1, skipped=len(skips))
    return num_made, skips


def _report(out: Location, videos: Mapping[str, str], made_by: Options, skips: Mapping[str, Skip]) -> Report:
    """Sum up what there is of these videos, whichever run made it."""
    languages: Counter[str] = Counter()
    num_warnings, examples = 0, list[str]()
    for video_id in videos:
        if not _is_done(out, video_id):
            continue
        head = read_head(transcript_path(out, video_id))
        languages[head.language] += 1
        if head.warning:
            num_warnings += 1
            examples += [f"{video_id}: {head.warning}"] if num_warnings <= _MAX_EXAMPLES else []
    counts: dict[str, int | float] = {
        "videos": len(videos),
        "transcripts": languages.total(),
        "without_speech": languages.pop("", 0),
    }
    details = {
        "languages": dict(sorted(languages.items())),
        "sound_warnings": {"count": num_warnings, "examples": examples},
    }
    listed = [skips[video_id] for video_id in videos if video_id in skips]
    return Report("transcribe", made_by, counts=counts, details=details, skips=listed)
