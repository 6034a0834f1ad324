"""Speed and memory on one GPU: the program compared with diffusers and with the method as its authors run it.

Needs no network: random weights with SDXL's sizes are made once. Each peer is a process of its own, which waits while
ours works. The most informative parts come first, and gpu.md and gpu.json are written again after every row, so that an
interrupted run keeps its measurements. After the seconds of the budget, the remaining rows are given up. `--dry-run`
does everything on a CPU with a tiny model, to show that it works, and writes no figures.

The peers: diffusers in fp16 with PyTorch's fused attention; the same in channels_last; that compiled by torch.compile
(max-autotune), with its compile time measured separately; and the paper's recipe as its authors ship it, in f32 with
TF32.

Requirements: scripts/bench/requirements.txt (gpu.sh installs what is missing from a folder of wheels);
cargo build --release --locked --bins --examples
Usage: gpu.py [--dry-run] [--only PART …] [--budget SECONDS] [--out target/bench] [--weights FOLDER]
    parts: unet recipe tune memory start load compile
"""

import argparse
import sys
from contextlib import contextmanager
from pathlib import Path

import jobs
import report
import starts
from jobs import Drawing
from kernels import Profile
from machine import ROOT, Machine, facts
from pairs import NO_END, Budget, Failed
from report import Report, Row, summary
from rows import Duel, guided, guided_costs

# Largest allowed relative differences of outputs. On a CPU, with the narrow SDXL and the same weights, ours in fp16
# differs from diffusers in f32: a pass by 3.0e-3 to 4.6e-3 (full size 1.7e-3); its gradient at the prompt by 4.2e-3 to
# 1.6e-2 (the larger for 16×16 latents, the smaller for 32×32); a tuning step's gradient by 2.1e-3 and its errors by
# 3.9e-5; pictures of 4 and 10 steps by 3.4e-3 to 4.0e-3. TF32 keeps as many bits, and the errors of both sides may add
# up. So the bars are about twice the largest difference, and more for 30 steps, which were not measured. An error in
# the method would be of the order of 1.
# for 30 steps, which were not tried. An error in the method would be of the order of 1.
HALF, HALF_STEPS, HALF_GRADIENT = 1e-2, 5e-2, 3e-2
RECIPE, RECIPE_FLAGS = "the authors' recipe, f32 with TF32", ("fp32", "--tf32")
EAGER = "diffusers, fp16 eager"
WHOLE_PROCESS_SPREAD = 0.15  # starting CUDA and reading files take varying time; the ratio is far from 1
ANSWER_SECONDS = 100  # much longer than any piece of work except a compilation
COMPILE_SECONDS = 480
SMALL = 16  # side of latents that are little work for the GPU


class Sizes:
    """The sizes of a run: SDXL's own, or with --dry-run the smallest that pass through every row. `pairs` is the number
    of pairs for a short piece of work, of which `repeat` make a sample; `few` the number for a long one; `images` and
    `starts` the numbers for work that takes seconds."""

    def __init__(self, dry):
        self.model, self.drawing = ("tiny", Drawing(128, 3, 2)) if dry else ("full", Drawing(1024, 30, 20))
        self.pairs, self.few, self.images, self.starts = (2, 1, 1, 1) if dry else (20, 5, 3, 2)
        self.repeat = 2 if dry else 5
        self.tune_steps = 2 if dry else 200
        self.compile = "eager" if dry else "max-autotune"
        self.latent = self.drawing.side // 8


class Bench:
    def __init__(self, args):
        self.sizes = Sizes(args.dry_run)
        device, threads = ("cpu", 1) if args.dry_run else ("cuda:0", 8)
        self.machine = Machine(device, "fp16", None, threads, args.weights or args.out, is_dry=args.dry_run)
        self.machine.budget = Budget(args.budget, ANSWER_SECONDS)

    @property
    def model(self):
        return self.machine.random_model(self.sizes.model, "fp16")

    @contextmanager
    def duel(self, peer, dtype=None, *flags):
        with self.machine.ours(self.model) as ours, self.machine.peer(self.model, dtype, *flags) as theirs:
            yield Duel(self.machine, "SDXL", self.model, ours, theirs, peer)


