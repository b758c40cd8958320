"""Any image-to-text model of transformers as a captioner: BLIP, GIT, Florence-2, chat models, ...

Images go through the model's own processor, prompts through its chat template where it has one, and captions
come from its own `generate`. No code out of a model folder is run.
"""

import copy
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    BatchFeature,
)

from clipvip.media.errors import one_line
from clipvip.model.errors import CheckpointError
from clipvip.model.image_captioner import BatchCaptioner, Decoding, one_space
from clipvip.model.weights import load_with_info

_FLORENCE_TASK = "<CAPTION>"
_CHAT_PROMPT = "Describe the picture in one sentence."
_CHAT_MAX_LENGTH = 64
# Models of these types begin a text with the prompt as it is: a token that ends texts must not follow it.
_OPEN_PROMPTS = ("git",)
_WITHOUT_PROMPT = ("vision-encoder-decoder",)


class ImageToTextCaptioner(BatchCaptioner[BatchFeature]):
    """A model that `AutoModelForImageTextToText` loads, with its processor. See `CaptionerKind`.

    An empty prompt asks nothing. Images have the size that the model's processor gives them.

    Raises:
        CheckpointError: no such model, or no processor for it; a prompt or an image size that it does not
            take; a package is missing that it needs.
    """

    def __init__(
        self,
        folder_or_name: str,
        *,
        device: torch.device,
        dtype: torch.dtype,
        batch_size: int,
        prompt: str,
        num_beams: int,
        max_length: int,
        image_size: int | None,
    ) -> None:
        source = folder_or_name
        if image_size is not None:
            raise CheckpointError(f"{source}: its own processor resizes images; leave --image-size out")
        self.device, self.dtype, self.batch_size, self.image_size = device, dtype, batch_size, 0
        load = AutoModelForImageTextToText.from_pretrained
        model, _ = load_with_info(load, source, dtype=dtype, unused_are_left=True, trust_remote_code=False)
        self.model: Any = model.eval().to(device)
        self.processor = load_processor(source)
        kind = self.model.config.model_type
        if prompt and kind in _WITHOUT_PROMPT:
            raise CheckpointError(f"{source}: a model of type {kind!r} takes no prompt; leave --prompt out")
        self.text, self.text_options = _text_of(self.processor, kind, prompt)
        self.settings = {"num_beams": num_beams, "max_new_tokens": max_length, "do_sample": False}
        self._of_thread = threading.local()
        try:
            # A prompt or a processor that does not fit fails here and not in the midst of a shard.
            self.preprocess([np.zeros((32, 48, 3), np.uint8)])
        except Exception as error:
            raise CheckpointError(
                f"{source}: its processor fails on a picture with the prompt {prompt!r} "
                f"({one_line(error, most=200)}); give another --prompt, or another model"
            ) from error

    def preprocess(self, images: Sequence[np.ndarray]) -> BatchFeature:
        """The model's inputs for a batch of uint8 (height, width, 3) RGB images. Safe in any thread."""
        if not hasattr(self._of_thread, "processor"):
            # The tokenizers of the library cannot be used by two threads at a time.
            self._of_thread.processor = copy.deepcopy(self.processor)
        processor = self._of_thread.processor
        pictures = [Image.fromarray(image) for image in images]
        if self.text is None:
            return BatchFeature(dict(processor(images=pictures, return_tensors="pt")))
        inputs = processor(
            images=[[picture] for picture in pictures] if _is_chat(processor) else pictures,
            text=[self.text] * len(pictures),
            return_tensors="pt",
            padding=True,
            **self.text_options,
        )
        return BatchFeature(dict(inputs))

    @torch.inference_mode()
    def caption_pixels(self, pixels: BatchFeature) -> list[str]:
        """Captions of what `preprocess` gave."""
        inputs = pixels.to(self.device, dtype=self.dtype)
        ids = self.model.generate(**inputs, **self.settings)
        if "input_ids" in inputs:
            ids = without_prompt(ids, inputs["input_ids"])
        texts = _tokenizer_of(self.processor).batch_decode(ids, skip_special_tokens=True)
        return [one_space(text) for text in texts]


def default_decoding(source: str, kind: str) -> Decoding:
    """What a model of type `kind` is asked by default: captioners nothing, chat models a sentence."""
    if kind == "florence2":
        return Decoding(prompt=_FLORENCE_TASK)
    if kind not in _WITHOUT_PROMPT and _is_chat(load_processor(source)):
        return Decoding(_CHAT_PROMPT, num_beams=1, max_length=_CHAT_MAX_LENGTH)
    return Decoding(prompt="")


def load_processor(source: str) -> Any:
    """What makes a model's inputs of images and texts: its processor, or the two halves of one.

    Raises:
        CheckpointError: there is none that loads, or a package is missing that it needs.
    """
    try:
        found: Any = AutoProcessor.from_pretrained(source, trust_remote_code=False)
        if not hasattr(found, "image_processor"):
            found = _Halves(
                AutoImageProcessor.from_pretrained(source, trust_remote_code=False),
                AutoTokenizer.from_pretrained(source, trust_remote_code=False),
            )
    except ImportError as error:
        raise CheckpointError(
            f"{source}: its processor needs a package that is not installed ({one_line(error, most=200)}); "
            "for chat models: pip install '.[chat]' in a checkout"
        ) from error
    except Exception as error:  # of damaged tokenizers anything may come
        raise CheckpointError(
            f"{source}: its processor does not load ({one_line(error, most=300)}); it needs "
            "preprocessor_config.json and a tokenizer's files"
        ) from error
    tokenizer = _tokenizer_of(found)
    tokenizer.padding_side = "left"  # texts are gone on with at their end
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return found


class _Halves:
    """An image processor and a tokenizer of a model without a processor of its own; it takes no prompt."""

    chat_template = None

    def __init__(self, image_processor: Any, tokenizer: Any) -> None:
        self.image_processor, self.tokenizer = image_processor, tokenizer

    def __call__(self, images: Sequence[Image.Image], return_tensors: str) -> BatchFeature:
        return self.image_processor(images=images, return_tensors=return_tensors)


def _tokenizer_of(processor: Any) -> Any:
    return processor.tokenizer


def _is_chat(processor: Any) -> bool:
    return bool(getattr(processor, "chat_template", None) or _tokenizer_of(processor).chat_template)


def _text_of(processor: Any, kind: str, prompt: str) -> tuple[str | None, dict[str, bool]]:
    """What stands in front of each caption, None for nothing, and how the processor is to read it."""
    tokenizer = _tokenizer_of(processor)
    if _is_chat(processor):
        said = [{"type": "image"}, *([{"type": "text", "text": prompt}] if prompt else [])]
        conversation = [{"role": "user", "content": said}]
        text = str(processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False))
        begins = tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token)
        return text, {"add_special_tokens": False} if begins else {}
    if not prompt:
        return None, {}
    if kind in _OPEN_PROMPTS:
        return f"{tokenizer.cls_token}{prompt}", {"add_special_tokens": False}
    return prompt, {}


def without_prompt(ids: Tensor, prompt: Tensor) -> Tensor:
    """What was generated: `ids` (n, length) without the `prompt` (n, shorter) that some models repeat.

    BLIP leaves the prompt's last token out, which ends a text.
    """
    for length in (prompt.shape[1], prompt.shape[1] - 1):
        if length <= ids.shape[1] and torch.equal(ids[:, :length], prompt[:, :length]):
            return ids[:, length:]
    return ids
