"""OpenCLIP checkpoints as CLIPs: what OpenCLIP computes with them, and what is refused."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPModel

from clipvip.model import ClipVip
from clipvip.model.config import CLIP_MEAN
from clipvip.model.errors import CheckpointError
from clipvip.model.openclip import convert_openclip
from clipvip.model.openclip_architectures import Architecture, names
from clipvip.pipeline.tools.convert import openclip as command
from goldens import assert_close, tensors
from openclip_models import ARCHITECTURES, NAME, inputs, random_model
from resources import need
from tiny_clip import make_clip

PLAIN = ARCHITECTURES["exact_gelu"]


def golden(name: str, part: str) -> dict[str, Tensor]:
    prefix = f"{name}/{part}/"
    return {key.removeprefix(prefix): t for key, t in tensors(NAME).items() if key.startswith(prefix)}


def write_config(folder: Path, config: dict) -> str:
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return str(path)


def convert(folder: Path, config: dict, state: dict, *, suffix: str = ".safetensors") -> Path:
    """Write a checkpoint and its configuration, and convert them without a tokenizer."""
    path = folder / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    convert_openclip(path, folder / "clip", architecture=write_config(folder, config))
    return folder / "clip"


def check_embeddings(folder: Path, pictures: Tensor, texts: Tensor, image: Tensor, text: Tensor) -> None:
    """transformers' CLIP and a ClipVip of one proxy give these features, the latter of unit length."""
    plain, ours = CLIPModel.from_pretrained(folder).eval(), ClipVip.from_clip(folder, num_proxies=1)
    with torch.no_grad():
        assert_close(plain.get_image_features(pictures).pooler_output, image, atol=1e-5)
        assert_close(plain.get_text_features(texts).pooler_output, text, atol=1e-5)
        unit = torch.nn.functional.normalize
        assert_close(ours.get_video_features(pictures[:, None]), unit(image, dim=-1), atol=1e-5)
        assert_close(ours.get_text_features(texts), unit(text, dim=-1), atol=1e-5)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin", ".pt"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_embeddings_are_those_of_openclip(name: str, suffix: str, tmp_path: Path) -> None:
    state, given, expected = (golden(name, part) for part in ("weights", "in", "out"))
    folder = convert(tmp_path, ARCHITECTURES[name], state, suffix=suffix)
    check_embeddings(folder, given["pictures"], given["texts"], expected["image"], expected["text"])
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336", "ViT-H-14", "ViT-g-14"])
def test_named_architectures_have_openclips_sizes(name: str) -> None:
    need("open_clip")
    import open_clip

    with torch.device("meta"):
        theirs = open_clip.model.CLIP(**open_clip.get_model_config(name)).state_dict()
    from clipvip.model.openclip import _renamed, clip_config

    with torch.device("meta"):
        ours = CLIPModel(clip_config(Architecture.named(name))).state_dict()
    assert {key: value.shape for key, value in _renamed(theirs)} == {k: v.shape for k, v in ours.items()}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_embeddings_beside_openclip_itself(name: str, tmp_path: Path) -> None:
    need("open_clip")
    config = ARCHITECTURES[name]
    model = random_model(config, seed=3)
    pictures, texts = inputs(config)
    folder = convert(tmp_path, config, {k: v.contiguous() for k, v in model.state_dict().items()})
    with torch.no_grad():
        check_embeddings(folder, pictures, texts, model.encode_image(pictures), model.encode_text(texts))


def test_every_name_of_openclip_is_known_or_refused_as_its_configuration_is(tmp_path: Path) -> None:
    need("open_clip")
    import open_clip

    def read(name_or_file: str) -> Architecture | None:
        try:
            return Architecture.read(name_or_file)
        except CheckpointError as error:
            assert "cannot carry" in str(error) and "\n" not in str(error)
            return None

    carried = set()
    for name in open_clip.list_models():
        by_name = read(name)
        by_file = read(write_config(tmp_path, open_clip.get_model_config(name)))
        assert (by_name is None) == (by_file is None), name
        if by_name is not None and by_file is not None:
            carried.add(name.removesuffix("-quickgelu"))
            assert (by_name.vision, by_name.text) == (by_file.vision, by_file.text)
            assert (by_name.embed_dim, by_name.quick_gelu) == (by_file.embed_dim, by_file.quick_gelu)
    assert carried == set(names())


