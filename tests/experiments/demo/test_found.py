"""Who finds which clip: twins, and whether they are told apart."""

from dataclasses import replace

import numpy as np
import pytest

from clipvip.experiments.demo.found import Found, queries_to_show, told_apart, twins_of
from clipvip.experiments.demo.report import headline
from clipvip.experiments.demo.results import MODELS, wrong_properties
from clipvip.experiments.demo.world import Scene

STAR = Scene(shape="star", colour="red", size="big", place="field", motion="left")
TRUTH = {
    "a": STAR,
    "b": replace(STAR, motion="grow"),
    "c": replace(STAR, motion="right", backwards=True),
    "d": replace(STAR, motion="shrink", backwards=True),
}
TWINS = np.array([2, 3, 0, 1])


def _found(*rows: tuple[float, ...]) -> Found:
    return Found(list(TRUTH), ["left", "grow", "right", "shrink"], np.array(rows))


FOUND = _found((0.9, 0, 0.1, 0), (0, 0.5, 0, 0.5), (0, 0, 0.4, 0), (0, 0.3, 0.8, 0.6))


def test_a_clip_and_its_reverse_are_twins() -> None:
    assert twins_of(list(TRUTH), TRUTH).tolist() == TWINS.tolist()
    with pytest.raises(KeyError):
        twins_of(["a", "b"], TRUTH)


def test_a_tie_is_not_told_apart() -> None:
    assert told_apart(FOUND, TWINS).tolist() == [True, False, True, True]


def test_the_nearest_come_first() -> None:
    assert FOUND.first(3, 3) == [2, 3, 1]
    assert [FOUND.is_found(query) for query in range(4)] == [True, True, True, False]


def test_a_pair_that_is_found_is_shown_and_a_clip_that_is_missed() -> None:
    assert queries_to_show(FOUND, TWINS) == [0, 2, 3]
    assert queries_to_show(_found(*np.eye(4)[::-1]), TWINS) == [0, 2, 0]
    assert queries_to_show(_found(*np.eye(4)), TWINS) == [0, 2, 3]


def test_properties_that_a_caption_has_wrong_are_named() -> None:
    assert wrong_properties("a big red star on a green field", STAR) == []
    assert wrong_properties("a big blue star in the desert", STAR) == ["colour", "place"]
    assert wrong_properties("", STAR) == ["size", "colour", "shape", "place"]


@pytest.mark.parametrize(
    ("average", "trained", "said"),
    [
        (
            0.1,
            0.655,
            "An encoder that cannot see order finds at most half of the clips; CLIP-ViP finds 65.5%.",
        ),
        (0.1, 0.4, "CLIP with its frames averaged finds 10.0% of the clips; CLIP-ViP finds 40.0%."),
        (0.6, 0.55, "CLIP with its frames averaged finds 60.0% of the clips; CLIP-ViP finds 55.0%."),
    ],
)
def test_the_headline_says_what_was_found(average: float, trained: float, said: str) -> None:
    r1 = dict.fromkeys(MODELS, average) | {"clip_vip_trained": trained}
    results = {"retrieval": {name: {"text_to_video": {"r1": value}} for name, value in r1.items()}}
    assert headline(results) == said
