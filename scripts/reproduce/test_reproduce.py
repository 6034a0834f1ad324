"""Checks of the figures, in a quick run on the toy: all files are written, their numbers are those of `evaluate` and of
the program's records, nothing is drawn twice, and shards give the same figure.

Needs the program in target/release. Expected values come from a separate run of `evaluate`, or are computed from the
records.

Requirements: scripts/reproduce/requirements.txt
Usage: python -m unittest discover -s scripts/reproduce
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import os
import subprocess
import tempfile
import unittest
import xml.etree.ElementTree
from pathlib import Path
from statistics import mean, median, stdev

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

import all as everything
import fig8
import fig11
import fig12
import plots
import program
import study
import tables

BINARY = study.ROOT / "target/release/oneactor"
QUICK = ["--quick", "--methods", "plain,oneactor", "--binary", str(BINARY)]


def run(script, work: Path, *words: str) -> str:
    """The stdout of a script: the files it has written."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        script.main([*QUICK, "--work", str(work), *words])
    return out.getvalue()


def evaluated(work: Path, *pictures: object, target: str) -> dict[str, tuple[float, float | None]]:
    """Mean and deviation of all named pictures, by a separate call of `evaluate`."""
    words = ["evaluate", *map(str, pictures), "--target", target, "--model", "toy", "--format", "csv", "--quiet"]
    done = subprocess.run([BINARY, *words], cwd=work, capture_output=True, text=True, check=True)
    whole = next(row for row in csv.DictReader(io.StringIO(done.stdout)) if row["kind"] == "overall")
    number = lambda text: float(text) if text else None
    return {name: (number(whole[name]), number(whole[name + "_sd"])) for name in ("clip_i", "clip_t")}


def times(work: Path) -> dict[str, int]:
    """The time when each picture and each file of tensors was written."""
    files = [path for ending in ("png", "safetensors") for path in (work / "targets").rglob(f"*.{ending}")]
    # The masks of tables.py are drawn by the script itself, every time.
    return {
        str(path): path.stat().st_mtime_ns for path in files if "masks" not in path.parts and path.name != "grid.png"
    }


