"""OFA's tokenizer: BART's byte-level pairs, then 8192 image codes and 1000 coordinate bins."""

from typing import Any

from transformers import AddedToken, AutoTokenizer, RobertaTokenizer

from clipvip.model.ofa.config import OfaConfig

NUM_IMAGE_CODES = 8192
NUM_COORDINATE_BINS = 1000
# Published vocabularies have this many entries before the codes and bins.
_PUBLISHED_TEXT_TOKENS = 50265


class OfaTokenizer(RobertaTokenizer):
    """Loads `vocab.json` and `merges.txt` from a model folder.

    Codes and bins, which captioning does not use, are added behind a vocabulary of the published size.

    Examples:
        >>> from clipvip.model.ofa import OfaTokenizer
        >>> tokenizer = OfaTokenizer.from_pretrained("OFA-Sys/ofa-base")
        >>> tokenizer.decode(tokenizer(" a red circle")["input_ids"], skip_special_tokens=True)
        ' a red circle'
    """

    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012 (transformers declares it so)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.vocab_size == _PUBLISHED_TEXT_TOKENS and len(self) == _PUBLISHED_TEXT_TOKENS:
            names = [f"<code_{n}>" for n in range(NUM_IMAGE_CODES)]
            names += [f"<bin_{n}>" for n in range(NUM_COORDINATE_BINS)]
            # The spaces around them are not tokens of their own.
            self.add_tokens([AddedToken(name, lstrip=True, rstrip=False, normalized=False) for name in names])


AutoTokenizer.register(OfaConfig, tokenizer_class=OfaTokenizer)