def unet(bench):
    """Passes compared with diffusers in fp16: first those of a guided step and of a plain step, then where their time
    goes."""
    s = bench.sizes
    short = {"pairs": s.pairs, "repeat": s.repeat, "bar": HALF}
    with bench.duel(EAGER) as duel:
        of_guided_step = duel.unet("forward", 3, s.latent, 0.80, **short)
        yield of_guided_step
        yield rate_row(of_guided_step)
        yield duel.unet("forward", 2, s.latent, 0.80, **short)
        yield profile(duel, s.latent)
        yield host_row(duel, s)
        small = duel.unet("forward", 1, SMALL, None, **short)
        small.note = "mostly the host's own work"
        yield small
        yield duel.decode(s.latent, None, pairs=s.few, bar=HALF)
        for rows in (1, 5):
            yield duel.unet("forward", rows, s.latent, None, **short)
        yield duel.unet("backward", 5, s.latent, None, pairs=s.few, bar=HALF_GRADIENT)
        title = f"image {s.drawing.side}×{s.drawing.side}, {s.drawing.steps} steps, plain"
        yield duel.image(title, s.drawing.plain(), None, pairs=s.images, warm_ups=1, bar=HALF_STEPS)
    with bench.duel(f"{EAGER}, channels_last", None, "--channels-last") as duel:
        yield duel.unet("forward", 3, s.latent, None, **short)


def rate_row(measured):
    """Counted operations a second in the pass of 3 rows, compared with the target of 350 TFLOP/s on an H200."""
    row = Row(
        "SDXL: rate of the U-Net with 3 rows, forward", "350 TFLOP/s on an H200", "TFLOP/s", target=1.0, at_least=True
    )
    if measured.tflops is None:
        return row.give_up("the pass with 3 rows has no figure")
    return row.fill_values([measured.tflops[0]], [350.0])


def profile(duel, latent_side):
    """The kernels of the peer's pass: the layers and kernels are the same on both sides."""
    work = f"Where a pass of diffusers goes: fp16 eager, 3×{latent_side}×{latent_side}"
    try:
        duel.theirs.ask({"do": "profile", "inputs": duel.inputs(3, latent_side)})
    except Failed as error:
        return Row(work, duel.peer).give_up(error)
    return Profile(work, **duel.theirs.answer)


def host_row(duel, sizes):
    """Whether the host stays ahead of the GPU: the time to queue a pass, compared with the time of the pass. A full
    queue holds the host back, so the host may be faster than this figure; a pass of few pixels has a row of its own."""
    side = sizes.latent
    row = Row(f"SDXL: U-Net forward, 3×{side}×{side}, until the host has queued it", "the whole pass")
    request = {"do": "forward", "inputs": duel.inputs(3, side)}
    try:
        duel.ours.ask(request)
        queued, whole = [], []
        for _ in range(sizes.pairs):
            whole.append(duel.ours.ask(request)[0])
            queued.append(duel.ours.answer["host_seconds"])
        row.fill_values(queued, whole)
    except Failed as error:
        row.give_up(error)
    return row


def recipe(bench):
    """Tuning and guided images, compared with the authors' way; guidance compared with plain sampling."""
    s, drawing = bench.sizes, bench.sizes.drawing
    with bench.duel(RECIPE, *RECIPE_FLAGS) as duel:
        yield duel.tuning(drawing.side, 3, 0.25, pairs=s.few, warm_ups=1, bar=HALF_GRADIENT)
        for eta_2 in (0.0, 1.0):
            title = f"image {drawing.side}×{drawing.side}, {drawing.steps} steps, eta_2 {eta_2:g} on 1-{drawing.guided}"
            request = guided(bench.machine, duel.model, drawing, eta_2)
            yield duel.image(title, request, 0.30, pairs=s.images, warm_ups=1, bar=HALF_STEPS)
        yield from guided_costs(bench.machine, duel.label, duel.model, duel.ours, drawing, pairs=s.few, warm_ups=1)
        yield duel.unet("forward", 3, s.latent, None, pairs=s.few, bar=HALF)


def tune(bench):
    """A whole `oneactor tune`, from process start to end."""
    steps = bench.sizes.tune_steps
    row = Row(f"SDXL: `oneactor tune`, {steps} steps, start to end", "60 s", target=1.0)
    try:
        base = bench.machine.base_set(bench.model, jobs.WORD, bench.sizes.drawing.side, images=5)
        seconds = bench.machine.run_once(bench.machine.tune_flags(bench.model, base, steps, 3))[0]
        row.fill_values([seconds], [60.0])
    except Failed as error:
        row.give_up(error)
    yield row