# --- the tokenizer ---

SENTENCES = [
    "a dog runs",
    "",
    "Two men's hats, 3 cats & 17 dogs!?",
    "  spaces \t and\nlines  ",
    "ünïcödé 猫 🐈 naïve café",
    "they'll don't I've we're she'd",
    "a!! b... c--d (e) [f] {g}",
    "word " * 100,
    ">> two speakers <3 -> x > y",
]


@pytest.fixture(scope="module")
def merges() -> Path:
    need("open_clip")
    import open_clip.tokenizer

    return Path(open_clip.tokenizer.default_bpe())


@pytest.mark.parametrize("length", [77, 12])
def test_ids_are_those_of_openclips_tokenizer(length: int, merges: Path, tmp_path: Path) -> None:
    import open_clip

    state, config = golden("exact_gelu", "weights"), json.loads(json.dumps(PLAIN))
    config["text_cfg"] |= {"vocab_size": 49408, "context_length": length}
    state["token_embedding.weight"] = torch.randn(49408, 8)
    state["positional_embedding"] = torch.randn(length, 8)
    save_file(state, tmp_path / "weights.safetensors")
    convert_openclip(
        tmp_path / "weights.safetensors",
        tmp_path / "clip",
        architecture=write_config(tmp_path, config),
        tokenizer=str(merges),
    )
    model = ClipVip.from_clip(tmp_path / "clip")
    theirs = open_clip.SimpleTokenizer(context_length=length)(SENTENCES)
    ours = model.tokenizer(
        SENTENCES, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    )
    # OpenCLIP pads with 0, which the end token before it hides from the feature.
    assert torch.equal(ours["input_ids"] * ours["attention_mask"], theirs)
    assert model.tokenizer.model_max_length == length
    assert torch.isfinite(model.encode_text(SENTENCES)).all()


def test_the_tokenizer_of_a_folder_goes_along(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "other")
    vocab_size = CLIPModel.from_pretrained(clip).config.text_config.vocab_size
    state, config = golden("exact_gelu", "weights"), json.loads(json.dumps(PLAIN))
    state["token_embedding.weight"] = torch.randn(vocab_size, 8)
    config["text_cfg"]["vocab_size"] = vocab_size
    save_file(state, tmp_path / "w.safetensors")
    out, json_file = tmp_path / "clip", write_config(tmp_path, config)
    convert_openclip(tmp_path / "w.safetensors", out, architecture=json_file, tokenizer=str(clip))
    assert ClipVip.from_clip(out).encode_text(["a dog"]).shape == (1, 12)
    # Ids outside of the model's table would be an error in the first batch.
    convert_text = tmp_path / "small.json"
    convert_text.write_text(json.dumps(PLAIN))
    save_file(golden("exact_gelu", "weights"), tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="tokens, the model's table 40"):
        convert_openclip(
            tmp_path / "w.safetensors", tmp_path / "b", architecture=str(convert_text), tokenizer=str(clip)
        )
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("content", [b"#version\na b\n", b"", b"\x00\xff\x00"])
@pytest.mark.parametrize("name", ["merges.txt", "merges.txt.gz"])
def test_a_vocabulary_that_is_none(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content if name.endswith("txt") or not content else gzip.compress(content)[:-1])
    save_file(golden("exact_gelu", "weights"), tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"merges\.txt.*vocabulary") as raised:
        convert_openclip(
            tmp_path / "w.safetensors",
            tmp_path / "clip",
            architecture=write_config(tmp_path, PLAIN),
            tokenizer=str(path),
        )
    assert "\n" not in str(raised.value)


# --- files of others ---


def _of_a_run(state: dict) -> dict:
    return {"epoch": 3, "name": "run", "state_dict": {f"module.{k}": v for k, v in state.items()}}


def _of_openai(state: dict) -> dict:
    sizes = {"input_resolution": 16, "context_length": 12, "vocab_size": 40}
    return {k: v.half() for k, v in state.items()} | {k: torch.tensor(v) for k, v in sizes.items()}


