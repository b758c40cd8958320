"""How proxies and the temporal table begin where the start has none: as the released code, or as asked."""

import json
from pathlib import Path

import pytest
import torch

from clipvip.model import ClipVip, ClipVipConfig
from clipvip.model.starts import read_config
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.train.recipe import load_recipe
from clipvip.pipeline.train.start import start_model
from tiny_clip import make_clip

OWN = {"num_proxies": 400, "temporal_size": 100}


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("models") / "clip")


def _started(clip_folder: Path, **settings: object) -> ClipVip:
    torch.manual_seed(0)
    return ClipVip.from_clip(clip_folder, **(OWN | settings))


def test_proxies_begin_as_copies_of_the_class_embedding(clip_folder: Path) -> None:
    model, plain = _started(clip_folder, proxy_start="class"), _started(clip_folder)
    embeddings = model.vision_model.embeddings
    noise = embeddings.added_cls - embeddings.class_embedding
    assert noise.std().item() == pytest.approx(0.02, rel=0.03)
    assert noise.mean().item() == pytest.approx(0, abs=0.001)
    assert not embeddings.temporal_embedding.any()
    # All but the proxies are as without the option.
    own, others = model.state_dict(), plain.state_dict()
    assert [name for name in own if not torch.equal(own[name], others[name])] == [
        "vision_model.embeddings.added_cls"
    ]


def test_the_temporal_table_begins_with_a_deviation(clip_folder: Path) -> None:
    model, plain = _started(clip_folder, temporal_start=0.5), _started(clip_folder)
    embeddings = model.vision_model.embeddings
    assert embeddings.temporal_embedding.std().item() == pytest.approx(0.5, rel=0.03)
    assert torch.equal(embeddings.added_cls, plain.vision_model.embeddings.added_cls)


def test_the_starts_depend_on_the_seed_alone(clip_folder: Path) -> None:
    settings = {"proxy_start": "class", "temporal_start": 0.3}
    first, again = (_started(clip_folder, **settings).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    torch.manual_seed(1)
    other = ClipVip.from_clip(clip_folder, **OWN, **settings).vision_model.embeddings
    for name in ("added_cls", "temporal_embedding"):
        assert not torch.equal(getattr(other, name), first[f"vision_model.embeddings.{name}"])


def test_what_the_start_has_is_kept(clip_folder: Path, tmp_path: Path) -> None:
    """The options are for parameters that come new, and are written down with the model."""
    first = ClipVip.from_clip(clip_folder, proxy_start="class", temporal_start=0.4)
    first.save_pretrained(tmp_path / "vip")
    asked = {"proxy_start": "random", "temporal_start": "zero"}
    for again in (
        ClipVip.from_pretrained(tmp_path / "vip"),
        ClipVip.from_clip(tmp_path / "vip"),
        ClipVip.from_clip(tmp_path / "vip", **asked),
        ClipVip.from_clip(tmp_path / "vip", encoder="full_attention", **asked),
    ):
        for name, tensor in first.state_dict().items():
            assert torch.equal(again.state_dict()[name], tensor), name
    config = ClipVipConfig.from_pretrained(tmp_path / "vip")
    assert (config.proxy_start, config.temporal_start) == ("class", 0.4)
    # A model without proxies has none to keep: they begin as its own configuration says.
    ClipVip.from_clip(tmp_path / "vip", encoder="mean_pool").save_pretrained(tmp_path / "mean")
    grown = ClipVip.from_clip(tmp_path / "mean", encoder="vip").vision_model.embeddings
    assert (grown.added_cls - grown.class_embedding).std() < 0.03 and grown.temporal_embedding.std() > 0.2


def test_a_model_from_scratch_begins_so_too(clip_folder: Path) -> None:
    """`from_scratch` and configurations alone: the class embedding is the random one."""
    sets = ("model.from_scratch=true", "model.proxy_start=class", "model.temporal_start=0.5")
    sets += ("data.max_text_tokens=16",)
    drawn = start_model(load_recipe("demo", sets, options={"model.init": str(clip_folder)}))
    made = ClipVip(drawn.config)
    for model in (drawn, made):
        embeddings = model.vision_model.embeddings
        assert embeddings.class_embedding.any()
        assert (embeddings.added_cls - embeddings.class_embedding).std().item() < 0.03
        assert embeddings.temporal_embedding.std().item() == pytest.approx(0.5, rel=0.2)


def test_folders_without_the_options_load_as_before(clip_folder: Path, tmp_path: Path) -> None:
    ClipVip.from_clip(clip_folder).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    settings = json.loads(path.read_text())
    for name in ("proxy_start", "temporal_start"):
        del settings[name]
    path.write_text(json.dumps(settings))
    assert (read_config(str(tmp_path)).proxy_start, read_config(str(tmp_path)).temporal_start) == (
        "random",
        "zero",
    )
    ClipVip.from_pretrained(tmp_path)


@pytest.mark.parametrize("recipe", ["pretrain_vip_b32", "pretrain_vip_b16", "finetune_msrvtt_b32"])
def test_recipes_of_the_paper_begin_as_the_released_code(recipe: str) -> None:
    model = load_recipe(recipe).model
    assert (model.proxy_start, model.temporal_start) == (None, None)
    assert (ClipVipConfig().proxy_start, ClipVipConfig().temporal_start) == ("random", "zero")


@pytest.mark.parametrize("value", [0, -1, "none", True, float("nan"), float("inf"), "0.5"])
def test_starts_that_are_none_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="'zero' or a standard deviation above 0, not"):
        ClipVipConfig(temporal_start=value)  # type: ignore[arg-type]
    said = "model.temporal_start: the start of the temporal table is 'zero' or a standard deviation above 0"
    text = json.dumps(value).replace("NaN", ".nan").replace("Infinity", ".inf")
    with pytest.raises(UserError, match=said):
        load_recipe("demo", (f"model.temporal_start={text}",))


def test_another_start_of_proxies_is_refused() -> None:
    with pytest.raises(ValueError, match="proxy_start = 'mean' must be one of random, class"):
        ClipVipConfig(proxy_start="mean")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"model\.proxy_start: input should be 'random' or 'class'"):
        load_recipe("demo", ("model.proxy_start=mean",))
