"""Byte-level BPE vocabularies of the demo's own texts, in CLIP's form and in OFA's, for any text."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from clipvip.experiments.demo.texts import alt_text, caption, description, subtitle
from clipvip.experiments.demo.world import World, chance_of, draw_scene

VOCABULARY_SIZE = 900
OFA_PROMPT = " what does the image describe?"
_START, _END = "<|startoftext|>", "<|endoftext|>"


def sample_texts(world: World, *, count: int = 4000) -> list[str]:
    """Texts of every kind that the world has."""
    chance = chance_of(world, "vocabulary")
    texts = [OFA_PROMPT.strip()] * 50
    for _ in range(count):
        scene = draw_scene(chance, world)
        texts += [caption(scene), alt_text(scene, chance), description(scene, chance)]
        texts.append(subtitle(scene, world, chance))
    return texts


def clip_tokenizer(world: World, *, max_tokens: int) -> CLIPTokenizer:
    """CLIP's kind: lower case, the last part of a word marked."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE, end_of_word_suffix="</w>", initial_alphabet=letters, show_progress=False
    )
    tokenizer.train_from_iterator(sample_texts(world), trainer)
    merges: Any = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    tokens = [*dict.fromkeys(tokens), _START, _END]
    vocab = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=max_tokens)


def write_ofa_vocabulary(world: World, folder: Path) -> int:
    """OFA's kind (BART's): vocab.json and merges.txt in `folder`; returns the number of tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # A caption's words come with the space before them.
    texts = [form for text in sample_texts(world) for form in (text, f" {text}")]
    tokenizer.train_from_iterator(texts, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.model.save(str(folder))
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    if "<mask>" not in vocab:
        vocab["<mask>"] = len(vocab)
        (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    return len(vocab)
