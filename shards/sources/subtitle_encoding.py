"""Bytes of subtitles, and of other texts -> text, whatever encoding they were saved in.

A byte order mark, UTF-16 and UTF-8 tell themselves. Of older encodings Windows-1252 is meant where bytes
beyond ASCII stand among ASCII letters ("café"). Where whole words are made of them ("привет"), they are of
another script, and charset-normalizer says which encodings may be meant; counted are those that give letters
of the script that they are for. What was guessed is said, since short texts can look like others.
"""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from charset_normalizer import from_bytes

# The UTF-32 marks begin like those of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_WIDE = ("utf-16", "utf-32")
_AS_EVER = "cp1252"  # what old subtitle editors wrote
# Encodings that are ASCII, and change the meaning of what follows by an escape.
_ESCAPING = ((b"\x1b$)C", "iso2022_kr"), (b"\x1b$B", "iso2022_jp_ext"), (b"\x1b$@", "iso2022_jp_ext"))

_MARKED_WORD = re.compile(rb"[A-Za-z]*[\x80-\xff][A-Za-z\x80-\xff]*")
_LETTER = re.compile(rb"[A-Za-z\x83\x8a\x8c\x8e\x9a\x9c\x9e\x9f\xc0-\xff]")  # in Windows-1252
_MOST_GUESSED_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class _Script:
    """Which characters its letters are, and which ten or more of them make up most of a text."""

    letters: str
    frequent: str
    is_east_asian: bool = False


_CYRILLIC = _Script(r"[\u0400-\u04ff]", "оеаинтсрвлкдмпу")
_CHINESE = _Script(r"[\u4e00-\u9fff]", "的一是不了在人有我他这個个们們大来來到好你天", is_east_asian=True)
_KANA = r"[\u3041-\u30fe]"
_JAPANESE = _Script(rf"{_KANA}|[\u4e00-\u9fff]", "".join(map(chr, range(0x3041, 0x30FF))), is_east_asian=True)
_KOREAN = _Script(r"[\uac00-\ud7a3]", "이다는을에가하고지의로해요서한도기시니은습", is_east_asian=True)
_SCRIPTS = {
    **dict.fromkeys(("cp1251", "koi8_r", "koi8_u", "cp866", "cp1125", "iso8859_5"), _CYRILLIC),
    **dict.fromkeys(("gb18030", "big5", "big5hkscs"), _CHINESE),
    **dict.fromkeys(("cp932", "shift_jis_2004", "euc_jp", "euc_jis_2004"), _JAPANESE),
    "cp949": _KOREAN,
    "cp1253": _Script(r"[\u0370-\u03ff]", "αοιετνσηρπκμλυά"),
    "cp1255": _Script(r"[\u0590-\u05ff]", "יוהלאתמרבשםנדחק"),
    "cp1256": _Script(r"[\u0600-\u06ff]", "ايلمنوترةعدبهكس"),
    "cp874": _Script(r"[\u0e00-\u0e7f]", "านรอกเงมยวลดท่้"),
}
_LEAST_IN_SCRIPT = 0.9
_LEAST_LETTERS = 3  # different ones; fewer are signs, or a word of Windows-1252
_MANY_KANA = 0.3  # Japanese hardly does without, and nothing else looks like them
_SURE_COHERENCE = 0.1
# What letters become in a wrong encoding: bytes of none, lines of boxes.
_NO_LETTERS = {"\ufffd", *map(chr, range(0x2500, 0x25A0))}

# The letters beyond ASCII of languages that Windows-1252 is for.
_WESTERN = (
    "àâçèéêëîïôùûüÿœ",  # French
    "äöüßé",  # German
    "áéíñóúüçàèïòª·º",  # Spanish, Catalan
    "áâãàçéêíóôõúªº",  # Portuguese
    "àèéìíîòóùú",  # Italian
    "åäöéàü",  # Swedish
    "æøåéèòôóü",  # Danish, Norwegian
    "äöåšžõü",  # Finnish, Estonian
    "áéíóúýþæöð",  # Icelandic
    "ëïöüéèáíóúêç",  # Dutch, Albanian
)
_LEAST_WESTERN = 0.97
# A letter beyond ASCII, or a sign in the place of one.
_MARKED_LETTER = re.compile(
    r"[^\W\d_a-z]|\ufffd|(?<=[^\W\d_])[¹²³¼½¾¿‚„ˆ‰°±¶¨¸´¯](?=[^\W\d_])|(?<=\s)[¹³¼¾](?=[a-z])"
)
# Icelandic with a thorn or eth has these, too; Turkish of Windows-1254 looks like it and has none.
_BESIDE_ICELANDIC = re.compile("[áéíóúæ]")
# Signs that stand at words in the West.
_WESTERN_SIGNS = set("«»“”‘’…–—¿¡£€§°ªº•")


