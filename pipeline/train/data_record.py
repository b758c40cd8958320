"""What the data of a run are, by content: noted beside its checkpoints, compared when it resumes.

The note, data.json, also says in which order samples are used, since versions of this package differ in that.
"""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, Field

from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.report import counted
from clipvip.pipeline.train.batches import BatchPlan, SourcePart
from clipvip.pipeline.train.checkpoint import DATA_NAME, list_checkpoints
from clipvip.pipeline.train.distributed import Place, gather_objects
from clipvip.pipeline.train.order import ORDER_VERSION
from clipvip.pipeline.train.recipe import Recipe, Source
from clipvip.pipeline.train.shard_set import open_shards
from clipvip.pipeline.train.tensor_files import is_whole
from clipvip.shards.errors import DatasetError
from clipvip.shards.files.hashes import sha256_of_file
from clipvip.shards.files.places import location_of, sizes_in
from clipvip.shards.files.stores import Location
from clipvip.shards.format.captions import captions_path
from clipvip.shards.format.manifest import listed_files, read_manifest

_SCHEMA = 1
_MOST_NAMES = 3

# A shard's name without extension, its number of samples, and its identity as `Shard` has it.
_Row = tuple[str, int, str]


class SourceRecord(BaseModel):
    """What a source is: its shards in order, a hash over their captions, one over which clips are kept."""

    kind: str
    shards: list[_Row]
    captions: str | None
    keep: str | None = None


class DataRecord(BaseModel):
    """What `data.json` says; `validation` is a hash over the shards of that split."""

    schema_version: int = Field(alias="schema", ge=_SCHEMA, le=_SCHEMA)
    order: int
    sources: dict[str, SourceRecord]
    validation: str | None

    def as_json(self) -> str:
        tree = self.model_dump(by_alias=True)
        for source in tree["sources"].values():
            if source["keep"] is None:  # as before there was one
                del source["keep"]
        return json.dumps(tree) + "\n"


def describe_data(recipe: Recipe, plan: BatchPlan) -> DataRecord:
    """What `data.json` is to say."""
    sources = {
        part.shards.name: SourceRecord(
            kind=part.shards.kind, shards=_rows(part), captions=_sum_captions(part), keep=_sum_kept(part)
        )
        for part in plan.parts
    }
    validation, folder = None, recipe.evaluation.validation
    if folder is not None:
        shards = open_shards("validation", Source(shards=folder), cache=Path(), in_use=1).shards
        validation = hashlib.sha256("".join(f"{shard.identity}\n" for shard in shards).encode()).hexdigest()
    return DataRecord(schema=_SCHEMA, order=plan.order_version, sources=sources, validation=validation)


def recorded_data(out: Path) -> DataRecord | None:
    """What is noted of the data of a run that has checkpoints; None where it has none, or only old ones.

    A note in a checkpoint has a checksum; the one beside them counts where no checkpoint has one yet.
    """
    checkpoints = [folder / DATA_NAME for folder in reversed(list_checkpoints(out))]
    whole = [path for path in checkpoints if is_whole(path)]
    for path in [*whole, out / DATA_NAME] if checkpoints else []:
        with suppress(OSError, ValueError):
            return DataRecord.model_validate_json(path.read_bytes())
    return None


def order_of_run(out: Path) -> int:
    """The order in which a run in `out` uses samples; one begun keeps its own, and a newer is a UserError."""
    if not list_checkpoints(out):
        return ORDER_VERSION
    found = recorded_data(out)
    version = 1 if found is None else found.order
    if not 1 <= version <= ORDER_VERSION:
        raise UserError(f"{out}: was begun by a newer version of clipvip; update it, or give another --out")
    return version


def require_same_data(plan: BatchPlan, *, place: Place) -> None:
    """UserError in every process where they do not all have the same shards before them, as machines may."""
    rows = json.dumps([[_rows(part), _sum_kept(part)] for part in plan.parts])
    found = gather_objects(hashlib.sha256(rows.encode()).hexdigest(), place=place)
    if len(set(found)) > 1:
        other = next(rank for rank, digest in enumerate(found) if digest != found[0])
        raise UserError(
            f"processes 0 and {other} find different shards; give the same data to all of them, "
            "or wait until they are the same on each machine"
        )


def data_differences(before: DataRecord, now: DataRecord) -> list[str]:
    """In words, where data differ in what comes out of a run."""
    found = []
    for name, source in now.sources.items():
        known = before.sources.get(name)
        if known is None:
            continue  # the recipe differs, which is told of as such
        changes = _shard_changes(known.shards, source.shards)
        found += [f"source {name}: {change}" for change in changes]
        if known.keep != source.keep:  # which may be why shards differ
            found.append(f"source {name}: another list of clips to keep (data.keep)")
        if not changes and known.captions != source.captions:
            found.append(f"source {name}: other captions")
    if before.validation != now.validation:
        found.append("another validation split")
    return found


def _shard_changes(before: list[_Row], now: list[_Row]) -> list[str]:
    if len(before) == len(now) and all(map(_is_same, before, now)):
        return []
    old, new = {row[0] for row in set(before) - set(now)}, {row[0] for row in set(now) - set(before)}
    changes = []
    for names, what in ((new - old, "added"), (old - new, "removed"), (old & new, "changed")):
        if names:
            shown = ", ".join(sorted(names)[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")
            changes.append(f"{counted(len(names), 'shards')} {what} ({shown})")
    return changes or ["its shards are in another order, or some are there more often"]


def _is_same(first: _Row, second: _Row) -> bool:
    """Whether two shards are the same. Where nobody knows their content, their names have to do."""
    kinds = {row[2].partition(":")[0] for row in (first, second)}
    if len(kinds) == 1 and kinds != {"url"}:
        return first[1:] == second[1:]
    return first[:2] == second[:2]


def _rows(part: SourcePart) -> list[_Row]:
    return [(shard.stem, shard.num_samples, shard.identity) for shard in part.shards.shards]


def _sum_kept(part: SourcePart) -> str | None:
    """A hash over which samples of each shard are used; None where all are."""
    kept = [shard.kept for shard in part.shards.shards if shard.kept is not None]
    return (
        hashlib.sha256(b"".join(hashlib.sha256(bits).digest() for bits in kept)).hexdigest() if kept else None
    )


def _sum_captions(part: SourcePart) -> str | None:
    """A hash over the caption files of a source's shards, by their manifests, or else by what is in them."""
    if not part.settings.needs_caption:
        return None
    stems = list(dict.fromkeys(shard.stem for shard in part.shards.shards))
    digest = hashlib.sha256()
    for folder in map(location_of, part.settings.captions):
        known, there = _listed_in(folder), sizes_in(folder)
        paths = [path for stem in stems if (path := captions_path(folder, stem)).name in there]
        unknown = [path for path in paths if path.name not in known]
        with ThreadPoolExecutor(8) as threads:
            sums = threads.map(sha256_of_file, unknown)
            known |= {path.name: checksum for path, checksum in zip(unknown, sums, strict=True)}
        digest.update("".join(f"{path.name} {known[path.name]}\n" for path in paths).encode() + b"\n")
    return digest.hexdigest()


def _listed_in(folder: Location) -> dict[str, str]:
    """The checksums in a folder's manifest; none where it has none of ours.

    A file that was written after the manifest, or is of another size, is not what is listed.
    """
    try:
        manifest = read_manifest(folder)
        files = listed_files(folder, manifest.shards) if manifest else []
    except (DatasetError, OSError):
        return {}
    return {f.record.name: f.record.sha256 for f in files if f.has_size and not f.is_newer}
