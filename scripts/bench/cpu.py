"""Speed and memory on a CPU: the program compared with diffusers, f32, one pinned thread, and how cost grows with the
work.

Writes cpu.md and cpu.json into the folder, again after every row. The random weights that it makes stay there for the
next run. A row has no figure if the outputs differ or if the machine was busy: run nothing else meanwhile.

Requirements: scripts/parity/requirements.txt; cargo build --release --locked --bins --examples
Usage: cpu.py [--quick | --full] [--only PART …] [--core 1] [--out target/bench]
    parts: passes images start load tune eta host evaluate curves full
    --quick   fewer pairs, and one run for each point: about 20 minutes
    --full    also full-size SDXL: 21 GB of weights on disk, 24 GB of memory, takes hours
"""

import argparse
import sys
from pathlib import Path

import curves
import jobs
import measures
import report
import starts
from jobs import Drawing
from machine import ROOT, TOY, Machine, facts
from pairs import Failed, abba
from report import Report, Row
from rows import Duel, guided, guided_costs

F32 = 1e-5  # f32 through one network, summed in another order
F32_STEPS = 1e-4  # after 30 steps of guidance 7.5; each step enlarges the difference of the steps before
F32_GRADIENT = 1e-4  # gradients are small differences of large numbers
PEER = "diffusers"


def passes(bench, toy, mini):
    yield toy.unet("forward", 2, 16, 0.95, pairs=bench.pairs, repeat=20, bar=F32)
    yield toy.unet("backward", 2, 16, 0.95, pairs=bench.pairs, repeat=10, bar=F32)
    yield mini.unet("forward", 2, 32, 0.95, pairs=bench.pairs, bar=F32)
    yield mini.unet("backward", 2, 32, 0.95, pairs=bench.pairs, bar=F32)
    yield mini.decode(32, None, pairs=bench.pairs, bar=F32)


def images(bench, toy, mini):
    """The whole pipeline, plain and guided."""
    title, drawing = "text, 30 steps, VAE, PNG, 128×128", Drawing(128, 30, 20)
    yield toy.image(title, drawing.plain(), 0.80, pairs=bench.pairs, bar=F32_STEPS)
    for eta_2 in (0.0, 1.0):
        request = guided(bench.machine, toy.model, drawing, eta_2)
        yield toy.image(
            f"the same guided, eta_2 {eta_2:g} on steps 1-20", request, None, pairs=bench.pairs, bar=F32_STEPS
        )


