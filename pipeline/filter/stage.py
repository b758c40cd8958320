"""The stage `filter`: what is known of each clip as columns beside shards, and a list of clips to keep."""

import time
from collections.abc import Sequence
from dataclasses import replace

import click
import numpy as np

from clipvip.pipeline.evaluate.options import require_page_folder
from clipvip.pipeline.filter.duplicates import mark_duplicates, sum_of_pieces, threshold_of
from clipvip.pipeline.filter.known import Known, TableSkips, read_known
from clipvip.pipeline.filter.language import language_detector
from clipvip.pipeline.filter.leaks import (
    BY_TEXTS,
    Found,
    TestSet,
    by_embeddings,
    mark_leaks,
    read_leaks,
    require_leaks_by,
)
from clipvip.pipeline.filter.options import BY, INDEX_FOLDER, KEEP_NAME, SIMILARITY, FilterOptions
from clipvip.pipeline.filter.page import PAGE_NAME, filter_page
from clipvip.pipeline.filter.scores import Scoring, score_shards
from clipvip.pipeline.filter.selection import NO_GROUP, Conditions, Selection, select
from clipvip.pipeline.filter.table import FAMILIES, Family
from clipvip.pipeline.filter.work import MeasureTask, had_captions, is_measured, measure_shard
from clipvip.pipeline.runtime.device import num_cores
from clipvip.pipeline.runtime.errors import UserError, WrongOptions
from clipvip.pipeline.runtime.options import require_captions
from clipvip.pipeline.runtime.progress import Progress
from clipvip.pipeline.runtime.report import Report, StageReport, counted
from clipvip.pipeline.runtime.stage import stage
from clipvip.pipeline.runtime.workers import run_units
from clipvip.pipeline.search.index import Piece, Shard, is_index_of, require_index, shards_of
from clipvip.pipeline.search.stage import bring_up_to_date, maker_of
from clipvip.shards.files.atomic import atomic_write_bytes
from clipvip.shards.files.claims import claim_folder
from clipvip.shards.files.places import is_file, is_folder, is_same_folder, location_of, sorted_glob
from clipvip.shards.files.stores import Location, store_errors
from clipvip.shards.sources.key_list import write_key_list

_TESTS_FOLDER = "tests"
_NO_LISTS = {".tar", ".parquet", ".json", ".jsonl", ".html"}
_MADE_BY = {"stage": "filter"}
_NEEDED: dict[Family, str] = {"scores": "--model", "duplicates": "--model", "leaks": "--test"}


@stage(
    FilterOptions,
    "clipvip-data filter",
    "--shards clips/ --captions captions/ --model clip/ --out filter/\n"
    "--test msrvtt=msrvtt-test/ --drop-leaks --max-duplicates 1 --language en --min-words 3 --top 0.3",
    "--shards clips/ --out filter/ --min-motion 2 --keep moving.txt",
    note="'clipvip-train ... --set data.keep=filter/keep.txt' trains on the kept clips, 'clipvip-data subset "
    "--keys' copies them. With other conditions only the list and the page are made anew.",
)
def filter(options: FilterOptions) -> StageReport:
    """Measure clips, to find those worth training on, and list those that meet conditions.

    Writes a Parquet file for each shard with a row for each clip: words, seconds, motion and language; with
    --model also the similarity of clip and texts, and near-duplicates; with --test also which clips a test
    set has. A page shows the distributions, and clips at each cut.

    Raises:
        UserError, DatasetError, CheckpointError: what was given cannot be used, or no clip meets the
            conditions.

    Examples:
        >>> import clipvip
        >>> report = clipvip.filter(shards="clips", out="chosen", min_words=3)
        >>> report.counts["clips"], report.counts["kept"]
        (1120, 1120)
    """
    started = time.monotonic()
    conditions = options.conditions()
    _check(options)
    shards = shards_of(options.shards)
    tests = [TestSet.read(name, location_of(place)) for name, place in dict(options.tests).items()]
    out = options.out
    with claim_folder(out, _MADE_BY, outputs="*.parquet"):
        _remove_strays(out, shards)
        num_measured = _measure(shards, options)
        if options.model is not None:
            _use_model(shards, tests, options, options.model)
        elif tests:
            require_leaks_by(
                out,
                shards,
                (BY_TEXTS,),
                "its leaks were also found by embeddings; give --model beside --test to find them again",
            )
            mark_leaks(out, shards, tests, None)
        known = read_known(out, shards)
        _require_columns(known, options, conditions)
        _tell_no_ranking(known, conditions)
        chosen = select(known.clips, conditions)
        keep = _write_list(known, chosen, conditions, options)
        report = _report(known, chosen, conditions, options)
        _write_page(known, chosen, conditions, report, tests, options)
        made = report.finish(out, started=started, done_now=num_measured, unit="clips")
    return replace(made, text=_text(report, chosen, keep, out))


