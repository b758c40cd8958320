"""A Whisper of CTranslate2's with a few thousand weights, for tests of what loads and runs one.

It is made as real ones are, by the converter from Hugging Face layout. Its weights are set so that the word
to come follows from the place in the text alone: of each 30 s of sound it hears `WORDS` from 0 to 2 s.
"""

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

WORDS = ("hello", "wide", "world")
_WIDTH = 64
_TIMES = 1501  # 0 to 30 s, each 0.02 s


def make_whisper(folder: Path, *, language: str | None = None) -> Path:
    """The model in `folder`: of English, or of many languages, of which it takes all for `language`."""
    from ctranslate2.converters import TransformersConverter

    layout = folder.with_name(f"{folder.name}-hf")
    tokenizer = _tokenizer(is_multilingual=language is not None)
    tokenizer.save_pretrained(layout)
    number = tokenizer.convert_tokens_to_ids
    end = number("<|endoftext|>")
    config = WhisperConfig(
        vocab_size=len(tokenizer) + _TIMES,
        d_model=_WIDTH,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=number("<|startoftranscript|>"),
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(config)
    first_time = len(tokenizer)
    said = [first_time, *(number(token) for token in _tokens()), first_time + 100, end]
    if language is not None:
        model.generation_config.lang_to_id = {token: number(token) for token in _languages()}
        model.generation_config._from_model_config = False  # else what is set is not read back
        # After the start come the language and the task.
        said = [number(f"<|{language}|>"), number("<|transcribe|>"), *said]
    _let_it_say(model, said)
    model.save_pretrained(layout)
    WhisperFeatureExtractor().save_pretrained(layout)
    copied = ["tokenizer.json", "preprocessor_config.json"]
    TransformersConverter(str(layout), copy_files=copied).convert(str(folder))
    return folder


def _tokens() -> list[str]:
    return [WORDS[0], *(f"Ġ{word}" for word in WORDS[1:])]


def _languages() -> list[str]:
    from faster_whisper.tokenizer import _LANGUAGE_CODES

    return [f"<|{code}|>" for code in _LANGUAGE_CODES]


def _tokenizer(*, is_multilingual: bool) -> PreTrainedTokenizerFast:
    """A token for each byte and each of the words, and Whisper's special ones."""
    languages = _languages() if is_multilingual else []
    names = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")
    special = ["<|endoftext|>", "<|startoftranscript|>", *languages, *(f"<|{name}|>" for name in names)]
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *_tokens()]
    tokens += [""] if is_multilingual else []  # by which CTranslate2 tells a model of many languages
    made = Tokenizer(models.WordLevel({token: n for n, token in enumerate(tokens)}, unk_token=tokens[0]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, special=True) for token in special])
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|endoftext|>")


def _let_it_say(model: WhisperForConditionalGeneration, tokens: list[int]) -> None:
    """Let the decoder's layers pass on what they get, and its places point to the tokens to come."""
    decoder = model.model.decoder
    with torch.no_grad():
        for layer in decoder.layers:
            for last in (layer.self_attn.out_proj, layer.encoder_attn.out_proj, layer.fc2):
                last.weight.zero_()
                last.bias.zero_()
        decoder.embed_tokens.weight.normal_()
        decoder.embed_positions.weight.zero_()
        for place, token in enumerate(tokens):
            decoder.embed_positions.weight[place] = 20 * decoder.embed_tokens.weight[token]
        for place in range(len(tokens), len(decoder.embed_positions.weight)):
            decoder.embed_positions.weight[place] = 20 * decoder.embed_tokens.weight[tokens[-1]]
