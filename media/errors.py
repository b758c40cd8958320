"""The one exception of this package, and how errors of any package become one line."""


class MediaError(ValueError):
    """A video that cannot be decoded, as a whole or where a frame is wanted. The message is one line."""


def one_line(error: BaseException, *, most: int | None = None) -> str:
    """What an exception says, on one line of at most `most` characters; else the name of its type."""
    return " ".join(str(error).split())[:most] or type(error).__name__
