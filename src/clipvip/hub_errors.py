"""What the Hugging Face Hub refused, as a sentence that says what to do.

Its packages raise many kinds of errors, wrap them in others, and say in paragraphs what is for their
programmers.
"""

from collections.abc import Iterator

_LOG_IN = "'hf auth login'"


def hub_problem(name: str, error: BaseException, *, upload: bool = False) -> str:
    """Why the model or data set `name` cannot be had, on one line; "" where that is not the Hub's doing.

    `error` is what a package raised; what it was raised from counts, too. With `upload`, why it cannot be
    written there.
    """
    from huggingface_hub import constants, errors  # a tenth of a second that only a failure takes

    found = list(_chain(error))

    def has(*kinds: type[BaseException]) -> bool:
        return any(isinstance(one, kinds) for one in found)

    here = "" if name.startswith("hf://") or upload else "no such folder, and "
    other = "" if upload else ", or give a folder"
    status = next((code for one in found if (code := _status(one))), None)
    if has(errors.HFValidationError) and name.startswith(("/", ".", "~")):
        what = "no such folder; check the path"
    elif has(errors.HFValidationError):
        names = "OWNER/NAME" if upload else "a folder or OWNER/NAME"
        what = f"{here}no name that the Hugging Face Hub can have; give {names}"
    elif has(errors.GatedRepoError):
        what = (
            "is gated on the Hugging Face Hub; ask for access at its page there "
            f"({_page(name)}), then log in by {_LOG_IN}"
        )
    elif has(errors.RevisionNotFoundError):
        what = "has no such revision on the Hugging Face Hub; see its page there for those that it has"
    elif upload and (has(errors.LocalTokenNotFoundError) or status in (401, 403)):
        reason = f"refuses it ({status})" if status else "takes nothing without a token"
        what = f"the Hugging Face Hub {reason}; log in by {_LOG_IN} with a token that may write it"
    elif has(errors.RepositoryNotFoundError):
        what = (
            f"{here}the Hugging Face Hub has none of that name; check the spelling, OWNER/NAME, "
            f"or if it is a private one log in by {_LOG_IN}"
        )
    elif status in (401, 403):
        what = (
            f"the Hugging Face Hub refuses it ({status}); log in by {_LOG_IN} with a token that may read it"
        )
    elif has(errors.OfflineModeIsEnabled) and not here:
        # Uploads and data sets are never in a cache.
        what = f"the Hugging Face Hub is not asked since HF_HUB_OFFLINE is set; unset it{other}"
    elif constants.HF_HUB_OFFLINE and has(errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        what = (
            f"{here}not in the cache of the Hugging Face Hub on this machine, which alone is "
            "asked since HF_HUB_OFFLINE is set; unset it, or copy the cache from a machine with a network"
        )
    elif has(errors.LocalEntryNotFoundError, ConnectionError) or status or _is_of_network(found):
        reason = f" ({status})" if status else ""
        what = (
            f"{here}the Hugging Face Hub at {constants.ENDPOINT} does not answer{reason}; check "
            f"the network and try again{other}"
        )
    else:
        return ""
    return f"{name}: {what}"


def _page(name: str) -> str:
    """The page of a model, or of the data set that `hf://datasets/OWNER/NAME/...` is in."""
    path = "/".join(name.removeprefix("hf://").split("/")[:3]) if name.startswith("hf://") else name
    return f"https://huggingface.co/{path}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    from huggingface_hub.errors import HfHubHTTPError

    code = getattr(getattr(error, "response", None), "status_code", None)
    return code if isinstance(error, HfHubHTTPError) and isinstance(code, int) and code >= 400 else None


def _is_of_network(found: list[BaseException]) -> bool:
    """By name: which package huggingface_hub asks by depends on its version."""
    return any(kind.__name__ == "TransportError" for one in found for kind in type(one).__mro__)
