"""The sets of videos and clips with captions: which files hold which split, and what reads them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from clipvip.plugins import Registry
from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.format.record import SentencesAre
from clipvip.shards.sources import clip_sets as clips
from clipvip.shards.sources import video_set_files as formats
from clipvip.shards.sources.download_list import id_of_link
from clipvip.shards.sources.table_files import columns_of, is_json
from clipvip.shards.sources.video_set_files import Row, Rows, read_records


@dataclass(frozen=True)
class Split:
    """One split of a set.

    `files` are the names that its annotation file is published under; `read` takes its path, and opens the
    `files_of` it. `one_row_each`: every video has one row, or those of its spans one after the other, so that
    rows need not be put together. `one_sentence`: a test in which a video has one sentence; a file that gives
    it several is another one. `cuts`: its rows have spans, which become clips; of others whole videos do.
    """

    files: tuple[str, ...]
    read: Callable[[Path], Rows]
    sentences_are: SentencesAre = "alternatives"
    one_row_each: bool = False
    one_sentence: bool = False
    cuts: bool = False
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


def _panda70m(*files: str) -> Split:
    return Split(files, clips.read_panda70m, one_row_each=True, cuts=True)


_INTERNVID = Split(
    tuple(f"InternVid-{part}.{kind}" for part in ("10M-flt", "10M") for kind in ("jsonl", "csv", "parquet")),
    clips.read_internvid,
    cuts=True,
)
_HOWTO100M = Split(
    ("caption.json", "raw_caption.json"),
    clips.read_howto100m,
    one_row_each=True,
    cuts=True,
    files_of=clips.narration_tables,
)
_MSVD = Split(
    (
        "MSR Video Description Corpus.csv",
        "MSR_Video_Description_Corpus.csv",
        "video_corpus.csv",
        "AllVideoDescriptions.txt",
    ),
    clips.read_msvd,
)


def _vatex(*files: str) -> Split:
    return Split(files, clips.read_vatex)


def _youcook2(subset: str | None) -> Split:
    read = partial(clips.read_youcook2, subset=subset)
    return Split(("youcookii_annotations_trainval.json",), read, cuts=True)


def _qvhighlights(*files: str) -> Split:
    return Split(files, clips.read_qvhighlights, cuts=True)


def _tvr(*files: str) -> Split:
    return Split(files, clips.read_tvr, cuts=True)


_OWN_VIDEO = ("video", "video_id", "clip_id")
_OWN_TEXT = ("caption", "text", "sentence", "description")
# As video2dataset and WebVid have them.
_LINKS = ("url", "contenturl", "video_url")
_OTHER_VIDEO = ("videoid", *_LINKS)


def read_any(path: Path) -> Rows:
    """A table or records of anybody: a column for the video, one for the sentence.

    WebVid's `videoid` and `name` will do, as will a link for the video, whose file is named by it.
    """
    columns = {column.lower() for column in columns_of(path)}
    if is_json(path) and (not columns.isdisjoint(_OWN_VIDEO) or columns.isdisjoint(_OTHER_VIDEO)):
        yield from read_records(path)
        return
    video = (*_OWN_VIDEO, "videoid")
    text = (*_OWN_TEXT, "name") if "videoid" in columns else _OWN_TEXT
    if columns.isdisjoint(video) and not columns.isdisjoint(_LINKS):
        for row in formats.read_table(path, video=_LINKS, sentence=text):
            yield row if isinstance(row, Skip) else _named_by_link(row)
        return
    for row in formats.read_table(path, video=video, sentence=text):
        yield replace(row, video=formats.video_name(row.video)) if isinstance(row, Row) else row


def _named_by_link(row: Row) -> Row | Skip:
    try:
        name = id_of_link(row.video)
    except ValueError:
        name = ""
    return replace(row, video=name) if name else Skip("bad_annotation", row.video[:80], "names no video")


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
        "panda70m": {
            "": _panda70m(),
            "train": _panda70m(*(f"panda70m_training_{size}.csv" for size in ("full", "10m", "2m"))),
            "val": _panda70m("panda70m_validation.csv"),
            "test": _panda70m("panda70m_testing.csv"),
        },
        "internvid": {"": _INTERNVID},
        "howto100m": {"": _HOWTO100M},
        "vatex": {
            "": _vatex(),
            "train": _vatex("vatex_training_v1.0.json"),
            "val": _vatex("vatex_validation_v1.0.json"),
            "test": _vatex("vatex_public_test_english_v1.1.json"),
        },
        "youcook2": {
            "": _youcook2(None),
            "train": _youcook2("training"),
            "val": _youcook2("validation"),
        },
        "msvd": {"": _MSVD},
        "qvhighlights": {
            "": _qvhighlights(),
            "train": _qvhighlights("highlight_train_release.jsonl"),
            "val": _qvhighlights("highlight_val_release.jsonl"),
            "test": _qvhighlights("highlight_test_release.jsonl"),
        },
        "tvr": {
            "": _tvr(),
            "train": _tvr("tvr_train_release.jsonl"),
            "val": _tvr("tvr_val_release.jsonl"),
            "test": _tvr("tvr_test_public_release.jsonl"),
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
        raise DatasetError(f"dataset {name!r}: name a split of it: {', '.join(splits_of(dataset))}")
    return DATASETS[dataset][split]


def splits_of(dataset: str) -> list[str]:
    """The names that --dataset knows for a set."""
    return [f"{dataset}/{split}" if split else dataset for split in DATASETS[dataset]]


def find_annotation_file(name: str, path: Path) -> Path:
    """The file of a split: `path` itself, or in the folder `path` its published name; else DatasetError.

    A folder of HowTo100M's tables, one for each video, is taken as it is.
    """
    if path.is_file():
        return path
    split = find_split(name)
    if not path.is_dir():
        raise DatasetError(f"{path}: no such file or folder of annotations")
    for file in split.files:
        if (path / file).is_file():
            return path / file
    if split.files_of(path) != (path,) and any(file.is_file() for file in split.files_of(path)):
        return path
    wanted = f"looked for {', '.join(split.files)}" if split.files else "give the file itself"
    raise DatasetError(f"{path}: has no annotations of {name} ({wanted})")
