"""The toy world: subjects with an identity, in scenes, with captions.

An identity is one class for each factor (FACTORS) plus a small random variation: 'cat' has many looks, and a caption
may name any factor of a look by an adjective in front of the noun. Run this file to draw a contact sheet:
`python world.py sheet.png`.
"""

from dataclasses import dataclass, field

import numpy as np

import scenes
import subjects
from canvas import SIZE, Canvas, clip_color
from subjects import PATTERNS, SPECIES, Look

COLORS = {
    "red": (214, 48, 44),
    "orange": (242, 142, 32),
    "yellow": (246, 214, 56),
    "green": (74, 170, 68),
    "teal": (44, 178, 184),
    "blue": (58, 98, 222),
    "purple": (142, 72, 196),
    "pink": (246, 138, 190),
    "brown": (136, 88, 52),
    "gray": (150, 152, 160),
    "white": (240, 240, 238),
}
COLOR_NAMES = list(COLORS)
WIDTHS, HEADS, EARS, EYES = (0.85, 1.0, 1.17), (0.86, 1.0, 1.14), (0.68, 1.0, 1.32), (1.4, 2.15, 3.0)

# The adjectives of every class of every factor, in the order in which a caption names them.
FACTORS = {
    "width": ["slim", "sturdy", "wide"],
    "head": ["smallhead", "midhead", "bighead"],
    "eye": ["smalleyed", "mideyed", "bigeyed"],
    "ear": ["shorteared", "mideared", "longeared"],
    "skin": ["fair", "tanned", "umber"],
    "hair": ["brunette", "blond", "ginger"],
    "pattern": PATTERNS,
    "second": [color + "trim" for color in COLOR_NAMES],
    "main": COLOR_NAMES,
}
FACTOR_NAMES = list(FACTORS)
BEARD_WORDS = ["whitebearded", "graybearded", "brownbearded"]

# Factors that cannot be seen on a subject are neither named in captions nor judged.
_ANIMAL = ("skin", "hair")
HIDDEN = {species: set(_ANIMAL) for species in SPECIES}
HIDDEN.update(
    {
        "robot": {*_ANIMAL, "pattern"},
        "penguin": {*_ANIMAL, "pattern", "ear"},
        "wizard": set(),
        "hobbit": set(),
        "ninja": {"hair", "ear"},
        "boy": {"ear"},
        "girl": {"hair"},
    }
)


def visible_factors(species):
    return [name for name in FACTOR_NAMES if name not in HIDDEN[species]]


ATTRIBUTES = {
    "hat": ["wearing a blue hat"],
    "sunglasses": ["wearing sunglasses", "with sunglasses"],
    "ball": ["playing with a ball", "with a ball"],
    "burger": ["eating a burger"],
    "beer": ["drinking a beer"],
    "police": ["as a police officer"],
    "sign": ["holding a sign", "at a protest holding a sign"],
}
STYLES = {
    "sketch": ["charcoal sketch", "ink drawing"],
    "water": ["watercolor", "pastel"],
    "pixel": ["pixel art", "digital pixel art"],
    "cartoon": ["cartoon", "cartoon animation"],
}
TEMPLATES = [
    "a photo of {}",
    "a portrait of {}",
    "an image of {}",
    "a picture of {}",
    "a rendering of {}",
    "a good photo of {}",
    "a drawing of {}",
    "a depiction of {}",
    "the photo of {}",
    "a close-up photo of {}",
]


@dataclass
class Subject:
    species: str
    classes: dict  # factor -> class
    look: Look  # the drawn values: those of the classes, with a random variation


@dataclass
class Picture:
    subjects: list
    scene: str
    attribute: str = None
    style: str = None
    scene_named: bool = True
    phrases: list = field(default_factory=list)


def draw_identity(rng):
    """A random class for every factor."""
    classes = {name: int(rng.integers(len(words))) for name, words in FACTORS.items()}
    classes["pattern"] = int(rng.choice(4, p=[0.31, 0.23, 0.23, 0.23]))
    while classes["second"] == classes["main"]:
        classes["second"] = int(rng.integers(len(COLOR_NAMES)))
    return classes


def make_look(classes, rng):
    def near(levels, name, spread):
        return levels[classes[name]] + float(rng.uniform(-spread, spread))

    def color(name):
        base = COLORS[COLOR_NAMES[classes[name]]]
        return clip_color(np.array(base) + rng.integers(-10, 11, 3))

    return Look(
        color("main"),
        color("second"),
        classes["pattern"],
        near(WIDTHS, "width", 0.035),
        near(HEADS, "head", 0.03),
        near(EARS, "ear", 0.07),
        near(EYES, "eye", 0.15),
        classes["skin"],
        classes["hair"],
    )