def _check(options: FilterOptions) -> None:
    captions = options.captions or ()
    require_captions(captions)
    for name, folder in (("shards", options.shards), *(("captions", one) for one in captions)):
        if is_folder(folder) and is_same_folder(options.out, folder):
            raise UserError(f"--out {options.out}: is the folder of the {name}; give another one")
    if options.index is not None and options.model is None:
        raise WrongOptions("--index: holds embeddings for --model; give that too, or leave --index out")
    if (keep := options.keep) is not None:
        if not options.conditions():
            raise WrongOptions("--keep: needs a condition to keep clips by; give one, such as --min-words 3")
        require_page_folder(keep, "--keep")
        inputs = [options.shards, *captions]
        is_inside = any(is_folder(folder) and is_same_folder(keep.parent, folder) for folder in inputs)
        if is_inside or keep.suffix in _NO_LISTS:
            raise UserError(
                f"--keep {keep}: would lie among the clips or columns; give another file, such as keep.txt"
            )


def _remove_strays(out: Location, shards: Sequence[Shard]) -> None:
    """Tables of shards that are gone."""
    wanted = {shard.path.stem for shard in shards}
    for path in sorted_glob(out, "*.parquet"):
        if path.stem not in wanted:
            with store_errors(path):
                path.unlink()


def _measure(shards: Sequence[Shard], options: FilterOptions) -> int:
    """Make the tables that are missing, or of other content; returns of how many clips."""
    detector = language_detector()
    tasks = [
        MeasureTask(s.path, s.sha256, options.captions or (), options.out, options.max_pixels, detector)
        for s in shards
    ]
    todo = [task for task in tasks if not is_measured(task)]
    if not options.captions and any(map(had_captions, todo)):
        raise UserError(f"{options.out}: was made with captions; give --captions again, or another --out")
    workers = options.workers or num_cores()
    num_measured = num_skipped = 0
    with Progress("measure", total=len(tasks), unit="shards", initial=len(tasks) - len(todo)) as progress:
        while todo:
            again = []
            for outcome in run_units(measure_shard, todo, workers=min(workers, len(todo))):
                if outcome.result is not None:
                    num_measured += outcome.result.num_clips
                    num_skipped += outcome.result.num_skipped
                    progress.add(1, skipped=num_skipped)
                    continue
                assert outcome.failure is not None
                if not outcome.unit.decodes:
                    detail = f"{outcome.failure.detail} (out of memory?); give fewer --workers"
                    raise UserError(f"{outcome.unit.shard}: {detail}")
                again.append(replace(outcome.unit, decodes=False))
            todo = again
    return num_measured


def _use_model(shards: Sequence[Shard], tests: Sequence[TestSet], options: FilterOptions, name: str) -> None:
    """Bring scores, near-duplicates and leaks up to date."""
    out, index = options.out, options.index or options.out / INDEX_FOLDER
    model = options.load(name)
    maker = maker_of(model)
    use_gpu, least = options.device != "cpu", options.duplicate_similarity or SIMILARITY

    def embedded(folder: Location, of: Location, wanted: Sequence[Shard]) -> list[Piece]:
        # An index of the user's own is not replaced by another model's.
        is_ours = folder != options.index
        require_index(folder, maker, rebuild=is_ours)
        if not is_ours and not is_index_of(folder, wanted):
            raise UserError(f"--index {folder}: is of other shards; give another one, or leave --index out")
        return bring_up_to_date(folder, wanted, maker, options.encoder_for(model, of), model=name)

    pieces = embedded(index, options.shards, shards)
    made_by = sum_of_pieces(pieces, maker)
    if not tests:
        require_leaks_by(
            out,
            shards,
            (BY_TEXTS, by_embeddings(made_by, least)),
            "its leaks were found by another model, among other clips or with another "
            "--duplicate-similarity; give the --test sets again",
        )
    scoring = Scoring.by(options.encoder_for(model, options.shards), name, maker.model_sha256)
    score_shards(out, shards, pieces, options.captions or (), scoring)
    mark_duplicates(out, shards, pieces, made_by=made_by, least=least, use_gpu=use_gpu)
    if tests:
        of_tests = {
            test.name: embedded(
                out / _TESTS_FOLDER / test.name, location_of(options.tests[test.name]), test.shards
            )
            for test in tests
            if test.shards
        }
        mark_leaks(out, shards, tests, Found(pieces, of_tests, made_by, least, use_gpu))


def _require_columns(known: Known, options: FilterOptions, conditions: Conditions) -> None:
    """A UserError where a condition is on what is not known of the clips."""
    needed: dict[str, Family] = {}
    columns = {bound.option: bound.column for bound in conditions.bounds}
    if conditions.top is not None:
        columns["--top"] = conditions.by
    for option, column in columns.items():
        needed[option] = next(family for family, names in FAMILIES.items() if column in names)
    if conditions.drops_leaks:
        needed["--drop-leaks"] = "leaks"
    if conditions.max_duplicates is not None:
        needed["--max-duplicates"] = "duplicates"
    for option, family in needed.items():
        if family not in known.made_of:
            raise UserError(
                f"{option}: the {family} of these clips are not known yet; give {_NEEDED[family]}"
            )
    made_of = known.made_of.get("duplicates")
    asked = options.duplicate_similarity
    if made_of is not None and asked is not None and threshold_of(made_of) != asked:
        raise UserError(
            f"--duplicate-similarity {asked:g}: near-duplicates were found with "
            f"{threshold_of(made_of):g}; give --model to find them anew"
        )


