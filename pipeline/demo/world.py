"""A small world to make videos of: coloured shapes that move over six places. What there is, and chance over it.

Pure functions of seeds. Pictures of it are made in `render`, sentences about it in `texts`, files in `corpus`.
"""

import random
from dataclasses import dataclass

SHAPES = ("square", "circle", "triangle", "star", "cross", "ring")
COLOURS = {
    "red": (214, 39, 40),
    "yellow": (245, 214, 35),
    "blue": (35, 75, 215),
    "purple": (140, 45, 165),
    "pink": (250, 140, 195),
    "white": (248, 248, 248),
    "black": (18, 18, 18),
    "orange": (245, 130, 20),
}
# The radius of a shape as a part of the picture's height, half way through its clip.
SIZES = {"small": 0.125, "big": 0.24}
PLACES = ("field", "sea", "desert", "night", "snow", "wall")
MOTIONS = ("left", "right", "up", "down", "circle", "grow", "shrink", "still")


@dataclass(frozen=True, kw_only=True)
class World:
    """The knobs of a corpus; the defaults are the demo's.

    Rates are probabilities from 0 to 1, each drawn for itself for every clip.
    """

    seed: int = 2023
    """Everything follows from this number and those below."""
    num_train_videos: int = 210
    num_test_videos: int = 40
    clips_per_video: int = 6
    num_descriptions: int = 1200
    """Lines of the downstream task's texts that are not about the test clips, against which NMI is measured."""
    silent_rate: float = 0.02
    """Clips in which nobody speaks."""
    topic_noise: float = 0.2
    """Subtitles that are about something else altogether."""
    filler_rate: float = 0.6
    """Each of the places where a subtitle may be padded with chat."""
    shape_rate: float = 0.85
    """Subtitles about the picture that name the shape, and below its colour, size, place and motion."""
    colour_rate: float = 0.75
    size_rate: float = 0.3
    place_rate: float = 0.6
    motion_rate: float = 0.85
    synonym_rate: float = 0.25
    """Words of a subtitle that are not those of the descriptions: a box for a square. 0 shares all words."""
    caption_error: float = 0.0
    """Properties that `texts.caption` gets wrong. 0 tells the truth; the demo's captions are a model's."""

    def __post_init__(self) -> None:
        for name in ("num_train_videos", "num_test_videos", "clips_per_video", "num_descriptions"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        for name, value in vars(self).items():
            if isinstance(value, float) and not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}, must be from 0 to 1")


QUICK_WORLD = World(num_train_videos=80, num_test_videos=20)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a clip shows. `centre` is (x, y) half way through, in parts of width and height."""

    shape: str
    colour: str
    size: str
    place: str
    motion: str
    centre: tuple[float, float] = (0.5, 0.5)
    seed: int = 0
    """Of what nobody speaks of: the ground's grain, the shape's tilt, phase and speed."""

    @property
    def appearance(self) -> tuple[str, str, str, str]:
        """What one frame tells: size, colour, shape, place."""
        return self.size, self.colour, self.shape, self.place


def draw_scene(chance: random.Random) -> Scene:
    """A scene with every property drawn evenly."""
    return Scene(
        shape=chance.choice(SHAPES),
        colour=chance.choice(tuple(COLOURS)),
        size=chance.choice(tuple(SIZES)),
        place=chance.choice(PLACES),
        motion=chance.choice(MOTIONS),
        centre=(chance.uniform(0.4, 0.6), chance.uniform(0.42, 0.58)),
        seed=chance.getrandbits(31),
    )


def chance_of(world: World, *names: object) -> random.Random:
    """A source of chance for one purpose, the same for the same world and names."""
    return random.Random("/".join(map(str, (world.seed, *names))))
