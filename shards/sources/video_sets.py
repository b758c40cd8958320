"""The video sets with captions: which files hold which split, and how their rows become clips.

A clip is a whole video, with all its sentences. Of the paragraph sets (DiDeMo, ActivityNet) the sentences of
a video, in order of time, are one text; of the others each sentence is a text of its own.
"""

from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from clipvip.plugins import Registry
from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.files.disk_index import DiskIndex
from clipvip.shards.files.names import same_name
from clipvip.shards.format.clip import Clip, make_key
from clipvip.shards.format.record import SentencesAre
from clipvip.shards.sources import video_set_files as formats
from clipvip.shards.sources.hdvila import Source
from clipvip.shards.sources.video_set_files import Row, Rows, has_records, read_records


@dataclass(frozen=True)
class Split:
    """One split of a set.

    `files` are the names that its annotation file is published under; `read` takes its path, and opens the
    `files_of` it. `one_row_each`: every video has one row, so that rows need not be held to be put together.
    `one_sentence`: a test in which a video has one sentence; a file that gives it several is another one.
    """

    files: tuple[str, ...]
    read: Callable[[Path], Rows]
    sentences_are: SentencesAre = "alternatives"
    one_row_each: bool = False
    one_sentence: bool = False
    files_of: Callable[[Path], tuple[Path, ...]] = lambda path: (path,)


_MSRVTT_DATA = ("MSRVTT_data.json", "MSRVTT_v2.json")


def _list_and_data(name: str, path: Path) -> tuple[Path, Path]:
    """A table of MSR-VTT's videos, and the sentences of all videos beside it; `path` is either of the two."""
    if path.suffix.lower() == ".json":
        return path.with_name(name), path
    beside = [path.with_name(file) for file in _MSRVTT_DATA]
    return path, next((file for file in beside if file.is_file()), beside[0])


def _msrvtt_listed(name: str, path: Path) -> Rows:
    listed, data = _list_and_data(name, path)
    return formats.read_msrvtt(data, videos=formats.read_column(listed, "video_id"))


def _msrvtt(split: str, *others: str) -> Split:
    return Split((*_MSRVTT_DATA, *others), partial(formats.read_msrvtt, split=split))


def _msrvtt_list(name: str) -> Split:
    return Split((name,), partial(_msrvtt_listed, name), files_of=partial(_list_and_data, name))


_MSRVTT_1KA = Split(
    ("MSRVTT_JSFUSION_test.csv",),
    partial(formats.read_table, video=("video_id",), sentence=("sentence",)),
    one_sentence=True,
)


def _didemo(*files: str) -> Split:
    return Split(files, formats.read_didemo, sentences_are="paragraph")


def _activitynet(*files: str) -> Split:
    return Split(files, formats.read_activitynet, sentences_are="paragraph")


def _lsmdc(*files: str, one_sentence: bool = False) -> Split:
    return Split(files, formats.read_lsmdc, one_sentence=one_sentence)


def _webvid(*files: str) -> Split:
    read = partial(formats.read_table, video=("videoid",), sentence=("name",))
    return Split(files, read, one_row_each=True)


def read_any(path: Path) -> Rows:
    """A table or records of anybody: a column for the video, one for the sentence."""
    if path.suffix.lower() not in {".csv", ".tsv"}:
        yield from read_records(path)
        return
    names = ("caption", "text", "sentence", "description")
    for row in formats.read_table(path, video=("video", "video_id", "clip_id"), sentence=names):
        yield replace(row, video=formats.video_name(row.video)) if isinstance(row, Row) else row


# Plug-ins may add to it.
DATASETS: Registry[dict[str, Split]] = Registry(
    {
        "msrvtt": {
            "train9k": _msrvtt_list("MSRVTT_train.9k.csv"),
            "train7k": _msrvtt_list("MSRVTT_train.7k.csv"),
            "test1ka": _MSRVTT_1KA,
            "1ka": _MSRVTT_1KA,
            "train": _msrvtt("train", "train_val_videodatainfo.json"),
            "validate": _msrvtt("validate", "train_val_videodatainfo.json"),
            "test": _msrvtt("test", "test_videodatainfo.json"),
        },
        "didemo": {
            "train": _didemo("train_data.json", "didemo_train_data.json"),
            "val": _didemo("val_data.json", "didemo_val_data.json"),
            "test": _didemo("test_data.json", "didemo_test_data.json"),
        },
        "lsmdc": {
            "train": _lsmdc("LSMDC16_annos_training.csv"),
            "val": _lsmdc("LSMDC16_annos_val.csv"),
            "test1k": _lsmdc(
                "LSMDC16_challenge_1000_publictect.csv",
                "LSMDC16_challenge_1000_publictest.csv",
                one_sentence=True,
            ),
        },
        "activitynet": {
            "train": _activitynet("train.json"),
            "val1": _activitynet("val_1.json"),
            "val2": _activitynet("val_2.json"),
        },
        "webvid": {
            "train": _webvid("results_10M_train.csv", "results_2M_train.csv"),
            "val": _webvid("results_10M_val.csv", "results_2M_val.csv"),
        },
    }
)
# Captions of videos of one's own.
GENERIC = {
    "captions": Split((), read_any),
    "paragraphs": Split((), read_any, sentences_are="paragraph"),
}


