"""Pairs of measurements: two resident processes, asked in turn, and the statistics that decide whether they count.

A side is a process that loads a model and then answers one line of JSON for each line that it is sent (`server.rs`,
`peer.py`). Only this module holds a clock: wall time from request to answer, and the process's own CPU time, read
in the same way for both sides. Requests go A B B A A B B A, so that a drift of the machine hits both. While one side
works the other waits for its next line.
"""

import json
import statistics
import subprocess
import time
from dataclasses import dataclass, field

SPREAD_LIMIT = 0.05  # a side's interquartile range over its median: beyond it the machine was not quiet
WALL_OVER_CPU_LIMIT = 1.1  # one thread that had its core for itself has a wall time close to its CPU time
WARM_UPS = 3


def process_cpu_seconds(pid):
    """CPU seconds of another process, all threads: the clock that Linux derives from its id (clock_getcpuclockid)."""
    return time.clock_gettime((~pid << 3) | 2)


def peak_host_bytes(pid):
    """Largest resident memory of a process so far, mapped files included."""
    with open(f"/proc/{pid}/status") as status:
        line = next(line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


class Failed(Exception):
    """A side could not do what it was asked."""


class Side:
    """One resident process. `started` and `ready` are wall and CPU seconds from its start to those lines."""

    def __init__(self, command, env):
        self.command = [str(part) for part in command]
        self.begin = time.perf_counter()
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )
        self.started = self._marker("started")
        self.ready = self._marker("ready")

    def _marker(self, word):
        line = self.process.stdout.readline().strip()
        if line != word:
            raise Failed(f"expected {word!r} and read {line!r} from: {' '.join(self.command)}")
        return time.perf_counter() - self.begin, process_cpu_seconds(self.process.pid)

    def loading(self):
        """Wall and CPU seconds between the two lines."""
        return tuple(b - a for a, b in zip(self.started, self.ready))

    def ask(self, request):
        """Wall and CPU seconds of one request."""
        pid = self.process.pid
        cpu, wall = process_cpu_seconds(pid), time.perf_counter()
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        wall = time.perf_counter() - wall
        if not line:
            raise Failed(f"ended during {request['do']}: {' '.join(self.command)}")
        cpu = process_cpu_seconds(pid) - cpu
        error = json.loads(line).get("error")
        if error:
            raise Failed(f"{request['do']}: {error}")
        return wall, cpu

    def peak_host_bytes(self):
        return peak_host_bytes(self.process.pid)

    def close(self):
        self.process.stdin.close()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


@dataclass
class Samples:
    """Wall and CPU seconds of one side."""

    wall: list = field(default_factory=list)
    cpu: list = field(default_factory=list)

    def add(self, sample):
        self.wall.append(sample[0])
        self.cpu.append(sample[1])

    def median(self):
        return statistics.median(self.wall)

    def spread(self):
        """Interquartile range over median. Not the full range: one interruption in twenty hardly moves a median."""
        if len(self.wall) < 4:
            return (max(self.wall) - min(self.wall)) / self.median()
        low, _, high = statistics.quantiles(self.wall, n=4, method="inclusive")
        return (high - low) / self.median()

    def wall_over_cpu(self):
        return sum(self.wall) / max(sum(self.cpu), 1e-9)


@dataclass
class Pairing:
    """Two sides' samples, pair by pair."""

    ours: Samples = field(default_factory=Samples)
    theirs: Samples = field(default_factory=Samples)

    def ratios(self):
        return sorted(a / b for a, b in zip(self.ours.wall, self.theirs.wall))

    def ratio(self):
        return statistics.median(self.ratios())

    def disturbance(self, on_gpu):
        """Why these samples do not count; None when they do. With a GPU the host waits: its CPU time says nothing."""
        for name, side in (("ours", self.ours), ("the peer's", self.theirs)):
            if side.spread() > SPREAD_LIMIT:
                return f"spread of {name} {100 * side.spread():.0f} % > {100 * SPREAD_LIMIT:.0f} %"
            if not on_gpu and side.wall_over_cpu() > WALL_OVER_CPU_LIMIT:
                return f"wall/CPU of {name} {side.wall_over_cpu():.2f} > {WALL_OVER_CPU_LIMIT}"
        return None


def abba(ours, theirs, pairs):
    """Samples of two functions that each take one, in the order A B B A; a pair's two lie side by side."""
    pairing = Pairing()
    for i in range(pairs):
        first, second = (ours, theirs) if i % 2 == 0 else (theirs, ours)
        a, b = first(), second()
        pairing.ours.add(a if i % 2 == 0 else b)
        pairing.theirs.add(b if i % 2 == 0 else a)
    return pairing


def pair_requests(side_a, request_a, side_b, request_b, pairs, warm_ups=WARM_UPS):
    """Warm-ups on both sides, then the pairs."""
    for _ in range(warm_ups):
        side_a.ask(request_a), side_b.ask(request_b)
    return abba(lambda: side_a.ask(request_a), lambda: side_b.ask(request_b), pairs)
