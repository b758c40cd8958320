"""How options are written, and those that mean the same in several commands, each written once."""

import functools
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform, get_args, get_origin

import click
from upath import UPath

from clipvip.pipeline.runtime.errors import UserError, nearest, require_local
from clipvip.shards.errors import DatasetError
from clipvip.shards.files.places import is_folder, is_same_folder, location_of
from clipvip.shards.files.stores import Location
from clipvip.shards.sources.subtitle_encoding import check_encoding

Kind = TypeVar("Kind")
MOST_NUMBER = 2**31 - 1
"""No option takes more, unless it says so: libraries hold numbers in 32 bits."""
MOST_PROCESSES, MOST_FRAMES, MOST_AT_ONCE = 4096, 10_000, 1_000_000
MOST_BEAMS, MOST_TOKENS, MOST_DRAWS = 100, 10_000, 1_000_000
ALSO = "also s3://, gs:// and hf://"
"""What help says of an option that takes URLs, as a `Location` does."""


def as_text(value: Any) -> str:
    """A text or a path, also one of a store, as a text; a TypeError for what is neither, as None."""
    return str(value) if hasattr(value, "joinpath") else os.fsdecode(value)


class LocalName(click.ParamType):
    """The value of an option that names a file or folder on this machine, or anything else that is no URL."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        value = as_text(value)
        require_local(param.opts[0] if param else "", value)
        return value


class PlaceType(click.ParamType):
    """A path on this machine's disk, or the URL of a file or folder in a store, as a `Location`."""

    def __init__(self, *, file_okay: bool = True, dir_okay: bool = True) -> None:
        self._path = click.Path(file_okay=file_okay, dir_okay=dir_okay, path_type=Path)
        self.name = self._path.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Location:
        if value == "":  # Path("") is the working directory
            raise UserError("the path is empty; give one, or '.' for the working directory")
        try:
            place = location_of(value)
        except DatasetError as error:
            lead = f"{param.opts[0]} " if param and isinstance(param, click.Option) else ""
            raise UserError(f"{lead}{error}") from error
        return place if isinstance(place, UPath) else self._path.convert(place, param, ctx)


class Listed(click.ParamType):
    """Several words in one value, as `en,de`; from Python also a sequence. `wanted` says what fits `pattern`.

    A field with it is a tuple, but its option is not repeatable.
    """

    name = "text"

    def __init__(self, pattern: str, wanted: str) -> None:
        self._pattern, self._wanted = pattern, wanted

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        given = value.split(",") if isinstance(value, str) else map(str, value)
        words = tuple(dict.fromkeys(word.strip() for word in given if word.strip()))
        is_empty = isinstance(value, str) and not words
        if is_empty or not all(re.fullmatch(self._pattern, word) for word in words):
            self.fail(self._wanted, param, ctx)
        return words


class Encoding(click.ParamType):
    """The name of a text encoding, such as cp1251."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            check_encoding(str(value))
        except LookupError as error:
            raise UserError(
                f"--subtitle-encoding {value}: no encoding of that name; give one such as cp1251, koi8-r, "
                "gb18030, big5, shift_jis or euc_kr"
            ) from error
        return str(value)


class Named(click.ParamType):
    """NAME=PATH, where the path may be a URL; from Python also a pair of the two."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        name, path = value.partition("=")[::2] if isinstance(value, str) else map(as_text, value)
        lead = f"{param.opts[0]} " if param else ""
        if not (name and path):
            raise UserError(f"{lead}{value}: give NAME=PATH, as in {lead}HowTo=texts.txt")
        return name, path


@dataclass(frozen=True)
class Opt:
    """How an option is written on a command line; its type, where none is given, is that of the annotation.

    `shown` is what help says in the place of the default. `names` are other than --the-field's-name. An
    `argument` is known by its place.
    """

    help: str = ""
    type: click.ParamType | None = None
    _: KW_ONLY
    names: tuple[str, ...] = ()
    shown: str | None = None
    metavar: str | None = None
    argument: bool = False


def opt(
    help: str = "",
    type: click.ParamType | None = None,
    *,
    default: Any = MISSING,
    kw_only: bool = True,
    **written: Any,
) -> Any:
    """A field of a stage's options, `written` as `Opt` says; `kw_only=False` is for arguments, which Python
    takes by place too."""
    return field(default=default, kw_only=kw_only, metadata={"opt": Opt(help, type, **written)})


# Beside a type, `Annotated[int, LAST]`: such options of a base stand after those of the stage itself.
LAST = "last"


@dataclass(frozen=True)
class Declared:
    """What a field says of an option, by `opt` or in an annotation."""

    kind: Any
    opt: Opt
    is_last: bool


def declared(one: Field[Any]) -> Declared:
    """`Annotated[int | None, Opt("Processes."), LAST]` is an int that may be None and stands last."""
    kind, opt, notes = one.type, one.metadata.get("opt", Opt()), list[Any]()
    if get_origin(kind) is Annotated:
        kind, *notes = get_args(kind)
        opt = next((note for note in notes if isinstance(note, Opt)), opt)
    return Declared(kind, opt, is_last=LAST in notes)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(opt,))
