"""Image-to-text models of transformers as captioners, against their own processors and `generate`."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from clipvip.model.captioners import find_captioner
from clipvip.model.errors import CheckpointError
from clipvip.model.image_captioner import BatchCaptioner
from clipvip.model.image_to_text import ImageToTextCaptioner, without_prompt
from tiny_captioners import KINDS
from tiny_clip import make_clip

NUM_BEAMS, MAX_LENGTH = 3, 6
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = tmp_path_factory.mktemp("models")
    for kind, make in KINDS.items():
        make(made / kind)
    return {kind: made / kind for kind in KINDS}


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """Of several sizes."""
    random = np.random.default_rng(0)
    sizes = [(48, 64), (64, 48), (40, 40), (50, 90), (48, 64), (33, 70), (64, 64)]
    blocks = [random.integers(0, 256, (3, 4, 3), dtype=np.uint8) for _ in sizes]
    return [
        np.asarray(Image.fromarray(block).resize((width, height), Image.Resampling.NEAREST))
        for block, (height, width) in zip(blocks, sizes, strict=True)
    ]


def load(folder: Path, prompt: str, *, batch_size: int = 3, **asked: Any) -> BatchCaptioner[Any]:
    settings = {"num_beams": NUM_BEAMS, "max_length": MAX_LENGTH, "image_size": None} | asked
    return find_captioner(str(folder)).load(
        str(folder), device=CPU, dtype=torch.float32, batch_size=batch_size, prompt=prompt, **settings
    )


def own_captions(folder: Path, kind: str, prompt: str, image: np.ndarray) -> str:
    """What the library's documentation does with one image."""
    model = AutoModelForImageTextToText.from_pretrained(folder)
    picture = Image.fromarray(image)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if kind == "vision-encoder-decoder":
        inputs = AutoImageProcessor.from_pretrained(folder)(picture, return_tensors="pt")
    elif kind == "llava":
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        processor = AutoProcessor.from_pretrained(folder)
        conversation = [{"role": "user", "content": content}]
        text = processor.apply_chat_template(conversation, add_generation_prompt=True)
        inputs = processor(images=picture, text=text, return_tensors="pt")
    else:
        processor = AutoProcessor.from_pretrained(folder)
        inputs = processor(images=picture, return_tensors="pt")
        if prompt and kind == "git":
            ids = [tokenizer.cls_token_id, *tokenizer(prompt, add_special_tokens=False).input_ids]
            inputs["input_ids"] = torch.tensor([ids])
        elif prompt:
            inputs = processor(images=picture, text=prompt, return_tensors="pt")
    ids = model.generate(**inputs, num_beams=NUM_BEAMS, max_new_tokens=MAX_LENGTH, do_sample=False)
    text = tokenizer.decode(ids[0], skip_special_tokens=True)
    if prompt and kind != "florence2":  # its decoder begins anew
        asked = prompt if kind != "llava" else f"USER : {prompt} ASSISTANT :"
        assert text.startswith(asked)
        text = text[len(asked) :]
    return " ".join(text.split())


@pytest.mark.parametrize(
    ("kind", "prompt"),
    [
        ("blip", ""),
        ("blip", "a red dog on"),
        ("git", ""),
        ("git", "a red"),
        ("vision-encoder-decoder", ""),
        ("llava", "what is this"),
        ("florence2", "<CAPTION>"),
        ("florence2", "what is this"),
        ("blip-2", ""),
        ("blip-2", "a red"),
    ],
)
def test_captions_are_those_of_the_models_own_generate(
    folders: dict[str, Path], images: list[np.ndarray], kind: str, prompt: str
) -> None:
    captioner = load(folders[kind], prompt)
    assert isinstance(captioner, ImageToTextCaptioner)
    found = captioner.caption(images)
    assert found == [own_captions(folders[kind], kind, prompt, image) for image in images]
    assert len(set(found)) > 1


def test_threads_prepare_batches_at_the_same_time(folders: dict[str, Path], images: list[np.ndarray]) -> None:
    captioner = load(folders["llava"], "what is this")
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(captioner.preprocess, [images] * 24))
    first = captioner.preprocess(images)
    assert all(torch.equal(inputs[name], first[name]) for inputs in made for name in first)


def test_what_is_asked_by_default(folders: dict[str, Path]) -> None:
    decodings = {kind: find_captioner(str(folder)).default for kind, folder in folders.items()}
    assert [decodings[kind].prompt for kind in ("blip", "git", "vision-encoder-decoder")] == [""] * 3
    assert (decodings["blip"].num_beams, decodings["blip"].max_length) == (5, 16)
    assert decodings["llava"].prompt and decodings["llava"].num_beams == 1


def test_only_what_a_model_repeats_is_cut() -> None:
    ids, prompt = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 5]]), torch.tensor([[1, 2, 3], [1, 2, 3]])
    assert without_prompt(ids, prompt).tolist() == [[4], [5]]
    assert without_prompt(ids, torch.tensor([[1, 2, 9], [1, 2, 9]])).tolist() == [[3, 4], [3, 5]]
    assert without_prompt(ids, torch.tensor([[7, 2, 3], [7, 2, 3]])) is ids
    assert without_prompt(ids[:, :1], prompt).tolist() == [[1], [1]]


def test_what_does_not_fit_is_one_line(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="type 'clip', which does not turn images into text; give"):
        find_captioner(str(make_clip(tmp_path / "clip")))
    with pytest.raises(CheckpointError, match="its own processor resizes images; leave --image-size out"):
        load(folders["blip"], "", image_size=64)
    with pytest.raises(CheckpointError, match="'vision-encoder-decoder' takes no prompt; leave --prompt out"):
        load(folders["vision-encoder-decoder"], "what is this")
    (folders["git"] / "tokenizer.json").rename(folders["git"] / "kept")
    try:
        with pytest.raises(CheckpointError, match=r"git: its processor does not load \("):
            find_captioner(str(folders["git"]))
    finally:
        (folders["git"] / "kept").rename(folders["git"] / "tokenizer.json")
