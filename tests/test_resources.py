"""A test that needs what this machine lacks is skipped, or fails where that is said to be there."""

import re
from pathlib import Path

import pytest

import resources
from resources import RESOURCES, VARIABLE, need, required

TESTS = Path(__file__).resolve().parent


@pytest.mark.parametrize("value", ["all", "ray, nothing_like_it"])
def test_what_is_required_and_missing_is_a_failure(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RESOURCES, "nothing_like_it", ("a thing", lambda: False))
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs nothing_like_it: a thing"):
        need("nothing_like_it")
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(pytest.fail.Exception, match="needs nothing_like_it: a thing; CLIPVIP_TESTS_REQUIRE"):
        need("nothing_like_it")
    monkeypatch.setitem(RESOURCES, "nothing_like_it", ("a thing", lambda: True))
    need("nothing_like_it")


def test_an_unknown_resource_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "rya")
    with pytest.raises(pytest.UsageError, match=r"CLIPVIP_TESTS_REQUIRE: rya is none of all, shared, "):
        required()


def test_nothing_else_skips() -> None:
    ways = re.compile(r"pytest\.(skip|importorskip)\(|mark\.(skip|skipif|xfail)\b")
    files = [path for path in TESTS.rglob("*.py") if path not in {Path(__file__), Path(resources.__file__)}]
    assert len(files) > 100
    assert [path.name for path in files if ways.search(path.read_text())] == []