def _tell_no_ranking(known: Known, conditions: Conditions) -> None:
    """Warn where near-duplicates are chosen among by what no clip has; of a top none would be left."""
    column = conditions.by
    if conditions.max_duplicates is not None and np.isnan(known.clips.numbers[column]).all():
        known_columns = [name for name in BY if not np.isnan(known.clips.numbers[name]).all()]
        click.echo(
            f"Warning: --max-duplicates --by {column}: no clip has a {column.replace('_', ' ')}, so the "
            f"first of each group are kept; to choose among them, give --by {' or '.join(known_columns)}",
            err=True,
        )


def _write_list(
    known: Known, chosen: Selection, conditions: Conditions, options: FilterOptions
) -> Location | None:
    """Write the list, if there are conditions; a UserError where no clip meets them."""
    if not conditions:
        return None
    path = options.keep or options.out / KEEP_NAME
    if not chosen.kept.any():
        if options.keep is None and is_file(path):  # of earlier conditions
            with store_errors(path):
                path.unlink()
        dropped = ", ".join(f"{name} drops {count:,}" for name, count in chosen.dropped.items())
        raise UserError(
            f"none of {counted(len(known.clips), 'clips')} meets all conditions ({dropped}); ask for less. "
            "Clips without subtitles have no score of them: choose those by captions (--by caption_score)"
        )
    write_key_list(path, known.keys(chosen.kept))
    if more := int(np.isin(known.hashes, known.hashes[chosen.kept]).sum() - chosen.kept.sum()):
        click.echo(
            f"Warning: dropped clips that have the key of a kept clip in another shard: {more:,}; the list "
            "has keys alone, so it keeps them too",
            err=True,
        )
    return path


def _report(known: Known, chosen: Selection, conditions: Conditions, options: FilterOptions) -> Report:
    clips = known.clips
    counts: dict[str, int | float] = {"clips": len(clips), "shards": len(known.shards)}
    if conditions:
        counts["kept"] = int(chosen.kept.sum())
    if "duplicates" in known.made_of:
        counts["near_duplicates"] = int((clips.groups != NO_GROUP).sum())
    if "leaks" in known.made_of:
        counts["leaks"] = int(clips.leaks.sum())
    columns = {name: summary for name, values in clips.numbers.items() if (summary := _summary(values))}
    details = {
        "dropped": chosen.dropped,
        "cut": None if chosen.cut is None else round(chosen.cut, 6),
        "columns": columns,
        "languages": dict(known.counts_of_languages().most_common()),
    }
    asked = {"model": options.model, "by": options.by, "duplicate_similarity": _similarity(known, options)}
    words = {"kept": ""}  # a line of its own says it
    if "near_duplicates" in counts:
        words["near_duplicates"] = counted(counts["near_duplicates"], "near-duplicates")
    return Report("filter", asked, counts, details, TableSkips(known.out, known.shards), words)


def _text(report: Report, chosen: Selection, keep: Location | None, out: Location) -> str:
    """What the command prints: what there is, what is kept of it, and why the rest is not."""
    lines = report.summary(out).splitlines()
    told = []
    if keep is not None:
        dropped = ", ".join(f"{count:,} by {name}" for name, count in chosen.dropped.items())
        told = [f"  kept {counted(report.counts['kept'], 'clips')} -> {keep}", f"  dropped {dropped}"]
    return "\n".join([lines[0], *told, *lines[1:], f"  to look at: {out / PAGE_NAME}"])


def _similarity(known: Known, options: FilterOptions) -> float:
    """The cosine from which clips are alike: as they were found, or as it is asked for."""
    made_of = known.made_of.get("duplicates")
    return threshold_of(made_of) if made_of else options.duplicate_similarity or SIMILARITY


def _summary(values: np.ndarray) -> dict[str, float | int]:
    """Quantiles of what is known, and how many are not; nothing where none is."""
    known = values[~np.isnan(values)].astype(np.float64)
    if not len(known):
        return {}
    parts = np.quantile(known, [0, 0.05, 0.5, 0.95, 1]).round(4).tolist()
    named = dict(zip(("min", "p05", "median", "p95", "max"), parts, strict=True))
    return {**named, "mean": round(float(known.mean()), 4), "unknown": len(values) - len(known)}


def _write_page(
    known: Known,
    chosen: Selection,
    conditions: Conditions,
    report: Report,
    tests: Sequence[TestSet],
    options: FilterOptions,
) -> None:
    leaks = read_leaks(known.out) if "leaks" in known.made_of else []
    test_shards = {test.name: test.shards for test in tests}
    page = filter_page(
        known,
        chosen,
        conditions,
        report,
        leaks,
        test_shards,
        similarity=_similarity(known, options),
        num=options.num,
    )
    atomic_write_bytes(known.out / PAGE_NAME, page)
