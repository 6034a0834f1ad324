"""The list of known words and the guide's list of them agree with the captions: `python -m unittest` in this
folder."""

import unittest
from pathlib import Path

import numpy as np

import vocabulary
import world

GUIDE = Path(__file__).resolve().parents[2] / "configs" / "GUIDE.md"


class Vocabulary(unittest.TestCase):
    def test_the_words_are_those_of_captions(self):
        """Captions as training draws them, and the adjectives that training puts before a noun."""
        found = set()
        for seed in range(6000):
            rng = np.random.default_rng(seed)
            picture = world.draw_picture(rng)
            found.update(vocabulary.split(world.caption(picture, rng)))
            for subject in picture.subjects:
                found.update(world.adjectives(subject.species, subject.classes, world.FACTOR_NAMES))
        self.assertEqual(sorted(found), vocabulary.words())

    def test_the_program_has_this_list(self):
        self.assertEqual(vocabulary.WORDS.read_text(), vocabulary.text())

    def test_the_guide_has_this_list(self):
        self.assertIn(vocabulary.markdown(), GUIDE.read_text())


if __name__ == "__main__":
    unittest.main()
