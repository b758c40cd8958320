"""A bad sample as a value: why it was left out, and which one it was."""

from dataclasses import dataclass


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
