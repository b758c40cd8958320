"""What a worker process of `clipvip-data download` does: fetch one video with its subtitles by yt-dlp."""

import http.cookiejar
import io
import itertools
import logging
import random
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yt_dlp

from clipvip.media.container import UnreadableVideo, open_container
from clipvip.pipeline.download.archive import (
    FETCHED,
    PASSING,
    PERMANENT,
    Entry,
    Subtitles,
    keep_fetched,
    work_folder,
)
from clipvip.pipeline.download.choice import choose_subtitles, pick_format
from clipvip.pipeline.download.failures import Refusal, describe, is_local, plain_text
from clipvip.pipeline.download.pace import await_turn, hold_all
from clipvip.pipeline.runtime.errors import UserError
from clipvip.shards.files.claims import STATE_FOLDER
from clipvip.shards.sources.download_list import Wanted
from clipvip.shards.sources.hdvila import VIDEO_EXTENSIONS

if TYPE_CHECKING:
    from clipvip.pipeline.download.stage import DownloadOptions

PACE_NAME = "pace.open"  # of this run only
# Both mean that the site has had enough of this machine.
REFUSED = frozenset(["rate_limited", "bot_check"])
# Trying again within minutes does not help.
_NOT_SOON = frozenset(["not_yet", "no_format"])
_SUBTITLE_ERROR = "Unable to download video subtitles"
_LONGEST_WAIT_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class FetchTask:
    """One video to fetch into the folder `options.out`. `cookies` is what the file of them holds."""

    wanted: Wanted
    options: "DownloadOptions"
    cookies: str | None


def read_cookies(path: Path) -> str:
    """The text of a file of cookies.

    Raises:
        UserError: it is none.
    """
    try:
        text = path.read_text(encoding="utf-8")
        yt_dlp.cookies.YoutubeDLCookieJar(io.StringIO(text)).load()
    except (http.cookiejar.LoadError, UnicodeDecodeError) as error:
        text = f"{path}: not cookies in Netscape format; export them from the browser again"
        raise UserError(text) from error
    return text


class _Unusable(Exception):
    """What came is not what was asked for: `refusal` says what it is."""

    def __init__(self, reason: str, detail: str, *, permanent: bool) -> None:
        super().__init__(detail)
        self.refusal = Refusal(reason, permanent, detail)


def fetch_video(task: FetchTask) -> Entry:
    """Fetch a video and its subtitles into `task.options.out`, or say why it is not to be had.

    Raises:
        UserError: this machine is at fault, as with a full disk.
    """
    options, pace = task.options, task.options.out / STATE_FOLDER / PACE_NAME
    work_folder(task.options.out, task.wanted.video_id).mkdir(parents=True, exist_ok=True)
    for attempt in itertools.count():
        await_turn(pace, every_seconds=options.sleep)
        found = _try(task, options.subtitle_languages)
        if isinstance(found, Entry):
            return found
        seconds = max(options.retry_wait * 2**attempt, found.wait_seconds) * random.uniform(1.0, 1.5)
        seconds = min(seconds, _LONGEST_WAIT_SECONDS)
        if found.reason in REFUSED:
            hold_all(pace, seconds)
        if attempt == options.retries or found.permanent or found.reason in _NOT_SOON:
            outcome, wanted = PERMANENT if found.permanent else PASSING, task.wanted
            return Entry(wanted.video_id, wanted.url, outcome, reason=found.reason, detail=found.detail)
        time.sleep(seconds)
    raise AssertionError("unreachable")


def _try(task: FetchTask, languages: tuple[str, ...]) -> Entry | Refusal:
    try:
        return _fetch(task, languages)
    except _Unusable as error:
        return error.refusal
    except Exception as error:
        if is_local(error):
            raise UserError(
                f"{task.options.out}: cannot be written to ({plain_text(str(error))}); what is done is kept"
            ) from error
        refusal = describe(error)
        if languages and refusal.permanent and _SUBTITLE_ERROR in str(error):
            return _try(task, ())  # the video is worth having without
        return refusal