def memory(bench):
    """Each side alone in a new process: the memory it holds on the GPU after the work. Ours frees networks as the
    program does."""
    machine, side = bench.machine, bench.sizes.drawing.side
    where = "the GPU" if machine.on_gpu else "the host"
    ours, theirs = lambda: machine.ours(bench.model), lambda *flags: lambda: machine.peer(bench.model, *flags)
    image, release = Drawing(side, 2).plain(), {"release": True}

    def tuning(micro_batch):
        base = machine.base_set(bench.model, jobs.WORD, side, images=5)
        prepare = {"do": "prepare_tune", "base": str(base), "num_auxiliary": 3, "micro_batch": micro_batch}
        return [prepare | release, {"do": "tune", "repeat": 2}]

    def row(name, peer, target, own, other):
        row = Row(f"SDXL: peak memory of {where}, {name}", peer, "GB", target=target)
        try:
            row.ours = summary([starts.peak_device_bytes(machine, ours, own()) / 1e9])
            row.fill_values(row.ours[:1], [other() / 1e9])
        except Failed as error:
            row.give_up(error)
        return row

    sample = lambda: starts.peak_device_bytes(machine, theirs(), [image])
    step = lambda: starts.peak_device_bytes(machine, theirs(*RECIPE_FLAGS), tuning(5))
    yield row("sample", EAGER, 0.9, lambda: [image | release], sample)
    yield row("tune, K = 3", RECIPE, 0.55, lambda: tuning(5), step)
    yield row("tune, one row at a time", "a card of 24 GB", 1.0, lambda: tuning(1), lambda: 24 * 2**30)


def start(bench):
    row = Row("SDXL: process start until step 1 is done, warm cache", EAGER, target=0.25)
    try:
        side, steps = bench.sizes.drawing.side, bench.sizes.drawing.steps
        samples = starts.first_step(bench.machine, bench.model, side, steps, bench.sizes.starts)
        row.fill(samples, bench.machine, spread=WHOLE_PROCESS_SPREAD)
    except Failed as error:
        row.give_up(error)
    yield row


def load(bench):
    """On a GPU all weights are there when loading ends, so no row waits for their first use."""
    machine, pairs = bench.machine, bench.sizes.starts
    loading = Row("SDXL, fp16 files: loading", "from_pretrained", target=0.5)
    peak = Row("SDXL, fp16 files: peak memory of the host while loading", "size of the files", "GB", target=1.1)
    try:
        pairing, _, (own, _), files = starts.loads(machine, bench.model, machine.dtype, pairs, uses=0)
        loading.fill(pairing, machine, spread=WHOLE_PROCESS_SPREAD)
        peak.fill_values([p / 1e9 for p in own[0]], [files / 1e9] * pairs)
    except Failed as error:
        loading.give_up(error), peak.give_up(error)
    yield from (loading, peak)


def compiled(bench):
    """Passes compared with compiled diffusers. The first pass with a new number of rows compiles it, and does not count
    as time of a pass."""
    s = bench.sizes
    with bench.duel("diffusers, fp16, compiled", None, "--compile", s.compile) as duel:
        for rows in (3, 2):
            first = Row(f"SDXL: first pass, {rows} rows: compiling", duel.peer)
            try:
                request = {"do": "forward", "inputs": duel.inputs(rows, s.latent)}
                first.fill_values([duel.ours.ask(request)[0]], [duel.theirs.ask(request, COMPILE_SECONDS)[0]])
            except Failed as error:
                first.give_up(error)
            yield first
            yield duel.unet("forward", rows, s.latent, 1.00, pairs=s.pairs, repeat=s.repeat, bar=HALF)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = {part.__name__: part for part in (unet, recipe, tune, memory, start, load)} | {"compile": compiled}
    parser.add_argument("--dry-run", action="store_true", help="on a CPU with a tiny model; no figures")
    parser.add_argument("--only", nargs="+", choices=list(known))
    parser.add_argument(
        "--budget", type=float, default=NO_END, metavar="SECONDS", help="time limit; the remaining rows are given up"
    )
    parser.add_argument("--out", type=Path, default=None, help="folder of gpu.md and gpu.json")
    parser.add_argument(
        "--weights",
        type=Path,
        default=None,
        help="folder for weights and other generated files, by default that of --out",
    )
    args = parser.parse_args()
    args.out = args.out or ROOT / "target" / ("bench-dry" if args.dry_run else "bench")
    bench = Bench(args)
    title = "Speed and memory on a GPU"
    if args.dry_run:
        title += ": a dry run on a CPU with a tiny model"
    found = Report(args.out, "gpu", title, facts(bench.machine), args.dry_run)
    for name, part in known.items():
        if name in (args.only or known):
            found.collect(part(bench))
    print(found.markdown())
    failed = [row for row in found.rows if row.state.startswith((report.DIFFERENT, report.NOT_MEASURED))]
    if failed:
        sys.exit(f"{len(failed)} rows have no figure: see the table")


if __name__ == "__main__":
    main()
