#!/usr/bin/env python3
"""Runs oneactor on file systems that are too small, enlarges them, and compares with a run that had enough space.

    sudo scripts/endurance/full_disk.py --program target/release/oneactor --work /tmp/full --sizes 8

Needs Linux, root (to mount a tmpfs) and Python 3.9, no packages; uses the embedded toy model. For each stage of
stages.py except `shards`, the script draws as many sizes as --sizes says, between the size of the folder before the
stage and after it. A run that fills the disk must fail, say so in one line, and leave neither a half-written nor a
temporary file. Then the disk is enlarged, and a rerun must produce all files of the reference. Exits with 1 if any
check failed.
"""

import random
import shutil
import subprocess
import sys

from stages import STAGES, prepare, run, set_up, stage_options
from whole import broken_files, differences, files, temporaries

PAGE = 4096
ROOM = 256 * 2**20


def needed(folder):
    """Bytes that a tmpfs needs for a folder: whole pages."""
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in files(folder))


class Disk:
    """A tmpfs of some size."""

    def __init__(self, folder, size):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)

    def __enter__(self):
        return self

    def grow(self):
        subprocess.run(["mount", "-o", f"remount,size={ROOM}", self.folder], check=True)

    def __exit__(self, *_):
        subprocess.run(["umount", self.folder], check=True)


def try_size(flags, stage, before, after, size):
    """One trial; returns the program's message, and what was wrong with the run."""
    trouble = []
    command = STAGES[stage][1][0] + " --quiet"
    with Disk(flags.work / "disk", size) as disk:
        for path in files(before):
            copy = disk.folder / path.relative_to(before)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        ok, message = run(flags, disk.folder, command)
        lines = message.strip().splitlines()
        if not ok and not (len(lines) == 1 and "No space left on device" in lines[0]):
            trouble.append(f"expected one line on the full disk, found: {message.strip()}")
        trouble += broken_files(disk.folder)
        trouble += [f"{path} is left over" for path in temporaries(disk.folder)]
        disk.grow()
        again, second = run(flags, disk.folder, command)
        if not again:
            trouble.append(f"fails with room: {second.strip()}")
        trouble += differences(disk.folder, after)
    return None if ok else lines[0] if lines else "", trouble


def main():
    parser = stage_options(__doc__, [stage for stage in STAGES if stage != "shards"])
    parser.add_argument("--sizes", type=int, default=8, help="sizes of each stage")
    flags = parser.parse_args()
    set_up(flags)
    total = 0
    for stage in flags.stages:
        before, after, _ = prepare(flags, stage)
        first, last = needed(before), needed(after)
        failed = 0
        for _ in range(flags.sizes):
            # A tmpfs of size 0 has no limit.
            size = max(PAGE, random.randrange(first, max(last, first + PAGE), PAGE))
            message, trouble = try_size(flags, stage, before, after, size)
            failed += message is not None
            total += len(trouble)
            print(f"{stage}, {size} bytes: {'enough space' if message is None else message}", flush=True)
            for line in trouble:
                print(f"  {line}", flush=True)
        print(f"{stage}: {failed} of {flags.sizes} runs met the end of the disk", flush=True)
    sys.exit(1 if total else 0)


if __name__ == "__main__":
    main()
