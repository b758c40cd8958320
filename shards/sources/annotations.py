"""The rows of a set's annotation files as clips: which files are opened, and what becomes of their rows.

A row without a span is about a whole video. Of the paragraph sets (DiDeMo, ActivityNet) the sentences of a
video, in order of time, are one text; of the others each sentence is a text of its own, and rows about the
same span of a video are alternatives of one clip.
"""

from collections import ChainMap
from collections.abc import Iterator, Mapping
from pathlib import Path

from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.files.disk_index import DiskIndex
from clipvip.shards.format.clip import Clip, make_key
from clipvip.shards.format.record import SentencesAre
from clipvip.shards.sources.by_video import put_together
from clipvip.shards.sources.hdvila import Source, Survey, without_repeats
from clipvip.shards.sources.recognise import KNOWN_NAMES, KnownList, recognise
from clipvip.shards.sources.video_set_files import (
    Row,
    Rows,
    has_records,
    read_json,
    read_records,
    video_name,
)
from clipvip.shards.sources.video_sets import GENERIC, Split, find_split, splits_of

_WHOLE = (0.0, float("inf"))


def files_read(name: str, path: Path) -> tuple[Path, ...]:
    """The files that `read_annotations` opens. DatasetError: one is not there."""
    split = find_split(name)
    files = (path,) if _reads_records(name, split, path) else split.files_of(path)
    for file in files:
        if not file.is_file():
            raise DatasetError(f"{file}: no such file; {name} needs it beside {path.name}")
    return files


def with_published_names(name: str, paths: Mapping[str, str]) -> Mapping[str, str]:
    """Video name -> path, also by the names in a set's annotations where people's files have others.

    That is a second extension (`x.avi.mp4`), and ActivityNet's ids without their `v_`.
    """

    def others() -> Iterator[tuple[str, str]]:
        for stem, path in paths.items():
            shorter = video_name(stem)
            yield shorter, path
            if name.startswith("activitynet/"):
                yield f"v_{shorter}", path

    return ChainMap(paths, DiskIndex.of_pairs(others()))  # type: ignore[arg-type]


def require_no_set(path: Path) -> None:
    """DatasetError: a list that is to be read without a --dataset is that of a known set."""
    known = recognise(path)
    if known is not None and known.name:
        raise DatasetError(f"{path}: looks like {known.title}'s list; {_advice(known)}")


def _own_list(name: str, path: Path) -> bool:
    """Whether a file is of the set of that name, by its beginning. DatasetError: it is of another set."""
    dataset = name.partition("/")[0]
    if dataset not in KNOWN_NAMES and dataset not in GENERIC:
        return False  # a plug-in's, which may have another's form
    known = recognise(path)
    if known is None or dataset in known.others:
        return False
    if dataset != known.name:
        looks = f"looks like {known.title}'s list, not one of {dataset}"
        raise DatasetError(f"{path}: {looks}; {_advice(known)}")
    return True


def _advice(known: KnownList) -> str:
    if not known.name:
        return "give it to --metadata, and leave --dataset out"
    names = splits_of(known.name)
    return f"give --dataset {' or '.join(names)}"


def _reads_records(name: str, split: Split, path: Path) -> bool:
    """Whether a file holds records of video and text, which stand for the files of any set of whole videos.

    Raises DatasetError: it is another set's file.
    """
    suffix = path.suffix.lower()
    if _own_list(name, path) or split.cuts or name in GENERIC or not path.is_file():
        return False
    return suffix == ".jsonl" or (suffix == ".json" and has_records(read_json(path)))


def survey_annotations(name: str, path: Path) -> Survey:
    """Go through the annotations once, and count. Raises as `read_annotations`."""
    return Survey(_sources(name, path))


def read_annotations(name: str, path: Path, survey: Survey | None = None) -> Iterator[Source]:
    """Yield one `Source` for each video of a split, in the order of its first row, and one for each bad row.

    Records of video and text (`read_records`) stand for the files of any set; `path` is a file. The file is
    read twice, for keys that repeat; once where its `survey` is given.

    Raises DatasetError where the file is damaged, of another kind, of another set, or of another split.
    """
    survey = survey or survey_annotations(name, path)
    return without_repeats(_sources(name, path), survey.repeats)


def _sources(name: str, path: Path) -> Iterator[Source]:
    split = find_split(name)
    rows = read_records(path) if _reads_records(name, split, path) else split.read(path)
    together = _each(rows) if split.one_row_each else put_together(rows)
    is_empty, first_skip = True, None
    for line, (video, found) in enumerate(together, start=1):
        clips = found if isinstance(found, Skip) else _clips(video, found, split.sentences_are)
        if isinstance(clips, Skip):
            first_skip = first_skip or clips
            yield Source(line, video, skips=((0, clips),))
            continue
        _require_one_sentence(split, name, path, clips)
        is_empty = False
        yield Source(line, video, clips, tuple(range(len(clips))))
    if is_empty:
        why = f" ({first_skip.what}: {first_skip.detail or first_skip.reason})" if first_skip else ""
        raise DatasetError(f"{path}: holds no annotation of {name} that can be used{why}")


def _require_one_sentence(split: Split, name: str, path: Path, clips: tuple[Clip, ...]) -> None:
    """DatasetError: a test of one sentence for each video has several."""
    most = max(clips, key=lambda clip: len(clip.sentences))
    if split.one_sentence and len(most.sentences) > 1:
        raise DatasetError(
            f"{path}: has {len(most.sentences)} sentences for {most.video_id[:80]}, but a video of {name} "
            f"has one; give {split.files[0]}, or name another split"
        )


def _each(rows: Rows) -> Iterator[tuple[str, list[Row] | Skip]]:
    """Each row for itself; those of a video's spans, which follow each other, together."""
    spans: list[Row] = []
    for row in rows:
        if isinstance(row, Skip):
            yield "", row
            continue
        if spans and (row.span is None or row.video != spans[0].video):
            yield spans[0].video, spans
            spans = []
        if row.span is None:
            yield row.video, [row]
        else:
            spans.append(row)
    if spans:
        yield spans[0].video, spans


def _clips(video: str, rows: list[Row], sentences_are: SentencesAre) -> tuple[Clip, ...] | Skip:
    """The clips of a video in order of time."""
    try:
        prefix = make_key(video, 0).rpartition("_")[0]
        video.encode()
    except (DatasetError, UnicodeEncodeError):
        return Skip("unsafe_id", "annotation", f"video {ascii(video)[:80]}")
    parts: dict[tuple[float, float], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.time) if sentences_are == "paragraph" else rows:
        parts.setdefault(row.span or _WHOLE, []).append(row)
    clips = []
    for number, span in enumerate(sorted(parts)):
        clip_id = video if list(parts) == [_WHOLE] else f"{video}.{number}.mp4"
        sentences = tuple(row.sentence for row in parts[span])
        clips.append(Clip(f"{prefix}_{number:05d}", video, clip_id, *span, sentences, sentences_are))
    return tuple(clips)
