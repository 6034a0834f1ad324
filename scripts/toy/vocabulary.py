"""The words that the toy knows: the words of the captions that it was trained on.

`python vocabulary.py` writes them to src/io/toy/words.txt, from which the program warns about unknown words, and prints
the list of them in configs/GUIDE.md. test_vocabulary.py compares both with this file, and this file with the captions.
"""

import re
import textwrap
from pathlib import Path

import scenes
import world

WORDS = Path(__file__).resolve().parents[2] / "src" / "io" / "toy" / "words.txt"
# Words that are in no caption, but say nothing that a picture could show.
FUNCTION_WORDS = """am and are as at be been by for from has have he her hers him his i in into is it its me my of on or
our she that the their them these they this those to us was we were who with you your"""


def split(text):
    return re.findall("[a-z]+", text.lower())


def table():
    """The parts of captions: rows of a heading and its words or phrases."""

    def flat(groups):
        return [phrase for phrases in groups.values() for phrase in phrases if phrase]

    return [
        ("subjects", world.SPECIES),
        ("colours", world.COLOR_NAMES),
        ("second colours", world.FACTORS["second"]),
        ("patterns", world.FACTORS["pattern"]),
        ("shapes", [word for name in ("width", "head", "eye", "ear") for word in world.FACTORS[name]]),
        ("skin, hair, beards", world.FACTORS["skin"] + world.FACTORS["hair"] + world.BEARD_WORDS),
        ("scenes", flat(scenes.PHRASES)),
        ("doing or wearing", flat(world.ATTRIBUTES)),
        ("styles", flat(world.STYLES)),
        ("beginnings", [template.replace(" {}", "") for template in world.TEMPLATES]),
    ]


def words():
    phrases = [phrase for _, row in table() for phrase in row]
    return sorted({word for phrase in [*phrases, "a an and"] for word in split(phrase)})


def text():
    return "\n".join(sorted({*words(), *split(FUNCTION_WORDS)})) + "\n"


def markdown():
    """A list with a paragraph for each part, wrapped as the pages are."""
    paragraphs = [f"- **{heading}**: {', '.join(row)}" for heading, row in table()]
    wrapped = [textwrap.fill(text, 100, subsequent_indent="  ", break_on_hyphens=False) for text in paragraphs]
    return "\n".join(wrapped)


if __name__ == "__main__":
    WORDS.write_text(text())
    print(markdown())
