"""Image-to-text models of transformers with random weights, each with a tokenizer of a dozen words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BlipImageProcessor,
    BlipProcessor,
    CLIPImageProcessor,
    CLIPVisionConfig,
    GitConfig,
    GitForCausalLM,
    GitProcessor,
    GPT2Config,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessor,
)

from tiny_blip import WORDS, make_blip

IMAGE_SIZE = 32
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "<image>"]
# The first begins the captions of `tiny_blip`.
MORE_WORDS = ["[DEC]", "USER", ":", "ASSISTANT", "what", "is", "this", "."]
CHAT = (
    "{% for message in messages %}USER : {% for part in message.content %}"
    "{% if part.type == 'image' %}<image> {% else %}{{ part.text }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT :{% endif %}"
)
_TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
_SQUARE = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
_CLIP_IMAGES = {"size": {"shortest_edge": IMAGE_SIZE}, "crop_size": _SQUARE}
_NUM_TOKENS = len(SPECIALS) + len(WORDS) + len(MORE_WORDS)


def make_tokenizer(*, closed: bool = False) -> Any:
    """Words are tokens; `closed`: a text stands between [CLS] and [SEP], else nothing is added to it."""
    vocabulary = {token: number for number, token in enumerate(SPECIALS + WORDS + MORE_WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if closed:
        ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
        tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "eos_token": "[SEP]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        additional_special_tokens=["<image>", "[DEC]"],
        **special,
        bos_token="[CLS]",
    )


def loud(model: Any, *, seed: int = 0) -> Any:
    """The same model with weights so large that captions differ from picture to picture."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(std=2 * parameter.shape[-1] ** -0.5)
    return model


def blip(folder: Path) -> None:
    make_blip(folder)
    BlipProcessor(BlipImageProcessor(size=_SQUARE), make_tokenizer(closed=True)).save_pretrained(folder)


def git(folder: Path) -> None:
    config = GitConfig(
        vision_config={**_TOWER, "image_size": IMAGE_SIZE, "patch_size": 16},
        **_TOWER,
        vocab_size=_NUM_TOKENS,
        max_position_embeddings=64,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
    )
    loud(GitForCausalLM(config)).save_pretrained(folder)
    GitProcessor(CLIPImageProcessor(**_CLIP_IMAGES), make_tokenizer()).save_pretrained(folder)


def vision_encoder_decoder(folder: Path) -> None:
    encoder = ViTConfig(**_TOWER, image_size=IMAGE_SIZE, patch_size=16)
    decoder = GPT2Config(
        n_embd=32, n_layer=2, n_head=4, n_positions=64, vocab_size=_NUM_TOKENS, bos_token_id=2, eos_token_id=3
    )
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 2, 0, 3
    model = loud(VisionEncoderDecoderModel(config))
    model.generation_config.decoder_start_token_id, model.generation_config.pad_token_id = 2, 0
    model.generation_config.eos_token_id = 3
    model.save_pretrained(folder)
    ViTImageProcessor(size=_SQUARE).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)


def llava(folder: Path) -> None:
    text = LlamaConfig(
        **_TOWER,
        num_key_value_heads=4,
        vocab_size=_NUM_TOKENS,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
    )
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**_TOWER, image_size=IMAGE_SIZE, patch_size=16),
        text_config=text,
        image_token_index=SPECIALS.index("<image>"),
        vision_feature_layer=-1,
    )
    loud(LlavaForConditionalGeneration(config)).save_pretrained(folder)
    LlavaProcessor(
        CLIPImageProcessor(**_CLIP_IMAGES),
        make_tokenizer(),
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    ).save_pretrained(folder)


KINDS: dict[str, Callable[[Path], None]] = {
    "blip": blip,
    "git": git,
    "vision-encoder-decoder": vision_encoder_decoder,
    "llava": llava,
}
