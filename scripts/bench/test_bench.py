"""Checks of the code that decides which figures count: the order of the pairs, the statistics, rejection, fits, counts.
A side that dies or hangs, or a time limit, must cost no figures but its own.

Expected values were calculated by hand. The counts of SDXL's operations are the published 2.99 TMAC without attention,
plus its matrix products; the count of the VAE was made by hand from its convolutions.

Requirements: scripts/bench/requirements.txt
Usage: python -m unittest discover -s scripts/bench
"""

import contextlib
import io
import json
import sys
import tempfile
import time
import unittest
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import counts
import jobs
import kernels
import random_sdxl
from curves import Curve, Point
from gpu_memory import HEAD, Job
from machine import Machine
from memory import Case, with_flags
from pairs import OUT_OF_TIME, Budget, Failed, Pairing, Samples, Side, abba, pair_requests
from report import Report, Row
from rows import Duel
from starts import until_step

QUIET = SimpleNamespace(is_dry=False, on_gpu=False)

# A side that answers `quick`, answers `refuse` with an error, never answers `slow`, and ends at `die`.
SIDE = """
import json, sys, time
print("started", flush=True)
print("ready", flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if request["do"] == "die":
        sys.exit(1)
    time.sleep(60 if request["do"] == "slow" else 0)
    print(json.dumps({"error": "no"} if request["do"] == "refuse" else {"told": 7}), flush=True)
"""


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

    def test_one_interruption_is_no_disturbance_and_many_are(self):
        steady = [1.0] * 15
        self.assertIsNone(pairing([*steady[1:], 1.3], steady).disturbance(False))
        self.assertIn("spread of ours", pairing([1.0, 1.2] * 8, [*steady, 1.0]).disturbance(False))

    def test_a_side_that_waited_for_its_core_is_rejected_except_with_a_gpu(self):
        waiting = pairing([1.0] * 8, [1.0] * 8, cpu_share=0.8)
        self.assertIn("wall/CPU", waiting.disturbance(False))
        self.assertIsNone(waiting.disturbance(True))


class Sides(unittest.TestCase):
    def side(self, budget=None, script=SIDE):
        side = Side([sys.executable, "-c", script], None, budget or Budget())
        self.addCleanup(side.close)
        return side

    def fails(self, side, what, reason):
        with self.assertRaisesRegex(Failed, reason):
            side.ask({"do": what})

    def test_a_side_answers_and_may_refuse(self):
        side = self.side()
        wall, _ = side.ask({"do": "quick"})
        self.assertLess(wall, 10)
        self.assertEqual(side.answer, {"told": 7})
        self.fails(side, "refuse", "refuse: no")
        side.ask({"do": "quick"})

    def test_a_dead_side_reports_it_at_every_request(self):
        side = self.side()
        self.fails(side, "die", "ended: die")
        self.fails(side, "quick", "ended: die")
        with self.assertRaises(Failed):
            side.loading()
        side.close()

    def test_a_side_that_does_not_start_is_dead(self):
        for script in ("print('hello')", "import sys; sys.exit(1)"):
            self.fails(self.side(script=script), "quick", "started")
        side = Side(["/no/such/program"], None, Budget())
        self.fails(side, "quick", "/no/such/program")
        side.close()

    def test_a_line_that_is_not_json_ends_a_side(self):
        side = self.side(script=SIDE.replace("json.dumps(", "str("))
        self.fails(side, "quick", "quick")
        self.assertTrue(side.failure)

    def test_a_side_that_hangs_is_ended(self):
        side = self.side(Budget())
        side.budget.answer = 0.3
        begin = time.monotonic()
        self.fails(side, "slow", "no answer within 0.3 s: slow")
        side.close()
        self.assertLess(time.monotonic() - begin, 20)
        self.assertIsNotNone(side.process.returncode)
        self.fails(side, "quick", "no answer")

    def test_all_sides_end_when_the_budget_is_used_up(self):
        budget = Budget()
        side = self.side(budget)
        budget.end = time.monotonic() + 0.3
        self.fails(side, "slow", OUT_OF_TIME)
        self.fails(self.side(budget), "quick", OUT_OF_TIME)

    def test_a_command_ends_when_the_budget_is_used_up(self):
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(Path, "exists", return_value=True):
            machine = Machine("cpu", "fp32", None, 1, folder)
        machine.budget = Budget(1)
        begin = time.monotonic()
        with self.assertRaisesRegex(Failed, OUT_OF_TIME):
            machine.run_once(["sleep", 60])
        with self.assertRaisesRegex(Failed, OUT_OF_TIME):
            until_step(2, ["sleep", 60], machine, 3)
        self.assertLess(time.monotonic() - begin, 20)

    def test_a_terminal_that_ends_before_the_step_says_what_it_showed(self):
        machine = SimpleNamespace(env={}, budget=Budget(20))
        with self.assertRaisesRegex(Failed, "no step 2: 1/3"):
            until_step(2, ["echo", "1/3"], machine, 3)

    def test_a_terminal_is_read_until_the_step(self):
        machine = SimpleNamespace(env={}, budget=Budget(20))
        command = [sys.executable, "-c", "import time; print('1/3', '3/3', flush=True); time.sleep(60)"]
        wall, _ = until_step(2, command, machine, 3)
        self.assertLess(wall, 20)


