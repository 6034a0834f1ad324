"""Subjects, scenes and methods: everything that the figures draw and measure, each part once.

The program itself keeps finished results and refuses results made with other settings, so making a figure means asking
for all its parts again. A work folder holds

    targets/00-hobbit/                    what `generate-base` and `tune` have written
    targets/00-hobbit/pictures/METHOD/    all scenes by one method
    targets/00-hobbit/scores/NAME.jsonl   scores of some pictures by `evaluate`, with the check sum of its inputs
    fig8.png, fig8.svg, fig8.json         a figure, and its numbers
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev

from program import OURS, PLAIN, Program, read_lines

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TOY = "toy"
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"


@dataclass(frozen=True)
class Preset:
    """Settings shared by all figures of a model. Flags are words of the program's command line."""

    targets: Path
    scenes: Path
    num_images: int
    draw: list[str] = field(default_factory=list)
    tune: dict[str, list[str]] = field(default_factory=dict)
    """Flags by method."""
    evaluate: list[str] = field(default_factory=list)


# The settings for the toy were chosen on other subjects, scenes and seeds: see scripts/toy/README.md.
TOY_PRESET = Preset(
    HERE / "toy-targets.tsv",
    HERE / "toy-scenes.txt",
    2,
    ["--guidance-scale", "4"],
    {
        OURS: ["--learning-rate", "3e-4", "--max-steps", "1000"],
        "dreambooth-lora": ["--learning-rate", "1e-3", "--max-steps", "400"],
        "textual-inversion": ["--learning-rate", "2e-2", "--max-steps", "400"],
    },
    ["--clip-model", TOY],
)
PAPER_PRESET = Preset(ROOT / "prompts/evaluation-targets.tsv", ROOT / "prompts/evaluation-scenes.txt", 1)
BASE_SEED, SCENE_SEED = 1000, 5000

# Too few steps for a result, enough to test every part.
QUICK_DRAW, QUICK_TUNE, QUICK_BASE = ["--steps", "4"], ["--max-steps", "4"], ["--num-images", "4"]


@dataclass(frozen=True)
class Target:
    number: int
    word: str
    prompt: str

    @property
    def folder(self) -> Path:
        return Path("targets") / f"{self.number:02}-{slug(self.word)}"


def record_of(method: str) -> str:
    """The file in which `tune --method` records its settings."""
    return "tune.json" if method == OURS else f"{method}.json"


def grouped(words: Sequence[str]) -> list[list[str]]:
    """Flags, each with its values."""
    groups: list[list[str]] = []
    for word in words:
        if word.startswith("--") or not groups:
            groups.append([])
        groups[-1].append(word)
    return groups


def name_of(group: Sequence[str]) -> str:
    return group[0].partition("=")[0]


def layered(*layers: Sequence[str]) -> list[str]:
    """Flags of all layers with their values; a later layer replaces a flag of an earlier layer."""
    found: list[list[str]] = []
    for layer in map(grouped, layers):
        named = {name_of(group) for group in layer}
        found = [group for group in found if name_of(group) not in named] + layer
    return [word for group in found for word in group]


def used(flags_given: Sequence[str], metrics: Sequence[str], extra: Sequence[object]) -> list[str]:
    """Flags of `evaluate` without unused models, because the program refuses these."""
    networks = {name.split("_")[0] for name in metrics} | {str(word) for word in extra}
    is_idle = lambda name: name.endswith("-model") and name[2:-6] not in networks
    return [word for group in grouped(flags_given) if not is_idle(name_of(group)) for word in group]


def located(word: str) -> str:
    """An absolute path if there is such a file or folder, because the program is started in the work folder."""
    return str(Path(word).resolve()) if Path(word).exists() else word


def flags(text: str) -> list[str]:
    """The words of a shell command; words with a slash may be paths."""
    return [located(word) if "/" in word else word for word in shlex.split(text)]


