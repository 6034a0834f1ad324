"""The tables: rows with their target and verdict, as Markdown to read and JSON to go on with.

A row that was not measured, whose outputs differ, or that a disturbed machine spoilt says so and has no figure.
"""

import json
import statistics
import sys
from dataclasses import asdict, dataclass, replace

from pairs import Failed, Pairing

NOT_MEASURED = "not measured"


@dataclass
class Row:
    """One line: `ours` and `theirs` are [median, least, largest] in `unit`."""

    work: str
    peer: str
    unit: str = "s"
    target: float | None = None
    at_least: bool = False
    pairs: int = 0
    ours: list | None = None
    theirs: list | None = None
    ratio: list | None = None
    difference: float | None = None
    bar: float | None = None
    tflops: list | None = None
    note: str = ""
    state: str = NOT_MEASURED

    def fill(self, pairing: Pairing, machine, scale=1.0, flop=None):
        """Takes the samples, unless the machine was disturbed. `scale` makes one sample one piece of work, `flop` is
        the operations of one piece."""
        self.pairs = len(pairing.ours.wall)
        reason = None if machine.is_dry else pairing.disturbance(machine.on_gpu)
        if reason:
            self.state = f"rejected: {reason}"
            return self
        self.ours, self.theirs = ([scale * v for v in summary(side.wall)] for side in (pairing.ours, pairing.theirs))
        self.ratio = summary(pairing.ratios())
        if flop:
            self.tflops = [flop / side[0] / 1e12 for side in (self.ours, self.theirs)]
        return self.judge()

    def judge(self):
        """Met or missed; without a target the figure stands for itself."""
        if self.target is None:
            self.state = "measured"
        else:
            is_met = self.ratio[0] >= self.target if self.at_least else self.ratio[0] <= self.target
            self.state = "met" if is_met else "missed"
        return self

    def fill_values(self, ours, theirs):
        """Single values, such as bytes."""
        self.ours, self.theirs = summary(ours), summary(theirs)
        self.ratio = summary([a / b for a, b in zip(ours, theirs)])
        self.pairs = len(ours)
        return self.judge()

    def agree(self, difference, bar):
        """Whether the outputs are alike enough for times to be compared."""
        self.difference, self.bar = difference, bar
        if not difference <= bar:
            self.state = f"rejected: outputs differ by {difference:.1e}, at most {bar:.0e} expected"
        return difference <= bar

    def give_up(self, reason):
        self.state = f"{NOT_MEASURED}: {reason}"
        return self


def without_figures(row):
    """A dry run shows that everything runs; its figures mean nothing and are left out."""
    if row.ratio is None:
        return row
    return replace(row, ours=None, theirs=None, ratio=None, tflops=None, state="dry run: ran")


def collect(rows, is_dry=False):
    """All rows, each told as it comes. A side that does not even start ends them, with a row that says so."""
    found = []
    try:
        for row in rows:
            found.append(without_figures(row) if is_dry else row)
            print(line(found[-1]), file=sys.stderr, flush=True)
    except Failed as error:
        found.append(Row("everything after the row above", "").give_up(str(error)))
    return found


def summary(values):
    return [statistics.median(values), min(values), max(values)]


def number(value):
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def cell(values):
    """Median and range."""
    return "" if values is None else f"{number(values[0])} ({number(values[1])}-{number(values[2])})"


def line(row):
    target = "" if row.target is None else f"{'≥' if row.at_least else '≤'} {row.target:g}"
    difference = "" if row.difference is None else f"{row.difference:.1e}"
    tflops = "" if row.tflops is None else " / ".join(number(v) for v in row.tflops)
    work = row.work if row.unit == "s" else f"{row.work}, {row.unit}"
    cells = [work, row.peer, cell(row.ours), cell(row.theirs), cell(row.ratio), target, row.state, difference, tflops, row.note]
    return "| " + " | ".join(cells) + " |"


HEAD = ["work", "peer", "oneactor, s", "peer, s", "ratio", "target", "verdict", "difference", "TFLOP/s", "note"]


def table(rows):
    return "\n".join(["| " + " | ".join(HEAD) + " |", "|" + " --- |" * len(HEAD), *map(line, rows)])


def write(folder, name, title, facts, rows, curves=()):
    """NAME.md and NAME.json in the folder; returns the Markdown."""
    known = "; ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items() if value is not None)
    text = f"# {title}\n\n{known}\n\nMedian (least-largest); a ratio is ours over the peer's.\n\n{table(rows)}\n"
    for curve in curves:
        text += f"\n{curve.markdown()}\n"
    (folder / f"{name}.md").write_text(text)
    content = {"facts": facts, "rows": [asdict(row) for row in rows], "curves": [asdict(curve) for curve in curves]}
    (folder / f"{name}.json").write_text(json.dumps(content, indent=1, allow_nan=True))
    return text