def _fetch(task: FetchTask, languages: tuple[str, ...]) -> Entry:
    video_id, url = task.wanted.video_id, task.wanted.url
    work = work_folder(task.options.out, video_id)
    ydl = _downloader(task.options, task.cookies)
    folder = str(work.absolute()).replace("%", "%%").replace("$", "$$")  # as it stands, in a template
    # The format in the name keeps a second try from going on with another format's first half.
    ydl.params["outtmpl"]["default"] = f"{folder}/video-%(format_id)s.%(ext)s"
    info: Any = ydl.extract_info(url, download=False)
    if not info or info.get("_type", "video") != "video":
        raise _Unusable("not_one_video", "the link leads to a list of videos, or to none", permanent=True)
    if info.get("live_status") in ("is_live", "is_upcoming", "post_live"):
        raise _Unusable("not_yet", f"live_status is {info['live_status']}", permanent=False)
    chosen = choose_subtitles(info, languages)
    info["requested_subtitles"] = {language: dict(form) for language, (_, form) in chosen.items()}
    ydl.process_info(info)
    fetched = Path(info["filepath"])
    width, height = _picture_size(fetched)
    video = fetched.rename(work / f"{video_id}{fetched.suffix.lower()}")
    subtitles = []
    for language, (kind, _) in chosen.items():
        file = Path(info["requested_subtitles"][language]["filepath"])
        file = file.rename(work / f"{video_id}.{language}{file.suffix.lower()}")
        subtitles.append(Subtitles(language, kind, file.name))
    num_bytes = video.stat().st_size
    entry = Entry(video_id, url, FETCHED, video.name, num_bytes, width, height, tuple(subtitles))
    keep_fetched(task.options.out, entry)
    return entry


def _picture_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels of the video in `path`, which is removed if it is none."""
    try:
        if path.suffix.lower() not in VIDEO_EXTENSIONS:
            raise _Unusable("not_a_video", f"a file of type {path.suffix!r}", permanent=True)
        container, stream = open_container(str(path))
        with container:
            return stream.codec_context.width, stream.codec_context.height
    except UnreadableVideo as error:
        path.unlink()
        if error.reason == "no_video_stream":
            raise _Unusable("not_a_video", "has no picture", permanent=True) from error
        raise _Unusable("damaged", f"is no video: {error}", permanent=False) from error
    except _Unusable:
        path.unlink()
        raise


@lru_cache(maxsize=1)
def _downloader(options: "DownloadOptions", cookies: str | None) -> yt_dlp.YoutubeDL:
    """This worker's yt-dlp. It keeps what it learns of a site from one video to the next."""
    log = logging.getLogger(__name__)
    log.addHandler(logging.NullHandler())
    log.propagate = False
    return yt_dlp.YoutubeDL(
        {
            "logger": log,
            "noprogress": True,
            "format": lambda context: pick_format(context["formats"], options.height),
            "writesubtitles": True,
            "writeautomaticsub": True,
            "noplaylist": True,
            "extract_flat": "in_playlist",
            "playlist_items": "1",
            "socket_timeout": options.stall_timeout,
            "ratelimit": options.bytes_per_worker,
            # Tries are counted, and spread out, in one place: `fetch_video`.
            "retries": 0,
            "extractor_retries": 0,
            "fragment_retries": options.retries,
            "retry_sleep_functions": {"fragment": lambda n: options.retry_wait * 2**n},
            "skip_unavailable_fragments": False,
            "fixup": "never",  # PyAV reads what yt-dlp would mend with an ffmpeg binary
            "updatetime": False,
            # A stream, since yt-dlp writes cookies back where it had them from.
            "cookiefile": io.StringIO(cookies) if cookies is not None else None,
            "js_runtimes": {"deno": {}, "node": {}},
        }
    )
