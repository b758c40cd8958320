"""A stage is one function with typed options; its command is made from them: each option is written once.

@options
class ShardOptions(StageOptions):
    out: str = opt("Folder for the shards.")
    size: int = opt("Short side in pixels.", click.IntRange(16, 4096), default=256)
    workers: Workers = None

@stage(ShardOptions, "clipvip-data shard", "--metadata clips.jsonl --videos videos/ --out clips/")
def shard(options: ShardOptions) -> StageReport: ...

command = stage_command(shard)      # clipvip-data shard --out clips --size 128
shard(out="clips", size=128)        # the same from Python
"""

import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from functools import reduce
from numbers import Integral, Real
from operator import or_
from pathlib import Path
from types import NoneType
from typing import Any, Generic, Literal, ParamSpec, TypeVar, cast, get_args, get_origin, overload

import click
from upath import UPath

from clipvip.extras import MissingPackage, require_package
from clipvip.pipeline.runtime.errors import StageCommand, UserError, require_local
from clipvip.pipeline.runtime.function_help import docstring_with_options, signature_of
from clipvip.pipeline.runtime.options import (
    Listed,
    Opt,
    PlaceType,
    as_text,
    declared,
    finite,
    require_fitting,
)
from clipvip.pipeline.runtime.report import StageReport
from clipvip.shards.files.stores import STORE_PACKAGES, Location

P = ParamSpec("P")
Options = TypeVar("Options")
Result = TypeVar("Result", bound=StageReport)

# What Python may give instead of text, which is read as on the command line: Click makes 3 of 3.7.
_NUMBERS = (
    (click.types.BoolParamType, bool, "True or False"),
    (click.types.IntParamType, Integral, "a whole number"),
    (click.types.FloatParamType, Real, "a number"),
)


class StageFailed(UserError):
    """A stage finished without any result; `report` says why."""

    def __init__(self, message: str, report: StageReport) -> None:
        super().__init__(message)
        self.report = report


@dataclass(frozen=True)
class StageOptions:
    """The base of every stage's options: values are checked as on the command line.

    Raises:
        UserError: a value is not of its type or range, or a URL where only a path is of use.
    """

    def __post_init__(self) -> None:
        kind: Any = type(self)
        for option in _options_of(kind):
            value = getattr(self, option.name)
            if value is None and option.may_be_none:
                continue
            try:
                converted = option.convert_many(value) if option.is_many else option.convert(value)
            except (TypeError, ValueError) as error:  # of another type than was thought of
                raise UserError(f"{option.name}: {value!r} cannot be used") from error
            object.__setattr__(self, option.name, converted)

    def packages(self) -> dict[str, str]:
        """The optional packages that a stage with these options needs -> for what; see `clipvip.extras`."""
        kind: Any = type(self)
        needed = {}
        for option in _options_of(kind):
            value = getattr(self, option.name)
            if option.name == "ray" and value is not None:
                needed["ray"] = "--ray"
            for one in _values_in(value):
                scheme, separator, _ = str(one).partition("://")
                if separator and (package := STORE_PACKAGES.get(scheme.rpartition("=")[2])):
                    needed[package] = str(one)
        return needed


def _values_in(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, tuple) else (value,)


