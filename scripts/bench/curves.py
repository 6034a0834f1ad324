"""How time and memory grow with the work: whole processes of the program, with one number changed at a time.

Each point is the fastest of several runs from start to end, with the peak memory of the process. A line is fitted to
the seconds; each curve says what growth is expected.
"""

import math
from contextlib import suppress
from dataclasses import dataclass, field

import counts
from machine import PROMPT
from pairs import WALL_OVER_CPU_LIMIT, Failed

WORDS = ("robot", "cat", "frog", "owl")
LINEAR = 0.05  # every point of a linear curve must lie within 5 % of the line
WRITING = 0.1  # seconds that a process may wait for the disk to take its pictures
# Growth of memory up to this counts as no growth: the peak of one and the same command varies by 2 %.
FLAT = 0.03


@dataclass
class Point:
    """`x` is the changed number; `seconds` and `peak_bytes` are those of the whole process; `disturbed` if the process
    had to wait."""

    x: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    disturbed: bool = False


@dataclass
class Curve:
    """`work` maps the x of a point to the work that its time should be proportional to; `flat` means that memory should
    not grow."""

    name: str
    axis: str
    expected: str
    is_flat: bool
    work: dict
    points: list = field(default_factory=list)
    failure: str = ""

    def fit(self):
        """Least squares of seconds over work: seconds without work, seconds for each unit of work, largest relative
        distance."""
        xs, ys = [self.work[p.x] for p in self.points], [p.seconds for p in self.points]
        mx, my = sum(xs) / len(xs), sum(ys) / len(ys)
        square = sum((x - mx) ** 2 for x in xs)
        slope = sum((x - mx) * (y - my) for x, y in zip(xs, ys)) / square if square else 0.0
        start = my - slope * mx
        return start, slope, max(abs(y - start - slope * x) / y for x, y in zip(xs, ys))

    def exponent(self, values):
        """The power of x with which `values` grow between the last two points."""
        a, b = self.points[-2:]
        return math.log(values(b) / values(a)) / math.log(b.x / a.x)

    def growth(self):
        """Largest peak divided by smallest peak."""
        peaks = [p.peak_bytes for p in self.points]
        return max(peaks) / min(peaks)

    def is_disturbed(self):
        return any(p.disturbed for p in self.points)

    def found(self):
        if self.failure:
            return f"not measured: {self.failure}"
        time = (
            "time rejected, the machine was disturbed (wall time over CPU time)"
            if self.is_disturbed()
            else self.found_of_time()
        )
        growth = self.growth()
        if self.is_flat:
            return f"{time}; memory {'flat' if growth <= 1 + FLAT else 'NOT flat'}, largest over smallest {growth:.3f}"
        return f"{time}; memory {growth:.2f} times as much at most"

    def found_of_time(self):
        times = [p.seconds for p in self.points]
        if len(set(self.work.values())) == 1:
            return f"time between {min(times):.2f} and {max(times):.2f} s"
        start, slope, distance = self.fit()
        fits = "on" if distance <= LINEAR else "not on"
        text = f"time {fits} a line over the expected work: {start:.2f} s and {slope:.3g} s a unit, "
        text += f"all points within {100 * distance:.1f} %"
        if self.axis == "pixels a side":
            grown = self.exponent(lambda p: max(p.seconds - start, 1e-9))
            expected = self.exponent(lambda p: self.work[p.x])
            text += f"; at the end it grows with the side to the power {grown:.2f}, operations with {expected:.2f}"
        return text

    def markdown(self):
        text = f"### {self.name}: {self.axis}\n\nExpected: {self.expected}. Found: {self.found()}.\n"
        if self.failure:
            return text
        cells = lambda items: "| " + " | ".join(items) + " |\n"
        text += (
            "\n" + cells([self.axis, *(str(p.x) for p in self.points)]) + "|" + " --- |" * (len(self.points) + 1) + "\n"
        )
        if not self.is_disturbed():
            text += cells(["seconds", *(f"{p.seconds:.2f}" for p in self.points)])
        return text + cells(["peak, GB", *(f"{p.peak_bytes / 1e9:.2f}" for p in self.points)])


def grow(machine, curve, xs, command, repeats):
    """Measures the points of a curve; `command` returns the program's arguments for an x."""
    try:
        for x in xs:
            seconds, cpu, peak = min(machine.run_once(command(x)) for _ in range(repeats))
            waited = not machine.on_gpu and seconds > WALL_OVER_CPU_LIMIT * cpu + WRITING
            curve.points.append(Point(x, seconds, cpu, peak, waited))
    except Failed as error:
        curve.failure = str(error)
    return curve


def of_model(machine, label, model, *, side, steps, step_axis, sides, side_steps, repeats):
    """All curves of one model: at `side` pixels and `steps` steps, and for the given lists of steps and sizes."""
    out = machine.folder / "curve"
    few = (1, 2, 4, 8)
    flags = lambda prompts=(PROMPT,), actors=(), **how: machine.sample_flags(
        model, actors, prompts, out, **{"side": side, "steps": steps} | how
    )
    same = lambda xs: {x: x for x in xs}
    with suppress(Failed):  # the points will report the error
        machine.run_once(flags())  # fills the page cache

    def curve(axis, expected, is_flat, work, command, **how):
        return grow(machine, Curve(label, axis, expected, is_flat, work, **how), list(work), command, repeats)

    yield curve("images", "time linear, memory flat", True, same(few), lambda n: flags(images=n))
    scenes = lambda n: [f"{PROMPT}, picture {i}" for i in range(n)]
    yield curve("prompts", "time linear, memory flat", True, same(few), lambda n: flags(scenes(n)))
    yield curve("steps", "time linear, memory flat", True, same(step_axis), lambda n: flags(steps=n))
    yield subjects(machine, label, model, side, flags, repeats)
    pixels = (
        "time as the counted operations, TFLOP, between the second power of the side (convolutions, linear layers) "
        "and the fourth (self-attention); memory with the pixels"
    )
    work = {
        n: (2 * side_steps * counts.unet(str(model), n // 8) + counts.decode(str(model), n // 8)) / 1e12 for n in sides
    }
    yield curve("pixels a side", pixels, False, work, lambda n: flags(side=n, steps=side_steps))
    batch = "8 images in parts of this many: time flat on one thread, memory linear"
    yield curve("images at once", batch, False, dict.fromkeys(few, 8), lambda n: flags(images=8, batch=n))


def subjects(machine, label, model, side, flags, repeats):
    """Actors that were tuned separately, drawn together in one picture."""
    expected = "three U-Net rows however many there are: time nearly flat, with masks from two on; memory flat"
    curve = Curve(label, "subjects", expected, False, dict.fromkeys(range(1, 5), 3))
    try:
        actors = [machine.actor(model, word, side) for word in WORDS]
    except Failed as error:
        curve.failure = str(error)
        return curve
    scene = lambda n: ["a picture of " + " and ".join(f"a {word}" for word in WORDS[:n])]
    return grow(machine, curve, list(curve.work), lambda n: flags(scene(n), actors[:n]), repeats)
