"""A small world to make videos of: coloured shapes that move over six places.

Pure functions of seeds. `render` makes pictures of it, `texts` sentences about it, `corpus` files.
"""

import random
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

# The demo's tiny CLIP and OFA, in clip/ and ofa/.
WEIGHTS = Path(__file__).resolve().parent / "weights"

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
# What a clip shows when it is played backwards; the other motions look the same both ways.
REVERSED = {"left": "right", "right": "left", "up": "down", "down": "up", "grow": "shrink", "shrink": "grow"}


@dataclass(frozen=True, kw_only=True)
class World:
    """The knobs of a corpus; the defaults have all that there is, and no twins.

    Rates are probabilities from 0 to 1, each drawn for itself for every clip.
    """

    seed: int = 2023
    """Everything follows from this number and those below."""
    num_train_videos: int = 210
    num_test_videos: int = 40
    num_finetune_videos: int = 0
    """Videos with descriptions to fine-tune on."""
    num_images: int = 0
    """Single pictures with labels, of scenes that no video shows."""
    clips_per_video: int = 6
    twins: bool = False
    """Each test clip is there a second time, played backwards and described so; no two test clips show the
    same. Whoever is blind to order cannot tell the two apart."""
    distinct_test: bool = False
    """No two test clips show the same, without twins too."""
    shapes: tuple[str, ...] = SHAPES
    """What clips may show, and in the four below."""
    colours: tuple[str, ...] = tuple(COLOURS)
    sizes: tuple[str, ...] = tuple(SIZES)
    places: tuple[str, ...] = PLACES
    motions: tuple[str, ...] = MOTIONS
    num_descriptions: int = 1200
    """Lines of the task's texts that are not about the test clips, against which NMI is measured."""
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
    """Captions that the study spoils, beside the captioner's own mistakes."""

    def __post_init__(self) -> None:
        for name in ("num_train_videos", "num_test_videos", "clips_per_video", "num_descriptions"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name, value in vars(self).items():
            if isinstance(value, float) and not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; it must be from 0 to 1")
        for name, known in (
            ("shapes", SHAPES),
            ("colours", COLOURS),
            ("sizes", SIZES),
            ("places", PLACES),
            ("motions", REVERSED if self.twins else MOTIONS),
        ):
            chosen = getattr(self, name)
            if not chosen or not set(chosen) <= set(known):
                raise ValueError(f"{name} are {', '.join(chosen)}; choose from {', '.join(known)}")


# Where motion decides: so few appearances that a clip is told from the others by what moves where. Fixed on
# this seed alone: docs/demo.md.
DEMO_WORLD = World(
    num_train_videos=200,
    num_finetune_videos=50,
    num_test_videos=12,
    twins=True,
    # The shapes that the captioner tells apart.
    shapes=("circle", "star", "cross", "ring"),
    colours=("red", "yellow", "blue"),
    sizes=("big",),
    places=("field", "night"),
    motions=tuple(REVERSED),
    # Motion is learned from speech alone: it has to be told often, and of what.
    topic_noise=0.1,
    filler_rate=0.2,
    shape_rate=1.0,
    colour_rate=1.0,
    size_rate=0.0,
    place_rate=0.0,
    motion_rate=1.0,
    synonym_rate=0.1,
)
QUICK_WORLD = replace(DEMO_WORLD, num_train_videos=80, num_finetune_videos=12)


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
    backwards: bool = False
    """The clip was made as the reverse of `motion` and is played backwards."""

    @property
    def appearance(self) -> tuple[str, str, str, str]:
        """What one frame tells: size, colour, shape, place."""
        return self.size, self.colour, self.shape, self.place


def draw_scene(chance: random.Random, world: World) -> Scene:
    """A scene with every property drawn evenly."""
    return Scene(
        shape=chance.choice(world.shapes),
        colour=chance.choice(world.colours),
        size=chance.choice(world.sizes),
        place=chance.choice(world.places),
        motion=chance.choice(world.motions),
        centre=(chance.uniform(0.4, 0.6), chance.uniform(0.42, 0.58)),
        seed=chance.getrandbits(31),
    )


def draw_distinct_scenes(chance: random.Random, world: World, count: int) -> list[Scene]:
    """`count` scenes of which no two have the same appearance and the same motion, its reverse included.

    Of the appearances none comes a second time before all have come once.

    Raises:
        ValueError: the world has fewer.
    """
    forwards = [
        motion
        for motion in world.motions
        if REVERSED.get(motion) not in world.motions[: world.motions.index(motion)]
    ]
    appearances = list(product(world.shapes, world.colours, world.sizes, world.places))
    num_different = len(appearances) * len(forwards)
    if count > num_different:
        raise ValueError(
            f"the world has {num_different} clips that differ in more than direction, {count} are needed; "
            "ask for fewer test videos"
        )
    # Of 4 appearances with 3 motions each, number 6 is the second motion (turn 1) of appearance 2.
    chance.shuffle(appearances)
    motions = [chance.sample(forwards, len(forwards)) for _ in appearances]
    scenes = []
    for number in range(count):
        turn, which = divmod(number, len(appearances))
        shape, colour, size, place = appearances[which]
        motion = motions[which][turn]
        motion = chance.choice((motion, REVERSED.get(motion, motion)))
        scene = draw_scene(chance, world)
        scenes.append(replace(scene, shape=shape, colour=colour, size=size, place=place, motion=motion))
    return scenes


def chance_of(world: World, *names: object) -> random.Random:
    """A source of chance for one purpose, the same for the same world and names."""
    return random.Random("/".join(map(str, (world.seed, *names))))