def find_split(name: str) -> Split:
    """The split of a name such as `msrvtt/1ka`. DatasetError: there is none; it lists what there is."""
    if name in GENERIC:
        return GENERIC[name]
    dataset, _, split = name.partition("/")
    if dataset not in DATASETS:
        raise DatasetError(DATASETS.refusal("dataset", dataset, *GENERIC))
    if split not in DATASETS[dataset]:
        splits = ", ".join(f"{dataset}/{known}" for known in DATASETS[dataset])
        raise DatasetError(f"dataset {name!r}: name a split of it: {splits}")
    return DATASETS[dataset][split]


def find_annotation_file(name: str, path: Path) -> Path:
    """The file of a split: `path` itself, or in the folder `path` its published name; else DatasetError."""
    if path.is_file():
        return path
    files = find_split(name).files
    if not path.is_dir():
        raise DatasetError(f"{path}: no such file or folder of annotations")
    for file in files:
        if (path / file).is_file():
            return path / file
    wanted = f"looked for {', '.join(files)}" if files else "give the file itself"
    raise DatasetError(f"{path}: has no annotations of {name} ({wanted})")


def files_read(name: str, path: Path) -> tuple[Path, ...]:
    """The files that `read_annotations` opens. DatasetError: one is not there."""
    files = (path,) if _are_records(path) else find_split(name).files_of(path)
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
            shorter = formats.video_name(stem)
            yield shorter, path
            if name.startswith("activitynet/"):
                yield f"v_{shorter}", path

    return ChainMap(paths, DiskIndex.of_pairs(others()))  # type: ignore[arg-type]


def read_annotations(name: str, path: Path) -> Iterator[Source]:
    """Yield one `Source` for each video of a split, in the order of its first row, and one for each bad row.

    Records of video and text (`read_records`) stand for the files of any set; `path` is a file.

    Raises DatasetError where the file is damaged, of another kind, or of another split.
    """
    split = find_split(name)
    rows = read_records(path) if _are_records(path) else split.read(path)
    together = _each(rows) if split.one_row_each else _by_video(rows)
    prefixes: set[str] = set()
    first_skip: Skip | None = None
    for line, (video, found) in enumerate(together, start=1):
        clip = found if isinstance(found, Skip) else _clip(video, found, split.sentences_are)
        if isinstance(clip, Clip) and clip.key in prefixes:
            clip = Skip("duplicate_clip", video[:80], f"key {clip.key} is taken")
        if isinstance(clip, Skip):
            first_skip = first_skip or clip
            yield Source(line, video, skips=((0, clip),))
            continue
        if split.one_sentence and len(clip.sentences) > 1:
            raise DatasetError(
                f"{path}: has {len(clip.sentences)} sentences for {video[:80]}, but a video of {name} "
                f"has one; give {split.files[0]}, or name another split"
            )
        prefixes.add(clip.key)
        yield Source(line, video, (clip,), (0,))
    if not prefixes:
        why = f" ({first_skip.what}: {first_skip.detail or first_skip.reason})" if first_skip else ""
        raise DatasetError(f"{path}: holds no annotation of {name} that can be used{why}")


def _are_records(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix == ".jsonl" or (suffix == ".json" and has_records(formats.read_json(path)))


def _each(rows: Rows) -> Iterator[tuple[str, list[Row] | Skip]]:
    for row in rows:
        yield ("", row) if isinstance(row, Skip) else (row.video, [row])


def _by_video(rows: Iterable[Row | Skip]) -> Iterator[tuple[str, list[Row] | Skip]]:
    together: dict[str, list[Row]] = {}
    skips: list[Skip] = []
    for row in rows:
        if isinstance(row, Skip):
            skips.append(row)
        else:
            together.setdefault(same_name(row.video), []).append(row)
    yield from ((rows[0].video, rows) for rows in together.values())
    for skip in skips:
        yield "", skip


def _clip(video: str, rows: list[Row], sentences_are: SentencesAre) -> Clip | Skip:
    try:
        key = make_key(video, 0)
        video.encode()
    except (DatasetError, UnicodeEncodeError):
        return Skip("unsafe_id", "annotation", f"video {ascii(video)[:80]}")
    if sentences_are == "paragraph":
        rows = sorted(rows, key=lambda row: row.time)
    sentences = tuple(row.sentence for row in rows)
    return Clip(key, video, video, 0.0, float("inf"), sentences, sentences_are)