def options(kind: type[Kind]) -> type[Kind]:
    """Make a class of fields by `opt`, or of the annotations below, the options of a stage."""
    made = dataclass(frozen=True, kw_only=True)(kind)
    init: Callable[..., None] = vars(made)["__init__"]

    @functools.wraps(init)
    def checked(self: Kind, *arguments: Any, **keywords: Any) -> None:
        require_fitting(f"{kind.__name__}()", kind, arguments, keywords)
        init(self, *arguments, **keywords)

    setattr(made, "__init__", checked)  # noqa: B010 (a type checker takes no other way)
    return made


def require_fitting(
    called: str, options: Any, arguments: Sequence[object], keywords: Mapping[str, object]
) -> None:
    """A TypeError in one line where a call has unknown options, too many by position, or lacks some.

    Args:
        called: what was called, such as "shard()".
        options: the class of the options.
    """
    known = {one.name: one for one in fields(options)}
    for name in keywords:
        if name not in known:
            raise TypeError(f"{called} has no option {name!r}{_near(name, options)}")
    by_position = [name for name, one in known.items() if not one.kw_only]
    if len(arguments) > len(by_position):
        only = f"only {' and '.join(by_position)}" if by_position else "no option"
        raise TypeError(f"{called} takes {only} by position; give the others by name, as in out=...")
    given = {*by_position[: len(arguments)], *keywords}
    if missing := [name for name, one in known.items() if one.default is MISSING and name not in given]:
        raise TypeError(f"{called} needs {' and '.join(map(repr, missing))}")


def _near(name: str, options: Any) -> str:
    """The option that was probably meant, also by its name on the command line; else all options."""
    for one in fields(options):
        for flag in declared(one).opt.names:
            if name.replace("_", "-") in flag.replace("--", "").split("/"):
                return f"; did you mean {one.name!r}?"
    names = [one.name for one in fields(options)]
    return nearest(name, names) or f"; its options are {', '.join(names)}"


class _FiniteRange(click.FloatRange):
    """Click lets NaN and infinity through, and 1e300 seconds."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail("give a number", param, ctx)
        if abs(number) > MOST_NUMBER:
            self.fail(f"{number:g} is more than {MOST_NUMBER:,}; give a smaller number", param, ctx)
        return number


class _WholeRange(click.IntRange):
    """Whole numbers, up to one that only a slip of the keyboard exceeds: help does not speak of that."""

    def __init__(self, least: int, most: int) -> None:
        super().__init__(least)
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if number > self._most:
            self.fail(f"{value} is more than {self._most:,}; give a smaller number", param, ctx)
        return number


def at_least(least: int, most: int = MOST_NUMBER) -> click.ParamType:
    """Whole numbers from `least` on; `most` is far beyond what is of use."""
    return _WholeRange(least, most)


def finite(least: float | None = None, most: float | None = None, *, above: bool = False) -> click.ParamType:
    """Numbers from `least` (not itself where they are to be `above` it) to `most`."""
    return _FiniteRange(least, most, min_open=above)


Workers = Annotated[int | None, Opt("Processes.", at_least(1, MOST_PROCESSES), shown="one per core")]
Gpus = Annotated[
    int | None,
    Opt(
        "Processes with a GPU each; 0: compute on the CPU.",
        at_least(0, MOST_PROCESSES),
        shown="all there are, else 0",
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"], Opt("Where to compute; auto: on a GPU where there is one.")
]
MaxPixels = Annotated[
    int, Opt("A frame that claims more pixels is taken for damage and skipped.", at_least(1))
]
Captions = Annotated[
    tuple[Location, ...] | None,
    Opt(f"Folder that 'clipvip-data caption' wrote for these shards; may be given several times; {ALSO}."),
]


def require_captions(folders: Sequence[Location], option: str = "--captions") -> None:
    """A UserError where one of these is no folder, or given twice; `option` is what they are given by."""
    for folder in folders:
        if not is_folder(folder):
            raise UserError(
                f"{option} {folder}: no such folder of captions; make it with 'clipvip-data caption'"
            )
    require_once(folders, option)


def require_once(folders: Sequence[Location], option: str) -> None:
    """A UserError where a folder is given twice, by whatever path."""
    for number, folder in enumerate(folders):
        if any(is_same_folder(folder, other) for other in folders[:number]):
            raise UserError(f"{option} {folder}: is given twice; give it once")


RAY_HELP = "Run on the Ray cluster there (auto: the one of this machine; local: one just for this run)."
RayAddress = Annotated[str | None, Opt(RAY_HELP, metavar="ADDRESS")]
DryRun = Annotated[bool, Opt("Say what there is to do, and what is done already, and write nothing.")]
SubtitleEncoding = Annotated[
    str | None,
    Opt(
        "Encoding of subtitle files that are not UTF-8, such as cp1251 or gb18030.",
        Encoding(),
        metavar="NAME",
        shown="detected",
    ),
]
