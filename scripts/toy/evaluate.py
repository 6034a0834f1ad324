"""Measures the method on the toy model: does the drawn subject keep the target's identity in new scenes?

    python evaluate.py --split test --work DIR --json result.json [--binary target/release/oneactor]

For every subject: base images, tuning, then the same prompts and seeds with the actor and without. The judge reads
every picture, which is compared with the target picture. Choose settings on `--split dev`: the `test` split has other
subjects, scenes and seeds. Needs only torch, safetensors, numpy and pillow.
"""

import argparse
import json
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import identity
import judge
import scenes
import world

ROOT = Path(__file__).resolve().parents[2]

SCENES = {
    "beach": "at the beach",
    "snow": "in the snow",
    "street": "in the street",
    "mountain": "with a mountain in the background",
    "library": "in a library surrounded by books",
    "castle": "in a medieval castle courtyard",
    "jungle": "in the jungle",
    "city": "with a city in the background",
    "eiffel": "with the Eiffel Tower in the background",
    "farm": "on a farm with animals in the background",
    "park": "running in the park",
    "house": "eating breakfast in the house",
}
SPLITS = {
    "test": {
        "subjects": ["cat", "dog", "robot", "wizard", "dragon", "owl", "lion", "hobbit"],
        "scenes": ["beach", "snow", "street", "mountain", "library", "castle"],
        "base_seed": 1000,
        "seed": 5000,
    },
    "dev": {
        "subjects": ["panda", "rabbit", "monkey", "ninja", "penguin", "frog", "boy", "girl"],
        "scenes": ["jungle", "city", "eiffel", "farm", "park", "house"],
        "base_seed": 3000,
        "seed": 8000,
    },
}


@dataclass
class Plan:
    """The settings of a run, shared by all scripts that judge the program's pictures."""

    binary: str
    work: Path
    model: str
    subjects: list
    scenes: list
    base_seed: int
    seed: int
    images: int
    draw_args: list = field(default_factory=list)
    base_args: list = field(default_factory=list)
    tune_args: list = field(default_factory=list)
    sample_args: list = field(default_factory=list)
    target: str = "clearest"


def call(plan, *words):
    command = [*map(str, (plan.binary, *words)), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)}\nexit {done.returncode}: {done.stderr.strip()}")


def draw_base(plan, folder, *subjects):
    """Draws base images of a subject, or of several subjects in one picture, once."""
    if not (folder / "base.json").exists():
        prompt = "a photo of " + " and ".join(map(world.article, subjects))
        words = [word for subject in subjects for word in ("--subject", subject)]
        how = ["--model", plan.model, "--seed", plan.base_seed, "-o", folder]
        call(plan, "generate-base", "-p", prompt, *words, *how, *plan.draw_args, *plan.base_args)


def tune(plan, folder, scorer, *extra):
    if not (folder / "actor.safetensors").exists():
        target = scorer.clearest(folder) if plan.target == "clearest" else plan.target
        call(plan, "tune", folder, "--model", plan.model, "--target", target, *plan.tune_args, *extra)


def target_number(folder):
    """The index of the base image that an actor was tuned on."""
    record = json.loads((folder / "tune.json").read_text())
    return record["target"] if "target" in record else record["parameters"]["target"]


def scenes_of(plan, text):
    """Prompts that put the subjects into each scene, and the names of the scenes."""
    return {f"{text}, {SCENES[name]}.": name for name in plan.scenes}


def draw(plan, actors, out, prompts, *extra):
    """Draws pictures of all prompts once, and returns the manifest's rows with the path of each picture."""
    if not (out / "manifest.jsonl").exists():
        out.mkdir(parents=True, exist_ok=True)
        (out / "prompts.txt").write_text("".join(f"{prompt}\n" for prompt in prompts))
        how = ["--prompts-file", out / "prompts.txt", "--num-images", plan.images, "--seed", plan.seed]
        call(plan, "sample", *actors, "--model", plan.model, *how, "-o", out, *plan.draw_args, *extra)
    rows = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    return [{**row, "path": find_picture(row["path"], out)} for row in rows]


def sample(plan, subject, folder, out, *extra):
    """Draws pictures of all scenes: rows of scene, seed and path."""
    prompts = scenes_of(plan, subject)
    rows = draw(plan, [folder], out, prompts, *extra)
    return [{"scene": prompts[row["prompt"]], "seed": row["seed"], "path": row["path"]} for row in rows]


def find_picture(path, out):
    """The path of a picture: relative to the manifest's folder, or in an older program's manifest to its working
    directory."""
    return next((place for place in (out / path, Path(path)) if place.exists()), out / Path(path).name)


def read_picture(path):
    return np.asarray(Image.open(path).convert("RGB"))


def sureness(answers):
    """How sure the judge is of colours and pattern, for each picture."""
    return sum(np.log(answers[name].max(1)) for name in ("main", "second", "pattern"))


