"""The folded network and its search: what the published network and `generate` give, to the token."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clipvip.model.ofa import OfaForConditionalGeneration
from clipvip.model.ofa.captioner import authors_search
from clipvip.model.ofa.folded import FoldedOfa, aligned
from clipvip.model.ofa.folded_resnet import FoldedResNet, fold_batch_norm
from clipvip.model.ofa.resnet import ResNet
from clipvip.model.ofa.search import BeamSearch, Candidates, Ended, SearchRules
from tiny_ofa import IMAGE_SIZE, make_model

VOCABULARY = 60
PROMPT = torch.tensor([[0, 9, 17, 5, 2]])


def rules_of(model: OfaForConditionalGeneration, num_beams: int, max_length: int) -> SearchRules:
    config = model.config
    return SearchRules(
        num_beams, max_length, bos=config.bos_token_id, pad=config.pad_token_id, eos=config.eos_token_id
    )


def lively(seed: int, *, ending: float = 1.0) -> OfaForConditionalGeneration:
    """A model that repeats itself, and ends its captions the sooner the larger `ending` is."""
    model = make_model(VOCABULARY, seed=seed, decoder_layers=2)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        table = model.encoder.embed_tokens.weight
        table.copy_(torch.randn(table.shape, generator=random) * 0.5)
        table[2] *= ending
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_(generator=random).mul_(0.1)
                part.running_var.uniform_(0.5, 2.0, generator=random)
                part.weight.uniform_(0.5, 1.5, generator=random)
                part.bias.normal_(generator=random).mul_(0.1)
        for name, parameter in model.named_parameters():
            if name.endswith("c_attn"):
                parameter.uniform_(0.5, 1.5, generator=random)
    return model


def images_of(number: int, seed: int) -> Tensor:
    return (
        torch.rand(number, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    )


def plain_search(
    model: OfaForConditionalGeneration, images: Tensor, rules: SearchRules, **changes: int
) -> list[list[int]]:
    """By transformers' `generate`, which is what captions were made with first."""
    settings, processors = authors_search(
        model.config, num_beams=rules.num_beams, max_length=rules.max_length
    )
    settings.update(**changes)
    with torch.inference_mode():
        ids = model.generate(
            input_ids=PROMPT.to(images.device).expand(len(images), -1),
            patch_images=images,
            generation_config=settings,
            logits_processor=processors,
        )
    rows = [row[1:] for row in ids.tolist()]
    return [row[: row.index(rules.eos)] if rules.eos in row else row for row in rows]


def folded(model: OfaForConditionalGeneration, rules: SearchRules, *, for_gpu: bool) -> FoldedOfa:
    return FoldedOfa(
        model,
        PROMPT,
        image_size=IMAGE_SIZE,
        num_steps=rules.num_steps,
        num_beams=rules.num_beams,
        dtype=torch.float32,
        for_gpu=for_gpu,
    )


@pytest.mark.parametrize("seed", range(8))
def test_any_model_gets_the_tokens_of_the_plain_search(seed: int) -> None:
    random = np.random.default_rng(seed)
    rules = rules_of(lively(seed), int(random.integers(1, 7)), int(random.integers(1, 20)))
    ending = float(random.choice([1.0, 3.0, 8.0]))
    images = images_of(6, seed)
    expected = plain_search(lively(seed, ending=ending), images, rules)
    for for_gpu, steps_at_once in ((False, None), (True, 4), (True, 100)):
        network = folded(lively(seed, ending=ending), rules, for_gpu=for_gpu)
        search = BeamSearch(network.decoder, rules, len(images), steps_at_once=steps_at_once)
        with torch.inference_mode():
            assert search(network.encoder(images)) == expected
            # Nothing is left over from the batch before.
            assert search(network.encoder(images.flip(0))) == expected[::-1]


def test_such_models_end_early_and_late_and_would_repeat_themselves() -> None:
    """Or the test above would show little."""
    lengths, num_repeats = set(), 0
    for seed in range(3):
        for ending in (1.0, 8.0):
            model, images = lively(seed, ending=ending), images_of(4, seed)
            rules = rules_of(model, 5, 16)
            found = plain_search(model, images, rules)
            free = plain_search(model, images, rules, no_repeat_ngram_size=0)
            lengths |= set(map(len, found))
            num_repeats += sum(a != b for a, b in zip(found, free, strict=True))
    assert min(lengths) < 8 and max(lengths) == 16
    assert num_repeats > 2


def test_no_caption_ends_sooner_because_the_host_looks_later() -> None:
    """An image that is done takes no further captions, however many steps follow."""
    rules = SearchRules(num_beams=2, max_length=3, bos=0, pad=1, eos=2)
    ended = Ended(1, rules)
    both_end = torch.tensor([[[2, 2, 7, 8]]])
    scores = torch.tensor([[[-1.0, -2.0, -3.0, -4.0]]])
    parents, chosen = torch.tensor([[[0, 1, 0, 1]]]), torch.tensor([[[2, 3]]])
    going_on = torch.tensor([[[5, 6, 7, 8]]])
    ended.add(Candidates(scores, going_on, parents, torch.tensor([[[0, 1]]]), None))
    assert not ended.all_done()
    ended.add(Candidates(scores, both_end, parents, chosen, None))
    assert ended.all_done()
    assert ended.best == [[5]]
    ended.add(Candidates(scores / 100, both_end, parents, chosen, torch.tensor([[-0.01, -0.01]])))
    assert ended.best == [[5]]