class Stage(Generic[P, Options, Result]):
    """A stage as a function: it takes its options as one object or as keywords.

    `program` is the command that does the same, such as "clipvip-data shard"; `epilog` ends its help, and
    `about` begins it. `help` of the function lists the options.
    """

    def __init__(
        self,
        function: Callable[[Options], Result],
        options: Callable[P, Options],
        program: str,
        epilog: str,
        resumable: bool,
    ) -> None:
        self.options, self.program = options, program
        self.epilog, self.resumable = epilog, resumable
        self._function = function
        functools.update_wrapper(self, function)
        self.about, self.__doc__ = docstring_with_options(function.__doc__ or "", options)
        self.__signature__ = signature_of(options)

    @overload
    def __call__(self, options: Options, /) -> Result: ...
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Result: ...
    @overload  # with texts for paths, and whatever else an option converts, of which P does not know
    def __call__(self, *args: Any, **kwargs: Any) -> Result: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Result:
        options: Any = self._options(args, kwargs)
        try:
            for module, what in options.packages().items():
                require_package(module, what)
        except MissingPackage as error:  # before any work, and not after it
            raise UserError(str(error)) from error
        return self._function(options)

    def _options(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        called, kind = f"{vars(self)['__name__']}()", cast(type[StageOptions], self.options)
        if not any(isinstance(one, StageOptions) for one in args):
            require_fitting(called, kind, args, kwargs)
            return kind(*args, **kwargs)
        if len(args) > 1 or kwargs or not isinstance(args[0], kind):
            change = "dataclasses.replace changes some of them"
            raise TypeError(f"{called} takes one {kind.__name__} alone, or keywords; {change}")
        return args[0]

    def __repr__(self) -> str:
        return f"<stage '{self.program}'>"

    def __reduce__(self) -> str:
        # For pickle, as a function: by the module and the name that it has there.
        return str(vars(self)["__name__"])


def stage(
    options: Callable[P, Options], program: str, *examples: str, note: str = "", resumable: bool = True
) -> Callable[[Callable[[Options], Result]], Stage[P, Options, Result]]:
    """Make a stage of a function that takes such options; its command's help ends with note and examples.

    Of an example only what comes after the program is given; a line break in it is written for the shell.
    Where the stage is `resumable`, the command says after Ctrl-C that the same command goes on.
    """
    lines = [f"  {program} {example}".replace("\n", " \\\n      ") for example in examples]
    epilog = "\n".join([note, "", "\b", "Examples:", *lines]).strip()
    return lambda function: Stage(function, options, program, epilog, resumable)


def command_line(made: Stage[Any, Any, Any], options: StageOptions) -> list[str]:
    """The words of the command that does what `made(options)` does; what is as by default is left out."""
    arguments, words = [], []
    for option in _options_of(made.options):
        value = getattr(options, option.name)
        if value == option.default:
            continue
        values = option.written(value)
        if option.opt.argument:
            arguments += values
        elif option.is_flag:
            on, _, off = option.flag.partition("/")
            words.append(on if value else off)
        else:
            words += [word for one in values for word in (option.flag, one)]
    return [*made.program.split(), *arguments, *words]


def options_in(made: Stage[P, Options, Any], words: Sequence[str]) -> Options:
    """What the words of a command ask of `made`; `command_line` the other way.

    Raises:
        click.ClickException: they are not of this command, or not what it takes.
    """
    program = made.program.split()
    if list(words[: len(program)]) != program:
        raise click.UsageError(f"not a command '{made.program}'")
    context = stage_command(made).make_context(made.program, list(words[len(program) :]))
    del context.params["as_json"]
    return made.options(**context.params)  # type: ignore[call-arg]


def parameters(options: Any) -> list[click.Parameter]:
    """An option of a command for each field."""
    return [one.parameter() for one in sorted(_options_of(options), key=lambda one: one.is_last)]


def stage_command(made: Stage[Any, Any, Any]) -> click.Command:
    """The command of a stage: an option for each field of its options, and --json.

    Its help is the docstring of the function, without what that says of options, results and errors.
    """

    def run(as_json: bool, **given: Any) -> None:
        def show(report: StageReport) -> None:
            # Of processes that train together only the first has something to say.
            if report.text or (as_json and report.content):
                content = json.dumps(report.content, indent=2, ensure_ascii=False, allow_nan=False)
                click.echo(content if as_json else report.text)
            if report.note:
                click.echo(report.note, err=as_json)

        try:
            report = made(**given)
        except StageFailed as failure:
            show(failure.report)
            raise
        show(report)

    json_help = "Print the result as one JSON object; all else goes to standard error."
    params = [*parameters(made.options), click.Option(["--json", "as_json"], is_flag=True, help=json_help)]
    return StageCommand(
        made.program.split()[-1],
        params=sorted(params, key=lambda one: one.name == "dry_run"),  # last, as something else to do
        callback=run,
        help=made.about,
        epilog=made.epilog,
        resumable=made.resumable,
    )


@dataclass(frozen=True)
class _Option:
    """One field of a stage's options."""

    name: str
    opt: Opt
    type: click.ParamType
    default: Any
    is_flag: bool
    is_many: bool
    is_named: bool
    may_be_none: bool
    is_last: bool

    def convert_many(self, value: Any) -> Any:
        """All values of a repeatable option; a dict where each has a name."""
        if isinstance(value, str | Path | UPath):
            value = (value,)
        values = tuple(map(self.convert, value.items() if isinstance(value, Mapping) else value))
        if not values and self.default is MISSING:
            raise UserError(f"{self.name}: give at least one")
        if not self.is_named:
            return values
        named = {}
        for name, one in values:
            if name in named:
                raise UserError(f"{self.flag} {name}: given twice; each needs a name of its own")
            named[name] = one
        return named

    def convert(self, value: Any) -> Any:
        for kind, given, wanted in _NUMBERS:
            fits = isinstance(value, given) and (given is bool or not isinstance(value, bool))
            if isinstance(self.type, kind) and not fits and not isinstance(value, str):
                raise UserError(f"{self.name}: {value!r} is not {wanted}")
        if isinstance(self.type, click.Path):
            require_local(self.name, as_text(value))
        if isinstance(self.type, click.types.StringParamType):
            value = as_text(value)
        try:
            return self.type.convert(value, None, None)
        except click.BadParameter as error:
            raise UserError(f"{self.name}: {error.message}") from error

    def written(self, value: Any) -> list[str]:
        """A value as words of a command line, one for each time that the option is given."""
        if self.is_named:
            return [f"{name}={one}" for name, one in value.items()]
        if isinstance(self.type, Listed):
            return [",".join(value)]
        return [str(one) for one in value] if self.is_many else [str(value)]

    @property
    def flag(self) -> str:
        """As it is written: --name, or --name/--no-name."""
        return self.opt.names[0] if self.opt.names else f"--{self.name.replace('_', '-')}"

    def parameter(self) -> click.Parameter:
        if self.opt.argument:
            return click.Argument(
                [self.name],
                type=self.type,
                metavar=self.opt.metavar,
                nargs=-1 if self.is_many else 1,
                required=self.default is MISSING,
            )
        names = [*(self.opt.names or (self.flag,)), self.name]
        attributes: dict[str, Any] = {"help": self.opt.help, "metavar": self.opt.metavar}
        if self.is_flag:
            switch = "/" in names[0]
            return click.Option(names, default=self.default, is_flag=True, show_default=switch, **attributes)
        if self.default is MISSING:
            return click.Option(names, type=self.type, required=True, multiple=self.is_many, **attributes)
        shown: bool | str = self.opt.shown or (self.default is not None and self.default != ())
        return click.Option(
            names,
            type=self.type,
            default=self.default or None if self.is_many else self.default,
            multiple=self.is_many,
            show_default=shown,
            **attributes,
        )


@functools.cache
def _options_of(options: Any) -> tuple[_Option, ...]:
    return tuple(_option(one) for one in fields(options))


def _option(one: Field[Any]) -> _Option:
    """`tuple[Path, ...]` is a repeatable path; `Mapping[str, Path]` one with a name, NAME=PATH."""
    said = declared(one)
    kind, opt = said.kind, said.opt
    may_be_none = NoneType in get_args(kind)
    if may_be_none:
        kind = reduce(or_, (one for one in get_args(kind) if one is not NoneType))
    is_named = get_origin(kind) is Mapping
    is_many = is_named or (get_origin(kind) is tuple and not isinstance(opt.type, Listed))
    if is_many:
        kind = get_args(kind)[0]
    return _Option(
        name=one.name,
        opt=opt,
        type=opt.type or _type_of(kind),
        default=one.default,
        is_flag=kind is bool,
        is_many=is_many,
        is_named=is_named,
        may_be_none=may_be_none,
        is_last=said.is_last,
    )


def _type_of(kind: Any) -> click.ParamType:
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    if kind is Path:
        return click.Path(path_type=Path)
    if kind == Location:
        return PlaceType()
    return {int: click.INT, float: finite(), bool: click.BOOL, str: click.STRING}[kind]
