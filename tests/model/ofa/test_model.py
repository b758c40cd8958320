"""OFA against what its published code computed on the same random weights."""

import json
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig

from clipvip.model.errors import CheckpointError
from clipvip.model.ofa import OfaConfig, OfaForConditionalGeneration, preprocess_images
from clipvip.model.ofa.positions import image_buckets, image_position_ids, token_buckets
from goldens import GOLDENS, assert_close

OFA = GOLDENS / "ofa"
CASES = ["sq64", "rect96x48"]
SIZES = ["tiny", "medium", "base", "large", "huge"]
CPU = torch.device("cpu")
# Buffers that published files hold and that are computed here.
COMPUTED = ("token_rp_bucket", "image_rp_bucket", "image_position_idx")


@cache
def manifest() -> dict[str, Any]:
    return json.loads((OFA / "manifest.json").read_text())


@cache
def stored_weights() -> dict[str, Tensor]:
    """As published, with the tied matrix once."""
    return {name: tensor.float() for name, tensor in load_file(OFA / "weights_fp16.safetensors").items()}


def whole_state_dict() -> dict[str, Tensor]:
    """What torch.save of the published model holds: the tied matrix three times, and the buffers."""
    state = dict(stored_weights())
    for name in manifest()["not_stored"]["tied_copies"]:
        state[name] = state["encoder.embed_tokens.weight"].clone()
    for name, entry in manifest()["not_stored"]["computed_buffers"].items():
        state[name] = torch.zeros(entry["shape"], dtype=torch.int64)
    return state


