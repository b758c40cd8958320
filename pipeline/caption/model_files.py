"""Which files make a captioner: found or fetched from the hub, and known by one hash."""

import hashlib
from pathlib import Path
from typing import NamedTuple

from clipvip.hub_errors import hub_problem
from clipvip.media.errors import one_line
from clipvip.model.captioners import find_captioner, is_our_own
from clipvip.model.checkpoint_file import require_no_file
from clipvip.model.errors import CheckpointError
from clipvip.model.weights import model_type
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.models import model_at_hand
from clipvip.shards.files.hashes import sha256_of_file
from clipvip.shards.files.places import location_of
from clipvip.shards.files.stores import is_url

_WEIGHTS = ("*.safetensors", "*.bin")
_OWN_FILES = ("config.json", "vocab.*", "merges.txt", "*.index.json", *_WEIGHTS)
# Of the models of transformers: also what their processors, chat templates and `generate` go by.
_PROCESSOR_FILES = ("*.json", "*.jinja", "*.txt", "*.model")


class FoundModel(NamedTuple):
    """A captioner's `folder`, what to call it, its revision, and a hash of all that captions depend on."""

    folder: str
    name: str
    revision: str
    fingerprint: str


def find_model(name: str) -> FoundModel:
    """The captioner of a folder, of a URL, or of a name on the hub, whose files are fetched then.

    Raises:
        UserError: there is none; CheckpointError: its config.json cannot be read.
    """
    if is_url(name):
        with model_at_hand(name) as copy:
            fingerprint = _fingerprint(Path(copy))
        return FoundModel(name, location_of(name).name, f"sha256:{fingerprint}", fingerprint)
    folder, called, revision = Path(name), Path(name).resolve().name, ""
    if not folder.is_dir():
        folder = _fetch(name)
        called, revision = name, folder.name
    fingerprint = _fingerprint(folder)
    return FoundModel(str(folder), called, revision or f"sha256:{fingerprint}", fingerprint)


def _fetch(name: str) -> Path:
    from huggingface_hub import snapshot_download

    require_no_file(name)
    try:
        folder = Path(snapshot_download(name, allow_patterns=["config.json"]))
        if is_our_own(model_type(str(folder))):
            return Path(snapshot_download(name, allow_patterns=list(_OWN_FILES)))
        # That it is no captioner, or lacks a package, is told before gigabytes are fetched.
        find_captioner(snapshot_download(name, allow_patterns=list(_PROCESSOR_FILES)))
        # Many have their weights twice.
        first, other = _WEIGHTS
        folder = Path(snapshot_download(name, allow_patterns=[*_PROCESSOR_FILES, first]))
        if not any(folder.glob(first)):
            snapshot_download(name, allow_patterns=[other])
    except CheckpointError:
        raise
    except (OSError, ValueError) as error:
        absent = f"{name}: no such folder, and not to be had from the Hub ({one_line(error, most=200)})"
        raise UserError(f"--model {hub_problem(name, error) or absent}") from error
    return folder


def _fingerprint(folder: Path) -> str:
    is_own = is_our_own(model_type(str(folder)))
    patterns = _OWN_FILES if is_own else (*_OWN_FILES, *_PROCESSOR_FILES)
    digest = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern)}):
        digest.update(f"{path.name} {sha256_of_file(path)}\n".encode())
    return digest.hexdigest()
