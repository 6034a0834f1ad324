"""The tables: rows with their target and verdict, in Markdown for readers and in JSON for programs.

A row has no figure if it was not measured, if the outputs differ, or if the machine was disturbed; the row says which.
The JSON keeps the samples of such a row.
"""

import json
import os
import statistics
import sys
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

from pairs import SPREAD_LIMIT, Failed, Pairing, Samples

NOT_MEASURED = "not measured"
REJECTED = "rejected"
DIFFERENT = f"{REJECTED}: outputs"
REASON = 300  # most characters of a reason


@dataclass
class Row:
    """One row: `ours` and `theirs` are [median, least, largest] in `unit`; `samples` are the measurements behind
    them."""

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
    samples: dict | None = None

    def fill(self, pairing: Pairing, machine, repeat=1, flop=None, spread=SPREAD_LIMIT):
        """Takes the samples, each of `repeat` pieces of work, unless the outputs differ or the machine was disturbed.
        `flop` is the number of operations of one piece."""
        self.pairs = len(pairing.ours.wall)
        self.keep(pairing, repeat)
        if self.state.startswith(REJECTED):
            return self
        reason = None if machine.is_dry else pairing.disturbance(machine.on_gpu, spread)
        if reason:
            self.state = f"{REJECTED}: {reason}"
            return self
        self.ours, self.theirs = ([v / repeat for v in summary(side.wall)] for side in (pairing.ours, pairing.theirs))
        self.ratio = summary(pairing.ratios())
        if flop:
            self.tflops = [flop / side[0] / 1e12 for side in (self.ours, self.theirs)]
        return self.judge()

    def keep(self, pairing, repeat):
        """Keeps the samples of a row that was given up, for the JSON."""
        self.samples = asdict(pairing) | {"repeat": repeat}
        return self

    def fill_alone(self, samples: Samples, repeat=1, flop=None):
        """Keeps our own times if the peer has none to compare them with; the row stays given up."""
        self.samples = {"ours": asdict(samples), "repeat": repeat}
        self.ours = [v / repeat for v in summary(samples.wall)]
        if flop:
            self.tflops = [flop / self.ours[0] / 1e12]
        return self

    def judge(self):
        """Sets met or missed; without a target there is only the figure."""
        if self.target is None:
            self.state = "measured"
        else:
            is_met = self.ratio[0] >= self.target if self.at_least else self.ratio[0] <= self.target
            self.state = "met" if is_met else "missed"
        return self

    def fill_values(self, ours, theirs):
        """Takes single values, such as bytes."""
        self.samples = {"ours": ours, "theirs": theirs}
        self.ours, self.theirs = summary(ours), summary(theirs)
        self.ratio = summary([a / b for a, b in zip(ours, theirs)])
        self.pairs = len(ours)
        return self.judge()

    def agree(self, difference, bar):
        """Whether the outputs agree closely enough for times to be compared."""
        self.difference, self.bar = difference, bar
        if not difference <= bar:
            self.state = f"{DIFFERENT} differ by {difference:.1e}, at most {bar:.0e} expected"
        return difference <= bar

    def give_up(self, reason):
        """Gives up the row. Messages of libtorch have many lines, the table has one. A row that was rejected before
        stays rejected."""
        if self.state.startswith(REJECTED):
            return self
        self.state = f"{NOT_MEASURED}: {' '.join(str(reason).split())[:REASON].replace('|', '/')}"
        return self

    def without_figures(self):
        """A dry run shows that everything runs; its figures mean nothing and are left out."""
        state = self.state if self.ratio is None else "dry run: ran"
        return replace(self, ours=None, theirs=None, ratio=None, tflops=None, samples=None, state=state)

    def markdown(self):
        target = "" if self.target is None else f"{'≥' if self.at_least else '≤'} {self.target:g}"
        difference = "" if self.difference is None else f"{self.difference:.1e}"
        tflops = "" if self.tflops is None else " / ".join(number(v) for v in self.tflops)
        work = self.work if self.unit == "s" else f"{self.work}, {self.unit}"
        figures = [cell(self.ours), cell(self.theirs), cell(self.ratio)]
        return line([work, self.peer, *figures, target, self.state, difference, tflops, self.note])


HEAD = ["work", "peer", "oneactor, s", "peer, s", "ratio", "target", "verdict", "difference", "TFLOP/s", "note"]


class Report:
    """NAME.md and NAME.json in a folder. After every row both are written again with everything so far, so that an
    interrupted run keeps its measurements. The files of the run before are kept as NAME-before.md and .json. Besides
    rows, a report takes other tables: any dataclass with `markdown()`."""

    def __init__(self, folder, name, title, facts, is_dry=False):
        self.folder, self.name, self.title, self.facts, self.is_dry = folder, name, title, facts, is_dry
        self.rows, self.tables = [], []
        folder.mkdir(parents=True, exist_ok=True)
        for suffix in (".md", ".json"):
            with suppress(FileNotFoundError):
                os.replace(folder / f"{name}{suffix}", folder / f"{name}-before{suffix}")
        self.write()

    def collect(self, found):
        """Takes rows and tables as they are measured. An error ends this part, with a row that reports it; other parts
        continue."""
        try:
            for one in found:
                self.add(one)
        except Exception as error:
            if not isinstance(error, Failed):
                traceback.print_exc()
            reason = error if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
            self.add(Row("what follows the row above in this part", "").give_up(reason))

    def add(self, one):
        one = one.without_figures() if self.is_dry else one
        print(one.markdown(), file=sys.stderr, flush=True)
        (self.rows if isinstance(one, Row) else self.tables).append(one)
        self.write()

    def markdown(self):
        known = "; ".join(f"{key.replace('_', ' ')} {value}" for key, value in self.facts.items() if value is not None)
        rows = "\n".join([line(HEAD), "|" + " --- |" * len(HEAD), *(row.markdown() for row in self.rows)])
        tables = "".join(f"\n{table.markdown()}\n" for table in self.tables)
        return (
            f"# {self.title}\n\n{known}\n\nMedian (least-largest); a ratio is ours over the peer's.\n\n{rows}\n{tables}"
        )

    def write(self):
        rows, tables = ([asdict(one) for one in some] for some in (self.rows, self.tables))
        content = {"facts": self.facts, "rows": rows, "tables": tables}
        for suffix, text in ((".md", self.markdown()), (".json", json.dumps(content, indent=1, allow_nan=True))):
            part = self.folder / f"{self.name}{suffix}.part"
            part.write_text(text)
            os.replace(part, self.folder / f"{self.name}{suffix}")


def summary(values):
    return [statistics.median(values), min(values), max(values)]


def number(value):
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def cell(values):
    """Median and range."""
    return "" if values is None else f"{number(values[0])} ({number(values[1])}-{number(values[2])})"


def line(cells):
    return "| " + " | ".join(cells) + " |"