class QuickRun(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.work = Path(folder.name) / "one"
        cls.printed = run(everything, cls.work).split()
        cls.cat = Path("targets/00-cat")
        number = json.loads((cls.work / cls.cat / "tune.json").read_text())["parameters"]["target"]
        cls.target = str(cls.cat / f"base/{number:02}.png")
        cls.before = times(cls.work)

    def json(self, name: str):
        return json.loads((self.work / f"{name}.json").read_text())

    def manifest(self, folder: str) -> list[dict]:
        return program.read_lines((self.work / self.cat / folder / "manifest.jsonl").read_text())

    def test_every_figure_is_written_as_png_and_svg(self):
        figures = [
            "fig8",
            "fig9",
            "fig10",
            "fig11",
            "fig11-grid",
            "fig12",
            "fig12-grid",
            "fig13",
            "fig13-grid-eta_1",
            "fig13-grid-eta_2",
            "fig13-grid-guided_steps",
        ]
        expected = {f"{name}.{ending}" for name in figures for ending in ("png", "svg")} | {"tables.md", "tables.csv"}
        expected |= {f"{name}.json" for name in figures if "grid" not in name}
        self.assertEqual({Path(path).name for path in self.printed}, expected)
        for path in map(Path, self.printed):
            if path.suffix == ".png":
                with Image.open(path) as picture:
                    self.assertGreater(len(np.unique(np.asarray(picture.convert("L")))), 4, path)
            elif path.suffix == ".svg":
                self.assertTrue(xml.etree.ElementTree.parse(path).getroot().tag.endswith("svg"))

    def test_means_and_deviations_are_those_of_evaluate(self):
        means = self.json("fig8")["means"]
        with (self.work / "tables.csv").open(newline="") as file:
            cells = {(row["method"], row["column"]): row for row in csv.DictReader(file)}
        for method in ("plain", "oneactor"):
            expected = evaluated(self.work, self.cat / "pictures" / method, target=self.target)
            for name, (value, sd) in expected.items():
                self.assertAlmostEqual(means[method][name], value, 12)
                self.assertAlmostEqual(float(cells[method, name]["mean"]), value, 12)
                self.assertAlmostEqual(float(cells[method, name]["sd"]), sd, 12)
        self.assertIn(("oneactor", "clip_i_foreground"), cells)
        text = (self.work / "tables.md").read_text()
        self.assertIn(f"{means['oneactor']['clip_i']:.4f} ± ", text)

    def test_points_of_a_curve_and_bars_are_those_of_evaluate(self):
        swept = sorted((self.cat / f"sweeps/semantic_scale-{n}" / "semantic-scale=0.8_0000-5000.png") for n in (0, 1))
        full = [
            self.cat / "ablation" / row["path"] for row in self.manifest("ablation") if row["path"].startswith("full_")
        ]
        self.assertEqual(len(full), 2)
        for found, pictures in (
            (self.json("fig12")["semantic_scale"]["0.8"], swept),
            (self.json("fig11")["full"], full),
        ):
            for name, (value, _) in evaluated(self.work, *pictures, target=self.target).items():
                # The network gets batches of other sizes than in the figure, in f32.
                self.assertAlmostEqual(found[name]["mean"], value, 5)

    def test_distances_are_those_of_the_latents(self):
        base = load_file(self.work / self.cat / "base.safetensors")["latents"]
        target = base[int(Path(self.target).stem)].astype(float)
        far = {}
        for method in ("plain", "oneactor"):
            files = sorted((self.work / self.cat / "latents" / method).glob("*.safetensors"))
            self.assertEqual(len(files), 4)
            far[method] = mean(np.sqrt(((load_file(file)["latents"] - target) ** 2).sum()) for file in files)
        found = self.json("fig9")["00-cat"]
        self.assertAlmostEqual(found["distance"]["with guidance"], far["oneactor"] / far["plain"], 5)
        self.assertEqual(
            {kind: len(places) for kind, places in found["places"].items()},
            {"target": 1, "auxiliary": 3, "without guidance": 4, "with guidance": 4},
        )

    def test_seconds_are_those_of_the_records(self):
        found = self.json("fig10")
        tuning = json.loads((self.work / self.cat / "tune.json").read_text())["seconds"]
        self.assertEqual(found["oneactor"]["tuning"], tuning)
        self.assertEqual(found["plain"]["tuning"], 0)
        for name, folder in (("plain", "plain"), ("oneactor", "oneactor"), ("oneactor, eta_2 = 0", "oneactor-eta-2-0")):
            rows = self.manifest(f"pictures/{folder}")
            self.assertEqual(found[name]["picture"], median(row["seconds"] for row in rows))
        self.assertEqual({row["eta_2"] for row in self.manifest("pictures/oneactor-eta-2-0")}, {0.0})

    def test_a_second_run_draws_nothing_and_gives_the_same_figures(self):
        before, numbers = times(self.work), [self.json(name) for name in ("fig8", "fig11", "fig12")]
        for script in (fig8, fig11, fig12):
            run(script, self.work)
        self.assertEqual(times(self.work), before)
        self.assertEqual([self.json(name) for name in ("fig8", "fig11", "fig12")], numbers)

    def test_shards_together_give_the_whole(self):
        whole, parts = self.work, self.work.parent / "parts"
        for shard in ("1/2", "2/2"):
            self.assertEqual(run(fig8, parts, "--limit", "2", "--shard", shard), "")
        self.assertEqual(sorted(path.name for path in (parts / "targets").iterdir()), ["00-cat", "01-dog"])
        self.assertFalse((parts / "fig8.json").exists())
        # One picture is removed: only this picture is drawn again.
        lost = parts / "targets/01-dog/pictures/oneactor/0001-5001.png"
        lost.unlink()
        before = times(parts)
        run(fig8, parts, "--limit", "2")
        after = times(parts)
        self.assertEqual({path for path in after if after[path] != before.get(path)}, {str(lost)})
        run(fig8, whole, "--limit", "2")
        self.assertEqual(json.loads((parts / "fig8.json").read_text()), self.json("fig8"))
        self.assertEqual((parts / "fig8.svg").read_text(), (whole / "fig8.svg").read_text())
        run(fig8, whole)  # the figure of one target again, for the other tests

    def test_redrawn_pictures_are_measured_again(self):
        work = self.work.parent / "anew"
        run(fig8, work)
        first = json.loads((work / "fig8.json").read_text())["means"]
        run(fig8, work, "--sample-args", "oneactor=--semantic-scale 0 --overwrite")
        second = json.loads((work / "fig8.json").read_text())["means"]
        self.assertEqual(first["plain"], second["plain"])
        self.assertNotEqual(first["oneactor"], second["oneactor"])

    def test_published_points_are_read_and_kept_apart(self):
        path = self.work.parent / "published.csv"
        path.write_text('method,clip_t,clip_i\n"X, 2020",0.3,0.75\n')
        run(fig8, self.work, "--published", str(path))
        found = self.json("fig8")
        self.assertEqual(found["published"], {"X, 2020": {"clip_t": 0.3, "clip_i": 0.75}})
        self.assertNotIn("X, 2020", found["means"])


class Parts(unittest.TestCase):
    def test_methods_and_measures_are_read_from_the_help(self):
        help_text = """Options:
      --compare[=<BOOL>]
          Draw with the plain model too

      --method <METHOD>
          The method, or a baseline [default: oneactor]

          Possible values:
          - oneactor:          Cluster-conditioned guidance
          - textual-inversion: A learnt embedding

  -h, --help
          Print help

          Possible values:
          - paper:   eta_1 8.5
"""
        self.assertEqual(program.methods_of(help_text), ["oneactor", "textual-inversion"])
        self.assertEqual(program.methods_of(help_text.replace("--method", "--preset")), ["oneactor"])
        text = "          Measures to compute: clip_i,\n          clip_t, dinov2 [default: clip_i,clip_t]"
        self.assertEqual(program.measures_of(text), ["clip_i", "clip_t", "dinov2"])
        with self.assertRaises(SystemExit):
            program.measures_of("nothing")

    def test_a_later_flag_replaces_an_earlier_one(self):
        flags = study.layered(["--steps", "30", "--lora", "a", "--lora", "b"], ["--steps=4"], ["--offline"])
        self.assertEqual(flags, ["--lora", "a", "--lora", "b", "--steps=4", "--offline"])
        self.assertEqual(study.layered(["--eta-1", "-1"], []), ["--eta-1", "-1"])

    def test_unused_models_are_left_out(self):
        given = ["--clip-model", "toy", "--lpips-model=models/lpips", "--sam-model", "sam", "--device", "cuda"]
        self.assertEqual(study.used(given, ["clip_i", "clip_t"], []), ["--clip-model", "toy", "--device", "cuda"])
        self.assertEqual(study.used(given, ["lpips"], ["--masks", "sam"]), given[2:])

    def test_paths_in_flags_are_those_of_the_user(self):
        self.assertEqual(
            study.flags("--lora scripts/nowhere.bin:0.5 --prompt 'a b'"),
            ["--lora", "scripts/nowhere.bin:0.5", "--prompt", "a b"],
        )
        with tempfile.TemporaryDirectory() as folder:
            found = study.flags(f"--ip-adapter {os.path.relpath(folder)}")
            self.assertEqual(found, ["--ip-adapter", str(Path(folder).resolve())])

    def test_the_front_has_the_methods_that_no_other_beats(self):
        point = lambda t, i: {"clip_t": t, "clip_i": i}
        points = {"a": point(0.3, 0.6), "b": point(0.2, 0.9), "c": point(0.25, 0.55), "d": point(0.3, 0.5)}
        self.assertEqual(fig8.front(points), ["b", "a"])

    def test_cells_and_errors_are_those_of_the_formula(self):
        self.assertEqual(tables.cell([1.0, 2.0, 6.0]), f"3.0000 ± {7**0.5:.4f}")
        self.assertEqual(tables.cell([0.5]), "0.5000")
        found = study.mean_and_error([1.0, 2.0, 6.0])
        self.assertAlmostEqual(found["error"], stdev([1.0, 2.0, 6.0]) / 3**0.5)

    def test_shards_are_counted_from_one(self):
        self.assertEqual(study.shard("2/8"), (2, 8))
        for text in ("0/2", "3/2", "2", "a/b", "1/0"):
            with self.assertRaises(argparse.ArgumentTypeError, msg=text):
                study.shard(text)

    def test_wrong_input_is_reported(self):
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            (work / "targets.tsv").write_text("word\tprompt\ncat\ta cat\n")
            for words, message in (
                (["--methods", "plain,magic"], "found magic, expected some of plain, oneactor"),
                (["--targets", str(work / "targets.tsv")], "expected a first row"),
                (["--binary", "nowhere/oneactor"], "there is no such program"),
            ):
                with self.assertRaises(SystemExit) as told:
                    run(fig8, work, *words)
                self.assertIn(message, str(told.exception))

    def test_every_method_has_its_own_look(self):
        self.assertEqual(len(set(plots.LOOKS.values())), len(plots.LOOKS))
        self.assertNotIn(plots.look("another"), plots.LOOKS.values())


if __name__ == "__main__":
    unittest.main()
