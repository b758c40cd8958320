"""Which videos to fetch: HD-VILA-100M's metadata, or a plain list of links or YouTube ids.

Decides what may be asked for and under which file name; fetches nothing.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.files.names import id_of, same_name
from clipvip.shards.format.clip import make_key
from clipvip.shards.sources.text_files import text_lines

_YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]{11}")
_YOUTUBE_LINK = re.compile(
    r"https?://(?:(?:(?:www|m|music)\.)?youtube(?:-nocookie)?\.com/"
    r"(?:watch\?(?:[^#]*&)?v=|(?:shorts|embed|live|v)/)"
    r"|youtu\.be/)(?P<id>[A-Za-z0-9_-]{11})(?![A-Za-z0-9_-])"
)
_LINK = re.compile(r"https?://[^\s/?#]+(?:[/?#]\S*)?", re.IGNORECASE)
# With language and extension a file name then fits the 255 bytes that file systems allow.
_MAX_ID_BYTES = 200


@dataclass(frozen=True, slots=True)
class Wanted:
    """A video to fetch. `video_id` can be the stem of a file name."""

    video_id: str
    url: str


def read_wanted(path: Path | str) -> Iterator[Wanted | Skip]:
    """Yield what each line of `path` asks for, in order, each video once.

    A line is HD-VILA-100M's JSON (`{"video_id": ..., "url": ...}`; a YouTube id needs no `url`), a link, or a
    YouTube id; empty lines and those that begin with # are passed over. The id of another's link is the stem
    of its file name. What cannot be asked for is a `Skip`: `bad_metadata`, `unsafe_id`, or `duplicate_id`
    (another link under an id that is taken). Raises OSError where the file cannot be read.
    """
    links: dict[str, int] = {}
    with Path(path).open("rb") as file:
        for line, text in enumerate(text_lines(file, Path(path)), start=1):
            wanted = _parse_line(text.strip(), f"line {line}")
            if isinstance(wanted, Wanted):
                link = hash(wanted.url)  # millions of links would not fit
                name = same_name(wanted.video_id)
                if links.get(name) == link:
                    continue
                if links.setdefault(name, link) != link:
                    detail = f"an earlier line has another link for {wanted.video_id}"
                    wanted = Skip("duplicate_id", f"line {line}", detail)
            if wanted is not None:
                yield wanted


def _parse_line(text: str, where: str) -> Wanted | Skip | None:
    if not text or text.startswith("#"):
        return None
    return _from_json(text, where) if text.startswith("{") else _from_text(text, where)


def _from_json(text: str, where: str) -> Wanted | Skip:
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Skip("bad_metadata", where, f"not JSON: {error}"[:200])
    video_id, url = id_of(entry.get("video_id")), entry.get("url")
    if not isinstance(video_id, str) or not isinstance(url, str | None):
        return Skip("bad_metadata", where, 'is not like {"video_id": "...", "url": "https://..."}')
    if url is None:
        if not _YOUTUBE_ID.fullmatch(video_id):
            return Skip("bad_metadata", where, f"no url, and {ascii(video_id)[:80]} is no YouTube id")
        url = _watch_page(video_id)
    return _checked(video_id, url, where)


def _from_text(text: str, where: str) -> Wanted | Skip:
    if _YOUTUBE_ID.fullmatch(text):
        return Wanted(text, _watch_page(text))
    try:
        return _checked(id_of_link(text), text, where)
    except ValueError as error:
        return Skip("bad_metadata", where, f"not a link: {error}"[:200])


def id_of_link(link: str) -> str:
    """The name that a link's video is kept under: its YouTube id, else the stem of its file name, or "".

    Raises ValueError where it is no link at all.
    """
    if match := _YOUTUBE_LINK.match(link):
        return match["id"]
    return PurePosixPath(unquote(urlsplit(link).path)).stem


def _checked(video_id: str, url: str, where: str) -> Wanted | Skip:
    if not _LINK.fullmatch(url):
        return Skip("bad_metadata", where, f"{ascii(url)[:80]} is no http(s) link and no YouTube id")
    try:
        make_key(video_id, 0)
        if len(video_id.encode()) > _MAX_ID_BYTES:
            raise DatasetError("too long for a file name")
    except (DatasetError, UnicodeEncodeError):
        return Skip("unsafe_id", where, f"video_id {ascii(video_id)[:80]}")
    return Wanted(video_id, url)


def _watch_page(video_id: str) -> str:
    return f"https://www.youtube.com/watch?v={video_id}"
