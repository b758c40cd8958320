"""Remove what `verify` found broken, so that the command that made it makes just that again.

Removes nothing that no stage can make again, and nothing at all where nobody knows what made the folder.
"""

from contextlib import AbstractContextManager
from pathlib import Path

from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.tools.verify_run import Verification
from clipvip.shards.building.marks import forget_shard
from clipvip.shards.checking.findings import FolderCheck
from clipvip.shards.files.atomic import write_json
from clipvip.shards.files.claims import OPTIONS_NAME, STATE_FOLDER, Options, claim_folder


def repair(found: Verification) -> list[str]:
    """Remove broken shards with their marks, broken caption files, and temporary files; what was removed.

    Raises:
        UserError: a folder has no `_state`, so that no command could go on with it. Nothing is removed then.
        DatasetError: a run is at work in a folder.
    """
    for folder, broken in ((found.folder, found.broken), (found.captions, found.broken_captions)):
        if folder is not None and broken and _options(folder) is None:
            raise UserError(
                f"{folder.folder}: has no {STATE_FOLDER}/{OPTIONS_NAME} or none that is whole, so no "
                f"command can make its {len(broken)} broken files again; copy these from where the folder "
                "came from"
            )
    for folder in filter(None, (found.folder, found.captions)):
        if folder.options_to_restore is not None:
            write_json(folder.folder / STATE_FOLDER / OPTIONS_NAME, folder.options_to_restore)
    removed = []
    if found.broken:
        with _claimed(found.folder, "*.tar"):
            for name in sorted(found.broken):
                forget_shard(found.folder.folder, int(Path(name).stem))
                removed.append(str(found.folder.folder / name))
    if found.captions is not None and found.broken_captions:
        with _claimed(found.captions, "*.parquet"):
            for name in sorted(found.broken_captions):
                path = found.captions.folder / name
                path.unlink(missing_ok=True)
                removed.append(str(path))
    return removed


def _options(folder: FolderCheck) -> Options | None:
    """What made the folder; None where it cannot be gone on with."""
    return folder.options if (folder.folder / STATE_FOLDER).is_dir() else None


def _claimed(folder: FolderCheck, outputs: str) -> AbstractContextManager[None]:
    options = folder.options
    assert options is not None
    return claim_folder(folder.folder, options, outputs=outputs)
