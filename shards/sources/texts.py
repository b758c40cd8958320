"""All the texts of one corpus, in order, whatever it is stored as: lines, a table, shards, captions."""

from collections.abc import Iterable, Iterator

import pyarrow
import pyarrow.parquet

from clipvip.media.errors import one_line
from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.files.places import at_hand, is_file, is_folder, location_of, sorted_glob
from clipvip.shards.files.stores import Location
from clipvip.shards.format.clip import is_safe_key
from clipvip.shards.sources.text_files import text_lines
from clipvip.shards.sources.text_tables import TABLE_EXTENSIONS, iter_texts
from clipvip.shards.tar.foreign import is_foreign_key
from clipvip.shards.tar.index import SampleSpan, ShardFile
from clipvip.shards.tar.members import read_foreign, read_text_member
from clipvip.shards.tar.reader import empty_shard, is_clip, list_shards


def read_texts(path: Location | str) -> Iterator[str | Skip]:
    """The texts of a corpus in order, white space normalised, "" among them, read as a stream.

    A clip whose text cannot be read is yielded as the Skip that says why. `path` is a text file with one text
    a line, a table (.jsonl, .parquet) with a field text, subtitle or caption, a folder of shards (their
    subtitles; pixels are passed over unread), or a folder of captions (.parquet files by name).

    Raises DatasetError where there is nothing at `path`, or it is none of these, or damaged.
    """
    path = location_of(path)
    if is_folder(path):
        return _texts_of_folder(path)
    if not is_file(path):
        raise DatasetError(f"{path}: no such file or folder of texts")
    if path.suffix.lower() in TABLE_EXTENSIONS:
        return _normalised(iter_texts(path))
    return _lines(path)


def _texts_of_folder(folder: Location) -> Iterator[str | Skip]:
    has_shards = bool(sorted_glob(folder, "*.tar"))
    captions = [path for path in sorted_glob(folder, "*.parquet") if not (has_shards and _is_log(path))]
    if captions and has_shards:
        raise DatasetError(f"{folder}: holds both shards and captions; keep them in folders of their own")
    if captions:
        return _normalised(text for path in captions for text in iter_texts(path))
    if has_shards:
        return (text for path in list_shards(folder) for text in _subtitles(path))
    raise DatasetError(
        f"{folder}: holds neither shards (*.tar) nor captions (*.parquet); give a folder of one"
    )


def _is_log(path: Location) -> bool:
    """Whether a table beside shards says what became of each URL, as img2dataset and video2dataset log it."""
    try:
        with at_hand(path) as local:
            return {"url", "status"} <= set(pyarrow.parquet.read_schema(local).names)
    except (pyarrow.ArrowException, OSError):
        return False


def _lines(path: Location) -> Iterator[str]:
    with at_hand(path) as local, local.open("rb") as file:
        yield from _normalised(text_lines(file, path))


def _normalised(texts: Iterable[str]) -> Iterator[str]:
    return (" ".join(text.split()) for text in texts)


def _text_of(file: ShardFile, span: SampleSpan) -> str:
    """A sample's KEY.txt; one of others may have its text in KEY.json alone."""
    if "txt" not in span.members and (foreign := read_foreign(file, span)) is not None:
        return foreign.subtitle or " ".join(foreign.sentences or [])
    return read_text_member(file, span, "txt").decode("utf-8")


def _subtitles(shard: Location) -> Iterator[str | Skip]:
    """The texts of a shard, which are all that is read."""
    is_empty = True
    with ShardFile(shard) as file:
        for span in file.spans():
            is_named = is_safe_key(span.key) or (span.foreign_extension and is_foreign_key(span.key))
            if not is_named or not is_clip(span):
                continue
            is_empty = False
            try:
                if span.problem:
                    raise DatasetError(span.problem)
                text = _text_of(file, span)
            except (DatasetError, UnicodeDecodeError) as error:
                yield Skip("unreadable_text", span.shown_key, one_line(error))
            else:
                yield " ".join(text.split())
    if is_empty:
        yield empty_shard(shard)
