"""Encodings of subtitle files: found out, or said, or told as a doubt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipvip.shards.sources.subtitle_encoding import check_encoding, decode_subtitles

# Some lines in languages of the encodings' own scripts.
OTHERS = {
    "ru": "привет мир, сегодня мы чиним велосипед\nСначала снимаем колесо и проверяем камеру.\nДа, конечно!",
    "uk": "привіт, сьогодні ми лагодимо велосипед\nЇжак і єнот живуть у лісі",
    "zh": "你好，今天我们一起做饭\n先把锅烧热，然后放油\n大家好，欢迎来到我的频道",
    "tw": "你好，今天我們一起做飯\n先把鍋燒熱，然後放油\n大家好，歡迎來到我的頻道",
    "ja": "こんにちは、今日は一緒に料理をしましょう\nまずフライパンを温めます\n自転車を直す方法を説明します",
    "ko": "안녕하세요 오늘은 같이 요리를 해 봅시다\n먼저 팬을 달굽니다\n시청해 주셔서 감사합니다",
    "el": "γεια σας, σήμερα θα μαγειρέψουμε μαζί\nΕυχαριστώ πολύ που παρακολουθήσατε",
    "he": "שלום, היום נבשל יחד מרק טעים מאוד\nתודה שצפיתם בסרטון, ולהתראות בפעם הבאה",
    "ar": "مرحبا، اليوم سوف نطبخ معا\nشكرا على المشاهدة",
    "th": "สวัสดีครับ วันนี้เราจะทำอาหารด้วยกัน\nขอบคุณที่รับชม",
}
ENCODINGS = [
    *[("ru", name) for name in ("cp1251", "koi8-r", "cp866", "iso8859-5")],
    *[("uk", name) for name in ("cp1251", "koi8-u")],
    *[("zh", name) for name in ("gbk", "gb18030")],
    ("tw", "big5"),
    *[("ja", name) for name in ("shift_jis", "euc_jp", "iso2022_jp")],
    *[("ko", name) for name in ("euc_kr", "iso2022_kr")],
    *[("el", "cp1253"), ("he", "cp1255"), ("ar", "cp1256"), ("th", "cp874")],
]
WESTERN = [
    *("café crème", "Où êtes-vous allé hier soir ? Ça va très bien", "d’accord, c’est l’été…", "à bientôt"),
    *("Grüße aus München, für mich wäre das schön", "Übung macht den Meister", "¿Cómo estás? ¡Mañana!"),
    *("não é possível, coração", "Vi åker på måndag", "Rødgrød med fløde på", "hyvää päivää, tänään"),
    *(
        "Það er gott veður í dag",
        "perché è così, più o meno",
        "It’s “fine” – isn’t it…",
        "that’s 50 £",
        "été",
    ),
    *("é", "ÄÄ", "…»", "–", "ÇA VA ÊTRE TRÈS BIEN", "«été»", "naïve résumé", "§ music §", "Ærø"),
]
CENTRAL = [
    ("cp1250", "Cześć, dziś naprawimy rower, żeby był dobry"),
    ("cp1250", "Příliš žluťoučký kůň\nPak přidáme smetanu a trochu soli."),
    ("cp1250", "Először felvágjuk a hagymát, és betesszük az edénybe."),
    ("cp1254", "Önce tavayı ısıtıyoruz, şimdi soğan"),
    ("cp1257", "Laba diena, šiandien virsime sriubą"),
]


def _srt(text: str) -> str:
    lines = text.split("\n")
    return "".join(f"{n}\n00:00:0{n},500 --> 00:00:0{n},900\n{line}\n\n" for n, line in enumerate(lines, 1))


@pytest.mark.parametrize(("language", "encoding"), ENCODINGS)
def test_encodings_of_other_scripts_are_found_out_and_told(language: str, encoding: str) -> None:
    text = _srt(OTHERS[language])
    found = decode_subtitles(text.encode(encoding))
    assert found.text == text
    assert found.doubt.startswith("is not UTF-8, read as ") or "2022" in encoding
    said = decode_subtitles(text.encode(encoding), encoding)
    assert (said.text, said.doubt) == (text, "")


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1251", "привет мир, сегодня мы чиним велосипед"),
        ("gbk", "你好，今天我们一起做饭"),
        ("shift_jis", "まずフライパンを温めます"),
        ("euc_kr", "먼저 팬을 달굽니다"),
        ("koi8-r", "Это очень просто"),
        ("big5", "你好，今天我們一起做飯"),
    ],
)
def test_a_line_is_enough(encoding: str, text: str) -> None:
    assert decode_subtitles(_srt(text).encode(encoding)).text == _srt(text)


@pytest.mark.parametrize("line", WESTERN)
@pytest.mark.parametrize("num_lines", [1, 5])
def test_windows_1252_is_read_as_ever_without_a_doubt(line: str, num_lines: int) -> None:
    text = _srt("\n".join([line] * num_lines))
    found = decode_subtitles(text.encode("cp1252"))
    assert (found.text, found.doubt) == (text, "")


def test_signs_in_english_say_nothing_of_another_script() -> None:
    lines = "Well – I never… – “no” — he said\n§ music §\n» « ½ £5\nnaïve – café\n• one\n• two – three"
    for count in (1, 50):
        text = _srt("\n".join([lines] * count))
        assert decode_subtitles(text.encode("cp1252")).text == text


@pytest.mark.parametrize(("encoding", "text"), CENTRAL)
def test_what_looks_like_windows_1252_and_cannot_be_is_told(encoding: str, text: str) -> None:
    data = _srt(text).encode(encoding)
    assert decode_subtitles(data).text == data.decode("cp1252", "replace")
    assert "unknown encoding, read as cp1252" in decode_subtitles(data).doubt
    assert decode_subtitles(data, encoding).text == _srt(text)


@pytest.mark.parametrize("language", ["zh", "ru", "en"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("said", [None, "cp1251", "utf-16"])
def test_unicode_tells_itself_with_a_mark_and_without(language: str, encoding: str, said: str | None) -> None:
    text = _srt(OTHERS.get(language, "hello\nthere"))
    if said == "utf-16" and encoding == "utf-16-be":
        said = "utf-16-be"  # without a mark the name decides
    if said == "cp1251" and encoding.startswith("utf-16-"):
        said = None  # as text of it zeros are allowed
    found = decode_subtitles(text.encode(encoding), said)
    assert (found.text, found.doubt) == (text, "")


def test_damage_is_told() -> None:
    data = _srt("привет мир, сегодня").encode()[:-10] + b"\xff\n"
    assert "damaged, or not UTF-8: 1" in decode_subtitles(data).doubt
    assert "damaged, or not cp1251: 1" in decode_subtitles(b"\xef\xf0\x98", "cp1251").doubt


@given(st.binary(max_size=200), st.sampled_from([None, "cp1251", "gb18030", "utf-16", "shift_jis"]))
def test_any_bytes_are_some_text(data: bytes, encoding: str | None) -> None:
    decode_subtitles(data, encoding).text.encode()


@pytest.mark.parametrize("name", ["no-such", "hex", "rot13", "", "utf-8\0"])
def test_names_that_are_no_encoding_of_text(name: str) -> None:
    with pytest.raises(LookupError):
        check_encoding(name)
