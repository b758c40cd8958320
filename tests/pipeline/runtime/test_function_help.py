"""Stages in Python: help that lists the options, and calls that do not fit them."""

import inspect
import pickle
import pydoc
from dataclasses import MISSING, fields, replace
from typing import Any

import pytest

import clipvip
from clipvip.pipeline.runtime.stage import Stage, StageOptions

STAGES: dict[str, Stage[Any, Any, Any]] = {
    name: one for name in clipvip.__all__ if isinstance(one := getattr(clipvip, name), Stage)
}


def text_of_help(name: str) -> str:
    return pydoc.plain(pydoc.render_doc(STAGES[name]))


@pytest.mark.parametrize("name", STAGES)
def test_help_lists_each_option_with_its_default(name: str) -> None:
    text = text_of_help(name)
    options: Any = STAGES[name].options
    for one in fields(options):
        (line,) = [line for line in text.splitlines() if line.startswith(f"        {one.name}: ")]
        assert ("=" in line) == (one.default is not MISSING), line
        assert one.default is MISSING or f" = {one.default!r}" in line
        assert "Annotated" not in line and "Opt(" not in line and "upath." not in line
    assert text.index("Options, as keywords") < text.index("Examples:")


def test_help_says_types_and_what_stands_for_none() -> None:
    text = text_of_help("shard")
    assert "fps: float = 3.0\n            Frames kept per second." in text
    assert "store: Literal['frames', 'video'] = 'frames'\n" in text
    assert "workers: int | None = None (one per core)\n            Processes.\n" in text
    assert "out: str\n" in text
    shown = inspect.signature(clipvip.shard)
    assert shown.parameters["fps"].default == 3.0
    assert shown.parameters["workers"].annotation == int | None


@pytest.mark.parametrize("name", STAGES)
def test_an_unknown_option_is_named_with_the_nearest(name: str) -> None:
    options: Any = STAGES[name].options
    for called in (STAGES[name], options):
        for one in fields(options):
            wrong = f"{one.name}x"
            with pytest.raises(TypeError) as error:
                called(**{wrong: 1})
            message = str(error.value)
            assert message.startswith(f"{called.__name__}() has no option {wrong!r}; did you mean ")
            assert repr(one.name) in message and "\n" not in message


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: clipvip.shard(annotations="a", out="o"),
            "shard() has no option 'annotations'; did you mean 'metadata'?",
        ),
        (lambda: clipvip.nmi(source="a"), "nmi() has no option 'source'; did you mean 'sources'?"),
        (
            lambda: clipvip.shard(qqq=1),
            "shard() has no option 'qqq'; its options are metadata, from_shards, ",
        ),
        (lambda: clipvip.shard(), "shard() needs 'out'"),
        (lambda: clipvip.split("c"), "split() needs 'out' and 'parts'"),
        (lambda: clipvip.shard("a", "b"), "shard() takes no option by position; give the others by name"),
        (lambda: clipvip.search("a", "b"), "search() takes only sentences by position"),
        (lambda: clipvip.ShardOptions(size=20), "ShardOptions() needs 'out'"),  # type: ignore[call-arg]
        (
            lambda: replace(clipvip.ShardOptions(out="o"), dryrun=True),  # type: ignore[call-arg]
            "ShardOptions() has no option 'dryrun'; did you mean 'dry_run'?",
        ),
    ],
)
def test_a_call_that_does_not_fit_is_one_line(call: Any, message: str) -> None:
    with pytest.raises(TypeError) as error:
        call()
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_one_object_of_options_stands_alone() -> None:
    options = clipvip.ShardOptions(out="o")
    for call in (
        lambda: clipvip.shard(options, dry_run=True),
        lambda: clipvip.shard(options, options),
        lambda: clipvip.caption(options),
    ):
        with pytest.raises(TypeError, match=r"takes one \w+Options alone, or keywords; dataclasses.replace"):
            call()


def test_options_are_copied_and_pickled_as_before() -> None:
    options = clipvip.ShardOptions(out="o", size=32)
    assert pickle.loads(pickle.dumps(options)) == options  # noqa: S301 (of our own making)
    assert replace(options, size=64).size == 64 and isinstance(options, StageOptions)
