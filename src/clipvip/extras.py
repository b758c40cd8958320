"""Packages that only some of the work needs: whether they are installed, and how to install them."""

from importlib.util import find_spec

# Module -> the extra of ours that asks for it, and what to install where there is no checkout.
PACKAGES = {
    "faiss": ("cpu", "faiss-cpu"),
    "faster_whisper": ("transcribe", "faster-whisper"),
    "gcsfs": ("gs", "gcsfs"),
    "lmdb": ("lmdb", "lmdb"),
    "mteb": ("", "mteb"),
    "py3langid": ("language", "py3langid"),
    "ray": ("ray", "ray"),
    "s3fs": ("s3", "s3fs"),
    "scenedetect": ("shots", "scenedetect-headless"),
    "wandb": ("", "wandb"),
    "yt_dlp": ("download", "yt-dlp[default]"),
}


class MissingPackage(ImportError):
    """A package that is needed is not installed; the message is one line and says how to install it."""


def require_package(module: str, what: str) -> None:
    """MissingPackage, which says that `what` needs it, where a module of PACKAGES is not installed."""
    if find_spec(module) is None:
        raise MissingPackage(missing(module, what))


def missing(module: str, what: str) -> str:
    """What to say where a module of PACKAGES is not installed that `what` needs.

    Both commands work: this package is on no index, so that an extra is installed from a checkout.
    """
    extra, package = PACKAGES[module]
    anywhere = f"pip install '{package}'"
    others = " ('.[gpu]' where there is a GPU)" if module == "faiss" else ""
    how = f"pip install '.[{extra}]'{others} in a checkout of clipvip, or {anywhere}" if extra else anywhere
    return f"{what} needs {package.partition('[')[0]}, which is not installed; run {how}"
