"""What goes wrong with data: one exception for a whole folder or file, one value for a bad sample."""

import errno
from dataclasses import dataclass
from typing import Self

# Errors of a full disk, in which the system names no file.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class DatasetError(ValueError):
    """A data set, file or folder is unusable as a whole; a single bad sample is a `Skip`.

    The message is one line that names the file or folder and says what to do.
    """


class TextEncodingWarning(UserWarning):
    """A text file is in an encoding that had to be guessed, or is damaged; the message names it."""


@dataclass(frozen=True, slots=True)
class Skip:
    """One sample (or source) that a stage left out.

    `reason` is a short identifier that counts can be grouped by, such as `missing_video`; `what` names
    the sample, clip, video or input line; `detail` says what was found.
    """

    reason: str
    what: str
    detail: str = ""

    def as_dict(self) -> dict[str, str]:
        return {"reason": self.reason, "what": self.what, "detail": self.detail}

    @classmethod
    def from_json(cls, value: object) -> Self:
        """The skip of `as_dict`. Raises ValueError where `value` is none."""
        texts = value if isinstance(value, dict) else {}
        is_one = {"reason", "what"} <= texts.keys() <= {"reason", "what", "detail"}
        if not is_one or not all(isinstance(text, str) for text in texts.values()):
            raise ValueError('is not like {"reason": "...", "what": "...", "detail": "..."}')
        return cls(**texts)
