"""Peak memory of jobs on a GPU, compared with the estimate of `--dry-run`, without a GPU.

The program runs on the simulated GPU of `tests/fakecuda`, which here counts memory and computes nothing. The weights
are files with holes. So a job of full-size SDXL takes seconds and a machine of 8 GB. The peak is the largest number of
bytes that libtorch's allocator has given to tensors; a GPU also holds its context and the workspaces of cuDNN and
cuBLAS, and loses some memory to fragmentation ("reach" is the end of a first-fit layout, a guess at it). Writes
gpu_memory.md and gpu_memory.json into the folder.

Requirements: scripts/bench/requirements.txt; cargo build --release --locked --bins --examples; tests/fakecuda/build.sh
Usage: gpu_memory.py [--size full|mini|thin|tiny] [--side 1024] [--only WORD …] [--out target/bench]
"""

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from beside import write_controlnet, write_lora
from machine import ROOT, Machine
from memory import Case, Cases, forecast
from pairs import Failed

LIBRARY = ROOT / "target" / "fakecuda"
TWO = "a robot and a cat in the snow"
HEAD = [
    "job",
    "peak, GB",
    "reach, GB",
    "dry run, GB",
    "dry run over peak",
    "sent, GB",
    "launches",
    "waits",
    "oneactor …",
]


@dataclass
class Job(Case):
    """A command, its estimate, and what the simulation counted."""

    reach: int = 0
    sent: int = 0
    launches: int = 0
    waits: int = 0

    def row(self):
        if self.failure:
            return [self.name, f"not measured: {self.failure}", *[""] * 6, f"`{self.shown()}`"]
        gigabytes = [f"{count / 1e9:.2f}" for count in (self.peak, self.reach, self.forecast)]
        over = f"{self.forecast / self.peak:.2f}"
        counts = [f"{self.sent / 1e9:.2f}", str(self.launches), str(self.waits)]
        return [self.name, *gigabytes, over, *counts, f"`{self.shown()}`"]


class Jobs(Cases):
    """The commands of one model at one size of picture."""

    def all(self):
        side = self.sides[0]
        tiles = ("--vae-tiling", "--vae-tile-size", max(32, side // 2))
        yield self.base("one at once", side)
        yield self.base("11 at once", side, 11)
        yield self.sample("no actor", words=())
        yield self.sample("one actor")
        yield self.sample("one actor, eta_2 0", "--eta-2", 0)
        yield self.sample("4 at once", batch=4)
        yield self.sample("two actors with masks", words=("robot", "cat"), prompt=TWO)
        yield self.consistory()
        yield self.sample("in tiles", *tiles)
        yield self.sample("--cpu-offload", "--cpu-offload")
        yield self.sample("--attention math", "--attention", "math")
        lora = write_lora(self.model, self.out / "lora.safetensors")
        yield self.sample("a LoRA", "--lora", lora)
        control, image = write_controlnet(self.model, self.out / "controlnet", side, is_hollow=True)
        yield self.sample("a ControlNet", "--controlnet", control, "--control-image", image)
        for dtype in ("bf16", "fp32"):
            yield self.sample(dtype, "--dtype", dtype)
        for rows in (5, 2, 1):
            yield self.tune(f"{rows} rows at once", "--micro-batch", rows)
        for dtype in ("bf16", "fp32"):
            yield self.tune(f"row by row, {dtype}", "--micro-batch", 1, "--dtype", dtype)
        for method in ("textual-inversion", "dreambooth-lora"):
            yield self.tune(method, "--method", method, num_auxiliary=None)

    def consistory(self):
        """Shared attention, which is not guided by an actor."""
        case = self.sample("consistory", "--method", "consistory", "--target", 0)
        at = case.command.index("--guided-steps")
        del case.command[at : at + 2]
        return case


def measure(machine, case):
    """The case with its figures. A case fails alone."""
    job = Job(case.model, case.name, case.command)
    report = machine.folder / "report.json"
    try:
        job.forecast = forecast(machine, job.command)
        report.unlink(missing_ok=True)
        machine.run(job.command)
        counted = json.loads(report.read_text())
        totals, (memory,) = counted["totals"], counted["memory"]
        job.peak, job.reach, job.sent = memory["peak_bytes"], memory["reach_bytes"], totals["bytes_to_device"]
        job.launches, job.waits = totals["launches"], totals["waits"]
    except (Failed, OSError) as error:
        job.failure = str(error)
    return job


def simulated(machine):
    """The same machine with a GPU that only accounts."""
    before = os.environ.get("LD_LIBRARY_PATH")
    machine.env |= {
        "LD_LIBRARY_PATH": ":".join([str(LIBRARY), *([before] if before else [])]),
        "FAKECUDA_ACCOUNT_ONLY": "1",
        "FAKECUDA_REPORT": str(machine.folder / "report.json"),
    }
    return machine


def options(description):
    """The options of a script on the simulated GPU."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--size", choices=["full", "mini", "thin", "tiny"], default="full")
    parser.add_argument("--side", type=int, default=1024, help="width and height of the pictures")
    parser.add_argument("--out", type=Path, default=ROOT / "target" / "bench")
    return parser


def simulated_jobs(args, steps):
    """The machine with the simulated GPU, and its jobs, for these options."""
    if not (LIBRARY / "libtorch_cuda.so").exists():
        raise SystemExit(f"{LIBRARY} has no simulated GPU; run: tests/fakecuda/build.sh")
    machine = simulated(Machine("cuda", "fp16", None, 1, args.out.resolve() / "gpu"))
    model = machine.random_model(args.size, "fp16", "--hollow")
    return machine, Jobs(machine, args.size, model, [args.side], steps)


def main():
    parser = options(__doc__)
    parser.add_argument("--only", nargs="+", default=[], help="only jobs whose names have one of these words")
    args = parser.parse_args()
    machine, cases = simulated_jobs(args, steps=2)
    jobs = []
    for case in cases.all():
        if args.only and not any(word in case.name for word in args.only):
            continue
        jobs.append(measure(machine, case))
        print(*jobs[-1].row(), sep="\t", file=sys.stderr, flush=True)
    table = [HEAD, ["---"] * len(HEAD), *(job.row() for job in jobs)]
    text = "".join("| " + " | ".join(row) + " |\n" for row in table)
    (args.out / "gpu_memory.md").write_text(text)
    (args.out / "gpu_memory.json").write_text(json.dumps([vars(job) | {"command": None} for job in jobs], indent=2))
    print(text)
    if any(job.failure for job in jobs):
        sys.exit("a job failed: see the table")


if __name__ == "__main__":
    main()