@pytest.mark.parametrize("stride", [1, 2])
def test_folding_batch_norm_is_exact(stride: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(5, 7, 3, stride=stride, padding=1, bias=False).double()
    norm = nn.BatchNorm2d(7).double().eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(1e-3, 4)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    x = torch.randn(2, 5, 9, 8, dtype=torch.float64)
    with torch.no_grad():
        expected = norm(conv(x))
        torch.testing.assert_close(fold_batch_norm(conv, norm)(x), expected, rtol=1e-12, atol=1e-12)


def test_the_folded_image_tower_is_the_tower() -> None:
    model = lively(3)
    tower: ResNet = model.encoder.embed_images.double()
    images = images_of(2, 3).double()
    with torch.no_grad():
        expected = tower(images)
        found = FoldedResNet(tower)(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("for_gpu", [False, True])
def test_logits_of_a_beam_are_those_of_its_own_tokens(for_gpu: bool) -> None:
    """Beams that change places from step to step, in float64."""
    rules = rules_of(lively(0), num_beams=3, max_length=5)
    images, random = images_of(2, 0).double(), torch.Generator().manual_seed(1)
    reference = lively(0).double()
    network = FoldedOfa(
        lively(0).double(), PROMPT, image_size=IMAGE_SIZE, num_steps=rules.num_steps, num_beams=3,
        dtype=torch.float64, for_gpu=for_gpu,
    )  # fmt: skip
    search = BeamSearch(network.decoder, rules, 2)
    with torch.inference_mode():
        start = search.begin(network.encoder(images))
        tokens, mask = start.tokens, start.mask
        for step in range(rules.num_steps):
            found = network.decoder(tokens[..., -1], step, mask, start.memory)[:, :VOCABULARY]
            expected = reference(
                input_ids=PROMPT.expand(2, -1),
                patch_images=images,
                decoder_input_ids=tokens.flatten(0, 1),
                use_cache=False,
            ).logits[:, -1]
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
            rows = torch.randint(3, (2, 3), generator=random) + torch.tensor([[0], [3]])
            following = torch.randint(3, VOCABULARY, (2, 3, 1), generator=random)
            tokens = torch.cat([tokens.flatten(0, 1)[rows], following], dim=-1)
            mask = search._mask(mask.flatten(0, 1)[rows], step + 1)


def test_bfloat16_is_near() -> None:
    """Half precision rounds, and no more: the first step's probabilities."""
    rules = rules_of(lively(1), 2, 3)
    images, found = images_of(3, 1), []
    for dtype in (torch.float32, torch.bfloat16):
        network = FoldedOfa(
            lively(1), PROMPT, image_size=IMAGE_SIZE, num_steps=rules.num_steps, num_beams=2, dtype=dtype,
            for_gpu=True,
        )  # fmt: skip
        search = BeamSearch(network.decoder, rules, 3)
        with torch.inference_mode():
            start = search.begin(network.encoder(images.to(dtype)))
            logits = network.decoder(start.tokens[..., 0], 0, start.mask, start.memory)
        found.append(logits.float().softmax(-1))
    assert (found[0] - found[1]).abs().sum(-1).max() < 0.1


def test_sizes_are_rounded_up() -> None:
    assert [aligned(n) for n in (1, 8, 9, 85)] == [8, 8, 16, 88]
    assert aligned(59457, 64) == 59520


def test_steps_look_at_no_value() -> None:
    """On a device that has no values: so they can be captured, and counted without a GPU."""
    rules = rules_of(lively(0), 5, 16)
    network = folded(lively(0), rules, for_gpu=True).to("meta")
    search = BeamSearch(network.decoder, rules, 4, steps_at_once=4)
    found = []
    with torch.inference_mode():
        states = network.encoder(torch.empty(4, 3, IMAGE_SIZE, IMAGE_SIZE, device="meta"))
        beams = search.begin(states)
        for part in search.parts:
            beams, candidates = search.steps(part, beams)
            found.append(candidates)
    assert sum(len(candidates.scores) for candidates in found) == rules.max_length
    assert found[-1].last is not None and beams.tokens.shape == (4, 5, 17)


@pytest.mark.gpu
def test_a_captured_search_finds_what_the_eager_one_finds() -> None:
    device = torch.device("cuda")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    for seed, ending in ((0, 1.0), (1, 3.0), (2, 8.0)):
        rules = rules_of(lively(seed), 5, 16)
        images = images_of(6, seed).to(device)
        network = folded(lively(seed, ending=ending), rules, for_gpu=True).to(device)
        eager = BeamSearch(network.decoder, rules, 6, captured=False)
        captured = BeamSearch(network.decoder, rules, 6)
        assert captured.captured
        with torch.inference_mode():
            for batch in (images, images.flip(0), images):
                states = network.encoder(batch)
                assert captured(states) == eager(states)
        assert eager(states) == plain_search(lively(seed, ending=ending).to(device), images, rules)


@pytest.mark.gpu
def test_cudnns_fused_convolutions_are_near() -> None:
    model = lively(0)
    images = images_of(4, 0).to("cuda", torch.bfloat16, memory_format=torch.channels_last)
    tower = FoldedResNet(model.encoder.embed_images).to("cuda", torch.bfloat16)
    with torch.inference_mode():
        plain = tower(images)
        if not tower.try_fused(images):
            return  # cuDNN has none for so few channels on this device
        torch.testing.assert_close(tower(images), plain, rtol=0.05, atol=0.05)
