"""The captioner: images in, captions out, with the settings that OFA's authors caption with."""

import string
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from clipvip.media.errors import one_line
from clipvip.model.errors import CheckpointError
from clipvip.model.ofa.config import OfaConfig
from clipvip.model.ofa.images import resize_images, scale_pixels
from clipvip.model.ofa.model import OfaForConditionalGeneration
from clipvip.model.ofa.tokenizer import OfaTokenizer
from clipvip.model.precision import half_dtype
from clipvip.plugins import Registry

DEFAULT_PROMPT = " what does the image describe?"
DEFAULT_NUM_BEAMS = 5
DEFAULT_MAX_LENGTH = 16
_NO_REPEAT_NGRAM = 3
_CELL_PIXELS = 16
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Captioner:
    """An OFA that has been loaded once and captions batch after batch.

    All batches have the same shape: fewer images are filled up with repeats of the last. So a caption depends
    on its image alone; between batch sizes, rounding differs in the last bit.

    Args:
        folder_or_name: a model in Hugging Face layout with vocab.json and merges.txt.
        batch_size: images that go through the model at once.
        num_beams: width of the beam search; 1 is greedy.
        max_length: most tokens of a caption, not counting </s>.
        image_size: side in pixels that images are resized to; None for what the model's configuration says.
        dtype: None for bfloat16 on a GPU (float16 on one without), else float32.

    Raises:
        CheckpointError: no OFA is there, weights or vocabulary do not fit, or the sizes asked.
    """

    def __init__(
        self,
        folder_or_name: str | Path,
        *,
        device: torch.device,
        batch_size: int = 8,
        num_beams: int = DEFAULT_NUM_BEAMS,
        max_length: int = DEFAULT_MAX_LENGTH,
        prompt: str = DEFAULT_PROMPT,
        image_size: int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        source = str(folder_or_name)
        self.dtype = dtype or default_dtype(device)
        model = OfaForConditionalGeneration.from_pretrained(source, dtype=self.dtype)
        self.model: OfaForConditionalGeneration = model.eval().to(device)
        self.tokenizer = _load_tokenizer(source, model)
        self.device = device
        self.batch_size = batch_size
        self.image_size = image_size or model.config.resolution()
        most = _CELL_PIXELS * model.config.image_bucket_size
        if self.image_size > most:
            raise CheckpointError(f"{source}: takes images of {most} pixels at most, {self.image_size} asked")
        ids = self.tokenizer([prompt], return_tensors="pt").input_ids
        # Where files are missing, transformers makes an empty vocabulary instead of failing.
        if ids.shape[1] <= 2 or (ids == self.tokenizer.unk_token_id).any():
            raise CheckpointError(
                f"{source}: its vocabulary does not spell the prompt; vocab.json or merges.txt lacks"
            )
        longest = model.config.max_position_embeddings
        if max(ids.shape[1], max_length + 2) > longest:
            raise CheckpointError(f"{source}: takes texts of {longest} tokens at most, prompts and captions")
        self._prompt = ids.to(device)
        # In place of what the folder may say, which differs among published ones.
        settings, self._at_the_end = authors_search(model.config, num_beams=num_beams, max_length=max_length)
        self.model.generation_config = settings

    def caption(self, images: Sequence[np.ndarray]) -> list[str]:
        """Captions of uint8 (height, width, 3) RGB images of any size, in their order."""
        captions = []
        for first in range(0, len(images), self.batch_size):
            captions += self.caption_pixels(self.preprocess(images[first : first + self.batch_size]))
        return captions

    def preprocess(self, images: Sequence[np.ndarray]) -> Tensor:
        """What `caption_pixels` takes: (n, image_size, image_size, 3) uint8. Safe in any thread."""
        return resize_images(images, self.image_size)

    @torch.inference_mode()
    def caption_pixels(self, pixels: Tensor) -> list[str]:
        """Captions of what `preprocess` gave, for `batch_size` images at most."""
        fill = pixels[-1:].expand(self.batch_size - len(pixels), -1, -1, -1)
        images = scale_pixels(torch.cat([pixels, fill]).to(self.device)).to(self.dtype)
        prompts = self._prompt.expand(self.batch_size, -1)
        ids = self.model.generate(  # type: ignore[misc]
            input_ids=prompts, patch_images=images, logits_processor=self._at_the_end
        )
        texts = self.tokenizer.batch_decode(ids[: len(pixels)], skip_special_tokens=True)
        return [clean_caption(text) for text in texts]


# By the model_type in config.json: a `Captioner`, or another class with its arguments, `preprocess`,
# `caption_pixels`, `batch_size`, `image_size` and `dtype`. Plug-ins may add to it.
CAPTIONERS: Registry[type[Captioner]] = Registry({"ofa": Captioner})


def authors_search(
    config: OfaConfig, *, num_beams: int = DEFAULT_NUM_BEAMS, max_length: int = DEFAULT_MAX_LENGTH
) -> tuple[GenerationConfig, LogitsProcessorList]:
    """What to give `generate` so that it finds what the search of OFA's authors finds."""
    settings = GenerationConfig(
        num_beams=num_beams,
        max_length=max_length + 2,  # transformers counts the start token and </s>
        no_repeat_ngram_size=_NO_REPEAT_NGRAM,
        length_penalty=1.0,
        early_stopping=num_beams > 1,
        do_sample=False,
        suppress_tokens=[config.pad_token_id],  # theirs never picks it
        bos_token_id=config.bos_token_id,
        pad_token_id=config.pad_token_id,
        eos_token_id=config.eos_token_id,
        decoder_start_token_id=config.bos_token_id,
    )
    return settings, LogitsProcessorList([EndAtLimit(max_length, config.eos_token_id)])


class EndAtLimit(LogitsProcessor):
    """After `max_length` tokens only </s> can follow, at its own probability, as in fairseq's search.

    The library makes it certain, which favours captions cut off; without either, ending is not scored.
    """

    def __init__(self, max_length: int, eos_token_id: int) -> None:
        self.max_length = max_length
        self.eos_token_id = eos_token_id

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        # With 16: <s> and 16 tokens, 17 together, are the first that only </s> can follow.
        if input_ids.shape[1] <= self.max_length:
            return scores
        ended = torch.full_like(scores, -torch.inf)
        ended[:, self.eos_token_id] = scores[:, self.eos_token_id]
        return ended  # type: ignore[return-value]


def default_dtype(device: torch.device) -> torch.dtype:
    """Half precision on a GPU, in the format that it has, else float32."""
    return half_dtype() if device.type == "cuda" else torch.float32


def clean_caption(text: str) -> str:
    """Drop ASCII punctuation and outer white space, as in the authors' evaluation."""
    return text.translate(_NO_PUNCTUATION).strip()


def _load_tokenizer(source: str, model: OfaForConditionalGeneration) -> OfaTokenizer:
    try:
        tokenizer: OfaTokenizer = OfaTokenizer.from_pretrained(source)
    except Exception as error:  # the tokenizers library raises nothing more specific
        raise CheckpointError(f"{source}: no vocabulary that loads ({one_line(error, most=300)})") from error
    if tokenizer.vocab_size > model.config.vocab_size:
        raise CheckpointError(
            f"{source}: vocab.json has {tokenizer.vocab_size} tokens, the model {model.config.vocab_size}; "
            "put the model's own there"
        )
    return tokenizer
