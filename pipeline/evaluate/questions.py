"""Questions with options, in the files that they are published in and in lines of our own."""

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.files.names import id_of
from clipvip.shards.files.stores import Location
from clipvip.shards.files.text import kind_of
from clipvip.shards.sources.video_set_files import first_of, read_json, read_json_lines, read_text

_VIDEO_FIELDS = ("video", "clip_name", "video_id", "clip_id", "image")
_OPTION_FIELDS = ("options", "caption")
_JSFUSION_VIDEO = ("vid_key", "video", "video_id", "clip_id")
# Clip id and four times come before the sentences.
_LSMDC_SENTENCES = slice(5, 10)


@dataclass(frozen=True, slots=True)
class Question:
    """Which of `options` is true of a clip: that of index `answer`. `where` is its place in the file."""

    where: str
    video: str
    options: tuple[str, ...]
    answer: int


def read_questions(path: Location) -> tuple[list[Question], list[Skip]]:
    """The questions of a file in its order, and the lines that are none.

    - `.jsonl`: `{"video": ..., "options": [...], "answer": 0}` a line (`clip_name` for `video` as ClipBERT
      publishes MSR-VTT MC), or `.json`: a list of such records (`caption` for `options` as Singularity and
      VindLU have it);
    - JSFusion's table of MSR-VTT MC: a header with `vid_key`, `a1` to `a5` and `answer`, from 0;
    - LSMDC's MC tables, without a header, between tabs: clip id, four times, five sentences, and the answer
      from 1; without an answer, as of training and validation, the first sentence is the right one.

    Raises:
        DatasetError: none of these, or without a single question.
    """
    if path.suffix.lower() == ".jsonl":
        rows: Iterable[Question | Skip] = (
            _from_record(f"{path.name}, line {n}", entry) for n, entry in read_json_lines(path)
        )
    elif path.suffix.lower() == ".json":
        content = read_json(path)
        if not isinstance(content, list):
            raise DatasetError(f"{path}: must be a list of questions, not {kind_of(content)}")
        rows = (_from_record(f"{path.name}, record {n}", entry) for n, entry in enumerate(content))
    else:
        rows = _from_table(path)
    found = list(rows)
    questions = [row for row in found if isinstance(row, Question)]
    skips = [row for row in found if isinstance(row, Skip)]
    if not questions:
        why = f"; {skips[0].what}: {skips[0].detail}" if skips else ""
        raise DatasetError(
            f'{path}: holds no question, such as {{"video": "v1", "options": ["a", "b"], "answer": 0}}{why}'
        )
    return questions, skips


def _from_record(where: str, entry: Any) -> Question | Skip:
    if not isinstance(entry, dict):
        return Skip("bad_question", where, "is no JSON record")
    video, options = first_of(entry, _VIDEO_FIELDS), first_of(entry, _OPTION_FIELDS)
    return _question(where, video, options, entry.get("answer"))


def _from_table(path: Location) -> Iterable[Question | Skip]:
    text = read_text(path)
    first = text.partition("\n")[0]
    delimiter = "\t" if "\t" in first else ","
    header = [name.strip().strip('"') for name in first.split(delimiter)]
    if "a1" in header and "answer" in header:
        return _jsfusion(path, text, delimiter)
    if delimiter == "\t" and len(header) in (10, 11):
        return _lsmdc(path, text)
    raise DatasetError(
        f"{path}: is not a known table of questions; give JSFusion's (vid_key, a1, ..., answer) or LSMDC's "
        "(10 or 11 columns between tabs), or questions as .jsonl"
    )


def _jsfusion(path: Location, text: str, delimiter: str) -> Iterator[Question | Skip]:
    csv.field_size_limit(1 << 24)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    columns = [name for name in reader.fieldnames or [] if name[:1] == "a" and name[1:].isdecimal()]
    columns.sort(key=lambda name: int(name[1:]))
    try:
        for number, row in enumerate(reader, start=1):
            video = next((row[name] for name in _JSFUSION_VIDEO if name in row), None)
            options = [row[name] for name in columns]
            yield _question(f"{path.name}, row {number}", video, options, _number(row["answer"]))
    except csv.Error as error:
        raise DatasetError(f"{path}: is not a table ({error})") from error


def _lsmdc(path: Location, text: str) -> Iterator[Question | Skip]:
    for number, line in enumerate(text.split("\n"), start=1):
        where = f"{path.name}, line {number}"
        cells = line.split("\t")
        if not line.strip():
            continue
        if len(cells) not in (10, 11):
            yield Skip("bad_question", where, f"has {len(cells)} cells, not 10 or 11")
            continue
        counted = _number(cells[10]) if len(cells) == 11 else 1
        answer = counted - 1 if isinstance(counted, int) else counted
        yield _question(where, cells[0].strip(), cells[_LSMDC_SENTENCES], answer)


def _number(text: str | None) -> int | str | None:
    """A table's number, or what stands in its place."""
    stripped = (text or "").strip().removesuffix(".0")
    return int(stripped) if stripped.isdecimal() and stripped.isascii() else text


def _question(where: str, video: Any, options: Any, answer: Any) -> Question | Skip:
    video = id_of(video)
    if not isinstance(video, str) or not video.strip():
        return Skip("bad_question", where, f"its clip has no name: {str(video)[:40]!r} is not a text")
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        return Skip("bad_question", where, "its options are not a list of texts")
    texts = tuple(" ".join(option.split()) for option in options)
    if len(texts) < 2 or not all(texts):
        return Skip("bad_question", where, "has fewer than two options, or an empty one")
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(texts):
        return Skip(
            "bad_question", where, f"its answer {str(answer)[:40]!r} is none of its {len(texts)} options"
        )
    return Question(where, video, texts, answer)