def _with_own_text_tower(state: dict) -> dict:
    of_text = ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection")
    return {("text." if name.startswith(of_text) else "") + name: value for name, value in state.items()}


@pytest.mark.parametrize(
    ("change", "like"),
    [(_of_a_run, "exact_gelu"), (_of_openai, "quick_gelu"), (_with_own_text_tower, "exact_gelu")],
)
def test_the_forms_of_a_checkpoint(change: Callable[[dict], dict], like: str, tmp_path: Path) -> None:
    state = golden(like, "weights") | {"logit_scale": torch.tensor([3.25])}
    plain, changed = tmp_path / "plain", tmp_path / "changed"
    plain.mkdir(), changed.mkdir()
    expected = CLIPModel.from_pretrained(convert(plain, ARCHITECTURES[like], state, suffix=".pt"))
    found = CLIPModel.from_pretrained(convert(changed, PLAIN, change(state), suffix=".pt"))
    tolerance = 1e-3 if change is _of_openai else 0.0
    assert found.config.vision_config.hidden_act == expected.config.vision_config.hidden_act
    assert found.logit_scale.item() == 3.25
    for name, tensor in expected.state_dict().items():
        assert_close(found.state_dict()[name], tensor, atol=tolerance)


def test_the_normalisation_of_a_model_repository_goes_along(tmp_path: Path) -> None:
    half = [0.5, 0.5, 0.5]
    of_hub = {"model_cfg": PLAIN, "preprocess_cfg": {"mean": half, "std": half, "interpolation": "bilinear"}}
    folder = convert(tmp_path, of_hub, golden("exact_gelu", "weights"))
    written = json.loads((folder / "preprocessor_config.json").read_text())
    assert (written["image_mean"], written["image_std"], written["resample"]) == (half, half, 2)
    model = ClipVip.from_clip(folder)
    model.save_pretrained(tmp_path / "vip")
    again = ClipVip.from_pretrained(tmp_path / "vip")
    picture = torch.randint(0, 256, (1, 16, 16, 3), dtype=torch.uint8)
    normalised = (picture.movedim(-1, 1) / 255 - 0.5) / 0.5
    for found in (model, again):
        assert found.config.normalization.mean == tuple(half) != CLIP_MEAN
        assert_close(found.encode_video(picture), model.get_video_features(normalised[None]), atol=1e-6)


# --- what is refused, in one line that names it, with nothing written ---

_OTHER_SETTINGS = [
    ("vision_cfg", "timm_model_name", "convnext_base"),
    ("vision_cfg", "layers", [3, 4, 6, 3]),
    ("vision_cfg", "attentional_pool", True),
    ("vision_cfg", "pool_type", "avg"),
    ("vision_cfg", "ls_init_value", 1e-4),
    ("vision_cfg", "qk_norm", True),
    ("vision_cfg", "image_size", [16, 24]),
    ("vision_cfg", "pos_embed_type", "sin_cos_2d"),
    ("vision_cfg", "norm_kwargs", {"elementwise_affine": False}),
    ("vision_cfg", "something_new", 3),
    ("text_cfg", "hf_model_name", "roberta-base"),
    ("text_cfg", "hf_tokenizer_name", "bert-base-uncased"),
    ("text_cfg", "embed_cls", True),
    ("text_cfg", "no_causal_mask", True),
    ("text_cfg", "pool_type", "last"),
    ("text_cfg", "pool_type", "eos"),
    ("text_cfg", "proj_bias", True),
    ("text_cfg", "proj_type", "none"),
]


def refused(folder: Path, architecture: str, checkpoint: Path) -> str:
    arguments = [str(checkpoint), "--architecture", architecture, "--out", str(folder / "clip")]
    result = CliRunner().invoke(command, [*arguments, "--tokenizer", "none"])
    assert result.exit_code == 1
    assert not (folder / "clip").exists()
    assert result.output.count("\n") == 1
    return result.output


@pytest.mark.parametrize(("section", "key", "value"), _OTHER_SETTINGS)
def test_other_networks_are_refused(section: str, key: str, value: object, tmp_path: Path) -> None:
    save_file(golden("exact_gelu", "weights"), tmp_path / "w.safetensors")
    config = PLAIN | {section: PLAIN[section] | {key: value}}
    output = refused(tmp_path, write_config(tmp_path, config), tmp_path / "w.safetensors")
    assert f"{section}.{key} is {json.dumps(value)}" in output and "cannot carry" in output


