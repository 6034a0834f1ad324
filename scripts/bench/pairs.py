"""Pairs of measurements: two resident processes work in turn, and statistics decide whether the pairs count.

A side is a process that loads a model, and then answers each line of JSON with a line (`server.rs`, `peer.py`). This
module measures the time: wall time from request to answer, and the process's own CPU time, read in the same way for
both sides. Requests are in the order A B B A A B B A, so that a drift of the machine affects both sides. While one side
works, the other waits for its next line. A side that dies, or that is ended because it does not answer in time, fails
at every further request; other sides continue.
"""

import json
import os
import select
import statistics
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field

SPREAD_LIMIT = 0.05  # interquartile range over median of a side: above this the machine was not quiet
WALL_OVER_CPU_LIMIT = 1.1  # a thread that has its core alone has a wall time close to its CPU time
WARM_UPS = 3
ANSWER_SECONDS = 600  # a side that needs longer for one piece of work hangs
ENDING_SECONDS = 30
NO_END = 1e6
OUT_OF_TIME = "out of time"


def process_cpu_seconds(pid):
    """CPU seconds of all threads of another process, from the clock that Linux derives from its id
    (clock_getcpuclockid). NaN if the system does not provide it."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return float("nan")


class Failed(Exception):
    """A side could not do what was requested; `pairing` has the pairs measured before, if any."""

    pairing = None


class Budget:
    """Seconds from now for all measurements, and for one answer of a side."""

    def __init__(self, seconds=NO_END, answer=ANSWER_SECONDS):
        self.end, self.answer = time.monotonic() + seconds, answer

    def left(self):
        """Seconds until the end; raises when none are left."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise Failed(OUT_OF_TIME)
        return left


class Side:
    """One resident process. `started` and `ready` are the wall and CPU seconds from its start to these lines, `answer`
    is its answer to the last request, and `failure` says why it answers no more."""

    def __init__(self, command, env, budget):
        self.command, self.budget = [str(part) for part in command], budget
        self.process, self.unread, self.answer, self.failure = None, b"", {}, ""
        self.begin = time.perf_counter()
        try:
            budget.left()
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
            self.started = self._marker("started")
            self.ready = self._marker("ready")
        except (Failed, OSError) as error:
            self.failure = str(error)

    def _marker(self, word):
        line = (
            self._line(f"{word!r} from {' '.join(self.command)}", self.budget.answer).decode(errors="replace").strip()
        )
        if line != word:
            self._die(f"expected {word!r} and read {line!r} from: {' '.join(self.command)}")
        return time.perf_counter() - self.begin, process_cpu_seconds(self.process.pid)

    def _line(self, what, seconds):
        """The next line of the side, within so many seconds and the budget."""
        begin, stdout = time.monotonic(), self.process.stdout.fileno()
        while b"\n" not in self.unread:
            try:
                wait = min(begin + seconds - time.monotonic(), self.budget.left())
            except Failed as error:
                self._die(str(error))
            if wait <= 0:
                self._die(f"no answer within {seconds:g} s: {what}")
            if select.select([stdout], [], [], wait)[0]:
                part = os.read(stdout, 1 << 16)
                if not part:
                    self._die(f"ended: {what}")
                self.unread += part
        line, _, self.unread = self.unread.partition(b"\n")
        return line

    def _die(self, reason):
        """Ends the process for good."""
        self.failure = reason
        self.process.kill()
        raise Failed(reason)

    def _require_life(self):
        if self.failure:
            raise Failed(self.failure)

    def loading(self):
        """Wall and CPU seconds between the two lines."""
        self._require_life()
        return tuple(b - a for a, b in zip(self.started, self.ready))

    def ask(self, request, seconds=None):
        """Wall and CPU seconds of one request; `seconds` allows more time for a long one."""
        self._require_life()
        pid, what = self.process.pid, f"{request['do']} by {' '.join(self.command)}"
        sent = json.dumps(request).encode() + b"\n"
        cpu, wall = process_cpu_seconds(pid), time.perf_counter()
        try:
            self.process.stdin.write(sent)
            self.process.stdin.flush()
            line = self._line(what, seconds or self.budget.answer)
            wall, cpu = time.perf_counter() - wall, process_cpu_seconds(pid) - cpu
            self.answer = json.loads(line)
        except (OSError, ValueError) as error:
            self._die(f"{error}: {what}")
        if "error" in self.answer:
            raise Failed(f"{request['do']}: {self.answer['error']}")
        return wall, cpu

    def peak_host_bytes(self):
        """Largest resident memory of the process so far, mapped files included."""
        self._require_life()
        with suppress(OSError), open(f"/proc/{self.process.pid}/status") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        raise Failed(f"the system does not report the memory of {' '.join(self.command)}")

    def close(self):
        """Ends the process, whatever it is doing."""
        if self.process is None:
            return
        with suppress(OSError):  # it may be dead, with an unread line left
            self.process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(ENDING_SECONDS)
        self.process.kill()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(ENDING_SECONDS)
        self.process.stdout.close()

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
        """Interquartile range over median. Not the full range, because one interruption in twenty hardly changes a
        median."""
        if len(self.wall) < 4:
            return (max(self.wall) - min(self.wall)) / self.median()
        low, _, high = statistics.quantiles(self.wall, n=4, method="inclusive")
        return (high - low) / self.median()

    def wall_over_cpu(self):
        return sum(self.wall) / max(sum(self.cpu), 1e-9)


@dataclass
class Pairing:
    """Samples of two sides, pair by pair."""

    ours: Samples = field(default_factory=Samples)
    theirs: Samples = field(default_factory=Samples)

    def ratios(self):
        return sorted(a / b for a, b in zip(self.ours.wall, self.theirs.wall))

    def ratio(self):
        return statistics.median(self.ratios())

    def disturbance(self, on_gpu, spread=SPREAD_LIMIT):
        """Why these samples do not count; None if they do. With a GPU the host waits, so its CPU time shows nothing."""
        for name, side in (("ours", self.ours), ("the peer's", self.theirs)):
            if side.spread() > spread:
                return f"spread of {name} {100 * side.spread():.0f} % > {100 * spread:.0f} %"
            if not on_gpu and not side.wall_over_cpu() <= WALL_OVER_CPU_LIMIT:
                return f"wall/CPU of {name} {side.wall_over_cpu():.2f} > {WALL_OVER_CPU_LIMIT}"
        return None


def abba(ours, theirs, pairs):
    """Samples of two functions, each of which takes one sample, in the order A B B A; the two samples of a pair are
    adjacent in time. A failure has the pairs before it as `pairing`."""
    pairing = Pairing()
    for i in range(pairs):
        first, second = (ours, theirs) if i % 2 == 0 else (theirs, ours)
        try:
            a, b = first(), second()
        except Failed as error:
            error.pairing = pairing
            raise
        pairing.ours.add(a if i % 2 == 0 else b)
        pairing.theirs.add(b if i % 2 == 0 else a)
    return pairing


def pair_requests(side_a, request_a, side_b, request_b, pairs, warm_ups=WARM_UPS):
    """Warm-ups on both sides, then the pairs."""
    for _ in range(warm_ups):
        side_a.ask(request_a), side_b.ask(request_b)
    return abba(lambda: side_a.ask(request_a), lambda: side_b.ask(request_b), pairs)
