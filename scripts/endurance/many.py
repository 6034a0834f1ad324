#!/usr/bin/env python3
"""Draws thousands of toy pictures in one process, and checks its memory and its open files.

    scripts/endurance/many.py --program target/release/oneactor --work /tmp/many

Needs Linux and Python 3.9, no packages. After each picture that the program reports, the script reads the resident
memory (VmRSS) and the number of open file descriptors from /proc. The run passes if the mean memory over the last
quarter of the pictures is within 2 % of that over the first quarter, and if the smallest number of descriptors in the
last quarter is not above that in the first: a file that is being written is open only now and then, a file that is
never closed always. All values are in memory.csv. Exits with 1 if the run does not pass.
"""

import csv
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from stages import environment, options

BASE = "generate-base --model toy -p robot --subject robot -o robot --num-images 3 --steps 2"
TUNE = "tune robot --target 1 --max-steps 3 --num-auxiliary 1"
SAMPLE = "sample robot -p [b],snow -p [b],beach -p [b],night -p [b],street --batch-size 1 -o many"
TOLERANCE = 0.02


def memory(process):
    """VmRSS in bytes."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def descriptors(process):
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def watch(words, folder):
    """Runs the program; returns the picture's number, seconds, bytes and descriptors after each picture."""
    started, rows = time.monotonic(), []
    with subprocess.Popen(
        words, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if line.startswith(("many/0", "many/1")):
                seconds = round(time.monotonic() - started, 3)
                rows.append((len(rows) + 1, seconds, memory(process), descriptors(process)))
        message = process.stderr.read()
    if process.returncode:
        sys.exit(f"the program ended with {process.returncode}: {message.strip()}")
    return rows


def judged(rows):
    """The summary of the rows, and whether memory is flat and files are closed: the last quarter compared with the
    first."""
    each = len(rows) // 4
    first, last = rows[:each], rows[-each:]
    mean = lambda part: statistics.fmean(row[2] for row in part)
    fewest = lambda part: min(row[3] for row in part)
    change = mean(last) / mean(first) - 1
    is_flat, is_closed = abs(change) <= TOLERANCE, fewest(last) <= fewest(first)
    mib = 2**20
    text = (
        f"{len(rows)} pictures in {rows[-1][1]:.0f} s; memory over the first {each}: {mean(first) / mib:.1f} MiB, "
        f"over the last {each}: {mean(last) / mib:.1f} MiB ({change:+.2%}, at most {TOLERANCE:.0%} allowed), after "
        f"the first picture {rows[0][2] / mib:.1f}, at most {max(row[2] for row in rows) / mib:.1f}; "
        f"descriptors: {fewest(first)} and {fewest(last)}"
    )
    return text, is_flat and is_closed


def main():
    parser = options(__doc__, "a folder for all files; must not have pictures yet")
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=2)
    flags = parser.parse_args()
    program, folder = flags.program.resolve(), flags.work.resolve()
    if (folder / "many").exists():
        parser.error(f"{folder}/many exists: finished pictures would not be drawn again, and show nothing")
    folder.mkdir(parents=True, exist_ok=True)
    for line in (BASE, TUNE):
        subprocess.run([program, *line.split(), "--quiet"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    each = flags.pictures // 4
    rows = watch([program, *SAMPLE.split(), "--num-images", str(each), "--steps", str(flags.steps)], folder)
    with open(folder / "memory.csv", "w", newline="") as file:
        csv.writer(file).writerows([("picture", "seconds", "bytes", "descriptors"), *rows])
    if len(rows) != 4 * each:
        sys.exit(f"found {len(rows)} pictures, expected {4 * each}")
    text, is_passed = judged(rows)
    print(text)
    print("passed" if is_passed else "failed")
    sys.exit(0 if is_passed else 1)


if __name__ == "__main__":
    main()