class Duels(unittest.TestCase):
    """A duel whose sides write no output: the test gives the difference of the outputs."""

    def duel(self, ours=SIDE, theirs=SIDE):
        machine = SimpleNamespace(is_dry=True, on_gpu=False, folder=Path("/nowhere"))
        sides = [Side([sys.executable, "-c", script], None, Budget()) for script in (ours, theirs)]
        for side in sides:
            self.addCleanup(side.close)
        return Duel(machine, "toy", "model", *sides, "peer")

    def timed(self, duel, difference=0.0, **how):
        with mock.patch.object(jobs, "difference", return_value=difference):
            return duel.timed(Row("work", "peer"), {"do": "quick"}, pairs=2, bar=1e-3, **how)

    def test_outputs_that_agree_are_timed(self):
        row = self.timed(self.duel(), repeat=2, flop=1e12)
        self.assertEqual((row.state, row.pairs, len(row.tflops)), ("measured", 2, 2))

    def test_outputs_that_differ_are_rejected_and_their_samples_kept(self):
        row = self.timed(self.duel(), 1.0)
        self.assertTrue(row.state.startswith("rejected: outputs"), row.state)
        self.assertIsNone(row.ratio)
        self.assertEqual(len(row.samples["theirs"]["wall"]), 2)

    def test_without_a_peer_our_own_times_are_kept(self):
        row = self.timed(self.duel(theirs="import sys; sys.exit(1)"), flop=1e12)
        self.assertTrue(row.state.startswith("not measured"), row.state)
        self.assertEqual((len(row.samples["ours"]["wall"]), len(row.tflops), row.ratio), (2, 1, None))

    def test_rows_of_a_dead_side_are_given_up_one_by_one(self):
        duel = self.duel()
        for request in ({"do": "die"}, {"do": "quick"}):
            row = duel.timed(Row("work", "peer"), request, pairs=2, bar=1e-3)
            self.assertIn("ended: die", row.state)
            self.assertIsNone(row.ours)

    def test_the_comparison_is_one_of_the_warm_ups(self):
        with mock.patch("rows.pair_requests", side_effect=pair_requests) as asked:
            self.timed(self.duel(), warm_ups=1)
            self.timed(self.duel(), warm_ups=1, check={"do": "quick"})
        self.assertEqual([call.args[-1] for call in asked.call_args_list], [0, 1])


