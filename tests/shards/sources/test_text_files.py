"""Tables, lists and corpora in other encodings than UTF-8: read as they were meant, and guesses are told."""

import csv
import io
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipvip.shards.errors import TextEncodingWarning
from clipvip.shards.sources.caption_rows import Columns, read_caption_rows
from clipvip.shards.sources.table_files import read_fields
from clipvip.shards.sources.text_files import text_lines
from clipvip.shards.sources.texts import read_texts
from clipvip.shards.sources.video_set_files import read_text

RUSSIAN = ("Мужчина чинит велосипед во дворе", "Девочка режет овощи на кухне")
CHINESE = ("一个男人在院子里修自行车", "女孩在厨房里切菜，锅里有油")
JAPANESE = ("男の人が庭で自転車を直しています", "女の子が台所で野菜を切っている")
KOREAN = ("남자가 마당에서 자전거를 고치고 있습니다", "소녀가 부엌에서 야채를 썰고 있다")
FRENCH = ("un garçon fait du vélo à l'école", "une fille coupe des légumes à côté")
POLISH = ("chłopiec jeździ na żółtym rowerze", "dziewczyna kroi świeże warzywa")
# Encoding, captions, what is told: None where nothing has to be.
OTHERS = [
    ("cp1251", RUSSIAN, "is not UTF-8, read as cp1251"),
    ("koi8-r", RUSSIAN, "is not UTF-8, read as koi8"),
    ("gbk", CHINESE, "is not UTF-8, read as gb18030"),
    ("shift_jis", JAPANESE, "is not UTF-8, read as cp932"),
    ("euc_jp", JAPANESE, "is not UTF-8, read as euc_ji"),
    ("euc_kr", KOREAN, "is not UTF-8, read as cp949"),
    ("iso2022_jp", JAPANESE, None),
    ("cp1252", FRENCH, None),
    ("latin-1", FRENCH, None),
    *[(name, some, None) for name in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "utf-8")
      for some in (RUSSIAN, CHINESE, FRENCH)],
]  # fmt: skip


def table(captions: tuple[str, ...], end: str = "\n", num_ascii: int = 3) -> str:
    rows = [f"plain{n},a man rides a bicycle" for n in range(num_ascii)]
    rows += [f'video{n},"{caption}"' for n, caption in enumerate(captions)]
    return end.join(["video_id,caption", *rows, ""])


def captions_of_others(path: Path) -> list[str]:
    return [text for row in read_caption_rows(path, Columns()) for text in row.captions]


def captions_of_a_set(path: Path) -> list[str]:
    return [str(fields["caption"]) for _, fields in read_fields(path) if fields is not None]


def lines_of_a_list(path: Path) -> list[str]:
    return [row["caption"] for row in csv.DictReader(read_text(path).splitlines())]


def texts_of_a_corpus(path: Path) -> list[str]:
    path = path.rename(path.with_suffix(".txt"))
    lines = [str(text) for text in read_texts(path)]
    return [row["caption"] for row in csv.DictReader(lines)]


READERS = [captions_of_others, captions_of_a_set, lines_of_a_list, texts_of_a_corpus]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(("encoding", "captions", "told"), OTHERS)
def test_captions_are_read_as_they_were_meant(
    tmp_path: Path,
    read: Callable[[Path], list[str]],
    encoding: str,
    captions: tuple[str, ...],
    told: str | None,
) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(table(captions).encode(encoding))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = read(path)
    assert found == ["a man rides a bicycle"] * 3 + list(captions)
    messages = [str(w.message) for w in caught if w.category is TextEncodingWarning]
    assert len(messages) == (told is not None)
    if told is not None:
        assert str(tmp_path / "rows") in messages[0] and told in messages[0]
        assert messages[0].endswith("; if that is wrong, save the file as UTF-8")


@pytest.mark.parametrize("read", READERS)
def test_what_cannot_be_found_out_is_told(tmp_path: Path, read: Callable[[Path], list[str]]) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(table(POLISH).encode("cp1250"))
    with pytest.warns(TextEncodingWarning, match="unknown encoding, read as cp1252; if that is wrong"):
        assert len(read(path)) == 5


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-16", "gbk"])
def test_lines_may_end_in_any_way(tmp_path: Path, encoding: str, end: str) -> None:
    captions = CHINESE if encoding == "gbk" else FRENCH
    path = tmp_path / "rows.csv"
    path.write_bytes(table(captions, end, num_ascii=1).encode(encoding))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert captions_of_a_set(path) == captions_of_others(path) == ["a man rides a bicycle", *captions]


def test_lines_of_two_encodings_are_each_read_in_their_own(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(table(RUSSIAN).encode() + "v9,un vélo d'été\n".encode("cp1252"))
    assert captions_of_a_set(path)[3:] == [*RUSSIAN, "un vélo d'été"]


def test_a_damaged_character_stays_the_only_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    data = table(RUSSIAN).encode()
    place = data.index("велосипед".encode())
    path.write_bytes(data[: place + 1] + data[place + 2 :])
    with pytest.warns(TextEncodingWarning, match="damaged, or not UTF-8"):
        found = captions_of_a_set(path)
    assert found[3] == RUSSIAN[0].replace("велосипед", "\ufffdелосипед") and found[4] == RUSSIAN[1]


def test_a_table_is_guessed_by_lines_beyond_the_first(tmp_path: Path) -> None:
    """Of one short word the encoding cannot be told, of the file it can."""
    path = tmp_path / "rows.csv"
    path.write_bytes(table(("Да", *RUSSIAN), num_ascii=5000).encode("cp1251"))
    with pytest.warns(TextEncodingWarning, match="cp1251"):
        assert captions_of_a_set(path)[5000:] == ["Да", *RUSSIAN]


@pytest.mark.parametrize(
    ("encoding", "caption"),
    [
        *[
            ("cp1251", text)
            for text in ("мужчина чинит велосипед", "женщина режет лук", "собака бежит по полю")
        ],
        ("koi8-r", "собака бежит по полю"),
        ("cp1255", "כלב רץ בשדה"),
        ("cp1253", "ένας άντρας επισκευάζει ένα ποδήλατο"),
        ("cp874", "ผู้ชายกำลังซ่อมจักรยาน"),
        ("gbk", "一个男人修自行车"),
        ("shift_jis", "男の人が自転車を直す"),
        ("euc_kr", "남자가 자전거를 고친다"),
    ],
)
def test_captions_that_are_alike_tell_little_and_enough(tmp_path: Path, encoding: str, caption: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(table(tuple(f"{caption} {n}" for n in range(40))).encode(encoding))
    with pytest.warns(TextEncodingWarning, match="is not UTF-8, read as"):
        assert captions_of_a_set(path)[3:] == [f"{caption} {n}" for n in range(40)]


@given(st.binary(max_size=300))
def test_any_bytes_become_lines(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lines = list(text_lines(io.BytesIO(data), Path("rows.csv")))
    "".join(lines).encode()
    assert all(set(line[:-1]).isdisjoint("\n") for line in lines)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00\x1b\ufeff"), max_size=300))
def test_utf8_is_read_as_it_is(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "".join(text_lines(io.BytesIO(text.encode()), Path("rows.csv"))) == text