def write_folder(
    folder: Path, state: dict[str, Tensor], *, safetensors: bool = False, **settings: Any
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = manifest()["config"] | {"model_type": "ofa", "architectures": ["OFAModel"]} | settings
    (folder / "config.json").write_text(json.dumps(config))
    if safetensors:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        torch.save(state, folder / "pytorch_model.bin")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> OfaForConditionalGeneration:
    folder = write_folder(tmp_path_factory.mktemp("ofa"), whole_state_dict())
    return OfaForConditionalGeneration.from_pretrained(folder).eval()


def golden(case: str) -> Callable[[str], Tensor]:
    tensors = load_file(OFA / "io.safetensors")
    return lambda name: tensors[f"{case}.{name}"]


# --- the network ---


@pytest.mark.parametrize("case", CASES)
def test_encoder(model: OfaForConditionalGeneration, case: str) -> None:
    of = golden(case)
    with torch.no_grad():
        features = model.encoder.embed_images(of("patch_images"))
        found = model.encoder(
            of("input_ids"), of("patch_images"), of("patch_masks"), output_hidden_states=True
        )
    assert_close(features, of("resnet_feature_map"), atol=5e-5, rtol=1e-4)
    assert len(found.hidden_states) == 3
    for index, states in enumerate(found.hidden_states):
        assert_close(states, of(f"encoder_hidden_states.{index}"), atol=5e-5, rtol=1e-4)
    assert_close(found.last_hidden_state, of("encoder_last_hidden_state"), atol=5e-5, rtol=1e-4)
    assert torch.equal(found.padding_mask, of("encoder_padding_mask").bool())
    batch = len(found.padding_mask)
    positions = found.position_embedding.expand(batch, -1, -1)
    assert_close(positions, of("encoder_position_embedding"), atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_decoder(model: OfaForConditionalGeneration, case: str) -> None:
    of = golden(case)
    inputs = {name: of(name) for name in ("input_ids", "patch_images", "decoder_input_ids")}
    with torch.no_grad():
        found = model(**inputs, output_hidden_states=True)
    assert len(found.decoder_hidden_states) == 3
    for index, states in enumerate(found.decoder_hidden_states):
        assert_close(states, of(f"decoder_hidden_states.{index}"), atol=5e-5, rtol=1e-4)
    assert_close(found.logits, of("decoder_logits"), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("use_cache", [True, False], ids=["cache", "no-cache"])
@pytest.mark.parametrize(
    "search", ["hf_greedy", "hf_greedy_ngram3", "hf_beam5_ngram3", "hf_beam5_ngram3_early"]
)
@pytest.mark.parametrize("case", CASES)
def test_generate(model: OfaForConditionalGeneration, case: str, search: str, use_cache: bool) -> None:
    of, expected = golden(case), manifest()["cases"][case]["hf_generate"][search]
    found = model.generate(
        input_ids=of("input_ids"),
        patch_images=of("patch_images"),
        patch_masks=of("patch_masks"),
        use_cache=use_cache,
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
        **manifest()["generation"]["hf_generate"][search],
    )
    assert found.sequences.tolist() == expected["sequences"]
    if expected["sequences_scores"] is not None:
        assert_close(found.sequences_scores, torch.tensor(expected["sequences_scores"]), atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_generate_finds_what_the_authors_search_finds(model: OfaForConditionalGeneration, case: str) -> None:
    of = golden(case)
    hypotheses = manifest()["cases"][case]["sequence_generator"]["seqgen_beam5_ngram3_minlen0"]
    found = model.generate(
        input_ids=of("input_ids"),
        patch_images=of("patch_images"),
        num_beams=5,
        early_stopping=True,
        no_repeat_ngram_size=3,
        length_penalty=1.0,
        max_length=18,
    )
    for row, best in zip(found.tolist(), hypotheses, strict=True):
        assert [token for token in row[1:] if token != 1] == best[0]["tokens"]


def test_labels_give_the_loss_of_the_next_token(model: OfaForConditionalGeneration) -> None:
    of = golden("sq64")
    inputs = {name: of(name) for name in ("input_ids", "patch_images")}
    labels = torch.tensor([[5, 6, 7, 2], [8, 2, 1, -100]])
    start = torch.tensor([[0, 5, 6, 7], [0, 8, 2, 1]])
    with torch.no_grad():
        found = model(**inputs, labels=labels)
        logits = model(**inputs, decoder_input_ids=start).logits
    real = (labels != 1) & (labels != -100)
    assert_close(found.loss, F.cross_entropy(logits[real], labels[real]), atol=1e-5)
    with pytest.raises(ValueError, match="decoder_input_ids or labels"):
        model(**inputs)


def test_prompts_of_different_lengths_are_as_each_alone(model: OfaForConditionalGeneration) -> None:
    of = golden("sq64")
    assert (of("input_ids") == 1).any(), "one prompt of the batch is padded"
    start = of("decoder_input_ids")
    with torch.no_grad():
        batch = model(
            input_ids=of("input_ids"), patch_images=of("patch_images"), decoder_input_ids=start
        ).logits
        masked = model(
            input_ids=of("input_ids"),
            attention_mask=(of("input_ids") != 1).long(),
            patch_images=of("patch_images"),
            decoder_input_ids=start,
        ).logits
        for row, ids in enumerate(of("input_ids")):
            alone = model(
                input_ids=ids[ids != 1][None],
                patch_images=of("patch_images")[row : row + 1],
                decoder_input_ids=start[row : row + 1],
            ).logits
            assert_close(batch[row : row + 1], alone, atol=1e-5)
    assert torch.equal(batch, masked)


def test_an_image_larger_than_the_grid_is_refused(model: OfaForConditionalGeneration) -> None:
    with pytest.raises(ValueError, match="11 x 4 cells is more than the model's 10 x 10"):
        model.encoder(torch.tensor([[0, 5, 2]]), torch.zeros(1, 3, 176, 64))


# --- names, shapes, tables ---


@pytest.mark.parametrize("size", SIZES)
def test_names_and_shapes_of_the_published_sizes(size: str) -> None:
    content = json.loads((OFA / f"keys/ofa-{size}_hf_keys.json").read_text())
    published = json.loads((OFA / "keys/sizes.json").read_text())[f"ofa-{size}"]
    with torch.device("meta"):
        model = OfaForConditionalGeneration(OfaConfig(**content["config"]))
    expected = {e["name"]: e["shape"] for e in content["entries"] if not e["name"].endswith(COMPUTED)}
    assert {name: list(tensor.shape) for name, tensor in model.state_dict().items()} == expected
    assert sum(parameter.numel() for parameter in model.parameters()) == published["parameters"]
    resnet = sum(parameter.numel() for parameter in model.encoder.embed_images.parameters())
    assert resnet == published["resnet_parameters"]


def digest(table: Tensor) -> str:
    return sha256(table.to(torch.int64).contiguous().numpy().astype("<i8").tobytes()).hexdigest()


@pytest.mark.parametrize("bucket_size", [8, 16, 64, 256])
def test_token_buckets(bucket_size: int) -> None:
    entry = json.loads((OFA / "aux/position_buffers.json").read_text())[
        f"token_rp_bucket[bucket={bucket_size}]"
    ]
    table = token_buckets(1024, 1024, bucket_size, device=CPU)
    assert table[0, :40].tolist() == entry["row0_first40"]
    assert digest(table) == entry["sha256"]
    # While generating, only the last rows are asked for.
    assert torch.equal(token_buckets(3, 40, bucket_size, device=CPU), table[37:40, :40])


@pytest.mark.parametrize("bucket_size", [8, 10, 42])
def test_image_buckets(bucket_size: int) -> None:
    """The published table has a first row and column for what is no cell, which nothing here asks for."""
    entry = json.loads((OFA / "aux/position_buffers.json").read_text())[
        f"image_rp_bucket[bucket={bucket_size}]"
    ]
    cells = image_buckets(bucket_size, bucket_size, bucket_size, device=CPU)
    distances = (2 * bucket_size - 1) ** 2
    table = torch.empty(entry["shape"], dtype=torch.int64)
    table[0, :], table[:, 0], table[0, 0] = distances, distances + 1, distances + 2
    table[1:, 1:] = cells
    assert table[1, :5].tolist() == entry["row1_first5"] and table[0, :5].tolist() == entry["row0_first5"]
    assert digest(table) == entry["sha256"]


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 5), (8, 2)])
def test_part_of_the_grid(rows: int, columns: int) -> None:
    """The cells of a smaller image are those of the whole grid's upper left corner."""
    ids = image_position_ids(rows, columns, 8, device=CPU)
    assert ids.tolist() == [row * 8 + column + 1 for row in range(rows) for column in range(columns)]
    whole = image_buckets(8, 8, 8, device=CPU)
    assert torch.equal(image_buckets(rows, columns, 8, device=CPU), whole[ids - 1][:, ids - 1])


# --- images ---


@pytest.mark.parametrize("case", ["landscape_down", "portrait_up", "square_same", "frame480"])
def test_pixels(case: str) -> None:
    tensors = load_file(OFA / "aux/preprocess.safetensors")
    size = json.loads((OFA / "aux/preprocess.json").read_text())["resolution"][case]
    pixels = preprocess_images([tensors[f"{case}.image_uint8_hwc"].numpy()], size)
    assert pixels.shape == (1, 3, size, size) and pixels.dtype == torch.float32
    if case == "frame480":
        assert_close(pixels[0, :, ::16, ::16], tensors[f"{case}.patch_image_every16"], atol=1e-6)
    else:
        assert_close(pixels[0], tensors[f"{case}.patch_image"], atol=1e-6)


# --- folders ---


def same_as_stored(model: OfaForConditionalGeneration) -> bool:
    state = model.state_dict()
    tied = {state[name].data_ptr() for name in manifest()["tied_weights"]}
    return len(tied) == 1 and all(torch.equal(state[name], t) for name, t in stored_weights().items())


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("safetensors", [True, False])
@pytest.mark.parametrize("whole", [True, False])
def test_published_files_load(prefix: str, safetensors: bool, whole: bool, tmp_path: Path) -> None:
    """With the tied matrix three times and tables of positions, or without, as the library itself saves."""
    state = whole_state_dict() if whole else stored_weights()
    write_folder(tmp_path, {prefix + name: t for name, t in state.items()}, safetensors=safetensors)
    model, info = OfaForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert same_as_stored(model) and not model.training


def test_saved_and_loaded(model: OfaForConditionalGeneration, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    again = OfaForConditionalGeneration.from_pretrained(tmp_path)
    assert same_as_stored(again)
    assert again.config.to_dict() == AutoConfig.from_pretrained(tmp_path).to_dict()
    assert len(load_file(tmp_path / "model.safetensors")) == len(stored_weights())


@pytest.mark.parametrize("settings", [
    {"decoder_start_token_id": 2, "use_cache": False, "forced_eos_token_id": 2},
    {"decoder_start_token_id": 0, "use_cache": True, "forced_bos_token_id": 0, "num_beams": 4},
])  # fmt: skip
def test_what_published_configs_say_of_generation_is_harmless(settings: dict, tmp_path: Path) -> None:
    write_folder(tmp_path, whole_state_dict(), **settings)
    model = OfaForConditionalGeneration.from_pretrained(tmp_path).eval()
    of, expected = golden("sq64"), manifest()["cases"]["sq64"]["hf_generate"]["hf_greedy"]
    found = model.generate(
        input_ids=of("input_ids"), patch_images=of("patch_images"), max_length=18, forced_eos_token_id=2
    )
    assert found.tolist() == expected["sequences"]


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(
        ValueError, match="scale_embedding=True is not implemented: every published OFA has False"
    ):
        OfaConfig(scale_embedding=True)
    with pytest.raises(ValueError, match="resnet_type 'resnet99' is none of resnet18, "):
        OfaConfig(resnet_type="resnet99")


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    def message(folder: Path) -> str:
        with pytest.raises(CheckpointError) as caught:
            OfaForConditionalGeneration.from_pretrained(folder)
        text = str(caught.value)
        assert "\n" not in text and str(folder) in text
        return text

    assert "no such folder; check the path" in message(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    assert "no OFA model that loads" in message(tmp_path / "empty")

    cut = whole_state_dict()
    del cut["encoder.layer_norm.weight"], cut["decoder.layers.0.fc1.bias"]
    found = message(write_folder(tmp_path / "cut", cut))
    assert "2 missing: decoder.layers.0.fc1.bias, encoder.layer_norm.weight" in found

    more = whole_state_dict() | {"encoder.third": torch.zeros(1)}
    assert "1 unexpected: encoder.third" in message(write_folder(tmp_path / "more", more))

    other = whole_state_dict() | {"decoder.layers.1.fc1.weight": torch.zeros(3, 64)}
    found = message(write_folder(tmp_path / "other", other))
    assert "1 of another shape: decoder.layers.1.fc1.weight (3, 64) instead of (128, 64)" in found

    broken = write_folder(tmp_path / "broken", {})
    (broken / "pytorch_model.bin").write_bytes(b"no weights")
    assert "no OFA model that loads" in message(broken)
    (broken / "pytorch_model.bin").unlink()
    assert "no OFA model that loads" in message(broken)