class Reports(unittest.TestCase):
    def report(self, rows, is_dry=False):
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            found = Report(Path(folder), "toy", "Toy", {"cpu": "any"}, is_dry)
            for part in rows:
                found.collect(part(Path(folder)))
            return found, json.loads((Path(folder) / "toy.json").read_text())

    def test_every_row_is_written_before_the_next_begins(self):
        def part(folder):
            self.assertIn("any", (folder / "toy.md").read_text())
            yield Row("first", "peer").fill_values([1.0], [2.0])
            self.assertIn("first", (folder / "toy.md").read_text())
            self.assertEqual(json.loads((folder / "toy.json").read_text())["rows"][0]["ratio"], [0.5] * 3)

        self.report([part])

    def test_a_failure_ends_only_its_own_part(self):
        def failing(folder):
            yield Row("first", "peer").fill_values([1.0], [2.0])
            raise Failed("the side | has\ndied")

        def broken(folder):
            raise KeyError("nothing")
            yield

        sound = lambda folder: [Row("last", "peer").fill_values([1.0], [2.0])]
        found, _ = self.report([failing, broken, sound])
        reasons = [f"not measured: {reason}" for reason in ("the side / has died", "KeyError: 'nothing'")]
        self.assertEqual([row.state for row in found.rows], ["measured", *reasons, "measured"])

    def test_the_tables_of_the_run_before_are_kept(self):
        with tempfile.TemporaryDirectory() as folder:
            for title in ("first", "second"):
                Report(Path(folder), "toy", title, {})
            titles = [(Path(folder) / name).read_text().splitlines()[0] for name in ("toy-before.md", "toy.md")]
        self.assertEqual(titles, ["# first", "# second"])

    def test_pairs_that_were_measured_before_a_failure_are_kept(self):
        left = iter([(1.0, 1.0)] * 3)

        def ask():
            try:
                return next(left)
            except StopIteration:
                raise Failed(OUT_OF_TIME) from None

        with self.assertRaises(Failed) as failed:
            abba(ask, ask, 4)
        row = Row("work", "peer").give_up(failed.exception).keep(failed.exception.pairing, 1)
        self.assertEqual((row.samples["ours"]["wall"], row.ratio), ([1.0], None))

    def test_a_rejected_row_keeps_its_samples(self):
        row = Row("work", "peer").fill(pairing([1.0, 2.0] * 4, [1.0] * 8), QUIET)
        _, written = self.report([lambda folder: [row]])
        self.assertTrue(written["rows"][0]["state"].startswith("rejected"))
        self.assertEqual(written["rows"][0]["samples"]["ours"]["wall"], [1.0, 2.0] * 4)

    def test_a_dry_run_writes_no_figure(self):
        table = kernels.Profile("kernels", {"norms": [12.5, 3]}, [["norm", 12.5, 3]])
        row = Row("work", "peer", target=0.9).fill_values([1.25], [2.5])
        found, written = self.report([lambda folder: [row, table]], is_dry=True)
        self.assertIn("dry run", found.markdown())
        for figure in ("12.5", "2.5", "0.5"):
            self.assertNotIn(figure, found.markdown() + json.dumps(written))


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
        row = Row("work", "peer").fill(pairing([2.0] * 8, [4.0] * 8), QUIET, repeat=2, flop=3e12)
        self.assertEqual(row.tflops, [3.0, 1.5])


class Curves(unittest.TestCase):
    def test_a_line_is_found(self):
        points = [Point(n, 0.5 + 0.25 * n, 1.0, 10**9) for n in (1, 2, 4, 8)]
        curve = Curve("toy", "images", "linear", True, {n: n for n in (1, 2, 4, 8)}, points)
        start, slope, distance = curve.fit()
        self.assertAlmostEqual(start, 0.5)
        self.assertAlmostEqual(slope, 0.25)
        self.assertLess(distance, 1e-9)
        self.assertIn("memory flat", curve.found())

    def test_growing_memory_and_a_bent_line_are_reported(self):
        points = [Point(n, n * n, n * n, n * 10**9) for n in (1, 2, 4, 8)]
        found = Curve("toy", "images", "linear", True, {n: n for n in (1, 2, 4, 8)}, points).found()
        self.assertIn("not on a line", found)
        self.assertIn("NOT flat", found)


