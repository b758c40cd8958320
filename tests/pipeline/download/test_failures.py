"""Which failures are for good: by the messages of yt-dlp and of the sites that it passes on."""

import io

import pytest
from yt_dlp.extractor.common import InfoExtractor
from yt_dlp.networking import Response
from yt_dlp.networking.exceptions import HTTPError, IncompleteRead, TransportError
from yt_dlp.utils import DownloadError, ExtractorError, GeoRestrictedError, UnsupportedError
from yt_dlp.YoutubeDL import YoutubeDL

from clipvip.pipeline.download.failures import classify, describe, is_local, plain_text

HELP = (
    ". Use --cookies-from-browser or --cookies for the authentication. See  "
    "https://github.com/yt-dlp/yt-dlp/wiki/FAQ#how-do-i-pass-cookies-to-yt-dlp  for how to "
    "manually pass cookies"
)
# YouTube's words as yt-dlp passes them on: playabilityStatus' reason, with ". subreason" behind it.
YOUTUBE = [
    (f"Private video. Sign in if you've been granted access to this video{HELP}", "private", True),
    (
        f"Sign in to confirm your age. This video may be inappropriate for some users{HELP}",
        "age_restricted",
        True,
    ),
    ("Video unavailable", "removed", True),
    ("Video unavailable. This video has been removed by the uploader", "removed", True),
    ("Video unavailable. This video is private", "private", True),
    (
        "Video unavailable. This video is no longer available because the account has been terminated.",
        "removed",
        True,
    ),
    ("This video has been removed for violating YouTube's Terms of Service", "removed", True),
    ("Video unavailable. This video is no longer available due to a copyright claim by X", "removed", True),
    ("This live stream recording is not available.", "removed", True),
    (
        "Video unavailable. The uploader has not made this video available in your country",
        "geo_blocked",
        True,
    ),
    (
        "This video contains content from X, who has blocked it in your country on copyright grounds",
        "geo_blocked",
        True,
    ),
    (
        "Join this channel to get access to members-only content like this video, and other exclusive perks.",
        "members_only",
        True,
    ),
    ("This video requires payment to watch", "payment", True),
    (f"Sign in to confirm you\u2019re not a bot{HELP}", "bot_check", False),
    (f"Sign in to confirm you're not a bot{HELP}", "bot_check", False),
    (
        "This content isn't available. The current session has been rate-limited by YouTube for an hour.",
        "rate_limited",
        False,
    ),
    ("This live event will begin in 5 hours.", "not_yet", False),
    ("Premieres in 24 minutes", "not_yet", False),
    ("We're processing this video. Check back later.", "not_yet", False),
    ("This video is not available", "unavailable", False),
    (
        "Requested format is not available. Use --list-formats for a list of available formats",
        "no_format",
        False,
    ),
    (
        "Unable to download API page: HTTP Error 429: Too Many Requests (caused by <HTTPError 429>)",
        "rate_limited",
        False,
    ),
    (
        "Failed to extract any player response; please report this issue on  https://github.com/",
        "other",
        False,
    ),
]


@pytest.mark.parametrize(("words", "reason", "permanent"), YOUTUBE)
def test_what_youtube_says(words: str, reason: str, permanent: bool) -> None:
    refusal = describe(DownloadError(f"ERROR: [youtube] QMi8x8o55Ns: {words}"))
    assert (refusal.reason, refusal.permanent) == (reason, permanent)
    assert "cookies" not in refusal.detail


def http_error(status: int, **headers: str) -> HTTPError:
    return HTTPError(Response(io.BytesIO(), "https://a.example/v.mp4", headers, status=status))


@pytest.mark.parametrize(
    ("status", "reason", "permanent"),
    [
        (401, "login_required", True),
        (403, "forbidden", False),
        (404, "removed", True),
        (408, "server_error", False),
        (410, "removed", True),
        (429, "rate_limited", False),
        (451, "geo_blocked", True),
        (500, "server_error", False),
        (503, "server_error", False),
    ],
)
def test_status_codes(status: int, reason: str, permanent: bool) -> None:
    error = ExtractorError("Unable to download webpage", cause=http_error(status), expected=True)
    refusal = describe(DownloadError(f"ERROR: {error}", (ExtractorError, error, None)))
    assert (refusal.reason, refusal.permanent) == (reason, permanent)


def raised_by(name: str) -> ExtractorError:
    """What yt-dlp's own helpers for extractors raise."""
    extractor = InfoExtractor(YoutubeDL({"quiet": True}))
    arguments = {"report_drm": ["1"], "raise_no_formats": ["No video formats found!"]}.get(name, [])
    with pytest.raises(ExtractorError) as caught:
        getattr(extractor, name)(*arguments)
    return caught.value


@pytest.mark.parametrize(
    ("helper", "reason", "permanent"),
    [
        ("raise_geo_restricted", "geo_blocked", True),
        ("raise_login_required", "login_required", True),
        ("report_drm", "drm", True),
        ("raise_no_formats", "no_format", False),
    ],
)
def test_what_extractors_raise(helper: str, reason: str, permanent: bool) -> None:
    refusal = describe(raised_by(helper))
    assert (refusal.reason, refusal.permanent) == (reason, permanent)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UnsupportedError("https://a.example/private-video"), "unsupported_url"),
        (GeoRestrictedError("Not available from your location", countries=["DE"]), "geo_blocked"),
        (TransportError("timed out"), "timeout"),
        (TransportError("[Errno -2] Name or service not known"), "network"),
        (IncompleteRead(10, 20), "truncated"),
        (KeyError("streamingData"), "other"),
    ],
)
def test_other_errors(error: Exception, reason: str) -> None:
    assert describe(error).reason == reason


def test_words_in_names_do_not_count() -> None:
    """An id or a link may hold any word."""
    assert classify("[generic] drm-protected-copyright: HTTP Error 500") == ("server_error", False)
    assert classify("timed out at https://a.example/private-video/removed-by")[0] == "timeout"


def test_the_pause_that_a_site_asks_for_is_known() -> None:
    error = ExtractorError("Unable to download", cause=http_error(429, **{"Retry-After": "120"}))
    assert describe(DownloadError("ERROR: x", (ExtractorError, error, None))).wait_seconds == 120
    error = ExtractorError("Unable to download", cause=http_error(429, **{"Retry-After": "Wed, 21 Oct"}))
    assert describe(error).wait_seconds == 0


def test_colours_and_prefixes_go() -> None:
    assert plain_text("\x1b[0;31mERROR:\x1b[0m [youtube] a:\n Private video") == "[youtube] a: Private video"


def test_a_full_disk_is_this_machines_fault() -> None:
    assert is_local(DownloadError("ERROR: unable to write data: [Errno 28] No space left on device"))
    assert is_local(OSError(28, "No space left on device"))
    assert not is_local(DownloadError("ERROR: unable to download video data: timed out"))
    assert not is_local(OSError(104, "Connection reset by peer"))