@pytest.mark.parametrize(
    ("architecture", "says"),
    [
        ("convnext_base_w", "a ConvNeXt"),
        ("RN50-quickgelu", "a ResNet"),
        ("coca_ViT-L-14", "a CoCa"),
        ("ViT-B-16-SigLIP2", "a SigLIP"),
        ("ViT-B-23", "did you mean ViT-B-32"),
        ("nowhere.json", "cannot be read"),
    ],
)
def test_other_names_are_refused(architecture: str, says: str, tmp_path: Path) -> None:
    save_file(golden("exact_gelu", "weights"), tmp_path / "w.safetensors")
    output = refused(tmp_path, architecture, tmp_path / "w.safetensors")
    assert architecture in output and says in output


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is no JSON"),
        ("[1]", "is no model configuration"),
        (json.dumps(PLAIN | {"vision_cfg": 3}), "vision_cfg is no mapping"),
        (json.dumps(PLAIN | {"embed_dim": "wide"}), "embed_dim: Input should be a valid integer"),
        (json.dumps(PLAIN | {"vision_cfg": {"norm_kwargs": [1]}}), "vision_cfg.norm_kwargs is no mapping"),
        (json.dumps(PLAIN | {"text_cfg": {"act_kwargs": "tanh"}}), "text_cfg.act_kwargs is no mapping"),
        (json.dumps({"model_cfg": PLAIN, "preprocess_cfg": [1]}), "preprocess_cfg is no mapping"),
        (json.dumps(PLAIN | {"multimodal_cfg": {"width": 3}}), "is a CoCa"),
        (json.dumps(PLAIN | {"init_logit_bias": -10}), "has a logit bias"),
        (json.dumps(PLAIN | {"vision_cfg": {"width": 30}}), "cannot be divided among 0 heads"),
        (json.dumps(PLAIN | {"text_cfg": {"width": -3}}), "width: Input should be greater"),
        (
            json.dumps({"model_cfg": PLAIN, "preprocess_cfg": {"mean": [1, 2]}}),
            "preprocess_cfg.mean.2: Field required",
        ),
    ],
)
def test_configurations_that_are_none(content: str, says: str, tmp_path: Path) -> None:
    save_file(golden("exact_gelu", "weights"), tmp_path / "w.safetensors")
    (tmp_path / "c.json").write_text(content)
    output = refused(tmp_path, str(tmp_path / "c.json"), tmp_path / "w.safetensors")
    assert "c.json" in output and says in output


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s | {"visual.proj": s["visual.proj"][:, :5]}, "1 of another shape: visual_projection"),
        (lambda s: {k: v for k, v in s.items() if k != "ln_final.bias"}, "1 missing: text_model.final_layer"),
        (lambda s: s | {"logit_bias": torch.zeros(())}, "1 unexpected: logit_bias"),
        (lambda s: s | {"ln_final.bias": torch.full((8,), torch.nan)}, "not finite"),
        (lambda s: {k: v for k, v in s.items() if not k.startswith("visual")}, "image transformer"),
        (lambda s: s | {"visual.transformer.resblocks.0.attn.in_proj_bias": torch.ones(2)}, "missing"),
        (lambda s: {}, "found no tensors"),
        (lambda s: [s], "named tensors"),
        (lambda s: s | {"epoch": 3}, "its entry epoch is no tensor"),
    ],
)
def test_checkpoints_of_others_are_refused(change: Callable[[dict], dict], says: str, tmp_path: Path) -> None:
    torch.save(change(golden("exact_gelu", "weights")), tmp_path / "w.pt")
    output = refused(tmp_path, write_config(tmp_path, PLAIN), tmp_path / "w.pt")
    assert "w.pt" in output and says in output


def test_a_checkpoint_that_would_run_code(tmp_path: Path) -> None:
    torch.save({"state_dict": golden("exact_gelu", "weights"), "optimizer": Path("x")}, tmp_path / "w.pt")
    assert "not a checkpoint of tensors alone" in refused(
        tmp_path, write_config(tmp_path, PLAIN), tmp_path / "w.pt"
    )
