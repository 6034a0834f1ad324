"""Checks of how pictures are judged: the statistics, the choice of pictures and targets, and a short run of evaluate.py
whose numbers are computed again from its pictures.

Needs the program in target/release.

Requirements: scripts/parity/requirements.txt
Usage: python -m unittest discover -s scripts/toy
"""

import contextlib
import io
import json
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import torch

import ceiling
import evaluate
import identity
import ip_adapter_table
import scenes
import world

BINARY = evaluate.ROOT / "target/release/oneactor"
SHORT = ["--draw-args", "--steps 2", "--base-args", "--num-images 3", "--tune-args", "--max-steps 1 --num-auxiliary 1"]


def run(script, *words):
    """The output of a script that is run from the shell."""
    out = io.StringIO()
    with mock.patch.object(sys, "argv", [script.__name__, *map(str, words)]), contextlib.redirect_stdout(out):
        script.main()
    return out.getvalue()


class Statistics(unittest.TestCase):
    def test_errors_are_those_of_a_mean(self):
        found = evaluate.mean_and_error([1.0, 2.0, 6.0])
        self.assertEqual(found["mean"], 3)
        self.assertAlmostEqual(found["error"], (7 / 3) ** 0.5)
        self.assertTrue(np.isnan(evaluate.mean_and_error([1.0])["error"]))

    def test_subjects_have_equal_weight_for_any_number_of_pictures(self):
        scores = [{"scene": np.array([1.0] * 9)}, {"scene": np.array([0.0]), "hair": np.array([0.5])}]
        found = evaluate.summary(scores)
        self.assertEqual((found["scene"]["mean"], found["hair"]["mean"]), (0.5, 0.5))

    def test_a_ratio_is_that_of_the_means(self):
        of = lambda *values: [{"identity_distance": np.array([value])} for value in values]
        self.assertAlmostEqual(evaluate.ratio(of(1, 2), of(2, 8))["mean"], 0.3)
        self.assertEqual(evaluate.ratio(of(1, 2), of(2, 4)), {"mean": 0.5, "error": 0})
        self.assertGreater(evaluate.ratio(of(1, 2), of(2, 8))["error"], 0.05)

    def test_the_splits_share_no_subject_no_scene_and_no_seed(self):
        test, dev = evaluate.SPLITS["test"], evaluate.SPLITS["dev"]
        self.assertEqual(sorted(test["subjects"] + dev["subjects"]), sorted(world.SPECIES))
        self.assertFalse(set(test["scenes"]) & set(dev["scenes"]))
        self.assertEqual(len({split[name] for split in (test, dev) for name in ("base_seed", "seed")}), 4)
        for name, words in evaluate.SCENES.items():
            self.assertIn(words, scenes.PHRASES[name])

    def test_pictures_are_found_beside_the_manifest_first(self):
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            out = Path("out")
            for path in (out / "plain/a.png", out / "b.png", Path("b.png"), Path("old/c.png")):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            found = [str(evaluate.find_picture(path, out)) for path in ("plain/a.png", "b.png", "old/c.png", "x/d.png")]
            self.assertEqual(found, ["out/plain/a.png", "out/b.png", "old/c.png", "out/d.png"])

    def test_the_clearest_picture_is_the_surest_in_colours_and_pattern(self):
        sure, unsure = [0.9, 0.1], [0.5, 0.5]
        answers = {"main": [unsure, sure, sure], "second": [sure, sure, sure], "pattern": [sure, unsure, sure]}
        found = evaluate.sureness({name: np.array(rows) for name, rows in answers.items()} | {"species": None})
        self.assertEqual(int(found.argmax()), 2)


