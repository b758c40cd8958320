"""What is said of scenes: captions without motion, descriptions with it, subtitles as the knobs say."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipvip.experiments.demo.texts import alt_text, caption, description, properties_in_caption, subtitle
from clipvip.experiments.demo.world import MOTIONS, World, draw_scene

SEEDS = st.integers(0, 2**31)


@given(SEEDS)
def test_caption_tells_the_appearance_and_nothing_of_the_motion(seed: int) -> None:
    scene = draw_scene(random.Random(seed), World())
    assert properties_in_caption(caption(scene)) == scene.appearance
    assert len({caption(replace(scene, motion=motion)) for motion in MOTIONS}) == 1
    labels = {alt_text(replace(scene, motion=motion), random.Random(seed)) for motion in MOTIONS}
    assert len(labels) == 1


@given(SEEDS)
def test_description_tells_motions_apart(seed: int) -> None:
    scene = draw_scene(random.Random(seed), World())
    texts = [description(replace(scene, motion=motion), random.Random(seed)) for motion in MOTIONS]
    assert len(set(texts)) == len(MOTIONS)


def _subtitles(world: World, count: int = 400) -> list[tuple[str, str]]:
    chance = random.Random(5)
    scenes = [draw_scene(chance, World()) for _ in range(count)]
    return [(scene.colour, subtitle(scene, world, chance)) for scene in scenes]


@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
def test_topic_noise_is_the_share_of_subtitles_about_something_else(rate: float) -> None:
    world = World(topic_noise=rate, silent_rate=0, synonym_rate=0, colour_rate=1)
    named = [f" {colour} " in f" {text} " for colour, text in _subtitles(world)]
    assert sum(named) / len(named) == pytest.approx(1 - rate, abs=0.08)


def test_synonyms_take_the_descriptions_words_away() -> None:
    world = World(topic_noise=0, silent_rate=0, synonym_rate=1, colour_rate=1, place_rate=0)
    assert not any(f" {colour} " in f" {text} " for colour, text in _subtitles(world))


def test_silent_rate_leaves_subtitles_empty() -> None:
    assert not any(text for _, text in _subtitles(World(silent_rate=1)))


@pytest.mark.parametrize("knob", [{"topic_noise": 1.5}, {"caption_error": -0.1}, {"num_train_videos": 0}])
def test_knobs_out_of_range_are_refused(knob: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(knob))):
        World(**knob)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "properties"),
    [
        ("A big red square, on a green field.", ("big", "red", "square", "field")),
        ("a small blue ring on the blue sea", ("small", "blue", "ring", "sea")),
        ("a small ring on the blue sea", ("small", "", "ring", "sea")),
        ("a big red blue square in the snow", ("big", "", "square", "snow")),
        ("", ("", "", "", "")),
    ],
)
def test_properties_in_caption(text: str, properties: tuple[str, ...]) -> None:
    assert properties_in_caption(text) == properties
