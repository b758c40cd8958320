"""The captioner: images in, captions out, with the settings that OFA's authors caption with."""

from dataclasses import astuple
from pathlib import Path

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from clipvip.media.errors import one_line
from clipvip.model.errors import CheckpointError
from clipvip.model.image_captioner import (
    CaptionerKind,
    Decoding,
    ImageCaptioner,
    clean_caption,
    default_batch_size,
    default_dtype,
)
from clipvip.model.ofa.config import OfaConfig
from clipvip.model.ofa.folded import FoldedOfa
from clipvip.model.ofa.images import scale_pixels
from clipvip.model.ofa.model import OfaForConditionalGeneration
from clipvip.model.ofa.search import NO_REPEAT_NGRAM, BeamSearch, SearchRules
from clipvip.model.ofa.tokenizer import OfaTokenizer
from clipvip.plugins import Registry

DEFAULT_PROMPT, DEFAULT_NUM_BEAMS, DEFAULT_MAX_LENGTH = astuple(Decoding())
_CELL_PIXELS = 16


class Captioner(ImageCaptioner):
    """An OFA that has been loaded once and captions batch after batch.

    All batches have the same shape: fewer images are filled up with repeats of the last. So a caption depends
    on its image alone; between batch sizes, rounding differs in the last bit.

    Args:
        folder_or_name: a model in Hugging Face layout with vocab.json and merges.txt.
        batch_size: images that go through the model at once; None for what suits the device.
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
        batch_size: int | None = None,
        num_beams: int = DEFAULT_NUM_BEAMS,
        max_length: int = DEFAULT_MAX_LENGTH,
        prompt: str = DEFAULT_PROMPT,
        image_size: int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        source = str(folder_or_name)
        self.device, self.dtype = device, dtype or default_dtype(device)
        self.batch_size = batch_size or default_batch_size(device)
        # Folded in float32, and only then in the format that is asked.
        model: OfaForConditionalGeneration = OfaForConditionalGeneration.from_pretrained(
            source, dtype=torch.float32
        ).eval()
        config = model.config
        self.tokenizer = _load_tokenizer(source, model)
        self.image_size = image_size or config.resolution()
        most = _CELL_PIXELS * config.image_bucket_size
        if self.image_size > most:
            raise CheckpointError(
                f"{source}: takes images of {most} pixels at most, not of {self.image_size}; give a "
                "smaller --image-size"
            )
        ids = self.tokenizer([prompt], return_tensors="pt").input_ids
        # Where files are missing, transformers makes an empty vocabulary instead of failing.
        if ids.shape[1] <= 2 or (ids == self.tokenizer.unk_token_id).any():
            raise CheckpointError(
                f"{source}: its vocabulary lacks tokens of the prompt; is vocab.json or merges.txt cut off?"
            )
        longest = config.max_position_embeddings
        if max(ids.shape[1], max_length + 2) > longest:
            raise CheckpointError(
                f"{source}: takes prompts and captions of {longest} tokens at most; give a shorter "
                "--prompt or a smaller --max-length"
            )
        rules = SearchRules(
            num_beams, max_length, bos=config.bos_token_id, pad=config.pad_token_id, eos=config.eos_token_id
        )
        self.network = FoldedOfa(
            model,
            ids,
            image_size=self.image_size,
            num_steps=rules.num_steps,
            num_beams=num_beams,
            dtype=self.dtype,
            for_gpu=device.type == "cuda",
        ).to(device)
        self.search = BeamSearch(self.network.decoder, rules, self.batch_size)
        self._tried_fused = device.type != "cuda"

    @torch.inference_mode()
    def caption_pixels(self, pixels: Tensor) -> list[str]:
        """Captions of what `preprocess` gave, for `batch_size` images at most."""
        fill = pixels[-1:].expand(self.batch_size - len(pixels), -1, -1, -1)
        full = torch.cat([pixels, fill]) if len(fill) else pixels
        images = scale_pixels(full.to(self.device, non_blocking=True)).to(self.dtype)
        if not self._tried_fused:
            self.network.encoder.resnet.try_fused(images)
            self._tried_fused = True
        found = self.search(self.network.encoder(images))
        texts = self.tokenizer.batch_decode(found[: len(pixels)], skip_special_tokens=True)
        return [clean_caption(text) for text in texts]


# By the model_type in config.json. Plug-ins may add to it.
CAPTIONERS: Registry[CaptionerKind] = Registry({"ofa": Captioner})


def authors_search(
    config: OfaConfig, *, num_beams: int = DEFAULT_NUM_BEAMS, max_length: int = DEFAULT_MAX_LENGTH
) -> tuple[GenerationConfig, LogitsProcessorList]:
    """What to give `generate` so that it finds what the search of OFA's authors finds."""
    settings = GenerationConfig(
        num_beams=num_beams,
        max_length=max_length + 2,  # transformers counts the start token and </s>
        no_repeat_ngram_size=NO_REPEAT_NGRAM,
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


def _load_tokenizer(source: str, model: OfaForConditionalGeneration) -> OfaTokenizer:
    try:
        tokenizer: OfaTokenizer = OfaTokenizer.from_pretrained(source)
    except Exception as error:  # the tokenizers library raises nothing more specific
        raise CheckpointError(
            f"{source}: its vocabulary does not load ({one_line(error, most=300)})"
        ) from error
    if tokenizer.vocab_size > model.config.vocab_size:
        raise CheckpointError(
            f"{source}: vocab.json has {tokenizer.vocab_size} tokens, the model {model.config.vocab_size}; "
            "put the model's own there"
        )
    return tokenizer