class Kernels(unittest.TestCase):
    def test_names_of_kernels_give_their_family(self):
        for name, family in (
            ("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128, 128, 4>>", "attention"),
            ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x128x64", "attention"),
            ("fmha_cutlassF_f16_aligned_64x64_rf_sm80(PyTorchMemEffAttention::AttentionKernel)", "attention"),
            ("sm90_xmma_fprop_implicit_gemm_f16f16_f16f32_f32_nhwckrsc_nhwc_tilesize128x128x64_cudnn", "convolutions"),
            ("void cudnn::engines_precompiled::nchwToNhwcKernel<__half, __half, float>", "copies and layouts"),
            ("void at::native::elementwise_kernel<128, 4, at::native::direct_copy_kernel_cuda>", "copies and layouts"),
            ("void at::native::CatArrayBatchedCopy<at::native::OpaqueType<2u>>", "copies and layouts"),
            ("Memcpy DtoD (Device -> Device)", "copies and layouts"),
            ("void at::native::RowwiseMomentsCUDAKernel<c10::Half, float>", "norms"),
            ("void at::native::vectorized_layer_norm_kernel<c10::Half, float>", "norms"),
            (
                "void at::native::elementwise_kernel<128, 4, at::native::GroupNormKernelImplInternal<c10::Half>>",
                "norms",
            ),
            ("nvjet_hsh_192x192_64x3_1x2_h_bz_coopB_TNT", "matrix products"),
            (
                "void cutlass::Kernel2<cutlass_80_tensorop_f16_s16816gemm_relu_f16_256x64_32x4_tn_align8>",
                "matrix products",
            ),
            ("void cublasLt::splitKreduce_kernel<32, 16, int, __half>", "matrix products"),
            ("void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<c10::Half>>", "pointwise"),
            ("void at::native::vectorized_elementwise_kernel<4, at::native::GeluCUDAKernelImpl>", "pointwise"),
            ("void at::native::reduce_kernel<512, 1>", "other"),
        ):
            self.assertEqual(kernels.family(name), family, name)

    def test_shares_are_of_all_that_was_measured(self):
        table = kernels.Profile("kernels", {"norms": [1.0, 2], "attention": [3.0, 4]}).markdown()
        self.assertIn("| norms | 25.0% | 1.00 | 2 |", table)
        self.assertIn("| all | | 4.00 | |", table)

    def test_a_profiler_without_kernels_is_an_error(self):
        with self.assertRaisesRegex(RuntimeError, "no kernel"):
            kernels.found(SimpleNamespace(key_averages=list), on_gpu=True)


class Counts(unittest.TestCase):
    def test_operations_of_sdxl(self):
        with tempfile.TemporaryDirectory() as folder:
            for name, config in (("unet", random_sdxl.UNET), ("vae", random_sdxl.VAE)):
                (Path(folder) / name).mkdir()
                (Path(folder) / name / "config.json").write_text(json.dumps(config))
            # 5.98 TFLOP of convolutions and linear layers, 0.784 of attention.
            self.assertAlmostEqual(counts.unet(folder, 128) / 1e12, 6.761, 3)
            self.assertAlmostEqual(counts.decode(folder, 128) / 1e12, 10.47, 2)


class MemoryTest(unittest.TestCase):
    def test_an_estimate_may_be_a_sixth_above_the_measurement_and_never_below(self):
        def is_right(peak):
            return Case("toy", "a case", [], forecast=1000, peak=peak).is_right

        self.assertEqual([is_right(peak) for peak in (849, 850, 1000, 1001)], [False, True, True, False])
        self.assertFalse(Case("toy", "a case", [], forecast=1000, peak=900, failure="it died").is_right)

    def test_a_case_shows_the_command_as_a_user_would_type_it(self):
        flags = [
            "/a/oneactor",
            "tune",
            "--model",
            Path("/a/toy"),
            "--device",
            "cpu",
            "--offline",
            "/b/set",
            "--dtype",
            "fp32",
        ]
        command = with_flags(flags, ["--dtype", "fp16", "-p", "a robot"])
        self.assertEqual(Case("toy", "a case", command).shown(), "tune set --dtype fp16 -p 'a robot'")

    def test_a_job_on_a_gpu_shows_its_estimate_over_its_peak(self):
        counted = {"forecast": 12 * 10**9, "peak": 8 * 10**9, "reach": 9 * 10**9, "sent": 7 * 10**9}
        job = Job("full", "a job", ["/a/oneactor", "tune", "set"], launches=5, waits=2, **counted)
        figures = ["8.00", "9.00", "12.00", "1.50", "7.00", "5", "2"]
        self.assertEqual(job.row(), ["a job", *figures, "`tune set`"])
        failed = Job("full", "a job", ["/a/oneactor", "tune", "set"], failure="it died")
        self.assertEqual(len(failed.row()), len(HEAD))


if __name__ == "__main__":
    unittest.main()
