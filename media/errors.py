"""The one exception of this package: pictures that cannot be had."""


class MediaError(ValueError):
    """A video that cannot be decoded, as a whole or where a frame is wanted. The message is one line."""
