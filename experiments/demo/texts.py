"""What is said of a scene, in three ways: a task's description, a frame's caption, a speaker's subtitle.

Sentences only; the chance behind them is given by the caller. Nothing here sees pixels.
"""

import random

from clipvip.experiments.demo.world import COLOURS, PLACES, SHAPES, SIZES, Scene, World

_PLACE_ON = {
    "field": "on a green field",
    "sea": "on the blue sea",
    "desert": "in the desert",
    "night": "in the night sky",
    "snow": "in the snow",
    "wall": "in front of a brick wall",
}
_PLACE_OVER = _PLACE_ON | {
    "field": "over a green field",
    "sea": "over the blue sea",
    "desert": "over the desert",
}
_MOTION_DESCRIBED = {
    "left": ("moves to the left", "is moving left"),
    "right": ("moves to the right", "is moving right"),
    "up": ("moves up", "is moving up"),
    "down": ("moves down", "is moving down"),
    "circle": ("moves in a circle", "is going around in a circle"),
    "grow": ("grows", "is getting bigger"),
    "shrink": ("shrinks", "is getting smaller"),
    "still": ("stays still", "is standing still"),
}

_MOTION_SPOKEN = {
    "left": ("it keeps moving to the left", "it is going left"),
    "right": ("it keeps moving to the right", "it is going right"),
    "up": ("it is moving up", "up it goes"),
    "down": ("it is moving down", "down it goes"),
    "circle": ("it goes around in a circle", "it keeps moving in a circle"),
    "grow": ("it grows", "it is getting bigger"),
    "shrink": ("it shrinks", "it is getting smaller"),
    "still": ("it stays still", "it is just standing still"),
}
_PLACE_SPOKEN = {
    "field": ("on the green field here", "out on this field"),
    "sea": ("out on the blue sea", "on the sea today"),
    "desert": ("here in the desert", "in this hot desert"),
    "night": ("in the night sky", "up in the sky at night"),
    "snow": ("here in the snow", "in all this snow"),
    "wall": ("by the brick wall", "in front of my wall"),
}
_SYNONYMS = {
    "square": ("box", "block"),
    "circle": ("ball", "disc"),
    "triangle": ("wedge", "arrowhead"),
    "star": ("sparkle", "starfish"),
    "cross": ("plus sign", "plus"),
    "ring": ("donut", "hoop"),
    "red": ("crimson", "cherry"),
    "yellow": ("lemon", "golden"),
    "blue": ("navy", "indigo"),
    "purple": ("violet", "lilac"),
    "pink": ("rosy", "bubblegum"),
    "white": ("chalky", "milky"),
    "black": ("pitch dark", "ebony"),
    "orange": ("tangerine", "pumpkin"),
    "small": ("tiny", "little"),
    "big": ("huge", "giant"),
}
_OPENERS = (
    "okay so", "hey guys", "um so", "alright everyone", "yeah and", "so basically", "oh wow",
    "you know what", "well i mean", "right so now",
)  # fmt: skip
_POINTERS = (
    "look at this", "i really like that", "here comes my", "this is the", "we have got a", "check out that",
)  # fmt: skip
_ASIDES = (
    "i think that is so cool", "and uh yeah", "i was not ready for that", "let me know what you think",
    "my brother showed me this", "we tried it last week", "kind of", "i love it", "you can see it too right",
)  # fmt: skip
_OFF_TOPIC = (
    "do not forget to like and subscribe", "thanks to our sponsor for this one", "i had coffee this morning",
    "we will be back after the break", "my microphone is acting up again",
    "so last summer i went to see my aunt",
    "leave a comment down below", "i am going to read your questions now", "what was i saying",
    "the link is in the description", "it took me three weeks to edit this",
    "shout out to everyone in the chat", "[Music]", "anyway let us talk about the price",
    "i did not sleep at all",
)  # fmt: skip


def description(scene: Scene, chance: random.Random) -> str:
    """As people describe clips for a retrieval task: what is there, and what it does."""
    verb = chance.choice(_MOTION_DESCRIBED[scene.motion])
    thing = f"{scene.size} {scene.colour} {scene.shape}"
    return f"a {thing} {verb} {_PLACE_OVER[scene.place]}"


def action(motion: str) -> str:
    """A motion as the name of a class, as descriptions have it."""
    return _MOTION_DESCRIBED[motion][0]


def caption(scene: Scene) -> str:
    """What a picture of the scene shows; nothing of its motion."""
    size, colour, shape, place = scene.appearance
    return f"a {size} {colour} {shape} {_PLACE_ON[place]}"


def alt_text(scene: Scene, chance: random.Random) -> str:
    """As pictures on the web are labelled: a caption in one of several wordings, some with parts left out."""
    size, colour, shape, _ = scene.appearance
    place = _PLACE_ON[scene.place]
    thing = " ".join(word for word in (size if chance.random() < 0.7 else "", colour, shape) if word)
    wordings = (
        f"a {thing} {place}",
        f"a photo of a {thing} {place}",
        f"{thing} {place}",
        f"{place} a {thing}",
    )
    return chance.choice(wordings)


def subtitle(scene: Scene, world: World, chance: random.Random) -> str:
    """What somebody says while the scene is seen; empty where nobody speaks."""
    if chance.random() < world.silent_rate:
        return ""
    if chance.random() < world.topic_noise:
        return " ".join(chance.sample(_OFF_TOPIC, k=chance.choice((2, 2, 3))))

    def word(plain: str) -> str:
        return chance.choice(_SYNONYMS[plain]) if chance.random() < world.synonym_rate else plain

    def filler(phrases: tuple[str, ...]) -> list[str]:
        return [chance.choice(phrases)] if chance.random() < world.filler_rate else []

    size = [word(scene.size)] if chance.random() < world.size_rate else []
    colour = [word(scene.colour)] if chance.random() < world.colour_rate else []
    shape = word(scene.shape) if chance.random() < world.shape_rate else "thing"
    parts = [*filler(_OPENERS), chance.choice(_POINTERS), *size, *colour, shape]
    parts += filler(_ASIDES)
    if chance.random() < world.place_rate:
        parts.append(chance.choice(_PLACE_SPOKEN[scene.place]))
    if chance.random() < world.motion_rate:
        parts.append(chance.choice(_MOTION_SPOKEN[scene.motion]))
    parts += filler(_ASIDES)
    return " ".join(parts)


def properties_in_caption(text: str) -> tuple[str, str, str, str]:
    """Size, colour, shape and place that a caption names, each empty where it names none or several."""
    words = " ".join("".join(mark if mark.isalnum() else " " for mark in text.lower()).split())
    padded = f" {words} "

    def only(found: list[str]) -> str:
        return found[0] if len(found) == 1 else ""

    size, colour, shape = (
        only([name for name in names if f" {name} " in padded]) for names in (SIZES, COLOURS, SHAPES)
    )
    if _PLACE_ON["sea"] in words:
        colour = only([name for name in COLOURS if f" {name} " in padded.replace(" blue sea ", " sea ")])
    place = only([name for name in PLACES if f" {_PLACE_ON[name]} " in padded])
    return size, colour, shape, place