def slug(text: str) -> str:
    return re.sub(r"[^\w.=-]+", "-", text).strip("-")


class Study:
    def __init__(self, args: argparse.Namespace):
        is_toy = args.model == TOY
        preset = TOY_PRESET if is_toy else PAPER_PRESET
        self.is_quick: bool = args.quick
        self.work: Path = args.work or ROOT / "runs/reproduce" / (
            slug(Path(args.model).name) + ("-quick" if args.quick else "")
        )
        self.work.mkdir(parents=True, exist_ok=True)
        self.work = self.work.resolve()
        self.program = Program(found_program(args.binary), self.work)
        self.model = TOY if is_toy else located(args.model)
        self.is_toy = is_toy
        self.model_args: list[str] = args.model_args
        self.draw_args = layered(preset.draw, QUICK_DRAW if args.quick else [], args.draw_args)
        self.base_args = QUICK_BASE if args.quick else []
        self.tune_args: dict[str, list[str]] = args.tune_args
        self.preset = preset
        self.sample_args: dict[str, list[str]] = args.sample_args
        self.evaluate_args = layered(preset.evaluate, args.evaluate_args)
        self.masks: str | None = args.masks or ("middle" if is_toy else None)
        self.num_images: int = args.num_images or (1 if args.quick else preset.num_images)
        self.scenes = read_scenes(args.scenes or preset.scenes)[: 2 if args.quick else None]
        limit = args.limit or (1 if args.quick else args.own_limit)
        self.all_targets = read_targets(args.targets or preset.targets)[:limit]
        self.made: set[Path] = set()
        self.shard: tuple[int, int] | None = args.shard
        self.methods: list[str] = args.methods or [PLAIN, *self.program.methods("sample")]
        unknown = set(self.methods) - {PLAIN, *self.program.methods("sample")}
        if unknown:
            raise SystemExit(
                f"--methods: found {', '.join(sorted(unknown))}, expected some of "
                f"{', '.join([PLAIN, *self.program.methods('sample')])}"
            )

    @property
    def targets(self) -> list[Target]:
        """The targets of this shard."""
        if self.shard is None:
            return self.all_targets
        index, count = self.shard
        return self.all_targets[index - 1 :: count]

    def size(self, found: Sequence[object]) -> str:
        """The size of a figure, for its title."""
        return f"targets: {len(found)}, scenes: {len(self.scenes)}, pictures of each: {self.num_images}"

    def say(self, target: Target, what: str) -> None:
        print(f"{target.folder.name}: {what}", file=sys.stderr, flush=True)

    # Results of the program for a target.

    def is_made(self, record: Path, target: Target, what: str) -> bool:
        """Whether this script has already asked for it. The first time the program is always asked, because it knows
        what is finished and made with the present settings."""
        if record in self.made:
            return True
        self.made.add(record)
        self.say(target, what)
        return False

    def base(self, target: Target) -> Path:
        """The folder of a target, with base images."""
        if self.is_made(target.folder / "base.json", target, "base images"):
            return target.folder
        self.program.run(
            "generate-base",
            "-p",
            target.prompt,
            "--subject",
            target.word,
            "--model",
            self.model,
            "--seed",
            BASE_SEED,
            "-o",
            target.folder,
            "--quiet",
            *self.model_args,
            *self.draw_args,
            *self.base_args,
        )
        return target.folder

    def actor(self, target: Target) -> Path:
        """The folder of a target, with base images and the paper's actor; every method uses the base image that the
        actor was tuned on as target."""
        folder = self.base(target)
        self.tune(target, OURS)
        return folder

    def tune(self, target: Target, method: str) -> None:
        """Tunes a method that has tuning; the others need none."""
        record = target.folder / record_of(method)
        if not self.program.is_tuned(method) or self.is_made(record, target, f"tuning {method}"):
            return
        given = layered(
            self.preset.tune.get(method, []), QUICK_TUNE if self.is_quick else [], self.tune_args.get(method, [])
        )
        named = [] if method == OURS else ["--method", method, "--target", self.target_number(target)]
        self.program.run("tune", target.folder, "--quiet", *named, *self.model_args, *given)

    def target_number(self, target: Target) -> int:
        return json.loads((self.work / target.folder / "tune.json").read_text())["parameters"]["target"]

    def target_picture(self, target: Target) -> Path:
        return target.folder / "base" / f"{self.target_number(target):02}.png"

    def tuning_seconds(self, target: Target, method: str) -> float:
        """Seconds of tuning of a method for a target; 0 if there is no tuning."""
        if not self.program.is_tuned(method):
            return 0.0
        record = self.work / target.folder / record_of(method)
        return float(json.loads(record.read_text())["seconds"])

    def draw(
        self, target: Target, method: str, out: Path, prompts: Sequence[str], num_images: int, seed: int, *extra: str
    ) -> Path:
        """Pictures of a tuned target by one method, in `out`."""
        self.say(target, f"drawing {out.relative_to(target.folder)}")
        folder = self.work / out
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "prompts.txt").write_text("\n".join(prompts) + "\n")
        how = {PLAIN: ["--no-actor"], OURS: []}.get(method, ["--method", method])
        given = layered(self.draw_args, self.sample_args.get(method, []), extra)
        self.program.run(
            "sample",
            target.folder,
            *how,
            "--prompts-file",
            out / "prompts.txt",
            "--num-images",
            num_images,
            "--seed",
            seed,
            "-o",
            out,
            "--quiet",
            *self.model_args,
            *given,
        )
        return out

    def pictures(self, target: Target, method: str) -> Path:
        """Draws all scenes of a target by one method, and returns the folder of the pictures."""
        self.actor(target)
        if method not in (PLAIN, OURS):
            self.tune(target, method)
        out = target.folder / "pictures" / method
        return self.draw(target, method, out, self.scenes, self.num_images, SCENE_SEED)

    def scores(self, target: Target, pictures: Path, name: str, metrics: Sequence[str], *extra: object) -> list[dict]:
        """Scores by `evaluate` for a folder of pictures: an object for each picture and group. Kept in
        `scores/NAME.jsonl`."""
        against = self.target_picture(target)
        words = [
            "evaluate",
            pictures,
            "--target",
            against,
            "--metrics",
            ",".join(metrics),
            "--format",
            "json",
            "--quiet",
            *used(self.evaluate_args, metrics, extra),
            *extra,
        ]
        asked = hashlib.sha256(json.dumps([str(word) for word in words]).encode())
        asked.update((self.work / pictures / "manifest.jsonl").read_bytes())
        asked.update((self.work / against).read_bytes())
        kept = self.work / target.folder / "scores" / f"{slug(name)}.jsonl"
        heading = json.dumps({"asked": asked.hexdigest()})
        if kept.is_file() and kept.read_text().startswith(heading + "\n"):
            return read_lines(kept.read_text())[1:]
        self.say(target, f"measuring {name}")
        found = self.program.run(*words)
        kept.parent.mkdir(exist_ok=True)
        unfinished = kept.with_suffix(".part")
        unfinished.write_text(heading + "\n" + found)
        unfinished.replace(kept)
        return read_lines(found)

    def write_json(self, name: str, found: object) -> None:
        """Writes the numbers of a figure."""
        path = self.work / f"{name}.json"
        path.write_text(json.dumps(found, indent=1) + "\n")
        print(path)