class Scorer:
    def __init__(self):
        self.judge, facts = judge.load()
        self.scales = facts["identity_scales"]

    def answers(self, paths):
        return self.judge.read(np.stack([read_picture(path) for path in paths]))

    def clearest(self, folder):
        """The base image whose colours and pattern the judge is surest of. An artist would also choose a picture that
        shows plainly what the subject looks like. The choice does not depend on later pictures."""
        return int(sureness(self.answers(sorted((folder / "base").glob("*.png")))).argmax())

    def target(self, folder):
        return self.answers([folder / "base" / f"{target_number(folder):02}.png"])

    def score(self, subject, rows, target):
        """For each picture: colour match, identity distance, its parts, subject right, scene right."""
        answers = self.answers([row["path"] for row in rows])
        distance, parts = identity.distances(answers, target, subject, self.scales)
        wanted = np.array([scenes.NAMES.index(row["scene"]) for row in rows])
        result = {
            "main_colour": answers["main"].argmax(1) == target["main"].argmax(1),
            "identity_distance": distance,
            "subject": answers["species"].argmax(1) == world.SPECIES.index(subject),
            "scene": answers["scene"].argmax(1) == wanted,
        }
        result.update({"distance_" + name: value for name, value in parts.items()})
        return {name: np.asarray(value, float) for name, value in result.items()}


def evaluate_subject(plan, subject, scorer):
    folder = plan.work / subject
    draw_base(plan, folder, subject)
    tune(plan, folder, scorer)
    guided = sample(plan, subject, folder, folder / "guided", *plan.sample_args)
    plain = sample(plan, subject, folder, folder / "plain", "--no-actor")
    target = scorer.target(folder)
    return {"guided": scorer.score(subject, guided, target), "plain": scorer.score(subject, plain, target)}


def mean_and_error(values):
    """The mean of independent values, with its standard error if there is more than one value."""
    values = np.asarray(values)
    error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return {"mean": float(values.mean()), "error": float(error)}


def summary(scores):
    """Mean and standard error of every measure; subjects are the independent units."""
    names = sorted({name for score in scores for name in score})
    return {name: mean_and_error([score[name].mean() for score in scores if name in score]) for name in names}


def ratio(guided, plain, draws=2000):
    """Identity distance of the guided pictures over that of the plain ones, with its error from resampled subjects."""
    a = np.array([score["identity_distance"].mean() for score in guided])
    b = np.array([score["identity_distance"].mean() for score in plain])
    picks = np.random.default_rng(0).integers(0, len(a), (draws, len(a)))
    return {"mean": float(a.mean() / b.mean()), "error": float((a[picks].mean(1) / b[picks].mean(1)).std())}


def settings_of(plan):
    """The settings of the pictures, for the report."""
    return {
        "scenes": plan.scenes,
        "images_per_scene": plan.images,
        "draw_args": plan.draw_args,
        "base_args": plan.base_args,
        "tune_args": plan.tune_args,
        "sample_args": plan.sample_args,
    }


def print_report(report):
    order = ["main_colour", "identity_distance", "subject", "scene"]
    order += [name for name in report["guided"] if name not in order]
    print(f"{'':22}{'guided':>16}{'plain':>16}")
    for name in order:
        cells = [report[kind][name] for kind in ("guided", "plain")]
        print(f"{name:22}" + "".join(f"{cell['mean']:9.3f} ±{cell['error']:5.3f}" for cell in cells))
    print(f"{'distance ratio':22}{report['ratio']['mean']:9.3f} ±{report['ratio']['error']:5.3f}")


def add_plan_arguments(parser):
    parser.add_argument("--split", choices=SPLITS, default="dev")
    parser.add_argument("--binary", default=str(ROOT / "target/release/oneactor"))
    parser.add_argument("--model", default="toy")
    parser.add_argument("--work", type=Path, required=True, help="folder for all pictures; finished parts are reused")
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--subjects", help="comma-separated; default: all of the split")
    parser.add_argument("--scenes", type=int, default=6, help="how many of the split's scenes")
    parser.add_argument("--images", type=int, default=4, help="seeds per scene")
    parser.add_argument("--target", default="clearest", help="number, auto, or clearest: see Scorer.clearest")
    parser.add_argument(
        "--draw-args", type=shlex.split, default=[], help="more flags for all pictures: base, guided and plain"
    )
    parser.add_argument("--base-args", type=shlex.split, default=[], help="more flags for generate-base")
    parser.add_argument("--tune-args", type=shlex.split, default=[], help="more flags for tune")
    parser.add_argument("--sample-args", type=shlex.split, default=[], help="more flags for guided sampling")
    parser.add_argument("--jobs", type=int, default=2, help="subjects at a time")


def plan_from(args):
    split = SPLITS[args.split]
    return Plan(
        binary=args.binary,
        work=args.work,
        model=args.model,
        subjects=args.subjects.split(",") if args.subjects else split["subjects"],
        scenes=split["scenes"][: args.scenes],
        base_seed=split["base_seed"],
        seed=split["seed"],
        images=args.images,
        draw_args=args.draw_args,
        base_args=args.base_args,
        tune_args=args.tune_args,
        sample_args=args.sample_args,
        target=args.target,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_plan_arguments(parser)
    args = parser.parse_args()
    torch.set_num_threads(1)
    plan, scorer = plan_from(args), Scorer()
    with ThreadPoolExecutor(args.jobs) as pool:
        results = list(pool.map(lambda subject: evaluate_subject(plan, subject, scorer), plan.subjects))
    guided, plain = ([result[kind] for result in results] for kind in ("guided", "plain"))
    report = {
        "split": args.split,
        "subjects": plan.subjects,
        **settings_of(plan),
        "guided": summary(guided),
        "plain": summary(plain),
        "ratio": ratio(guided, plain),
        "per_subject": {
            subject: {kind: {name: float(value.mean()) for name, value in result[kind].items()} for kind in result}
            for subject, result in zip(plan.subjects, results)
        },
    }
    print_report(report)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
