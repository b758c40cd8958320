"""A start for images of another size than its own: interpolated positions of patches."""

import copy
from pathlib import Path

import pytest
import torch
from transformers import CLIPModel

from clipvip.model import ClipVip
from clipvip.model.positions import POSITIONS, interpolate_positions
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.train.recipe import load_recipe
from clipvip.pipeline.train.start import start_model
from goldens import assert_close
from openclip_models import ARCHITECTURES, random_model
from resources import need
from tiny_clip import make_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip"))


@pytest.mark.parametrize("encoder", ["vip", "mean_pool"])
def test_images_of_the_same_size_change_nothing(clip: Path, encoder: str) -> None:
    torch.manual_seed(0)
    plain = ClipVip.from_clip(clip, encoder=encoder)
    torch.manual_seed(0)
    same = ClipVip.from_clip(clip, encoder=encoder, image_size=32)
    assert all(torch.equal(same.state_dict()[name], value) for name, value in plain.state_dict().items())


def test_larger_images(clip: Path, tmp_path: Path) -> None:
    model = ClipVip.from_clip(clip, image_size=64)
    table = CLIPModel.from_pretrained(clip).state_dict()[POSITIONS]
    assert model.config.vision_config.image_size == 64
    found = model.state_dict()[POSITIONS]
    assert found.shape == (17, 32) and torch.equal(found[0], table[0])
    # Corners of a grid that is refined lie near those of the old one, and its mean is kept.
    assert_close(found[1:].mean(dim=0), table[1:].mean(dim=0), atol=1e-5)
    assert (found[1] - table[1]).norm() < (found[1] - table[4]).norm()
    model.save_pretrained(tmp_path)
    again = ClipVip.from_pretrained(tmp_path)
    picture = torch.randint(0, 256, (3, 50, 40, 3), dtype=torch.uint8)
    assert_close(again.encode_video(picture), model.encode_video(picture), atol=1e-6)
    back = ClipVip.from_clip(tmp_path, image_size=32)
    assert back.state_dict()[POSITIONS].shape == (5, 32)


def test_a_table_that_is_linear_stays_linear() -> None:
    rows = torch.arange(8.0)[:, None].expand(8, 8).reshape(-1, 1)
    table = torch.cat([torch.full((1, 1), 9.0), rows])
    found = interpolate_positions(table, 16 * 16)
    grid = found[1:, 0].view(16, 16)
    assert found[0] == 9
    assert_close(grid[:, :1].expand(16, 16), grid, atol=1e-6)
    # Pixels' centres: row 8 of 16 lies at 3.75 of 8. Edges are flattened by the filter.
    assert_close(grid[4:12, 0], (torch.arange(4.0, 12.0) + 0.5) / 2 - 0.5, atol=1e-5)


@pytest.mark.parametrize("image_size", [16, 40])
def test_positions_are_interpolated_as_openclip_does(image_size: int) -> None:
    need("open_clip")
    import open_clip

    config = copy.deepcopy(ARCHITECTURES["exact_gelu"])
    config["vision_cfg"]["image_size"] = 24
    state = dict(random_model(config).state_dict())
    table = state["visual.positional_embedding"].clone()
    config["vision_cfg"]["image_size"] = image_size
    open_clip.model.resize_pos_embed(state, random_model(config))
    found = interpolate_positions(table, (image_size // 8) ** 2)
    assert_close(found, state["visual.positional_embedding"], atol=1e-6)


@pytest.mark.parametrize("image_size", [40, 8, 0, -32, 32.0])
def test_sizes_that_are_no_whole_patches(clip: Path, image_size: int) -> None:
    with pytest.raises(ValueError, match=f"image_size = {image_size} must be a multiple of the patches' 16"):
        ClipVip.from_clip(clip, image_size=image_size)


def test_the_recipe_says_the_size(clip: Path) -> None:
    options = {"model.init": str(clip), "data.max_text_tokens": 20, "model.image_size": 48}
    assert start_model(load_recipe("demo", options=options)).config.vision_config.image_size == 48
    with pytest.raises(UserError, match=r"model.image_size: .*multiple of the patches' 16"):
        start_model(load_recipe("demo", options=options | {"model.image_size": 50}))