def pictures_of(rows: list[dict]) -> list[dict]:
    """The objects of pictures in the output of `evaluate`."""
    return [row for row in rows if row["kind"] == "picture"]


def mean_and_error(values: Sequence[float]) -> dict[str, float | None]:
    """The mean, and its standard error if there is more than one value."""
    error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    return {"mean": mean(values), "error": error}


def read_targets(path: Path) -> list[Target]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    if not rows or not {"base_word", "prompt"} <= set(rows[0]):
        raise SystemExit(
            f'--targets {path}: expected a first row "base_word<tab>prompt" and a target in each other one'
        )
    return [Target(number, row["base_word"], row["prompt"]) for number, row in enumerate(rows)]


def read_scenes(path: Path) -> list[str]:
    scenes = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not scenes:
        raise SystemExit(f"--scenes {path}: found nothing, expected one prompt on each line, with [b] for the subject")
    return scenes


def found_program(name: str) -> Path:
    path = shutil.which(name) or shutil.which(ROOT / name)
    if path is None:
        raise SystemExit(
            f"--binary {name}: there is no such program: build it with cargo build --release, or name another"
        )
    return Path(path).resolve()


def shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"found {text}, expected I/N with I from 1 to N, such as 2/8")
    return int(index), int(count)


class OfMethod(argparse.Action):
    """METHOD=FLAGS, repeatable: a dictionary of lists."""

    def __call__(self, parser, namespace, values, option_string=None):
        method, equals, words = values.partition("=")
        if not equals:
            parser.error(f"{option_string}: found {values}, expected METHOD=FLAGS")
        setattr(namespace, self.dest, {**getattr(namespace, self.dest), method: flags(words)})


def positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"found {text}, expected a number from 1")
    return int(text)


def names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def options(description: str | None, limit: int | None = None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.set_defaults(own_limit=limit)
    add = parser.add_argument
    add("--model", default=TOY, help=f"as for the program; toy, or for instance {SDXL} (default: toy)")
    add(
        "--work",
        type=Path,
        help="folder for all pictures and figures; finished results in it are kept (default: runs/reproduce/MODEL)",
    )
    add("--binary", default="target/release/oneactor", help="the program (default: target/release/oneactor)")
    add("--methods", type=names, help="comma-separated (default: plain and all that `sample --help` lists)")
    add("--targets", type=Path, help="table of base words and prompts (default: the paper's 32; for the toy its own 8)")
    add("--scenes", type=Path, help="prompts, one on each line (default: the paper's 40; for the toy its own 6)")
    add("--limit", type=positive, help=f"use only so many targets (default: {limit or 'all'})")
    add("--num-images", type=positive, help="pictures of each scene (default: 1; for the toy 2)")
    add("--shard", type=shard, metavar="I/N", help="only every N-th target, from the I-th on, and no figure")
    add(
        "--quick",
        action="store_true",
        help="one target, two scenes, four steps: tests every part, not the quality",
    )
    for name, what in (
        ("model", 'of the model, for all drawing and tuning: "--variant fp16"'),
        ("draw", 'for drawing base images and scenes: "--steps 20"'),
        ("evaluate", 'of evaluate: "--device cuda"'),
    ):
        add(f"--{name}-args", type=flags, default=[], metavar="FLAGS", help=f"more flags {what}")
    for name in ("tune", "sample"):
        add(
            f"--{name}-args",
            action=OfMethod,
            default={},
            metavar="METHOD=FLAGS",
            help=f"more flags of {name} for one method",
        )
    add(
        "--masks",
        help="how tables.py separates foreground and background: sam, none, or middle, an oval in the middle of the "
        "picture (default: middle for the toy, else none)",
    )
    return parser


def run(
    args: argparse.Namespace, prepare: Callable[[Study, Target], object], figure: Callable[[Study, list], None]
) -> None:
    """Prepares every target of the shard; without shards, makes the figure from all of them."""
    study = Study(args)
    found = [prepare(study, target) for target in study.targets]
    if study.shard:
        print(
            f"shard {study.shard[0]} of {study.shard[1]}: {len(found)} targets are done; once all shards are done, "
            "the same command without --shard makes the figure",
            file=sys.stderr,
        )
    else:
        figure(study, found)
