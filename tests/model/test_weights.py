"""Where weights come from, and the one line that says what is wrong with those that do not fit."""

import json
import pickle
import re
import shutil
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

from clipvip.model import ClipVip
from clipvip.model.errors import CheckpointError
from clipvip.model.weights import convert_released, read_state_dict
from goldens import assert_close, manifest, tensors, tiny_config
from tiny_clip import make_clip, make_text_tower, tiny_text_config, tiny_tokenizer, wide_model

PROXIES = "vision_model.embeddings.added_cls"
TEMPORAL = "vision_model.embeddings.temporal_embedding"


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture
def released() -> dict[str, torch.Tensor]:
    return dict(tensors("vip_tiny.weights"))


# --- from a plain CLIP ---


def test_from_clip_takes_everything_and_adds_proxies(clip_folder: Path) -> None:
    torch.manual_seed(0)
    model = ClipVip.from_clip(clip_folder, num_proxies=400)
    plain, ours = CLIPModel.from_pretrained(clip_folder).state_dict(), model.state_dict()
    assert {name: ours.pop(name).shape for name in (PROXIES, TEMPORAL)} == {
        PROXIES: (399, 32),
        TEMPORAL: (1, 12, 32),
    }
    assert set(ours) == set(plain)
    assert all(torch.equal(ours[name], tensor) for name, tensor in plain.items())
    embeddings = model.vision_model.embeddings
    assert not embeddings.temporal_embedding.any()
    assert embeddings.added_cls.std().item() == pytest.approx(1.0, abs=0.02)
    assert embeddings.added_cls.mean().item() == pytest.approx(0.0, abs=0.04)
    with torch.no_grad():
        tokens = embeddings(torch.zeros(1, 2, 3, 32, 32))
    first = embeddings.class_embedding + embeddings.position_embedding.weight[0]
    assert torch.equal(tokens[0, 0], first)
    assert not model.training


def test_proxies_depend_on_the_seed_alone(clip_folder: Path) -> None:
    def proxies(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return ClipVip.from_clip(clip_folder).state_dict()[PROXIES]

    assert torch.equal(proxies(3), proxies(3))
    assert not torch.equal(proxies(3), proxies(4))


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
@pytest.mark.parametrize("patch_size", [16, 8])
def test_from_clip_of_other_makers(activation: str, patch_size: int, tmp_path: Path) -> None:
    """OpenCLIP's models have another activation, their own projection width and epsilon."""
    torch.manual_seed(1)
    tower = {"hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 2,
             "hidden_act": activation, "layer_norm_eps": 1e-3}  # fmt: skip
    config = CLIPConfig(
        text_config=CLIPTextConfig(**tiny_text_config() | tower | {"projection_dim": 24}).to_dict(),
        vision_config=CLIPVisionConfig(
            **tower, image_size=32, patch_size=patch_size, projection_dim=24
        ).to_dict(),
        projection_dim=24,
    )
    plain = CLIPModel(config).eval()
    torch.nn.init.normal_(plain.vision_model.encoder.layers[0].mlp.fc1.weight)
    plain.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    image = torch.randn(2, 3, 32, 32)
    ids = tiny_tokenizer()(["a dog"], return_tensors="pt").input_ids
    model = ClipVip.from_clip(tmp_path, num_proxies=1)
    with torch.no_grad():
        for found, expected in (
            (model.get_video_features(image[:, None]), plain.get_image_features(image).pooler_output),
            (model.get_text_features(ids), plain.get_text_features(ids).pooler_output),
        ):
            assert found.shape[1] == 24
            assert_close(found, torch.nn.functional.normalize(expected, dim=-1), atol=1e-6)
    assert model.encode_text(["a dog"]).shape == (1, 24)


def test_the_tokenizer_goes_along(clip_folder: Path, tmp_path: Path) -> None:
    model = ClipVip.from_clip(clip_folder)
    model.save_pretrained(tmp_path)
    for name in ("tokenizer.json", "config.json", "model.safetensors"):
        assert (tmp_path / name).is_file()
    again = ClipVip.from_pretrained(tmp_path)
    assert_close(again.encode_text(["Some words"]), model.encode_text(["Some words"]), atol=1e-6)


def test_from_clip_of_a_clip_vip(clip_folder: Path, tmp_path: Path) -> None:
    """Post-pretrained weights are a start too, also for another encoder."""
    first = ClipVip.from_clip(clip_folder)
    torch.nn.init.normal_(first.vision_model.embeddings.temporal_embedding)
    first.save_pretrained(tmp_path)
    again = ClipVip.from_clip(tmp_path)
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in first.state_dict().items())
    pooled = ClipVip.from_clip(tmp_path, encoder="mean_pool")
    own = first.state_dict()
    assert set(own) - set(pooled.state_dict()) == {PROXIES, TEMPORAL}
    assert all(torch.equal(own[name], tensor) for name, tensor in pooled.state_dict().items())


