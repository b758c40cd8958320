"""What a worker process of `clipvip-data transcribe` does: hear one video, and write its subtitles."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from faster_whisper import WhisperModel

from clipvip.media.container import UnreadableVideo
from clipvip.media.errors import one_line
from clipvip.media.sound import Damage, Sound, read_sound
from clipvip.pipeline.runtime.device import claim_gpu
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.memory import is_out_of_memory
from clipvip.pipeline.runtime.time_limit import time_limit
from clipvip.pipeline.transcribe.webvtt import Head, Heard, Word, transcript_path, webvtt
from clipvip.shards.errors import NO_ROOM, Skip
from clipvip.shards.files.atomic import atomic_write_bytes
from clipvip.shards.files.stores import is_url, local_copy

if TYPE_CHECKING:
    from clipvip.pipeline.transcribe.stage import TranscribeOptions, Where

_RATE = 16_000  # samples a second, of all Whispers
_PIECE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class WhisperSetup:
    """The model of a run, in the local `folder`."""

    folder: str
    options: "TranscribeOptions"
    where: "Where"
    compute_type: str

    def load(self, **where: Any) -> WhisperModel:
        """The model. UserError where its files cannot be used."""
        try:
            return WhisperModel(self.folder, local_files_only=True, **where)
        except Exception as error:  # tokenizers raises nothing narrower
            if is_out_of_memory(error):
                raise
            raise UserError(
                f"--model {self.options.model}: cannot be loaded ({one_line(error, most=200)})"
            ) from error

    def check(self) -> None:
        """UserError where the model cannot be loaded, or does not know the language."""
        model = self.load(device="cpu")
        language = self.options.language
        if language is not None and language not in model.supported_languages:
            known = ", ".join(model.supported_languages)
            raise UserError(
                f"--language {language}: {self.options.model} does not know it; give one of {known}"
            )


@dataclass(frozen=True, slots=True)
class TranscribeTask:
    """One video, a file or URL, to write down."""

    video_id: str
    place: str
    setup: WhisperSetup


def transcribe_video(task: TranscribeTask) -> Skip | None:
    """Write the subtitle file of one video, or say why it has none.

    Raises:
        UserError: the GPU's memory does not suffice, or this machine is at fault.
    """
    model = _model(task.setup)
    try:
        with (
            time_limit(task.setup.options.video_timeout) as allow_more_time,
            local_copy(task.place, heartbeat=allow_more_time) as file,
        ):
            _transcribe(task, model, file, allow_more_time)
            return None
    except UnreadableVideo as error:
        return Skip(error.reason, task.video_id, str(error))
    except OSError as error:
        if error.errno in NO_ROOM or is_out_of_memory(error):
            raise
        reason = "unreachable_video" if is_url(task.place) else "undecodable_video"
        return Skip(reason, task.video_id, one_line(error, most=200))
    except RuntimeError as error:
        if "out of memory" in str(error).lower():
            raise UserError(
                f"--model {task.setup.options.model}: too large for the GPU's memory; give a smaller one, or"
                " --compute-type int8_float16"
            ) from error
        if is_out_of_memory(error):
            raise
        return Skip("not_transcribed", task.video_id, one_line(error, most=200))


@lru_cache(maxsize=1)
def _model(setup: WhisperSetup) -> WhisperModel:
    """This worker's model, loaded when the first video comes."""
    where = setup.where
    if where.num_gpus:
        number = claim_gpu(setup.options.out, where.num_gpus)
        return setup.load(device="cuda", device_index=number, compute_type=setup.compute_type)
    return setup.load(device="cpu", cpu_threads=where.threads, compute_type=setup.compute_type)


@dataclass
class _Ear:
    """Hears the pieces of one video, in the language of the first that has words."""

    model: WhisperModel
    options: "TranscribeOptions"
    heartbeat: Callable[[], None]
    language: str | None = None

    def hear(self, piece: Sound) -> Iterator[Heard]:
        """What is said in a piece, in order."""
        segments, info = self.model.transcribe(
            piece.samples,
            language=self.options.language or self.language,
            beam_size=self.options.beam_size,
            vad_filter=self.options.vad,
            word_timestamps=self.options.word_times,
            # Else a phrase that is made up once comes again and again.
            condition_on_previous_text=False,
        )
        end = piece.start_seconds + len(piece.samples) / _RATE

        def at(seconds: float) -> float:
            return min(piece.start_seconds + max(0.0, float(seconds)), end)

        for segment in segments:
            self.heartbeat()
            self.language = self.language or info.language
            words = [Word(at(word.start), word.word) for word in segment.words or ()]
            if self.options.word_times and not words:
                words = [Word(at(segment.start), segment.text)]
            yield Heard(at(segment.start), at(segment.end), segment.text, words)


def _transcribe(task: TranscribeTask, model: WhisperModel, file: str, heartbeat: Callable[[], None]) -> None:
    options = task.setup.options
    ear, damage = _Ear(model, options, heartbeat), Damage()
    heard: list[Heard] = []
    pieces = read_sound(file, rate=_RATE, piece_seconds=_PIECE_SECONDS, damage=damage, heartbeat=heartbeat)
    for piece in pieces:
        heard += ear.hear(piece)
    warning = f"damaged packets of sound, left silent: {damage.num_packets}" if damage.num_packets else ""
    head = Head(options.language or ear.language or "", warning)
    text = webvtt(sorted(heard, key=lambda one: one.start_seconds), head)
    atomic_write_bytes(transcript_path(options.out, task.video_id), text.encode())
