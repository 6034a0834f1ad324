"""Checks of what decides over the figures: the order of the pairs, the statistics, rejection, fits, counts.

Expected values are worked out by hand; the counts of SDXL's operations are the published 2.99 TMAC without
attention, with its matrix products added, and the VAE's of a count by hand of its convolutions.

Requirements: scripts/bench/requirements.txt
Usage: python -m unittest discover -s scripts/bench
"""

import json
import tempfile
import unittest
from pathlib import Path
from types import SimpleNamespace

import counts
import random_sdxl
from curves import Curve, Point
from pairs import Pairing, Samples, abba
from report import Row, line, without_figures

QUIET = SimpleNamespace(is_dry=False, on_gpu=False)


def pairing(ours, theirs, cpu_share=1.0):
    sides = [Samples(list(wall), [cpu_share * seconds for seconds in wall]) for wall in (ours, theirs)]
    return Pairing(*sides)


class Pairs(unittest.TestCase):
    def test_sides_go_a_b_b_a(self):
        order = []
        ask = lambda name, seconds: lambda: order.append(name) or (seconds, seconds)
        found = abba(ask("a", 1.0), ask("b", 2.0), 4)
        self.assertEqual("".join(order), "abbaabba")
        self.assertEqual((found.ours.wall, found.theirs.wall), ([1.0] * 4, [2.0] * 4))

    def test_the_ratio_is_the_median_of_the_pairs(self):
        self.assertEqual(pairing([1, 3, 2], [2, 2, 2]).ratio(), 1.0)

    def test_spread_is_the_interquartile_range_over_the_median(self):
        # Quartiles of 1 … 5 are 2 and 4, the median is 3.
        self.assertAlmostEqual(Samples([1, 2, 3, 4, 5], []).spread(), 2 / 3)

    def test_one_interruption_in_many_is_no_disturbance_and_many_are(self):
        steady = [1.0] * 15
        self.assertIsNone(pairing([*steady[1:], 1.3], steady).disturbance(False))
        self.assertIn("spread of ours", pairing([1.0, 1.2] * 8, steady + [1.0]).disturbance(False))

    def test_a_side_that_waited_for_its_core_is_refused_but_not_with_a_gpu(self):
        waiting = pairing([1.0] * 8, [1.0] * 8, cpu_share=0.8)
        self.assertIn("wall/CPU", waiting.disturbance(False))
        self.assertIsNone(waiting.disturbance(True))


class Rows(unittest.TestCase):
    def test_a_row_is_met_or_missed_by_the_median_ratio(self):
        for ours, state in ((0.9, "met"), (0.96, "missed")):
            row = Row("work", "peer", target=0.95).fill(pairing([ours] * 8, [1.0] * 8), QUIET)
            self.assertEqual(row.state, state)

    def test_a_disturbed_or_disagreeing_row_has_no_figure(self):
        disturbed = Row("work", "peer").fill(pairing([1.0, 2.0] * 4, [1.0] * 8), QUIET)
        differs = Row("work", "peer")
        self.assertFalse(differs.agree(1e-3, 1e-5))
        self.assertFalse(differs.agree(float("nan"), 1e-5))
        for row in (disturbed, differs):
            self.assertTrue(row.state.startswith("rejected"), row.state)
            self.assertIsNone(row.ratio)

    def test_operations_over_seconds_are_the_rate(self):
        row = Row("work", "peer").fill(pairing([2.0] * 8, [4.0] * 8), QUIET, scale=0.5, flop=3e12)
        self.assertEqual(row.tflops, [3.0, 1.5])

    def test_a_dry_run_prints_no_figure(self):
        row = Row("work", "peer", target=0.9).fill_values([1.25], [2.5])
        row = without_figures(row)
        self.assertNotIn("0.5", line(row))
        self.assertIn("dry run", line(row))


class Curves(unittest.TestCase):
    def test_a_line_is_found(self):
        points = [Point(n, 0.5 + 0.25 * n, 1.0, 10**9) for n in (1, 2, 4, 8)]
        curve = Curve("toy", "images", "linear", True, {n: n for n in (1, 2, 4, 8)}, points)
        start, slope, distance = curve.fit()
        self.assertAlmostEqual(start, 0.5)
        self.assertAlmostEqual(slope, 0.25)
        self.assertLess(distance, 1e-9)
        self.assertIn("memory flat", curve.found())

    def test_growing_memory_and_a_bent_line_are_told(self):
        points = [Point(n, n * n, n * n, n * 10**9) for n in (1, 2, 4, 8)]
        found = Curve("toy", "images", "linear", True, {n: n for n in (1, 2, 4, 8)}, points).found()
        self.assertIn("not on a line", found)
        self.assertIn("NOT flat", found)


class Counts(unittest.TestCase):
    def test_operations_of_sdxl(self):
        with tempfile.TemporaryDirectory() as folder:
            for name, config in (("unet", random_sdxl.UNET), ("vae", random_sdxl.VAE)):
                (Path(folder) / name).mkdir()
                (Path(folder) / name / "config.json").write_text(json.dumps(config))
            # 5.98 TFLOP of convolutions and linear layers, 0.784 of attention.
            self.assertAlmostEqual(counts.unet(folder, 128) / 1e12, 6.761, 3)
            self.assertAlmostEqual(counts.decode(folder, 128) / 1e12, 10.47, 2)


if __name__ == "__main__":
    unittest.main()