# --- from the authors' files ---


def _pt(path: Path, state: dict[str, torch.Tensor]) -> Path:
    torch.save(OrderedDict(state), path)
    return path


def _safetensors(path: Path, state: dict[str, torch.Tensor]) -> Path:
    save_file(state, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def _ddp(path: Path, state: dict[str, torch.Tensor]) -> Path:
    return _pt(path, {f"module.{name}": tensor for name, tensor in state.items()})


@pytest.mark.parametrize("write", [_pt, _safetensors, _ddp])
def test_released_files(write: Callable, released: dict[str, torch.Tensor], tmp_path: Path) -> None:
    model = ClipVip.from_released(
        write(tmp_path / "released.pt", released), tiny_config("vip_tiny", encoder="vip")
    )
    state = model.state_dict()
    assert {f"clipmodel.{name}" for name in state} == {n for n in released if not n.endswith("position_ids")}
    assert all(torch.equal(tensor, released[f"clipmodel.{name}"]) for name, tensor in state.items())


def test_options_for_a_released_file(released: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path, config = _pt(tmp_path / "released.pt", released), tiny_config("vip_tiny", encoder="vip")
    model = ClipVip.from_pretrained(path, config=config, dtype=torch.bfloat16)
    assert model.config is config and model.logit_scale.dtype == torch.bfloat16
    assert ClipVip.from_pretrained(path, config=config, dtype="float64").logit_scale.dtype == torch.float64
    with pytest.raises(ValueError, match=r"released\.pt is a file: .* not device_map, revision"):
        ClipVip.from_pretrained(path, revision="main", device_map="cpu")


def test_sizes_are_read_off_a_released_file(clip_folder: Path, tmp_path: Path) -> None:
    model = wide_model()
    path = _pt(tmp_path / "released.pt", {f"clipmodel.{n}": t for n, t in model.state_dict().items()})
    loaded = ClipVip.from_pretrained(path, tokenizer=clip_folder)
    for part in ("vision_config", "text_config"):
        ours, theirs = (getattr(m.config, part).to_dict() for m in (loaded, model))
        differing = {name for name in ours if ours[name] != theirs.get(name)}
        assert differing <= {"pad_token_id", "projection_dim"}
    assert (loaded.config.num_proxies, loaded.config.temporal_size) == (3, 6)
    video = torch.randn(2, 4, 3, 48, 48)
    ids = torch.tensor([[512, 4, 5, 513, 513]])
    with torch.no_grad():
        assert_close(loaded.get_video_features(video), model.get_video_features(video), atol=1e-6)
        assert_close(loaded.get_text_features(ids), model.get_text_features(ids), atol=1e-6)
    assert loaded.encode_text(["some words"]).shape == (1, 20)

    convert_released(path, tmp_path / "folder", tokenizer=clip_folder)
    again = ClipVip.from_pretrained(tmp_path / "folder")
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    assert_close(again.encode_text(["some words"]), loaded.encode_text(["some words"]), atol=1e-6)


class Surprise:
    """Would run on unpickling."""

    def __reduce__(self) -> tuple:
        return print, ("unpickled",)


def test_no_object_is_unpickled(
    released: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "evil.pt"
    torch.save(released | {"surprise": Surprise()}, path)
    with pytest.raises(CheckpointError, match=r"evil\.pt: not a checkpoint of tensors alone") as caught:
        ClipVip.from_released(path)
    assert "would run code" in str(caught.value) and "weights_only" not in str(caught.value)
    path.write_bytes(pickle.dumps({"surprise": Surprise()}))
    with pytest.raises(CheckpointError, match=r"evil\.pt: not a checkpoint of tensors alone"):
        read_state_dict(path)
    assert "unpickled" not in capsys.readouterr().out


def test_tensors_that_do_not_fit_are_listed_in_one_line(released: dict[str, torch.Tensor]) -> None:
    config = tiny_config("vip_tiny", encoder="vip")
    del released["clipmodel.logit_scale"], released["clipmodel.text_projection.weight"]
    released["clipmodel.extra.weight"] = torch.zeros(2)
    released["clipmodel.visual_projection.weight"] = torch.zeros(3, 64)
    with pytest.raises(CheckpointError) as caught:
        ClipVip.from_released(released, config)
    message = str(caught.value)
    assert "\n" not in message
    assert "2 missing: logit_scale, text_projection.weight" in message
    assert "1 unexpected: extra.weight" in message
    assert "1 of another shape: visual_projection.weight (3, 64) instead of (32, 64)" in message


def test_a_long_list_is_cut(released: dict[str, torch.Tensor]) -> None:
    few = {name: tensor for name, tensor in released.items() if "text_model" not in name}
    with pytest.raises(CheckpointError, match=r"\d+ missing: (\S+, ){7}\S+ and \d+ more$"):
        ClipVip.from_released(few, tiny_config("vip_tiny", encoder="vip"))
    lacking = "text_model.embeddings.token_embedding.weight, text_model.embeddings.position_embedding.weight"
    with pytest.raises(CheckpointError, match=f"is no released CLIP-ViP model, it has no tensor {lacking}"):
        ClipVip.from_released(few)


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4, 5, 6)])
def test_whichever_tensor_is_missing_or_misshapen_is_named(
    released: dict[str, torch.Tensor], shape: tuple[int, ...]
) -> None:
    for name in released:
        if name.endswith(("position_ids", "logit_scale")):
            continue
        part = re.escape(name.removeprefix("clipmodel."))
        if part != re.escape(TEMPORAL):  # which a checkpoint may lack
            with pytest.raises(CheckpointError, match=part):
                ClipVip.from_released({key: tensor for key, tensor in released.items() if key != name})
        with pytest.raises(CheckpointError, match=rf"{part} {re.escape(str(shape))}"):
            ClipVip.from_released(released | {name: torch.zeros(shape)})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "not in the reference's layout.*found no tensors"),
        ({"model.weight": torch.zeros(1)}, "not in the reference's layout.*found model.weight"),
        ({"step": 3}, "holds more than named tensors"),
        ([torch.zeros(1)], "holds more than named tensors"),
    ],
)
def test_other_files(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=f"other.pt: {message}"):
        ClipVip.from_released(tmp_path / "other.pt")


