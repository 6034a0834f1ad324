"""Speed and memory on one GPU: the program against diffusers and against the method's authors' way of running it.

Needs no network: weights with SDXL's sizes are drawn at random once, into the folder. Each peer has a process of its own
that waits while ours works. Writes gpu.md and gpu.json. `--dry-run` does all of it on a CPU with a tiny model, to
show that it works, and writes no figure.

The peers: diffusers in fp16 with PyTorch's fused attention; the same in channels_last compiled by torch.compile
(max-autotune), its compile time apart; and the paper's recipe as its authors ship it, f32 with TF32.

Requirements: scripts/bench/requirements.txt (gpu.sh installs it from a folder of wheels);
cargo build --release --locked --bins --examples
Usage: gpu.py [--dry-run] [--only PART …] [--out target/bench]
    parts: unet image tune memory start load
"""

import argparse
import sys
from contextlib import contextmanager
from pathlib import Path

import jobs
import report
import starts
from machine import ROOT, Machine, facts
from pairs import Failed
from report import Row
from rows import Duel, own_ratio

# Relative differences of outputs. fp16 keeps 11 bits: each side is 0.2 % from f32 through SDXL's depth, and TF32 is
# as short. Thirty steps of guidance 7.5 enlarge that; an error in the method would be of the order of 1.
HALF, HALF_STEPS, HALF_GRADIENT = 5e-3, 5e-2, 2e-2
RECIPE = "the authors' recipe, f32 with TF32"


class Sizes:
    """What is run: SDXL's own sizes, or with --dry-run the least that passes through every row."""

    def __init__(self, dry):
        self.model, self.side, self.steps, self.guided = ("tiny", 128, 3, (1, 2)) if dry else ("full", 1024, 30, (1, 20))
        self.rows = (1, 3) if dry else (1, 2, 3, 5)
        self.pairs, self.few = (2, 1) if dry else (20, 5)
        self.tune_steps = 2 if dry else 200
        self.compile = "eager" if dry else "max-autotune"


class Bench:
    def __init__(self, args):
        self.sizes = Sizes(args.dry_run)
        device, threads = ("cpu", 1) if args.dry_run else ("cuda:0", 8)
        # A CPU is slow in fp16: only the first passes of a dry run are.
        self.machine = Machine(device, "fp32" if args.dry_run else "fp16", None, threads, args.out, is_dry=args.dry_run)
        self.model = self.machine.random_model(self.sizes.model, "fp16")
        self.latent = self.sizes.side // 8
        self.recipe = ("--tf32",)

    @contextmanager
    def duel(self, peer, dtype=None, flags=(), ours=None):
        with self.machine.ours(self.model, ours) as ours, self.machine.peer(self.model, dtype, *flags) as theirs:
            yield Duel(self.machine, "SDXL", self.model, ours, theirs, peer)

    def offsets(self):
        return jobs.offsets(self.model, self.machine.folder / "offsets.safetensors")

    def guided(self, eta_2):
        how = {"offsets": self.offsets(), "eta_2": eta_2, "guided_steps": self.sizes.guided}
        return jobs.image_request(self.sizes.side, self.sizes.steps, **how)


def unet(bench):
    """Passes of 1, 2, 3 and 5 rows; the rate with 3 rows; the VAE."""
    target = lambda rows, value: value if rows in (2, 3) else None
    with bench.duel("diffusers, fp16 eager", "fp16", ours="fp16") as duel:
        rate = None
        for rows in bench.sizes.rows:
            row = duel.unet("forward", rows, bench.latent, target(rows, 0.80), pairs=bench.sizes.pairs, bar=HALF)
            rate = row if rows == 3 else rate
            yield row
        yield rate_row(rate)
        yield duel.unet("backward", bench.sizes.rows[-1], bench.latent, None, pairs=bench.sizes.few, bar=HALF_GRADIENT)
        yield duel.decode(bench.latent, None, pairs=bench.sizes.few, bar=HALF)
    with bench.duel("diffusers, fp16, compiled", flags=("--compile", bench.sizes.compile)) as duel:
        for rows in (3,) if bench.machine.is_dry else (2, 3):
            yield compile_row(bench, duel, rows)
            yield duel.unet("forward", rows, bench.latent, 1.00, pairs=bench.sizes.pairs, bar=HALF)
    with bench.duel(RECIPE, "fp32", bench.recipe) as duel:
        yield duel.unet("forward", 3, bench.latent, None, pairs=bench.sizes.few, bar=HALF)


def rate_row(measured):
    """Counted operations a second in the pass of 3 rows, beside the target of 350 TFLOP/s on an H200."""
    row = Row("SDXL: rate of the U-Net with 3 rows, forward", "350 TFLOP/s on an H200", "TFLOP/s", target=1.0, at_least=True)
    if measured is None or measured.tflops is None:
        return row.give_up("the pass with 3 rows has no figure")
    return row.fill_values([measured.tflops[0]], [350.0])


def compile_row(bench, duel, rows):
    """The first pass of a number of rows, which compiles; not part of the pass's own time."""
    row = Row(f"SDXL: first pass, {rows} rows: compiling", duel.peer)
    try:
        inputs = jobs.unet_inputs(bench.model, rows, bench.latent, duel.path("inputs.safetensors"))
        request = {"do": "forward", "inputs": inputs}
        ours, theirs = duel.ours.ask(request)[0], duel.theirs.ask(request)[0]
        row.fill_values([ours], [theirs])
    except Failed as error:
        row.give_up(str(error))
    return row


