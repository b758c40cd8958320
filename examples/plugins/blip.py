"""A captioner of your own: BLIP, for model folders whose config.json says so, in place of the built-in way.

`clipvip-data caption --model FOLDER_OF_BLIP --shards FOLDER --out FOLDER`. It describes without being asked:
`prompt` is not used. Pictures are resized as OFA's are.
"""

from typing import Any

import torch
from transformers import AutoTokenizer, BlipForConditionalGeneration

from clipvip.model.image_captioner import ImageCaptioner, clean_caption, default_batch_size, default_dtype
from clipvip.model.ofa.captioner import CAPTIONERS
from clipvip.model.preprocess import preprocess_frames


class BlipCaptioner(ImageCaptioner):
    def __init__(
        self, source: str, *, device: Any, dtype: Any = None, batch_size: int | None = None, **options: Any
    ) -> None:
        self.dtype, self.device = dtype or default_dtype(device), device
        self.batch_size = batch_size or default_batch_size(device)
        self.blip: Any = BlipForConditionalGeneration.from_pretrained(source, dtype=self.dtype).to(device)
        self.blip_tokenizer: Any = AutoTokenizer.from_pretrained(source)
        self.image_size = options["image_size"] or self.blip.config.vision_config.image_size
        self.search = {name: options[name] for name in ("num_beams", "max_length")}

    @torch.inference_mode()
    def caption_pixels(self, pixels: torch.Tensor) -> list[str]:
        """uint8 (n, image_size, image_size, 3) -> n captions."""
        images = preprocess_frames(pixels.to(self.device), self.image_size).to(self.dtype)
        ids = self.blip.generate(images, **self.search)
        texts = self.blip_tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [clean_caption(text) for text in texts]


CAPTIONERS["blip"] = BlipCaptioner