def test_the_baselines_file_is_no_vip(tmp_path: Path) -> None:
    state = tensors("meanpool_tiny.weights")
    with pytest.raises(CheckpointError, match="is no released CLIP-ViP model"):
        ClipVip.from_released(state)
    model = ClipVip.from_released(state, tiny_config("meanpool_tiny", encoder="mean_pool"))
    assert sum(p.numel() for p in model.parameters()) == manifest("meanpool_tiny")["n_parameters"]


# --- from folders ---


def one_line(error: CheckpointError) -> str:
    assert "\n" not in str(error)
    return str(error)


def test_folders_that_are_none(clip_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such model folder") as caught:
        ClipVip.from_pretrained(tmp_path / "missing")
    assert str(tmp_path / "missing") in one_line(caught.value)
    with pytest.raises(CheckpointError, match=r"no model configuration \(config\.json\) there"):
        ClipVip.from_pretrained(tmp_path)
    text = make_text_tower(tmp_path / "text")
    for load in (ClipVip.from_pretrained, ClipVip.from_clip):
        with pytest.raises(CheckpointError, match="of type 'clip_text_model', expected clip or clip_vip"):
            load(text)
    with pytest.raises(CheckpointError, match="no such folder, and not in the cache") as caught:
        ClipVip.from_clip("surely-nobody/has-this-model")
    one_line(caught.value)


def test_folders_with_parts_missing_or_broken(clip_folder: Path, tmp_path: Path) -> None:
    model = ClipVip.from_clip(clip_folder)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())

    (tmp_path / "config.json").write_text(json.dumps(config | {"num_proxies": 9}))
    with pytest.raises(CheckpointError) as caught:
        ClipVip.from_pretrained(tmp_path)
    assert "added_cls" in one_line(caught.value) or "shape" in one_line(caught.value)

    (tmp_path / "config.json").write_text(
        json.dumps(config | {"encoder": "seq_transformer", "num_frame_heads": 4})
    )
    with pytest.raises(CheckpointError, match="missing: frame_transformer"):
        ClipVip.from_pretrained(tmp_path)

    (tmp_path / "config.json").write_text(json.dumps(config | {"encoder": "nothing"}))
    with pytest.raises(CheckpointError, match="encoder 'nothing' is none of"):
        ClipVip.from_pretrained(tmp_path)

    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(CheckpointError, match="does not load") as caught:
        ClipVip.from_pretrained(tmp_path)
    one_line(caught.value)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="does not load") as caught:
        ClipVip.from_pretrained(tmp_path)
    assert str(tmp_path) in one_line(caught.value)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="no model configuration"):
        ClipVip.from_pretrained(tmp_path)


def test_a_tokenizer_that_was_named_must_be_there(clip_folder: Path, tmp_path: Path) -> None:
    ClipVip.from_clip(clip_folder).save_pretrained(tmp_path / "model")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="has no tokenizer that loads"):
        ClipVip.from_pretrained(tmp_path / "model", tokenizer=tmp_path / "empty")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "model" / name).unlink()
    assert ClipVip.from_pretrained(tmp_path / "model").tokenizer is None
    named = ClipVip.from_pretrained(tmp_path / "model", tokenizer=clip_folder)
    assert named.encode_text(["a"]).shape == (1, 16)


def test_from_clip_with_weights_cut(clip_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(clip_folder, tmp_path / "clip")
    path = tmp_path / "clip" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="does not load"):
        ClipVip.from_clip(tmp_path / "clip")