def image(bench):
    """Whole images against the recipe, and guidance against plain sampling."""
    s = bench.sizes
    with bench.duel(RECIPE, "fp32", bench.recipe) as duel:
        for eta_2 in (0.0, 1.0):
            title = f"image {s.side}×{s.side}, {s.steps} steps, eta_2 {eta_2:g} on {s.guided[0]}-{s.guided[1]}"
            yield duel.image(title, bench.guided(eta_2), 0.30, pairs=s.few, bar=HALF_STEPS)
        plain = jobs.image_request(s.side, s.steps)
        yield own_ratio(bench.machine, "SDXL: eta_2 = 0 over plain sampling", duel.ours, bench.guided(0.0), plain, 1.01, pairs=s.few)
        yield own_ratio(
            bench.machine, "SDXL: eta_2 = 1 over eta_2 = 0", duel.ours, bench.guided(1.0), bench.guided(0.0), 1.33, pairs=s.few
        )
    with bench.duel("diffusers, fp16 eager") as duel:
        title = f"image {s.side}×{s.side}, {s.steps} steps, plain"
        yield duel.image(title, jobs.image_request(s.side, s.steps), None, pairs=s.few, bar=HALF_STEPS)


def tune(bench):
    """A step against the authors'; a whole `oneactor tune` of 200 steps, from process start to end."""
    with bench.duel(RECIPE, "fp32", bench.recipe) as duel:
        yield duel.tuning(bench.sizes.side, 3, 0.25, pairs=bench.sizes.pairs // 2 or 2, bar=HALF_GRADIENT)
    steps = bench.sizes.tune_steps
    row = Row(f"SDXL: `oneactor tune`, {steps} steps, start to end", "60 s", target=1.0)
    try:
        base = bench.machine.base_set(bench.model, jobs.WORD, bench.sizes.side, images=5)
        seconds = bench.machine.run_once(bench.machine.tune_flags(bench.model, base, steps, 3))[0]
        row.fill_values([seconds], [60.0])
    except Failed as error:
        row.give_up(str(error))
    yield row


def memory(bench):
    """Each side alone in a new process; what it holds on the GPU after the work."""
    machine, side = bench.machine, bench.sizes.side
    where = "the GPU" if machine.on_gpu else "the host"
    image = [jobs.image_request(side, 2)]
    base = str(machine.base_set(bench.model, jobs.WORD, side, images=5))
    tuning = lambda rows: [
        {"do": "prepare_tune", "base": base, "num_auxiliary": 3} | ({"micro_batch": rows} if rows else {}), {"do": "tune", "repeat": 2}
    ]  # fmt: skip
    ours = lambda: machine.ours(bench.model)
    eager, recipe = lambda: machine.peer(bench.model), lambda: machine.peer(bench.model, "fp32", *bench.recipe)
    jobs_ = [
        ("sample", "diffusers, fp16 eager", 0.9, image, eager, image),
        ("tune, K = 3", RECIPE, 0.55, tuning(5), recipe, tuning(None)),
    ]
    for name, peer, target, own, theirs, request in jobs_:
        row = Row(f"SDXL: peak memory of {where}, {name}", peer, "GB", target=target)
        try:
            a, b = starts.peak_device_bytes(machine, ours, own), starts.peak_device_bytes(machine, theirs, request)
            row.fill_values([a / 1e9], [b / 1e9])
        except Failed as error:
            row.give_up(str(error))
        yield row
    row = Row(f"SDXL: peak memory of {where}, tune, one row at a time", "a card of 24 GB", "GB", target=1.0)
    try:
        row.fill_values([starts.peak_device_bytes(machine, ours, tuning(1)) / 1e9], [24 * 2**30 / 1e9])
    except Failed as error:
        row.give_up(str(error))
    yield row


def start(bench):
    row = Row("SDXL: process start to the end of step 1, warm cache", "diffusers, fp16 eager", target=0.25)
    try:
        samples = starts.first_step(bench.machine, bench.model, bench.sizes.side, bench.sizes.steps, bench.sizes.few)
        row.fill(samples, bench.machine)
    except Failed as error:
        row.give_up(str(error))
    yield row


def load(bench):
    machine = bench.machine
    loading, used = Row("SDXL, fp16 files: loading", "from_pretrained", target=0.5), Row("SDXL, fp16 files: loading, first use", "diffusers")
    peak = Row("SDXL, fp16 files: peak memory of the host while loading", "size of the files", "GB", target=1.1)
    try:
        *pairings, (own, _), files = starts.loads(machine, bench.model, machine.dtype, bench.sizes.few, bench.sizes.few)
        loading.fill(pairings[0], machine), used.fill(pairings[1], machine)
        peak.fill_values([p / 1e9 for p in own[0]], [files / 1e9] * bench.sizes.few)
    except Failed as error:
        for row in (loading, used, peak):
            row.give_up(str(error))
    yield from (loading, used, peak)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = {part.__name__: part for part in (unet, image, tune, memory, start, load)}
    parser.add_argument("--dry-run", action="store_true", help="on a CPU with a tiny model; no figures")
    parser.add_argument("--only", nargs="+", choices=list(known))
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    args.out = args.out or ROOT / "target" / ("bench-dry" if args.dry_run else "bench")
    bench = Bench(args)
    parts = [part for name, part in known.items() if name in (args.only or known)]
    rows = [row for part in parts for row in report.collect(part(bench), args.dry_run)]
    title = "Speed and memory on a GPU"
    if args.dry_run:
        title += ": a dry run on a CPU with a tiny model"
    print(report.write(args.out, "gpu", title, facts(bench.machine), rows))
    failed = [row for row in rows if row.state.startswith(("rejected: outputs", report.NOT_MEASURED))]
    if failed:
        sys.exit(f"{len(failed)} rows have no figure: see the table")


if __name__ == "__main__":
    main()