@dataclass(frozen=True, slots=True)
class Decoded:
    """The text of a file; `doubt` says what may be wrong with it, "" where nothing is."""

    text: str
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """What a file itself tells: its encoding, None where it does not, behind a mark of so many bytes."""

    encoding: str | None
    num_mark_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Guess:
    """The encoding that is taken; `doubt` says so, "" where there is none."""

    encoding: str
    doubt: str = ""


def decode_subtitles(data: bytes, encoding: str | None = None) -> Decoded:
    """The text of a subtitle file; `encoding` is that of files that are no UTF-8, None to find it out."""
    told = encoding_told(data)
    text, is_utf8 = data.decode("utf-8", "replace"), _decodes(data, "utf-8")
    if told.num_mark_bytes and told.encoding:
        return Decoded(data[told.num_mark_bytes :].decode(told.encoding, "replace"))
    if encoding is not None and _may_be(data, encoding) and (data.isascii() or not is_utf8):
        text = data.decode(encoding, "replace")
        return Decoded(text, _damage(text, encoding))
    if told.encoding:
        return Decoded(data.decode(told.encoding, "replace"))
    if is_utf8 or is_damaged_utf8(data):
        return Decoded(text, "" if is_utf8 else _damage(text, "UTF-8"))
    guess = guess_encoding(data)
    advice = "; if that is wrong, say --subtitle-encoding" if guess.doubt else ""
    return Decoded(data.decode(guess.encoding, "replace"), guess.doubt + advice)


