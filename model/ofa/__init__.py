"""OFA, the captioner of the paper's auxiliary captions: network, tokenizer, image processing."""

from clipvip.model.ofa.config import OfaConfig
from clipvip.model.ofa.images import preprocess_images
from clipvip.model.ofa.model import OfaForConditionalGeneration
from clipvip.model.ofa.tokenizer import OfaTokenizer

__all__ = ["OfaConfig", "OfaForConditionalGeneration", "OfaTokenizer", "preprocess_images"]
