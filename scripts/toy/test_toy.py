"""Checks of the toy's world, tokenizer, labels, losses and measures on small made-up cases, and of two files that they
produced: the tokenizer and the judge. Tests that draw need skia-python, and are skipped without it.

Requirements: scripts/parity/requirements.txt
Usage: python -m unittest discover -s scripts/toy
"""

import json
import unittest
from pathlib import Path

import numpy as np
import torch
from diffusers import EulerDiscreteScheduler
from transformers import CLIPTokenizer

import boxes
import canvas
import clip
import clip_agreement
import data
import diffusion
import identity
import judge
import model
import scenes
import subjects_table
import tokenizer
import training
import vae
import world
from captions import Describer, Mix

TOY = Path(__file__).resolve().parents[2] / "src" / "io" / "toy"
RED, GREEN, BLUE = (214, 48, 44), (74, 170, 68), (58, 98, 222)


def answers_of(species, colours):
    """The judge's answers for pictures whose subjects differ only in species and main colour."""
    count = len(species)
    found = {name: np.full((count, size), 1 / size) for name, size in judge.CLASSES.items()}
    found["species"] = np.eye(len(world.SPECIES))[[world.SPECIES.index(name) for name in species]]
    found |= {f"{name}_color": np.array(colours, float) for name in judge.COLORS}
    return found | {name: np.full(count, centre) for name, (centre, _) in judge.VALUES.items()}


class Reader:
    """A judge that reads red halves as cats, blue ones as dogs and all others as owls."""

    def read(self, images):
        middles = images[:, 32, 32].astype(int)
        kinds = ["cat" if m[0] > 180 else "dog" if m[2] > 180 else "owl" for m in middles]
        return answers_of(kinds, middles)


def pair_picture(left, right):
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, :32], picture[:, 32:] = left, right
    return picture


class World(unittest.TestCase):
    def setUp(self):
        self.rng = np.random.default_rng(3)

    def test_adjectives_are_in_the_order_of_the_factors_and_only_for_visible_factors(self):
        classes = dict.fromkeys(world.FACTOR_NAMES, 0)
        every = set(world.FACTOR_NAMES)
        cat = ["slim", "smallhead", "smalleyed", "shorteared", world.FACTORS["pattern"][0], "redtrim", "red"]
        self.assertEqual(world.adjectives("cat", classes, every), cat)
        self.assertEqual(world.adjectives("penguin", classes, every), [cat[0], cat[1], cat[2], cat[5], cat[6]])
        self.assertIn("whitebearded", world.adjectives("wizard", classes, every))
        self.assertEqual(world.adjectives("girl", classes, {"main", "skin"}), ["fair", "red"])

    def test_main_and_second_colour_always_differ(self):
        drawn = [world.draw_identity(self.rng) for _ in range(500)]
        self.assertFalse([classes for classes in drawn if classes["main"] == classes["second"]])
        for name, words in world.FACTORS.items():
            self.assertEqual({classes[name] for classes in drawn}, set(range(len(words))), name)

    def test_a_look_stays_near_its_classes(self):
        for _ in range(200):
            classes = world.draw_identity(self.rng)
            look = world.make_look(classes, self.rng)
            self.assertLessEqual(abs(look.width - world.WIDTHS[classes["width"]]), 0.035)
            base = world.COLORS[world.COLOR_NAMES[classes["main"]]]
            self.assertLessEqual(max(abs(a - b) for a, b in zip(look.main, base)), 10)

    def test_labels_match_the_drawing(self):
        people = [world.Subject(name, world.draw_identity(self.rng), None) for name in ("owl", "cat")]
        for subject in people:
            subject.look = world.make_look(subject.classes, self.rng)
        pictures = [world.Picture(people, "beach"), world.Picture(people[:1], "plain", "hat", "sketch")]
        labels = data.describe(pictures)
        index = world.SPECIES.index
        self.assertEqual(labels["species"].tolist(), [[index("owl"), index("cat")], [index("owl"), -1]])
        self.assertEqual([scenes.NAMES[i] for i in labels["scene"]], ["beach", "plain"])
        self.assertEqual((labels["attribute"].tolist(), labels["style"].tolist()), ([0, 1], [0, 1]))
        self.assertEqual(labels["classes"][0, 1].tolist(), [people[1].classes[name] for name in world.FACTOR_NAMES])
        self.assertEqual(tuple(labels["colors"][0, 1, 0]), people[1].look.main)

    def test_nouns_are_found_in_captions(self):
        toy = CLIPTokenizer.from_pretrained(TOY / "tokenizer")
        people = [world.Subject(name, {}, None) for name in ("owl", "cat")]
        ids, nouns = data.tokenize(
            toy, ["a photo of an owl and a cat", "an owl beside an owl"], [world.Picture(people, "plain")] * 2
        )
        words = [toy.convert_ids_to_tokens(int(ids[0, at])) for at in nouns[0]]
        self.assertEqual(words, ["owl</w>", "cat</w>"])
        self.assertEqual(nouns[1].tolist(), [2, 0])

    @unittest.skipIf(canvas.skia is None, "drawing needs skia-python")
    def test_the_judge_reads_drawn_pictures(self):
        reader, facts = judge.load()
        pictures, labels = [], []
        for species in world.SPECIES:
            for _ in range(6):
                classes = world.draw_identity(self.rng)
                subject = world.Subject(species, classes, world.make_look(classes, self.rng))
                pictures.append(world.render(world.Picture([subject], "beach"), self.rng))
                labels.append((world.SPECIES.index(species), classes["main"]))
        answers = reader.read(np.stack(pictures))
        found = np.stack([answers[name].argmax(1) for name in ("species", "main")], 1)
        shares = (found == np.array(labels)).mean(0)
        self.assertGreater(shares.min(), 0.9, shares)
        self.assertEqual(set(facts["identity_scales"]), set(world.SPECIES))


