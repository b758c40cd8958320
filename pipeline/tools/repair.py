"""Remove what `verify` found broken, so that the command that made it makes just that again."""

from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.report import counted
from clipvip.pipeline.tools.verify_run import Verification
from clipvip.shards.building.marks import forget_shard
from clipvip.shards.files.atomic import write_json
from clipvip.shards.files.claims import OPTIONS_NAME, STATE_FOLDER, claim_folder


def repair(found: Verification) -> list[str]:
    """Remove broken shards with their marks, broken caption files, and temporary files; what was removed.

    Raises:
        UserError: a folder has no `_state`, so no command can resume it. Nothing is removed then.
        DatasetError: a run is at work in a folder.
    """
    parts = [(found.folder, found.broken, "*.tar")]
    for check, broken in zip(found.captions, found.broken_captions, strict=True):
        parts.append((check, broken, "*.parquet"))
    for folder, broken, _ in parts:
        if broken and (folder.options is None or not (folder.folder / STATE_FOLDER).is_dir()):
            files = counted(len(broken), "broken files")
            raise UserError(
                f"{folder.folder}: {STATE_FOLDER}/{OPTIONS_NAME} is missing or damaged, so no command can "
                f"make its {files} again; copy what is broken from where the folder came from"
            )
    for folder, _, _ in parts:
        if folder.options_to_restore is not None:
            write_json(folder.folder / STATE_FOLDER / OPTIONS_NAME, folder.options_to_restore)
    removed = []
    for folder, broken, outputs in parts:
        if not broken:
            continue
        assert folder.options is not None
        with claim_folder(folder.folder, folder.options, outputs=outputs):
            for path in (folder.folder / name for name in sorted(broken)):
                if path.suffix == ".tar":
                    forget_shard(folder.folder, int(path.stem))
                path.unlink(missing_ok=True)
                removed.append(str(path))
    return removed
