"""Peak memory of whole processes on a CPU, compared with the estimate of `--dry-run`.

Each case is a command of the program, run once from start to end with one thread. The peak is that of the process
(VmHWM in /proc, the figure of `/usr/bin/time -v`); the estimate is `memory_bytes` of `--dry-run --format json`. Writes
memory.md and memory.json into the folder. Exits with 1 if a peak is above its estimate or below 0.85 of it. Times do
not matter, so other work may run meanwhile if there is enough memory for it.

Requirements: scripts/parity/requirements.txt; cargo build --release --locked --bins --examples
Usage: memory.py [--models toy mini full] [--only WORD …] [--out target/bench]
    full needs 14 GB of disk and 18 GB of memory
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from beside import write_controlnet, write_lora
from machine import ROOT, TOY, Machine
from pairs import Failed

LEAST, MOST = 0.85, 1.0
SCENE = "a photo of a robot in the snow"
TWO = "a robot and a cat in the snow"


@dataclass
class Case:
    """A command, and its measured memory."""

    model: str
    name: str
    command: list
    forecast: int = 0
    peak: int = 0
    failure: str = ""

    @property
    def ratio(self):
        return self.peak / self.forecast if self.forecast else float("nan")

    @property
    def is_right(self):
        return not self.failure and LEAST <= self.ratio <= MOST

    def row(self):
        numbers = [f"{self.forecast / 1e6:.0f}", f"{self.peak / 1e6:.0f}", f"{self.ratio:.3f}"]
        note = "" if self.is_right else "OUT OF BOUNDS"
        if self.failure:
            numbers, note = ["", "", ""], f"not measured: {self.failure}"
        return [self.model, self.name, *numbers, note, f"`{self.shown()}`"]

    def shown(self):
        """The command as a user would type it, files and folders by their names only."""
        _, *parts = map(str, self.command)
        kept = [Path(part).name if "/" in part else part for part in parts if part != "--offline"]
        pairs = zip(["", *kept], kept, strict=False)
        hidden = ("--model", "--device")
        return " ".join(
            f"'{part}'" if " " in part else part for before, part in pairs if not {before, part} & set(hidden)
        )


def with_flags(command, more):
    """The command with further flags; a flag that it already has is replaced."""
    names = [flag for flag in more if str(flag).startswith("--")]
    pairs = zip([None, *command], command, strict=False)
    return [*(part for before, part in pairs if not {before, part} & set(names)), *more]


class Cases:
    """The commands for one model, with pictures of `sides` pixels. The first command draws the base set, which all
    others use."""

    def __init__(self, machine, label, model, sides, steps):
        self.machine, self.label, self.model, self.sides, self.steps = machine, label, model, sides, steps
        self.out = machine.folder / "memory" / label

    def base(self, name, side, batch=1, *more):
        flags = self.machine.base_flags(self.model, "robot", side, max(2, batch), self.steps, self.out / "base")
        return Case(
            self.label, f"generate-base, {name}", with_flags([*flags, "--overwrite", "--batch-size", batch], more)
        )

    def tune(self, name, *more, steps=3, num_auxiliary=3):
        base = self.machine.base_set(self.model, "robot", self.sides[0], 5)
        flags = self.machine.tune_flags(self.model, base, steps, num_auxiliary)
        return Case(self.label, f"tune, {name}", with_flags(flags, more))

    def sample(self, name, *more, words=("robot",), prompt=SCENE, side=None, **how):
        side = side or self.sides[0]
        actors = [self.machine.actor(self.model, word, self.sides[0]) for word in words]
        how = {"side": side, "steps": self.steps, "images": max(2, how.get("batch", 1))} | how
        flags = self.machine.sample_flags(self.model, actors, [prompt], self.out / "sample", **how)
        return Case(self.label, f"sample, {name}", with_flags(flags, more))

    def main(self):
        for side in self.sides:
            yield self.base(f"{side} px", side)
            yield self.base(f"{side} px, 4 at once", side, 4)
        yield self.tune("row by row", "--micro-batch", 1)
        yield self.tune("5 rows at once")
        for eta_2 in (0, 1):
            for batch in (1, 4):
                yield self.sample(f"eta_2 {eta_2}, {batch} at once", "--eta-2", eta_2, batch=batch)
        for batch in (1, 4):
            yield self.sample(f"two actors, {batch} at once", words=("robot", "cat"), prompt=TWO, batch=batch)

    def siblings(self):
        side = self.sides[0]
        tile = ("--vae-tiling", "--vae-tile-size", max(32, side // 2))
        yield self.base("in tiles", side, 1, *tile)
        yield self.base(
            "largest in tiles", self.sides[-1], 1, "--vae-tiling", "--vae-tile-size", max(32, self.sides[-1] // 4)
        )
        yield self.base("--cpu-offload", side, 1, "--cpu-offload")
        yield self.sample("no actor", words=())
        lora = write_lora(self.model, self.out / "lora.safetensors")
        yield self.base("a LoRA", side, 1, "--lora", lora)
        yield self.tune("a LoRA, row by row", "--micro-batch", 1, "--lora", lora)
        control, image = write_controlnet(self.model, self.out / "controlnet", side)
        steered = ("--controlnet", control, "--control-image", image)
        yield self.base("a ControlNet", side, 1, *steered)
        yield self.sample("a ControlNet, 4 at once", *steered, batch=4)
        for dtype in ("fp16", "bf16"):
            yield self.base(dtype, side, 1, "--dtype", dtype)
            # A step of the mini in half precision takes a quarter of an hour on a CPU.
            if self.label == "toy":
                yield self.tune(f"{dtype}, 5 rows at once", "--dtype", dtype)
        for method in ("textual-inversion", "dreambooth-lora"):
            yield self.tune(method, "--method", method, num_auxiliary=None)
            yield self.tune(f"{method}, row by row", "--method", method, "--micro-batch", 1, num_auxiliary=None)


def forecast(machine, command):
    """Bytes that `--dry-run` expects a command to need."""
    lines = machine.run([*command, "--dry-run", "--format", "json"]).splitlines()
    return next(line["memory_bytes"] for line in map(json.loads, lines) if line["kind"] == "outlook")


def measure(machine, case):
    try:
        case.forecast = forecast(machine, case.command)
        _, _, case.peak = machine.run_once(case.command)
    except (Failed, StopIteration) as error:
        case.failure = str(error) or "no outlook"
    return case


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=["toy", "mini", "full"], default=["toy", "mini"])
    parser.add_argument("--only", nargs="+", default=[], help="only cases whose names have one of these words")
    parser.add_argument("--out", type=Path, default=ROOT / "target" / "bench")
    args = parser.parse_args()
    machine = Machine("cpu", "fp32", None, 1, args.out)
    sides = {"toy": (128, 192, 512), "mini": (256, 512, 768), "full": (256, 512)}
    rows = []
    for label in args.models:
        model = TOY if label == "toy" else machine.random_model(label, "fp32")
        # A second step needs no more memory than the first; at full size it takes minutes.
        cases = Cases(machine, label, model, sides[label], steps=1 if label == "full" else 2)
        lists = [cases.main] if label == "full" else [cases.main, cases.siblings]
        for case in (case for cases in lists for case in cases()):
            if args.only and not any(word in case.name for word in args.only):
                continue
            rows.append(measure(machine, case))
            print(*rows[-1].row(), sep="\t", file=sys.stderr, flush=True)
    head = ["model", "command", "forecast, MB", "measured, MB", "measured over forecast", "note", "oneactor …"]
    table = [head, ["---"] * len(head), *(case.row() for case in rows)]
    text = "".join("| " + " | ".join(row) + " |\n" for row in table)
    (args.out / "memory.md").write_text(text)
    (args.out / "memory.json").write_text(json.dumps([vars(case) | {"command": None} for case in rows], indent=2))
    print(text)
    if not all(case.is_right for case in rows):
        sys.exit("a forecast is wrong: see the table")


if __name__ == "__main__":
    main()
