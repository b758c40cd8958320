"""The captioner: a caption depends on its image and the options alone."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from clipvip.model.errors import CheckpointError
from clipvip.model.image_captioner import clean_caption
from clipvip.model.ofa import OfaConfig, OfaForConditionalGeneration, OfaTokenizer, preprocess_images
from clipvip.model.ofa.captioner import DEFAULT_PROMPT, Captioner, authors_search
from tiny_ofa import IMAGE_SIZE, make_ofa

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_ofa(tmp_path_factory.mktemp("ofa") / "tiny")


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """Eleven pictures of a few coloured blocks, each of another size."""
    random = np.random.default_rng(0)
    blocks = random.integers(0, 256, (11, 3, 4, 3), dtype=np.uint8)
    return [np.kron(picture, np.ones((10 + n, 15, 1), np.uint8)) for n, picture in enumerate(blocks)]


@pytest.fixture(scope="module", params=[5, 1], ids=["beams", "greedy"])
def num_beams(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def one_by_one(folder: Path, images: list[np.ndarray], num_beams: int) -> list[str]:
    captioner = Captioner(folder, device=CPU, batch_size=1, num_beams=num_beams)
    return [captioner.caption([image])[0] for image in images]


def test_captions_tell_images_apart(one_by_one: list[str]) -> None:
    assert all(one_by_one)
    assert len(set(one_by_one)) > len(one_by_one) // 3


@pytest.mark.parametrize("batch_size", [2, 3, 8, 16])
def test_a_caption_does_not_depend_on_its_batch(
    folder: Path, images: list[np.ndarray], num_beams: int, one_by_one: list[str], batch_size: int
) -> None:
    captioner = Captioner(folder, device=CPU, batch_size=batch_size, num_beams=num_beams)
    assert captioner.caption(images) == one_by_one
    assert captioner.caption(images[::-1]) == one_by_one[::-1]
    assert captioner.caption(images[4:5]) == one_by_one[4:5]
    assert captioner.caption([]) == []


def test_it_is_the_network_on_prompt_and_pixels(folder: Path, images: list[np.ndarray]) -> None:
    model = OfaForConditionalGeneration.from_pretrained(folder).eval()
    tokenizer = OfaTokenizer.from_pretrained(folder)
    settings, processors = authors_search(model.config)
    ids = model.generate(
        input_ids=tokenizer([DEFAULT_PROMPT] * len(images), return_tensors="pt").input_ids,
        patch_images=preprocess_images(images, IMAGE_SIZE),
        generation_config=settings,
        logits_processor=processors,
    )
    expected = [clean_caption(text) for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]
    assert Captioner(folder, device=CPU).caption(images) == expected


def test_what_a_folder_says_about_generation_is_not_taken(
    folder: Path, images: list[np.ndarray], one_by_one: list[str], num_beams: int, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"forced_eos_token_id": 2, "use_cache": False}))
    told = {"forced_eos_token_id": 2, "max_length": 5, "min_length": 5, "repetition_penalty": 3.0}
    (other / "generation_config.json").write_text(json.dumps(told))
    captioner = Captioner(other, device=CPU, batch_size=4, num_beams=num_beams)
    assert captioner.caption(images) == one_by_one


@pytest.fixture(scope="module")
def reference(goldens_dir: Path) -> tuple[OfaForConditionalGeneration, dict, dict[str, torch.Tensor]]:
    """The network of the reference tensors, what is known of its output, and its inputs."""
    goldens = goldens_dir / "ofa"
    manifest = json.loads((goldens / "manifest.json").read_text())
    model = OfaForConditionalGeneration(OfaConfig(**manifest["config"])).eval()
    weights = {
        name: tensor.float() for name, tensor in load_file(goldens / "weights_fp16.safetensors").items()
    }
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert set(missing) <= set(manifest["tied_weights"])
    assert not unexpected
    model.tie_weights()
    return model, manifest["cases"], load_file(goldens / "io.safetensors")


def search(reference: tuple, name: str, *, max_length: int) -> tuple[list[list[int]], list[float]]:
    """Tokens after the start token, with </s>, and scores."""
    model, _, inputs = reference
    settings, processors = authors_search(model.config, max_length=max_length)
    found = model.generate(
        input_ids=inputs[f"{name}.input_ids"],
        patch_images=inputs[f"{name}.patch_images"],
        generation_config=settings,
        logits_processor=processors,
        output_scores=True,
        return_dict_in_generate=True,
    )
    tokens = [[token for token in row if token != 1] for row in found.sequences[:, 1:].tolist()]
    return tokens, found.sequences_scores.tolist()


def test_the_search_finds_what_the_authors_search_finds(reference: tuple) -> None:
    """The best hypotheses of their SequenceGenerator, and their scores."""
    _, cases, _ = reference
    assert len(cases) >= 2
    for name, case in cases.items():
        tokens, scores = search(reference, name, max_length=16)
        best = [row[0] for row in case["sequence_generator"]["seqgen_beam5_ngram3_minlen0"]]
        assert tokens == [row["tokens"] for row in best]
        assert scores == pytest.approx([row["score"] for row in best], abs=1e-5)


def test_a_caption_that_is_cut_off_is_scored_for_ending(reference: tuple) -> None:
    model, cases, inputs = reference
    for name in cases:
        for row, (tokens, score) in enumerate(zip(*search(reference, name, max_length=3), strict=True)):
            assert len(tokens) <= 4
            assert tokens[-1] == 2
            with torch.inference_mode():
                logits = model(
                    input_ids=inputs[f"{name}.input_ids"][row : row + 1],
                    patch_images=inputs[f"{name}.patch_images"][row : row + 1],
                    decoder_input_ids=torch.tensor([[0, *tokens[:-1]]]),
                ).logits[0]
            chosen = logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])
            assert score == pytest.approx(float(chosen.mean()), abs=1e-5)


@pytest.mark.parametrize("max_length", [1, 4, 16])
def test_captions_are_as_long_as_asked(folder: Path, images: list[np.ndarray], max_length: int) -> None:
    captioner = Captioner(folder, device=CPU, max_length=max_length)
    words = [len(text.split()) for text in captioner.caption(images)]
    assert max(words) <= max_length
    assert max(words) > max_length // 2


def test_the_prompt_and_the_resolution_reach_the_model(
    folder: Path, images: list[np.ndarray], one_by_one: list[str], num_beams: int
) -> None:
    assert Captioner(folder, device=CPU).image_size == IMAGE_SIZE
    for options in ({"prompt": " what?"}, {"image_size": 32}):
        captions = Captioner(folder, device=CPU, num_beams=num_beams, **options).caption(images)  # type: ignore[arg-type]
        assert captions != one_by_one


def test_bfloat16_captions_too(folder: Path, images: list[np.ndarray]) -> None:
    captioner = Captioner(folder, device=CPU, dtype=torch.bfloat16)
    assert {weight.dtype for weight in captioner.network.parameters()} == {torch.bfloat16}
    assert all(captioner.caption(images))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" a man's dog, sitting.", "a mans dog sitting"),
        ("two-tone; (red)!", "twotone red"),
        (" ... ", ""),
        ("¿qué? 犬。", "¿qué 犬。"),
    ],
)
def test_punctuation_is_dropped(text: str, expected: str) -> None:
    assert clean_caption(text) == expected


def test_what_is_no_captioner_is_told(folder: Path, tmp_path: Path) -> None:
    copies = {}
    for name in ("vocab.json", "merges.txt", "model.safetensors", "config.json"):
        copies[name] = Path(shutil.copytree(folder, tmp_path / name))
        (copies[name] / name).unlink()
    copies["shape"] = Path(shutil.copytree(folder, tmp_path / "shape"))
    config = json.loads((folder / "config.json").read_text())
    (copies["shape"] / "config.json").write_text(json.dumps(config | {"encoder_ffn_dim": 64}))
    copies["deeper"] = Path(shutil.copytree(folder, tmp_path / "deeper"))
    (copies["deeper"] / "config.json").write_text(json.dumps(config | {"decoder_layers": 2}))
    copies["nothing"] = tmp_path / "nothing"
    damaged = {
        "another-kind": ("config.json", json.dumps({"model_type": "clip", "text_config": {}})),
        "list": ("config.json", "[1]"),
        "cut-json": ("config.json", '{"d_model"'),
        "no-size": ("config.json", json.dumps(config | {"d_model": "wide"})),
        "no-heads": ("config.json", json.dumps(config | {"decoder_attention_heads": 0})),
        "odd-heads": ("config.json", json.dumps(config | {"encoder_attention_heads": 5})),
        "vocab-list": ("vocab.json", "[]"),
        "merges-of-bytes": ("merges.txt", "\udcff\udcfe"),
        "cut-weights": ("model.safetensors", "\x08\0\0\0\0\0\0\0{"),
    }
    for kind, (name, text) in damaged.items():
        copies[kind] = Path(shutil.copytree(folder, tmp_path / kind))
        (copies[kind] / name).write_text(text, errors="surrogateescape")
    for name, copy in copies.items():
        with pytest.raises(CheckpointError) as caught:
            Captioner(copy, device=CPU)
        assert str(copy) in str(caught.value), name
        assert "\n" not in str(caught.value), name
    with pytest.raises(CheckpointError, match="96 pixels at most"):
        Captioner(folder, device=CPU, image_size=97)
    with pytest.raises(CheckpointError, match="64 tokens at most"):
        Captioner(folder, device=CPU, prompt=" word" * 20)
    with pytest.raises(CheckpointError, match="64 tokens at most"):
        Captioner(folder, device=CPU, max_length=70)