def encoding_told(data: bytes) -> Told:
    """What the bytes of a file, or the first of them, tell by a mark, zeros or escapes."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            return Told(name, len(mark))
    if (wide := _unmarked_utf16(data)) is not None:
        return Told(wide)
    escaping = (name for escape, name in _ESCAPING if escape in data and _decodes(data, name))
    return Told(next(escaping, None))


def is_damaged_utf8(data: bytes) -> bool:
    """Whether most of the characters beyond ASCII are UTF-8, but not all."""
    text = data.decode("utf-8", "replace")
    return 0 < 4 * text.count("\ufffd") <= sum(character > "\x7f" for character in text)


def check_encoding(name: str) -> None:
    """Raises LookupError where Python has no encoding of texts of that name."""
    try:
        "a".encode(name)
    except ValueError as error:
        raise LookupError(str(error)) from error


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _may_be(data: bytes, encoding: str) -> bool:
    """Not so where the encoding has bytes of 0 in all ASCII, and the file has none."""
    return b"\0" in data or not codecs.lookup(encoding).name.startswith(_WIDE)


def _damage(text: str, encoding: str) -> str:
    num_bad = text.count("\ufffd")
    return f"characters that are damaged, or not {encoding}: {num_bad}" if num_bad else ""


def _unmarked_utf16(data: bytes) -> str | None:
    """UTF-16 without a mark shows by zeros: every other byte of ASCII, as of times and the ends of lines."""
    num_even, num_odd = data[::2].count(0), data[1::2].count(0)
    if not data.count(0) or 4 * min(num_even, num_odd) > max(num_even, num_odd):
        return None
    name = "utf-16-le" if num_odd > num_even else "utf-16-be"
    text = data.decode(name, "replace")
    if 10 * sum(c < " " and not c.isspace() for c in text) > len(text):
        return None  # zeros among other bytes that are no text
    # In a text with little ASCII its lines tell: those of ASCII with a few zeros have no end in UTF-16.
    return name if 20 * max(num_even, num_odd) >= len(data) or "\n" in text else None


def guess_encoding(data: bytes) -> Guess:
    """An encoding of one byte a letter, or of two of East Asia, that the text does not tell."""
    sample = b"\n".join(line for line in re.split(rb"[\r\n]+", data) if not line.isascii())
    sample = sample[:_MOST_GUESSED_BYTES]
    is_other = _is_of_other_script(sample)
    found = _encoding_of_other_script(sample) if is_other else None
    encoding = found or _AS_EVER
    if not found and _looks_western(sample.decode(encoding, "replace"), all_signs=is_other):
        return Guess(encoding)
    what = "is not UTF-8" if found else "is in an unknown encoding"
    return Guess(encoding, f"{what}, read as {encoding}")


def _is_of_other_script(sample: bytes) -> bool:
    """Whether bytes beyond ASCII make up words, and do not stand one by one among ASCII letters.

    A dash, an "à" or a closing quote by itself tells nothing.
    """
    words = b"".join(word for word in _MARKED_WORD.findall(sample) if len(word) > 1 and _LETTER.search(word))
    return 0 < len(words) <= 2 * sum(byte > 0x7F for byte in words)


def _looks_western(text: str, *, all_signs: bool) -> bool:
    """Whether letters beyond ASCII are those of one language that Windows-1252 is for, but for a few.

    With `all_signs` other characters must be such as Western texts have, too.
    """
    letters = _MARKED_LETTER.findall(text.lower())
    if not {"ð", "þ"}.isdisjoint(letters) and not _BESIDE_ICELANDIC.search(text.lower()):
        return False
    if all_signs and any(c > "\x7f" and not c.isalpha() and c not in _WESTERN_SIGNS for c in text):
        return False
    most = max(sum(letter in alphabet for letter in letters) for alphabet in _WESTERN)
    return most >= _LEAST_WESTERN * len(letters)


def _encoding_of_other_script(sample: bytes) -> str | None:
    """The likeliest encoding that gives letters of its script; None where none does.

    charset-normalizer is sure where it knows the language, which takes some lines. Of shorter texts, and of
    lines that are alike, it tells alphabets from East Asian writing; then letters decide that are frequent.
    """
    found = [(name, coherence) for name, coherence in _candidates(sample) if _fits(sample, name)]
    if not found:
        return None
    first, coherence = found[0]
    if not _SCRIPTS[first].is_east_asian:
        alphabets = [(name, known) for name, known in found if not _SCRIPTS[name].is_east_asian]
        return max(alphabets, key=lambda one: _share_of_frequent(sample, one[0]) + one[1] / 2)[0]
    if coherence >= _SURE_COHERENCE:
        return first
    japanese = (name for name, _ in found if _SCRIPTS[name] is _JAPANESE)
    return next((name for name in japanese if _share_of_frequent(sample, name) >= _MANY_KANA), first)


def _candidates(sample: bytes) -> Iterator[tuple[str, float]]:
    """Encodings that charset-normalizer finds possible, the likeliest first, each with its coherence."""
    matches = from_bytes(sample, cp_isolation=list(_SCRIPTS), threshold=0.6, enable_fallback=False)
    for match in matches:
        for one in (match, *match.submatch):
            yield one.encoding, match.coherence


def _fits(sample: bytes, encoding: str) -> bool:
    """Whether nearly all letters beyond ASCII are of the script that the encoding is for."""
    text, script = sample.decode(encoding, "replace"), _SCRIPTS[encoding]
    letters = [c for c in text if c > "\x7f" and (c.isalpha() or c in _NO_LETTERS)]
    of_script = re.compile(script.letters)
    num_own = sum(of_script.match(letter) is not None for letter in letters)
    if script.is_east_asian:
        if script is _JAPANESE and not re.search(_KANA, text):
            return False
    else:  # letters of two scripts do not stand in one word
        num_own -= 2 * len(re.findall(rf"[A-Za-z](?:{script.letters})|(?:{script.letters})[A-Za-z]", text))
    return len(set(letters)) >= _LEAST_LETTERS and num_own >= _LEAST_IN_SCRIPT * len(letters)


def _share_of_frequent(sample: bytes, encoding: str) -> float:
    """Which part of the letters are frequent ones; capitals behind small letters count against it."""
    text, script = sample.decode(encoding, "replace"), _SCRIPTS[encoding]
    letters = re.findall(script.letters, text)
    num_frequent = sum(letter.lower() in script.frequent for letter in letters)
    num_odd = sum(a.islower() and b.isupper() for a, b in pairwise(text))
    return (num_frequent - num_odd) / len(letters)