def draw_picture(rng, pairs=0.12):
    """The content of a random picture: a share `pairs` has two subjects, 30 % a plain backdrop."""
    count = 2 if rng.random() < pairs else 1
    people = []
    for species in rng.choice(len(SPECIES), count, replace=False):
        classes = draw_identity(rng)
        people.append(Subject(SPECIES[int(species)], classes, make_look(classes, rng)))
    attribute = str(rng.choice(list(ATTRIBUTES))) if count == 1 and rng.random() < 0.25 else None
    scene = "plain" if rng.random() < 0.3 else str(rng.choice(scenes.NAMES[1:]))
    style = str(rng.choice(list(STYLES))) if rng.random() < 0.1 else None
    return Picture(people, scene, attribute, style, scene_named=rng.random() > 0.05)


def render(picture, rng):
    """Draws a picture: [64, 64, 3] bytes. Pose, place and backdrop are random."""
    canvas = Canvas()
    scenes.draw(canvas, picture.scene, rng)
    single = len(picture.subjects) == 1
    for i, subject in enumerate(picture.subjects):
        if single:
            x, y, scale = 32 + rng.uniform(-5, 5), 37 + rng.uniform(-2.5, 2.5), rng.uniform(0.86, 1.02)
        else:
            x, y, scale = (17, 47)[i] + rng.uniform(-1.5, 1.5), 40 + rng.uniform(-2, 2), rng.uniform(0.62, 0.74)
        swimming = picture.scene == "water"
        y += 3 * swimming
        with canvas.placed(x, y, float(rng.uniform(-5, 5)), scale, rng.random() < 0.5):
            subjects.draw(canvas, subject.species, subject.look, rng, picture.attribute)
        if swimming:
            scenes.draw_waterline(canvas, x, y, scale)
    return _stylize(canvas.pixels(), picture.style)


def _stylize(pixels, style):
    if style == "sketch":
        gray = pixels.astype(np.float32).mean(-1)
        edges = np.abs(np.diff(gray, axis=0, prepend=gray[:1])) + np.abs(np.diff(gray, axis=1, prepend=gray[:, :1]))
        lines = np.clip(150 + gray * 0.42 - edges * 1.1, 20, 255)
        return np.repeat(lines[..., None], 3, -1).astype(np.uint8)
    if style == "water":
        soft = pixels.astype(np.float32)
        soft = (soft + sum(np.roll(soft, shift, axis) for axis in (0, 1) for shift in (-1, 1))) / 5
        return (soft * 0.5 + 125).clip(0, 255).astype(np.uint8)
    if style == "pixel":
        blocks = pixels.reshape(SIZE // 2, 2, SIZE // 2, 2, 3).mean((1, 3))
        blocks = ((blocks // 40) * 40 + 20).clip(0, 255)
        return np.repeat(np.repeat(blocks, 2, 0), 2, 1).astype(np.uint8)
    return pixels


def article(word):
    return ("an " if word[0] in "aeiou" else "a ") + word


def caption(picture, rng):
    """A caption without any adjective: subject, then scene, attribute and style in varying order."""
    text = " and ".join(article(subject.species) for subject in picture.subjects)
    form = rng.random()
    if form < 0.12:
        text = text.split(" ", 1)[1]
    elif form < 0.5:
        text = TEMPLATES[int(rng.integers(len(TEMPLATES)))].format(text)
    extras = []
    if picture.attribute:
        extras.append(str(rng.choice(ATTRIBUTES[picture.attribute])))
    if picture.scene != "plain" and picture.scene_named:
        extras.append(str(rng.choice(scenes.PHRASES[picture.scene])))
    if len(extras) == 2 and rng.random() < 0.4:
        extras.reverse()
    if picture.style:
        style = str(rng.choice(STYLES[picture.style]))
        extras.insert(0, style) if rng.random() < 0.5 else extras.append(style)
    text = (", " if rng.random() < 0.75 else " ").join([text, *extras])
    return text + "." if rng.random() < 0.5 else text


def adjectives(species, classes, named):
    """The adjectives, in caption order, of those factors in `named` that the species shows."""
    words = []
    for name in visible_factors(species):
        if name in named:
            beard = species == "wizard" and name == "hair"
            words.append((BEARD_WORDS if beard else FACTORS[name])[classes[name]])
    return words


def all_words():
    """Every adjective, for the tokenizer."""
    return [word for words in FACTORS.values() for word in words] + BEARD_WORDS


def _sheet(path):
    from PIL import Image

    rng = np.random.default_rng(5)
    rows = []
    for species in SPECIES:
        row = []
        for _ in range(10):
            picture = draw_picture(rng)
            classes = draw_identity(rng)
            picture.subjects = [Subject(species, classes, make_look(classes, rng))]
            picture.style = None
            row.append(render(picture, rng))
        rows.append(np.concatenate(row, 1))
    sheet = np.concatenate([np.concatenate(rows[:8]), np.concatenate(rows[8:])], 1)
    Image.fromarray(sheet).save(path)


if __name__ == "__main__":
    import sys

    _sheet(sys.argv[1])
