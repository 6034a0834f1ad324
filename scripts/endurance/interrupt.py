#!/usr/bin/env python3
"""Kills oneactor at random moments, lets it finish, and compares with a run that was not killed.

    scripts/endurance/interrupt.py --program target/release/oneactor --work /tmp/interrupt --kills 200

Needs Python 3.9 and no packages; uses one thread and the embedded toy model. Each round starts one of the stages of
stages.py from the same folder, and kills it --kills-per-round times with SIGKILL or SIGTERM, at a random moment within
the length of a whole run. Every second time it then waits for a temporary file before it kills, so that half-written
files occur too. After each kill every file under a final name must be whole. Then the stage runs to its end, and all
files must be equal to those of an uninterrupted run: byte for byte, JSON except for `seconds` and `images_drawn`.
Temporary files must be gone then, once they are an hour old; the script makes them older. Exits with 1 if any check
failed.
"""

import collections
import os
import random
import shutil
import signal
import sys
import time

from stages import STAGES, prepare, run, set_up, stage_options, start
from whole import broken_files, differences, temporaries

SIGNALS = {"KILL": signal.SIGKILL, "TERM": signal.SIGTERM}
# Accepted exit codes: done, or stopped by the signal (Python reports a death by signal as a negative code).
EXPECTED = {"KILL": {0, -9}, "TERM": {0, 143, -15}}


def wait_for_moment(folder, processes, seconds, is_aimed):
    """Waits until the time is over, a new temporary file appears, or all processes have ended."""
    end, known = time.monotonic() + seconds, set(temporaries(folder))
    while time.monotonic() < end and any(process.poll() is None for process in processes):
        if is_aimed and not known.issuperset(temporaries(folder)):
            return
        time.sleep(0.001 if is_aimed else 0.01)


class Counts:
    def __init__(self):
        self.kills = collections.Counter()
        self.trouble = []
        # Seconds of a run.
        self.length = 0.0
        self.most_leftovers = self.final_leftovers = self.rounds = self.hits = 0


def kill_once(flags, folder, stage, counts):
    """Starts the stage and kills all its processes; returns whether the stage finished before."""
    length = counts.length
    name = random.choice(list(SIGNALS))
    is_aimed = random.random() < 0.5
    before = len(temporaries(folder))
    # An aimed kill hits the first file after a random time, so that it can be any file.
    processes = [start(flags, folder, command) for command in STAGES[stage][1]]
    # In the first third, libraries are loaded and nothing is written.
    wait_for_moment(folder, processes, random.uniform(length / 3, length), False)
    if is_aimed:
        wait_for_moment(folder, processes, length, True)
    hit = [process for process in processes if process.poll() is None]
    for process in hit:
        process.send_signal(SIGNALS[name])
    for process in processes:
        message = process.communicate()[1]
        if process.returncode not in EXPECTED[name]:
            counts.trouble.append(f"{stage}: exit code {process.returncode} after SIG{name}: {message.strip()}")
    counts.kills[stage, name] += len(hit)
    leftovers = len(temporaries(folder))
    counts.hits += leftovers > before
    counts.most_leftovers = max(counts.most_leftovers, leftovers)
    for line in broken_files(folder):
        counts.trouble.append(f"{stage}, after SIG{name}: {line}")
    is_done = all(process.returncode == 0 for process in processes)
    # The length of a run depends on other work on this machine, and on how much is already finished.
    counts.length *= 0.8 if is_done else 1.05
    return is_done


def round_of(flags, stage, start_folder, reference, counts):
    folder = flags.work / "round"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(start_folder, folder)
    for _ in range(flags.kills_per_round):
        if kill_once(flags, folder, stage, counts):
            break
    # The program regards a temporary file as left over if it is an hour old.
    for path in temporaries(folder):
        os.utime(path, times=(time.time() - 7200,) * 2)
    for command in [*STAGES[stage][1], *STAGES[stage][2]]:
        ok, message = run(flags, folder, command)
        if not ok:
            counts.trouble.append(f"{stage}: `{command}` fails after kills: {message.strip()}")
    found = differences(folder, reference)
    counts.trouble += [f"{stage}, at the end: {line}" for line in found]
    counts.final_leftovers = max(counts.final_leftovers, len(temporaries(folder)))
    counts.rounds += 1
    if found:
        shutil.copytree(folder, flags.work / f"kept-{stage}-{counts.rounds}")


def main():
    parser = stage_options(__doc__, list(STAGES))
    parser.add_argument("--kills", type=int, default=200, help="kills of each stage")
    parser.add_argument("--kills-per-round", type=int, default=6)
    parser.add_argument("--minutes", type=float, help="stop a stage early after this time")
    flags = parser.parse_args()
    set_up(flags)
    total = []
    for stage in flags.stages:
        counts, started = Counts(), time.monotonic()
        before, after, counts.length = prepare(flags, stage)
        while sum(counts.kills.values()) < flags.kills:
            if flags.minutes and time.monotonic() - started > flags.minutes * 60:
                break
            round_of(flags, stage, before, after, counts)
        kills = ", ".join(f"{counts.kills[stage, name]} SIG{name}" for name in SIGNALS)
        print(
            f"{stage}: {kills} in {counts.rounds} rounds; kills amid a file: "
            f"{counts.hits}; temporary files: at most {counts.most_leftovers} after a kill, {counts.final_leftovers} "
            f"at the end; trouble: {len(counts.trouble)}",
            flush=True,
        )
        for line, times in collections.Counter(counts.trouble).items():
            print(f"  {times} x {line}", flush=True)
        total += counts.trouble
        total += ["temporary files"] * bool(counts.final_leftovers)
    sys.exit(1 if total else 0)


if __name__ == "__main__":
    main()
