"""All the texts of one corpus, in order, whatever it is stored as: lines, a table, shards, captions."""

import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from clipvip.shards.errors import DatasetError
from clipvip.shards.reader import list_shards
from clipvip.shards.sample import is_safe_key
from clipvip.shards.text_tables import TABLE_EXTENSIONS, iter_texts


def read_texts(path: Path | str) -> Iterator[str]:
    """The texts of a corpus in order, white space normalised; an empty text is yielded as "".

    `path` is a text file with one text a line, a table (.jsonl, .parquet) with a field text, subtitle or
    caption, a folder of shards (their subtitles; pixels are passed over unread), or a folder of captions
    (.parquet files by name). The corpus is read as a stream.

    Raises:
        DatasetError: there is nothing at `path`, or it is none of these, or damaged.
    """
    path = Path(path)
    if path.is_dir():
        return _texts_of_folder(path)
    if not path.is_file():
        raise DatasetError(f"{path}: no such file or folder of texts")
    if path.suffix.lower() in TABLE_EXTENSIONS:
        return _normalised(iter_texts(path))
    return _lines(path)


def _texts_of_folder(folder: Path) -> Iterator[str]:
    captions = sorted(folder.glob("*.parquet"))
    has_shards = any(folder.glob("*.tar"))
    if captions and has_shards:
        raise DatasetError(f"{folder}: holds both shards and captions; keep them in folders of their own")
    if captions:
        return _normalised(text for path in captions for text in iter_texts(path))
    if has_shards:
        return _normalised(text for path in list_shards(folder) for text in _subtitles(path))
    raise DatasetError(
        f"{folder}: holds neither shards (*.tar) nor captions (*.parquet); give a folder of one"
    )


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        yield from _normalised(file)


def _normalised(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield " ".join(text.split())


def _subtitles(shard: Path) -> Iterator[str]:
    """The KEY.txt members of a shard; an open file that can seek skips over the pixels."""
    try:
        with tarfile.open(shard, mode="r:") as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                if extension == "txt" and is_safe_key(key) and (file := tar.extractfile(member)):
                    yield file.read().decode("utf-8", "replace")
    except (tarfile.TarError, EOFError) as error:
        raise DatasetError(f"{shard}: not a readable tar file ({error}); make this shard again") from error
