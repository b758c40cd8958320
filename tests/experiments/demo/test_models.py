"""The shipped models.

They load as any user's model does, and do on fresh pictures what they were trained for.
"""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from clipvip.experiments.demo.pictures import draw_pictures
from clipvip.experiments.demo.texts import caption, description, properties_in_caption, subtitle
from clipvip.experiments.demo.world import WEIGHTS, Scene, World, chance_of, draw_scene
from clipvip.model import ClipVip
from clipvip.model.ofa import OfaForConditionalGeneration, OfaTokenizer
from clipvip.model.ofa.captioner import Captioner


@pytest.fixture(scope="module")
def pictures() -> tuple[list[Scene], np.ndarray]:
    return next(iter(draw_pictures(World(seed=99), "test", count=60, times=(0.4, 0.6))))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_weights_are_small() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) < 5e6


def test_captioner_is_right_about_most_pictures(pictures: tuple[list[Scene], np.ndarray]) -> None:
    scenes, frames = pictures
    captioner = Captioner(WEIGHTS / "ofa", device=torch.device("cpu"), batch_size=30)
    told = [properties_in_caption(text) for text in captioner.caption(list(frames))]
    right = [one == scene.appearance for one, scene in zip(told, scenes, strict=True)]
    assert np.mean(right) >= 0.6


def test_clip_finds_the_caption_of_a_picture(pictures: tuple[list[Scene], np.ndarray]) -> None:
    scenes, frames = pictures
    model = ClipVip.from_clip(WEIGHTS / "clip", encoder="mean_pool", temporal_size=1)
    similarity = model.encode_video(list(frames[:, None])) @ model.encode_text(list(map(caption, scenes))).T
    assert (similarity.argmax(1) == torch.arange(len(scenes))).float().mean() >= 0.6


def test_vocabularies_keep_any_text() -> None:
    tokenizer = OfaTokenizer.from_pretrained(str(WEIGHTS / "ofa"))
    for text in (" a big red square on a green field", " naïve 狐 🦊"):
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text
    model = OfaForConditionalGeneration.from_pretrained(str(WEIGHTS / "ofa"))
    assert len(tokenizer) == model.config.vocab_size


def test_texts_of_the_world_fit_the_text_tower() -> None:
    model = ClipVip.from_clip(WEIGHTS / "clip")
    chance = chance_of(World(), "test")
    scenes = [draw_scene(chance, World()) for _ in range(300)]
    texts = [subtitle(scene, World(), chance) for scene in scenes]
    texts += [description(scene, chance) for scene in scenes]
    longest = max(len(ids) for ids in model.tokenizer(texts)["input_ids"])
    assert longest <= model.config.text_config.max_position_embeddings