class Words(unittest.TestCase):
    def test_the_toys_vocabulary_is_that_of_its_merges_and_knows_all_adjectives(self):
        for folder in ("tokenizer", "tokenizer_2"):
            merges = tokenizer.read_merges(TOY / folder)
            vocabulary = json.loads((TOY / folder / "vocab.json").read_text(encoding="utf-8"))
            self.assertEqual(tokenizer.vocabulary(merges), vocabulary)
            self.assertEqual(tokenizer.extend(merges, world.all_words()), merges)

    def test_a_word_becomes_one_token_and_older_words_stay(self):
        merges = [("c", "a"), ("ca", "t</w>")]
        longer = tokenizer.extend(merges, ["cats", "cat", "at"])
        self.assertEqual(longer[:2], merges)
        self.assertEqual(longer[2:], [("ca", "t"), ("cat", "s</w>"), ("a", "t</w>")])

    def test_merging_goes_from_the_left(self):
        self.assertEqual(tokenizer.merge_pair(["a", "a", "a", "b"], ("a", "a")), ["aa", "a", "b"])

    def test_captions_name_looks_in_the_shares_of_the_mix(self):
        toy = CLIPTokenizer.from_pretrained(TOY / "tokenizer")
        people = [world.Subject("cat", dict.fromkeys(world.FACTOR_NAMES, 0), None)]
        ids, nouns = data.tokenize(toy, ["a photo of a cat at the beach"], [world.Picture(people, "beach")])
        species = np.array([[world.SPECIES.index("cat"), -1]])
        arrays = {"ids": ids, "nouns": nouns, "species": species, "classes": np.zeros((1, 2, 9), int)}
        told = {}
        for kind in ("empty", "noun", "named"):
            mix = Mix(**{name: float(name == kind) for name in ("empty", "noun", "named")})
            describer = Describer(toy, mix, np.random.default_rng(0))
            found, phrases, places = describer.batch(arrays, [0])
            told[kind] = (toy.decode(found[0], skip_special_tokens=True), len(phrases), places)
        self.assertEqual(told["empty"], ("", 0, []))
        self.assertEqual(told["noun"], ("a photo of a cat at the beach", 1, [(0, int(nouns[0, 0]))]))
        self.assertRegex(told["named"][0], "^a photo of a (slim|smallhead|smalleyed|.*red).* cat at the beach$")


