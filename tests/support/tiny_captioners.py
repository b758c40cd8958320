"""Image-to-text models of transformers with random weights, each with a tokenizer of a dozen words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BartConfig,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessor,
    BlipProcessor,
    CLIPImageProcessor,
    CLIPVisionConfig,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    GitConfig,
    GitForCausalLM,
    GitProcessor,
    GPT2Config,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    OPTConfig,
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
_ENDS = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
_NUM_TOKENS = len(SPECIALS) + len(WORDS) + len(MORE_WORDS)


def make_tokenizer(*, closed: bool = False, **more: Any) -> Any:
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
        **more,
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


def florence2(folder: Path) -> None:
    """Pictures of 64 pixels a side are 4 patches, and one token for all of them."""
    vision = {
        "depths": (1, 1, 1, 1),
        "embed_dim": (8, 8, 16, 16),
        "num_heads": (2, 2, 2, 2),
        "num_groups": (2, 2, 2, 2),
        "window_size": 4,
        "projection_dim": 32,
    }
    text = BartConfig(
        vocab_size=_NUM_TOKENS,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=64,
        **_ENDS,
        decoder_start_token_id=3,
        forced_eos_token_id=None,
    )
    config = Florence2Config(
        text_config=text, vision_config=vision, image_token_id=SPECIALS.index("<image>"), **_ENDS
    )
    loud(Florence2ForConditionalGeneration(config)).save_pretrained(folder)
    size = {"height": 64, "width": 64}
    images = CLIPImageProcessor(size=size, crop_size=size, image_seq_length=5)
    tokenizer = make_tokenizer(closed=True, extra_special_tokens={"image_token": "<image>"})
    Florence2Processor(images, tokenizer).save_pretrained(folder)


def blip2(folder: Path) -> None:
    text = OPTConfig(
        vocab_size=_NUM_TOKENS,
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        **_ENDS,
    )
    config = Blip2Config(
        vision_config={**_TOWER, "image_size": IMAGE_SIZE, "patch_size": 16},
        qformer_config={**_TOWER, "encoder_hidden_size": 32, "vocab_size": _NUM_TOKENS},
        text_config=text,
        num_query_tokens=3,
        image_token_index=SPECIALS.index("<image>"),
    )
    loud(Blip2ForConditionalGeneration(config)).save_pretrained(folder)
    images = BlipImageProcessor(size=_SQUARE)
    Blip2Processor(images, make_tokenizer(), num_query_tokens=3).save_pretrained(folder)


KINDS: dict[str, Callable[[Path], None]] = {
    "blip": blip,
    "git": git,
    "vision-encoder-decoder": vision_encoder_decoder,
    "llava": llava,
    "florence2": florence2,
    "blip-2": blip2,
}
