"""Text encoders beside CLIP's: the embeddings are those of transformers' own models."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from clipvip.model.errors import CheckpointError
from clipvip.pipeline.domain_gap.encoder import load_text_encoder
from clipvip.pipeline.runtime.errors import UserError
from tiny_encoders import SPECIAL, TEXTS, WORDS, add_dense, add_modules, make_text_model, word_tokenizer

CPU = torch.device("cpu")
SIZES = {"vocab_size": len(SPECIAL) + len(WORDS), "pad_token_id": 0}
BERT = SIZES | {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 24,
}


def bert(folder: Path) -> Any:
    return make_text_model(folder, transformers.BertModel, transformers.BertConfig(**BERT))


def one_by_one(
    model: Any, pool: Callable[[Tensor], Tensor], *, max_tokens: int = 24, prompt: str = ""
) -> np.ndarray:
    """Each text alone, without padding: what its tokens are pooled to, at unit length."""
    found = []
    for text in TEXTS:
        ids = word_tokenizer()(
            prompt + text, truncation=True, max_length=max_tokens, return_tensors="pt"
        ).input_ids
        with torch.inference_mode():
            values = model(input_ids=ids).last_hidden_state[0]
        found.append(torch.nn.functional.normalize(pool(values), dim=-1))
    return torch.stack(found).numpy()


def mean(values: Tensor) -> Tensor:
    return values.mean(dim=0)


def embeddings(folder: Path) -> np.ndarray:
    return load_text_encoder(str(folder), device=CPU).encode(TEXTS, batch_size=3)


@pytest.mark.parametrize("version", ["siglip", "siglip2"])
@pytest.mark.parametrize("whole", [True, False])
def test_siglip(tmp_path: Path, version: str, whole: bool) -> None:
    name = {"siglip": "Siglip", "siglip2": "Siglip2"}[version]
    tower = {key: value for key, value in BERT.items() if key != "pad_token_id"}
    tower |= {"projection_size": 20, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    if whole:
        vision = {
            "hidden_size": 20,
            "intermediate_size": 24,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
        }
        vision |= {"patch_size": 16} | ({"image_size": 32} if version == "siglip" else {"num_patches": 4})
        config = getattr(transformers, f"{name}Config")(text_config=tower, vision_config=vision)
        model = make_text_model(tmp_path / "model", getattr(transformers, f"{name}Model"), config)
        tower_of = model.text_model
    else:
        config = getattr(transformers, f"{name}TextConfig")(**tower)
        model = tower_of = make_text_model(
            tmp_path / "model", getattr(transformers, f"{name}TextModel"), config
        )
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    padding = {"padding": "max_length", "padding_side": "right", "truncation": True, "max_length": 24}
    ids = tokenizer(TEXTS, return_tensors="pt", **padding).input_ids
    assert len(ids.unique(dim=0)) >= 4
    with torch.inference_mode():
        expected = tower_of(input_ids=ids).pooler_output
        if whole:
            features = model.get_text_features(input_ids=ids)
            features = getattr(features, "pooler_output", features)
            torch.testing.assert_close(features, expected)
    expected = torch.nn.functional.normalize(expected, dim=-1).numpy()
    np.testing.assert_allclose(embeddings(tmp_path / "model"), expected, atol=1e-5)


ENCODERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertModel", "BertConfig", BERT),
    "a bert with a head": ("BertForMaskedLM", "BertConfig", BERT),
    "roberta": ("RobertaModel", "RobertaConfig", BERT | {"max_position_embeddings": 26}),
    "mpnet": ("MPNetModel", "MPNetConfig", BERT | {"max_position_embeddings": 26, "pad_token_id": 0}),
    "distilbert": (
        "DistilBertModel",
        "DistilBertConfig",
        SIZES | {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 24},
    ),
    "t5": (
        "T5EncoderModel",
        "T5Config",
        SIZES | {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
    ),
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_without_modules_the_mean_of_an_encoders_tokens(tmp_path: Path, kind: str) -> None:
    model_kind, config_kind, sizes = ENCODERS[kind]
    config = getattr(transformers, config_kind)(**sizes)
    model = make_text_model(tmp_path / "model", getattr(transformers, model_kind), config)
    model = getattr(model, model.base_model_prefix) if model_kind == "BertForMaskedLM" else model
    np.testing.assert_allclose(embeddings(tmp_path / "model"), one_by_one(model, mean), atol=1e-5)


def test_without_modules_the_last_token_of_a_decoder(tmp_path: Path) -> None:
    sizes = {key: value for key, value in BERT.items()} | {
        "num_key_value_heads": 2,
        "bos_token_id": 2,
        "eos_token_id": 3,
    }
    config = transformers.Qwen3Config(**sizes, head_dim=8)
    model = make_text_model(tmp_path / "model", transformers.Qwen3ForCausalLM, config)
    np.testing.assert_allclose(
        embeddings(tmp_path / "model"), one_by_one(model.model, lambda v: v[-1]), atol=1e-5
    )


def weighted(values: Tensor) -> Tensor:
    weights = torch.arange(1, len(values) + 1)[:, None]
    return (values * weights).sum(0) / weights.sum()


POOLINGS: list[tuple[dict[str, Any], Callable[[Tensor], Tensor]]] = [
    ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, mean),
    ({"pooling_mode_cls_token": True}, lambda values: values[0]),
    ({"pooling_mode_max_tokens": True}, lambda values: values.amax(0)),
    ({"pooling_mode_lasttoken": True}, lambda values: values[-1]),
    ({"pooling_mode_weightedmean_tokens": True}, weighted),
    ({"pooling_mode_mean_sqrt_len_tokens": True}, lambda values: values.sum(0) / len(values) ** 0.5),
    (
        {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
        lambda values: torch.cat([values[0], values.mean(0)]),
    ),
    ({"pooling_mode": "cls"}, lambda values: values[0]),
]


@pytest.mark.parametrize(("settings", "pool"), POOLINGS)
def test_pooling_is_what_the_model_says(
    tmp_path: Path, settings: dict[str, Any], pool: Callable[[Tensor], Tensor]
) -> None:
    model = bert(tmp_path)
    add_modules(tmp_path, ("Pooling", {"word_embedding_dimension": 32} | settings))
    np.testing.assert_allclose(embeddings(tmp_path), one_by_one(model, pool), atol=1e-5)


@pytest.mark.parametrize("as_pickle", [False, True])
def test_dense_layers_and_unit_length_follow_in_their_order(tmp_path: Path, as_pickle: bool) -> None:
    model = bert(tmp_path)
    dense = {"in_features": 32, "out_features": 12, "bias": True}
    add_modules(
        tmp_path,
        ("Pooling", {"pooling_mode_mean_tokens": True}),
        ("Normalize", {}),
        ("Dense", dense | {"activation_function": "torch.nn.modules.activation.Tanh"}),
        ("Dense", dense | {"activation_function": "torch.nn.modules.linear.Identity"}),
        ("Normalize", {}),
    )
    first = add_dense(tmp_path, 3, wide=32, narrow=12, as_pickle=as_pickle)
    second = add_dense(tmp_path, 4, wide=12, narrow=6, as_pickle=as_pickle)

    def pool(values: Tensor) -> Tensor:
        with torch.no_grad():
            return second(torch.tanh(first(torch.nn.functional.normalize(values.mean(0), dim=-1))))

    np.testing.assert_allclose(embeddings(tmp_path), one_by_one(model, pool), atol=1e-5)


def test_length_and_prompt_are_the_models(tmp_path: Path) -> None:
    model = bert(tmp_path)
    add_modules(tmp_path, ("Pooling", {"pooling_mode_mean_tokens": True}))
    plain = load_text_encoder(str(tmp_path), device=CPU).fingerprint
    (tmp_path / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": 7, "do_lower_case": True})
    )
    prompts = {"prompts": {"query": "the man ", "other": ""}, "default_prompt_name": "query"}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    expected = one_by_one(model, mean, max_tokens=7, prompt="the man ")
    np.testing.assert_allclose(embeddings(tmp_path), expected, atol=1e-5)
    assert load_text_encoder(str(tmp_path), device=CPU).fingerprint != plain


def test_an_unused_head_changes_nothing(tmp_path: Path) -> None:
    """Its weights are random where the file has none."""
    config = transformers.BertConfig(**BERT)
    model = make_text_model(tmp_path, transformers.BertForMaskedLM, config)
    first, second = (load_text_encoder(str(tmp_path), device=CPU).fingerprint for _ in range(2))
    assert first == second
    assert not hasattr(model.bert, "pooler") or model.bert.pooler is None


@pytest.mark.slow
def test_a_name_of_the_hub_is_read_from_its_cache(tmp_path: Path) -> None:
    commit = "1" * 40
    place = tmp_path / "hub/models--some--encoder"
    folder = place / "snapshots" / commit
    bert(folder)
    add_modules(folder, ("Pooling", {"pooling_mode_cls_token": True}))
    (place / "refs").mkdir()
    (place / "refs/main").write_text(commit)
    for name in ("sentence_bert_config.json", "config_sentence_transformers.json"):
        (place / ".no_exist" / commit).mkdir(parents=True, exist_ok=True)
        (place / ".no_exist" / commit / name).touch()
    program = (
        "import sys, torch, numpy; from clipvip.pipeline.domain_gap.encoder import load_text_encoder;"
        "encoder = load_text_encoder('some/encoder', device=torch.device('cpu'));"
        "numpy.save(sys.argv[1], encoder.encode(sys.argv[2:], batch_size=3))"
    )
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    out = tmp_path / "found.npy"
    subprocess.run([sys.executable, "-c", program, out, *TEXTS], env=environment, check=True)
    np.testing.assert_allclose(np.load(out), embeddings(folder), atol=1e-6)


def damaged(folder: Path, damage: str) -> str:
    """A folder with something wrong, and what the message says."""
    bert(folder)
    add_modules(folder, ("Pooling", {"pooling_mode_mean_tokens": True}))
    if damage == "unknown module":
        add_modules(folder, ("WordWeights", {}))
        return "has a module 'WordWeights', which cannot be computed here"
    if damage == "no pooling":
        (folder / "1_Pooling/config.json").write_text("{}")
        return "1_Pooling/config.json names no pooling"
    if damage == "list":
        (folder / "modules.json").write_text("{}")
        return "modules.json is damaged"
    if damage == "not json":
        (folder / "modules.json").write_text("[")
        return "does not load"
    if damage == "dense":
        shutil.rmtree(folder / "1_Pooling")
        dense = {"activation_function": "torch.nn.modules.activation.Tanh"}
        add_modules(folder, ("Pooling", {"pooling_mode_mean_tokens": True}), ("Dense", dense))
        return "2_Dense has no weights"
    (folder / "tokenizer.json").unlink()
    return "has no tokenizer that loads"


@pytest.mark.parametrize("damage", ["unknown module", "no pooling", "list", "not json", "dense", "tokenizer"])
def test_what_is_missing_or_unknown_is_one_line(tmp_path: Path, damage: str) -> None:
    message = damaged(tmp_path / "model", damage)
    with pytest.raises((UserError, CheckpointError)) as caught:
        load_text_encoder(str(tmp_path / "model"), device=CPU)
    assert message in str(caught.value) and str(tmp_path / "model") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_without_a_text_tower_is_refused(tmp_path: Path) -> None:
    transformers.ViTConfig(hidden_size=32).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="'vit'; give a CLIP, CLIP-ViP, SigLIP or sentence-embedding model"):
        load_text_encoder(str(tmp_path), device=CPU)