class ShortRun(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.work = Path(folder.name)
        which = ["--split", "dev", "--subjects", "frog", "--scenes", 2, "--images", 1, "--jobs", 1]
        cls.words = ["--binary", BINARY, "--work", cls.work, *which, *SHORT]
        cls.printed = run(evaluate, *cls.words, "--json", cls.work / "report.json")
        cls.report = json.loads((cls.work / "report.json").read_text())

    def plan(self, **changes):
        facts = {
            "binary": BINARY,
            "work": self.work,
            "model": "toy",
            "subjects": ["frog"],
            "scenes": ["jungle", "city"],
        }
        return evaluate.Plan(**{**facts, "base_seed": 3000, "seed": 8000, "images": 1, **changes})

    def test_numbers_are_those_of_the_pictures(self):
        scorer, folder = evaluate.Scorer(), self.work / "frog"
        number = json.loads((folder / "tune.json").read_text())["parameters"]["target"]
        base = scorer.answers(sorted((folder / "base").glob("*.png")))
        self.assertEqual(number, int(evaluate.sureness(base).argmax()))
        target = scorer.answers([folder / f"base/{number:02}.png"])
        for kind in ("guided", "plain"):
            # The order of the prompts: the first picture is in the jungle, the second in the city.
            answers = scorer.answers(sorted((folder / kind).glob("0*.png")))
            right = [scenes.NAMES[i] for i in answers["scene"].argmax(1)]
            distance = identity.distances(answers, target, "frog", scorer.scales)[0].mean()
            self.assertAlmostEqual(self.report[kind]["identity_distance"]["mean"], distance, places=6)
            shown = np.mean([a == b for a, b in zip(right, ("jungle", "city"))])
            self.assertEqual(self.report[kind]["scene"]["mean"], shown)
        of = lambda kind: self.report[kind]["identity_distance"]["mean"]
        self.assertAlmostEqual(self.report["ratio"]["mean"], of("guided") / of("plain"))
        self.assertIn(f"distance ratio{self.report['ratio']['mean']:17.3f}", self.printed)

    def test_a_second_run_draws_nothing_and_gives_the_same_numbers(self):
        drawn = {path: path.stat().st_mtime_ns for path in self.work.rglob("*.png")}
        self.assertGreaterEqual(len(drawn), 3 + 2 + 2)
        run(evaluate, *self.words, "--json", self.work / "again.json")
        self.assertEqual({path: path.stat().st_mtime_ns for path in self.work.rglob("*.png")}, drawn)
        self.assertEqual((self.work / "again.json").read_text(), (self.work / "report.json").read_text())

    def test_an_image_prompt_is_judged_beside_the_plain_pictures(self):
        result = ip_adapter_table.measure(self.plan(draw_args=["--steps", "2"]), "frog", evaluate.Scorer())
        self.assertEqual([len(result[kind]["scene"]) for kind in ("guided", "plain")], [2, 2])
        plain = self.report["plain"]["identity_distance"]["mean"]
        self.assertAlmostEqual(result["plain"]["identity_distance"].mean(), plain, places=6)
        self.assertNotAlmostEqual(result["guided"]["identity_distance"].mean(), plain, places=3)

    def test_an_actor_with_given_offsets_can_be_drawn_with(self):
        plan, pictures = self.plan(draw_args=["--steps", "2"]), {}
        for size in (0.0, 1.0):
            actor = self.work / f"actors/{size:g}"
            ceiling.write_actor(self.work / "frog/actor.safetensors", actor, ["frog"], torch.full((1, 192), size))
            rows = evaluate.draw(plan, [actor], self.work / f"drawn/{size:g}", ["a frog"], "--eta-2", "0")
            pictures[size] = evaluate.read_picture(rows[0]["path"]).astype(int)
        self.assertGreater(np.abs(pictures[0.0] - pictures[1.0]).mean(), 1)

    def test_a_failing_program_ends_the_script_with_its_message(self):
        with self.assertRaisesRegex(SystemExit, r"oneactor sample nowhere --quiet\nexit 2: error: "):
            evaluate.call(self.plan(), "sample", "nowhere")


if __name__ == "__main__":
    unittest.main()