def tune(bench, toy, mini):
    """The target of a quarter is for a GPU; on a CPU only the ratio is reported."""
    yield toy.tuning(128, 3, None, pairs=bench.pairs, repeat=2, bar=F32_GRADIENT)
    yield mini.tuning(256, 3, None, pairs=max(4, bench.pairs // 2), bar=F32_GRADIENT)


def eta(bench, toy, mini):
    for duel, side, pairs in ((toy, 128, bench.pairs), (mini, 256, max(4, bench.pairs // 2))):
        yield from guided_costs(bench.machine, duel.label, duel.model, duel.ours, Drawing(side, 30, 20), pairs=pairs)


def start(bench):
    for label, model in (("toy", TOY), ("mini SDXL", bench.machine.random_model("mini", "fp32"))):
        row = Row(f"{label}: process start to the end of step 1 of 30, warm cache, 128×128", PEER, target=0.25)
        try:
            row.fill(starts.first_step(bench.machine, model, 128, 30, max(4, bench.pairs // 2)), bench.machine)
        except Failed as error:
            row.give_up(error)
        yield row


def load(bench, size="mini", label="mini SDXL"):
    """fp16 files loaded in fp16. Both sides map the files; the second row also waits until every weight has been
    read."""
    what = f"{label}, fp16 files: "
    loading, used = (
        Row(f"{what}loading", "from_pretrained", target=0.5),
        Row(f"{what}loading, first use of all weights", PEER),
    )
    memory = Row(f"{what}peak memory of the host while loading", "size of the files", unit="GB", target=1.1)
    peers = Row(f"{what}peak memory of the host, first use too", PEER, unit="GB")
    try:
        model = bench.machine.random_model(size, "fp16")
        pairs = max(4, bench.pairs // 2)
        uses = pairs if size == "mini" else 3  # at full size each takes 20 s
        *pairings, (own, both), files = starts.loads(bench.machine, model, "fp16", pairs, uses)
        loading.fill(pairings[0], bench.machine), used.fill(pairings[1], bench.machine)
        memory.fill_values([peak / 1e9 for peak in own[0]], [files / 1e9] * pairs)
        memory.note = "about 0.35 GB of it for the program and libtorch"
        peers.fill_values(*([peak / 1e9 for peak in peaks] for peaks in both))
    except Failed as error:
        for row in (loading, used, memory, peers):
            row.give_up(error)
    yield from (loading, used, memory, peers)


def host(bench):
    """Passes through all of SDXL's layers with few channels, so that they are nearly nothing but the host's own work.
    If a GPU is busy for less time than this, it waits for the host."""
    model, machine = bench.machine.random_model("thin", "fp32"), bench.machine
    with machine.ours(model) as ours, machine.peer(model) as theirs:
        duel = Duel(machine, "SDXL's layers, 32 and 64 channels", model, ours, theirs, PEER)
        for what in ("forward", "backward"):
            yield duel.unet(what, 1, 8, None, pairs=bench.pairs, repeat=10, bar=F32)


def evaluate(bench):
    """Eight pictures, enough for the networks to take longer than loading them; two are enough for SAM's."""
    for encoder in measures.ENCODERS:
        yield from measures.rows(bench.machine, encoder, 2 if encoder == "sam" else 8, max(4, bench.pairs // 2))


def full(bench):
    """Full-size SDXL: the pass of a guided step at 512 px. The two sides run one after the other, because 24 GB do not
    hold both."""
    yield from load(bench, "full", "SDXL")
    model = bench.machine.random_model("full", "fp32")
    inputs = jobs.unet_inputs(model, 3, 64, bench.machine.folder / "inputs.safetensors")
    row = Row("SDXL: U-Net forward, 3×64×64", PEER, target=0.95, note="one side after the other")
    peak = Row("SDXL: peak memory of the host, that pass", PEER, unit="GB")
    samples, outputs, peaks = [], [], []
    try:
        for name, begin in (("ours", bench.machine.ours), ("theirs", bench.machine.peer)):
            outputs.append(str(bench.machine.folder / f"output-{name}.safetensors"))
            with begin(model, "fp32") as side:
                side.ask({"do": "forward", "inputs": inputs, "output": outputs[-1]})
                samples.append([side.ask({"do": "forward", "inputs": inputs}) for _ in range(5)])
                peaks.append(side.peak_host_bytes() / 1e9)
        if row.agree(jobs.difference(*outputs), F32):
            waiting = [iter(side) for side in samples]
            row.fill(abba(lambda: next(waiting[0]), lambda: next(waiting[1]), 5), bench.machine)
        peak.fill_values([peaks[0]], [peaks[1]])
    except Failed as error:
        row.give_up(error), peak.give_up(error)
    yield from (row, peak)
    with bench.machine.ours(model, "fp32") as process:  # with few pixels and steps the text takes a larger share
        yield from guided_costs(
            bench.machine, "SDXL, 256×256", model, process, Drawing(256, 12, 8), pairs=4, warm_ups=1
        )


class Bench:
    def __init__(self, args):
        self.machine = Machine("cpu", "fp32", args.core, 1, args.out)
        self.pairs = 8 if args.quick else 15
        self.repeats = 1 if args.quick else 3

    def measure(self, parts, found):
        """Both sides keep a model loaded over all parts that use it."""
        resident = [part for part in (passes, images, tune, eta) if part.__name__ in parts]
        if resident:
            mini = self.machine.random_model("mini", "fp32")
            machine = self.machine
            with machine.ours(TOY) as a, machine.peer(TOY) as b, machine.ours(mini) as c, machine.peer(mini) as d:
                duels = (Duel(machine, "toy", TOY, a, b, PEER), Duel(machine, "mini SDXL", mini, c, d, PEER))
                for part in resident:
                    found.collect(part(self, *duels))
        for part in (start, load, host, evaluate, full):
            if part.__name__ in parts:
                found.collect(part(self))
        if "curves" in parts:
            found.collect(self.curves())

    def curves(self):
        mini = self.machine.random_model("mini", "fp32")
        quick = self.repeats == 1
        yield from curves.of_model(
            self.machine,
            "toy",
            TOY,
            side=128,
            steps=10,
            step_axis=(10, 20, 40, 80),
            sides=(64, 96, 128, 192),
            side_steps=10,
            repeats=self.repeats + 1,
        )
        yield from curves.of_model(
            self.machine,
            "mini SDXL",
            mini,
            side=128,
            steps=4,
            step_axis=(4, 8, 16, 32),
            sides=(512, 768, 1024, 1536),
            side_steps=1,
            repeats=1 if quick else 2,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = ["passes", "images", "start", "load", "tune", "eta", "host", "evaluate", "curves", "full"]
    speed = parser.add_mutually_exclusive_group()
    speed.add_argument("--quick", action="store_true")
    speed.add_argument("--full", action="store_true")
    parser.add_argument("--only", nargs="+", choices=known, default=None)
    parser.add_argument("--core", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "target" / "bench")
    args = parser.parse_args()
    parts = args.only or [part for part in known if part != "full" or args.full]
    bench = Bench(args)
    found = Report(args.out, "cpu", "Speed and memory on a CPU", facts(bench.machine))
    bench.measure(parts, found)
    print(found.markdown())
    if any(row.state.startswith(report.DIFFERENT) for row in found.rows):
        sys.exit("outputs differ: see the table")


if __name__ == "__main__":
    main()
