"""Why a video could not be fetched: the errors of yt-dlp as a reason, and whether trying again can help.

Sites tell most reasons in words only, so this reads words. What it does not know passes: to ask once too
often costs less than to lose a video for good.
"""

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass

from yt_dlp.networking.exceptions import HTTPError, TransportError

_MAX_DETAIL_CHARACTERS = 300

# Reason -> the sites' own words for it; the first that is found counts.
_BUSY = {  # passing, whatever else the message says
    "rate_limited": r"rate.?limit|too many requests|http error 429",
    "bot_check": r"confirm you.{1,3}re not a bot|captcha|unusual traffic|\bplease sign in\b",
    "not_yet": r"(event|stream) will begin|premieres? in|has not started|check back later"
    r"|not currently live",
}
_PERMANENT = {  # as far as this visitor from here is concerned
    "geo_blocked": r"(in|from) your (country|location|region)|geo.?(restrict|block)|http error 451"
    r"|not available in .{0,30}(country|region|location)|unavailable for legal reasons",
    "age_restricted": r"confirm your age|age.?(restrict|verif|limit|gate|check)|18 years or older"
    r"|inappropriate for some users",
    "members_only": r"members.only|join this channel|only available (to|for) members",
    "payment": r"requires payment|music premium|premium members|\brental\b|to (rent|buy) this"
    r"|paid (content|video)",
    "private": r"private (video|clip)|video is private|marked as private",
    "drm": r"drm.protect|protected by drm",
    "removed": r"has been (removed|deleted|taken down|terminated)|been terminated|no longer (available|exist)"
    r"|account .{0,40}(closed|suspend)|does not exist|doesn.t exist|copyright|removed by|was deleted|violat"
    r"|recording is not available|http error (404|410)|(video|clip) unavailable",
    "login_required": r"registered users|log.?in (required|details)|need to (log|sign) in"
    r"|requires authentication|http error 401",
    "unsupported_url": r"unsupported url|no suitable (infoextractor|extractor)|is not a valid url",
}
_PASSING = {
    "forbidden": r"http error 403",
    "server_error": r"http error (408|5\d\d)",
    "truncated": r"content too short|bytes read|incomplete ?read|more expected|did not get any data",
    "timeout": r"timed? ?out|timeout",
    "no_format": r"requested format is not available|only images are available|no video formats",
    "unavailable": r"not available|unavailable|isn.t available",
}
_RULES = [
    (re.compile(pattern, re.IGNORECASE), reason, words is _PERMANENT)
    for words in (_BUSY, _PERMANENT, _PASSING)
    for reason, pattern in words.items()
]
_HELP = re.compile(
    r"\.?\s*(?:Use --|You might want to use|Also see|See  ?https?:|For more information"
    r"|please report this issue|If the owner of this video has granted you access"
    r"|Confirm you are on the latest).*",
    re.IGNORECASE | re.DOTALL,
)
_LOCAL = re.compile(
    r"unable to (open for writing|write data)|no space left|disk quota|cannot write", re.IGNORECASE
)
_LOCAL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE}
# The extractor's name, the video's id, and links: they may hold any word.
_NAMES = re.compile(r"^\[[^\]]+\] (?:\S+: )?|https?://\S+")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a video was not to be had. `wait_seconds` is what the site asked for, 0 where for nothing."""

    reason: str
    permanent: bool
    detail: str
    wait_seconds: float = 0.0


def describe(error: BaseException) -> Refusal:
    """The refusal behind an error of yt-dlp, by its status code and words."""
    text = plain_text(str(error))
    wait_seconds = 0.0
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, HTTPError):
            wait_seconds = _retry_after(cause)
            if (code := f"HTTP Error {cause.status}") not in text:
                text += f" ({code})"
            break
    reason, permanent = classify(text)
    if reason == "other" and any(isinstance(cause, TransportError) for cause in causes):
        reason = "network"
    return Refusal(reason, permanent, text[:_MAX_DETAIL_CHARACTERS], wait_seconds)


def classify(message: str) -> tuple[str, bool]:
    """(reason, whether it is for good) of a message; what is not known is `other` and passes."""
    words = _NAMES.sub("", message)
    for pattern, reason, permanent in _RULES:
        if pattern.search(words):
            return reason, permanent
    return "other", False


def plain_text(message: str) -> str:
    """One line without colours, without yt-dlp's own prefix, and without its advice to its own users."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", message)
    return _HELP.sub("", " ".join(text.removeprefix("ERROR: ").split()))


def is_local(error: BaseException) -> bool:
    """Whether this machine is at fault, as with a full disk: then no other video will fare better."""
    return _LOCAL.search(str(error)) is not None or any(
        isinstance(cause, OSError) and cause.errno in _LOCAL_ERRNOS for cause in _causes(error)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """`error` and all that led to it; yt-dlp keeps causes in attributes of its own."""
    waiting, seen = [error], set()
    while waiting:
        one = waiting.pop()
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        exc_info = getattr(one, "exc_info", None) or (None, None)
        waiting += [one.__cause__, one.__context__, getattr(one, "cause", None), exc_info[1]]


def _retry_after(error: HTTPError) -> float:
    value = error.response.headers.get("Retry-After", "") or ""
    return float(value) if value.strip().isdecimal() else 0.0
