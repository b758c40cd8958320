"""Uploading a model's folder to the Hugging Face hub: weights, configuration, tokenizer and our card."""

from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from transformers import PreTrainedModel

from clipvip.hub_errors import hub_problem
from clipvip.model.model_card import CARD_NAME, is_ours

# Options of `save_pretrained(push_to_hub=True)` that are about the upload alone.
UPLOAD_OPTIONS = ("commit_message", "commit_description", "create_pr", "private", "revision")


def file_times(folder: Path) -> dict[str, float]:
    """When the files of a folder were written, so as to upload only later ones, and the card."""
    if not folder.is_dir():
        return {}
    return {path.name: path.stat().st_mtime for path in folder.iterdir() if path.name != CARD_NAME}


def upload(
    model: PreTrainedModel,
    folder: Path,
    repo_id: str,
    before: dict[str, float],
    *,
    token: str | bool | None = None,
    private: bool | None = None,
    **options: Any,
) -> Any:
    """Upload what changed in `folder` since `before` (`file_times`) to a repository, made where missing.

    A card that somebody wrote there is kept. `options` are the rest of UPLOAD_OPTIONS. Returns what
    `huggingface_hub` says of the commit.

    Raises:
        OSError: the hub cannot be reached or refuses.
    """
    api = HfApi(library_name="clipvip")
    try:
        repo_id = api.create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
        if is_ours(folder / CARD_NAME) and not _has_no_card_but_ours(
            api, repo_id, token, options.get("revision")
        ):
            before = before | {CARD_NAME: float("inf")}
        return model._upload_modified_files(str(folder), repo_id, before, token=token, **options)
    except Exception as error:  # the packages below raise kinds of their own, as of the network
        if problem := hub_problem(repo_id, error, upload=True):
            raise OSError(problem) from error
        raise


def _has_no_card_but_ours(api: HfApi, repo_id: str, token: str | bool | None, revision: str | None) -> bool:
    try:
        path = api.hf_hub_download(repo_id, CARD_NAME, revision=revision, token=token)
    except (EntryNotFoundError, RevisionNotFoundError, RepositoryNotFoundError):
        return True
    return is_ours(Path(path))