class Trainings(unittest.TestCase):
    def test_bytes_come_back_from_pixels(self):
        images = np.arange(256 * 3, dtype=np.uint8).reshape(1, 16, 16, 3)
        pixels = training.to_pixels(images)
        self.assertEqual((pixels.shape, pixels.min().item(), pixels.max().item()), ((1, 3, 16, 16), -1, 1))
        self.assertTrue((training.to_bytes(pixels) == images).all())
        self.assertEqual(training.to_bytes(torch.full((1, 3, 1, 1), 1.5)).flatten().tolist(), [255] * 3)

    def test_the_rate_falls_to_zero_and_stays_there(self):
        found = [training.cosine(progress) for progress in (0, 0.5, 1, 1.5)]
        for value, expected in zip(found, (1, 0.5, 0, 0)):
            self.assertAlmostEqual(value, expected)
        optimizer = torch.optim.SGD([{"params": [torch.zeros(1)]}, {"params": [torch.zeros(1)]}], lr=1)
        training.set_rate(optimizer, 0.25)
        self.assertEqual([group["lr"] for group in optimizer.param_groups], [0.25, 0.25])

    def test_noise_follows_the_schedule_of_the_pipeline(self):
        settings = {"num_train_timesteps": 1000, "beta_schedule": "scaled_linear", **model.BETAS}
        alphas = model.alphas_cumprod()
        self.assertLess((alphas - EulerDiscreteScheduler(**settings).alphas_cumprod).abs().max().item(), 1e-6)
        latents = torch.randn(400, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        z_t, t, noise = diffusion.noised(latents, alphas, torch.Generator().manual_seed(1))
        a = alphas[t][:, None, None, None]
        self.assertTrue(torch.allclose(z_t, a.sqrt() * latents + (1 - a).sqrt() * noise))
        # 1000 * u ** 0.75 for u spread over 0 to 1: the mean is 1000 / 1.75.
        self.assertAlmostEqual(t.float().mean().item(), 1000 / 1.75, delta=3)

    def test_weights_of_noise_levels_become_more_equal(self):
        weigh = diffusion.LevelWeights()
        losses, t = torch.tensor([0.01, 0.01, 1.0, 1.0]), torch.tensor([10, 20, 900, 910])
        self.assertAlmostEqual(weigh(losses, t).item(), (0.01 * 100**0.75 + 1) / (100**0.75 + 1), places=5)

    def test_a_noun_moves_towards_its_phrase_and_nothing_else_moves(self):
        states = torch.zeros(2, 5, 3)
        identity_states, bare = torch.full((1, 3), 1.0), torch.zeros(1, 3)
        for seed in range(20):
            generator = torch.Generator().manual_seed(seed)
            moved = diffusion.place_identity(states, identity_states, bare, [(1, 2)], generator)
            self.assertTrue(0.2 < moved[1, 2].mean() < 1.9, moved[1, 2])
            moved[1, 2] = 0
            self.assertTrue((moved == 0).all())

    def test_rows_of_an_embedding_follow_their_tokens(self):
        table = torch.arange(6.0).reshape(3, 2)
        found = model._remap_rows(table, {"a": 0, "b": 1, "c": 2}, {"c": 0, "new": 1, "a": 2})
        self.assertEqual((found[0].tolist(), found[2].tolist()), ([4.0, 5.0], [0.0, 1.0]))
        self.assertFalse(any((found[1] == row).all() for row in table))

    def test_losses_are_zero_for_correct_pictures(self):
        pixels = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        self.assertEqual(vae.reconstruction_loss(pixels, pixels).item(), 0)
        # An offset by a constant has no edges: only its square and its absolute value count.
        self.assertAlmostEqual(vae.reconstruction_loss(pixels + 0.5, pixels).item(), 0.25 + 0.4 * 0.5, places=5)
        windows = vae.crop(
            torch.arange(64.0).expand(1, 3, 64, 64), torch.arange(16.0).expand(1, 4, 16, 16), np.random.default_rng(0)
        )
        self.assertEqual(windows[0][0, 0, 0, 0] / 4, windows[1][0, 0, 0, 0])
        logits = 50 * torch.eye(3)
        ids = torch.tensor([[1], [2], [3]])
        right = lambda **_: type("Output", (), {"logits_per_image": logits})
        self.assertLess(clip.loss(right, None, ids).item(), 1e-6)
        self.assertGreater(clip.loss(right, None, torch.tensor([[1], [1], [3]])).item(), 1)


class Measures(unittest.TestCase):
    def test_colours_are_those_of_cie_lab(self):
        found = identity.lab([[255, 255, 255], [0, 0, 0], [255, 0, 0]])
        for value, expected in zip(found.flatten(), [100, 0, 0, 0, 0, 0, 53.2, 80.1, 67.2]):
            self.assertAlmostEqual(value, expected, delta=0.1)

    def test_the_distance_is_a_weighted_mean_over_visible_factors(self):
        one, other = answers_of(["robot"], [RED]), answers_of(["robot"], [RED])
        scales = {"robot": dict.fromkeys(world.FACTOR_NAMES, 2.0)}
        self.assertEqual(identity.distances(one, other, "robot", scales)[0].tolist(), [0])
        other["width"] = other["width"] + 1
        other["skin"] = np.array([[1.0, 0, 0]])
        found, parts = identity.distances(one, other, "robot", scales)
        # A robot shows main 3, second 2, width, head, ear and eye 1 each: neither skin nor hair nor pattern.
        self.assertAlmostEqual(found[0], 0.5 / 9)
        self.assertEqual(sorted(parts), ["ear", "eye", "head", "main", "second", "width"])

    def test_halves_are_assigned_to_the_subject_they_show(self):
        pictures = [pair_picture(RED, BLUE), pair_picture(BLUE, RED), pair_picture(GREEN, RED)]
        found, both = subjects_table.read_pairs(Reader(), pictures, ("cat", "dog"))
        self.assertEqual(both.tolist(), [True, True, False])
        self.assertTrue((found[0]["main_color"][:2, 0] > 180).all() and (found[1]["main_color"][:2, 2] > 180).all())

    def test_swapped_and_leaked_colours_are_counted(self):
        scales = {name: dict.fromkeys(world.FACTOR_NAMES, 1.0) for name in ("cat", "dog")}
        pictures = [pair_picture(RED, BLUE)]
        for own, swapped, leaked in (
            ((RED, BLUE), 0, 0),
            ((BLUE, RED), 1, 1),
            ((BLUE, BLUE), 0, 0),
            ((GREEN, RED), 0, 1),
        ):
            targets = [answers_of([name], [colour]) for name, colour in zip(("cat", "dog"), own)]
            found = subjects_table.score(Reader(), scales, pictures, ("cat", "dog"), targets)
            self.assertEqual(
                (found["swapped"][0], found["leaked"][0], found["both_there"][0]), (swapped, leaked, 1), own
            )
        self.assertFalse(subjects_table.apart(answers_of(["cat"], [RED]), answers_of(["dog"], [RED]))[0])
        self.assertTrue(subjects_table.apart(answers_of(["cat"], [RED]), answers_of(["dog"], [BLUE]))[0])

    def test_a_table_has_means_over_pairs_and_the_ratio_of_distances(self):
        of = lambda distance: {name: np.array([distance, distance]) for name in subjects_table.MEASURES}
        results = [{"joint": {"guided": of(a), "plain": of(b)}} for a, b in ((0.2, 0.8), (0.4, 0.8))]
        rows = subjects_table.table(results)
        self.assertAlmostEqual(rows["joint, guided"]["distance"]["mean"], 0.3)
        self.assertAlmostEqual(rows["joint, guided"]["ratio"]["mean"], 0.375)
        self.assertAlmostEqual(rows["joint, guided"]["ratio"]["error"], 0.125)
        self.assertNotIn("ratio", rows["joint, plain"])

    def test_boxes_are_compared_by_their_overlap(self):
        self.assertEqual(boxes.overlap((0, 0, 4, 4), (0, 0, 4, 4)), 1)
        self.assertAlmostEqual(boxes.overlap((0, 0, 4, 4), (2, 0, 4, 4)), 8 / 24)
        self.assertEqual(boxes.overlap((0, 0, 4, 4), (9, 9, 4, 4)), 0)
        figure = np.zeros((64, 64), bool)
        figure[0:10, 20:24] = True
        self.assertEqual(boxes.square_around(figure), (17, 0, 10, 10))

    def test_ranks_of_equal_values_are_their_mean(self):
        self.assertEqual(clip_agreement.ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist(), [2.5, 0, 2.5, 1])
        self.assertAlmostEqual(clip_agreement.spearman([1, 2, 3], [1, 10, 1000]), 1)
        self.assertAlmostEqual(clip_agreement.spearman([1, 2, 3], [3, 2, 1]), -1)
        self.assertEqual(clip_agreement.above([2, 4], [1, 3]), 0.75)


if __name__ == "__main__":
    unittest.main()
