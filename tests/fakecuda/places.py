"""Prints which functions of the program led to the waits and launches in a report of the simulated GPU.

The report is that of a run with FAKECUDA_TRACE=waits or all. The program needs its symbols, which cargo's builds have.
Each row is a count, what happened, and the calls, the innermost first.

Requirements: addr2line (binutils)
Usage: places.py report.json PROGRAM [--only WORD] [--depth 6]
"""

import argparse
import json
import re
import subprocess


def names_of(program, addresses):
    """The function at each address, without the path of its crate's generic arguments and hash."""
    command = ["addr2line", "--functions", "--demangle", "--inlines", "--exe", program]
    asked = "\n".join(f"0x{address}" for address in addresses)
    # `--addresses` starts the lines of each address with the address itself.
    lines = subprocess.run([*command, "--addresses"], input=asked, text=True, capture_output=True, check=True).stdout
    names = {}
    for block in re.split(r"^0x0*", lines, flags=re.MULTILINE)[1:]:
        address, *functions = block.splitlines()
        names[address] = [re.sub(r"::h[0-9a-f]{16}$", "", name) for name in functions[::2]]
    return names


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report")
    parser.add_argument("program")
    parser.add_argument("--only", default="", help="show only rows with this word in what happened")
    parser.add_argument("--depth", type=int, default=6, help="number of calls in a row")
    args = parser.parse_args()
    with open(args.report, encoding="utf-8") as file:
        places = json.load(file)["places"]
    rows = [(count, *place.rpartition(":")[::2]) for place, count in places.items() if args.only in place]
    names = names_of(args.program, sorted({address for *_, calls in rows for address in calls.split()}))
    for count, what, calls in sorted(rows, key=lambda row: -row[0]):
        functions = [name for address in calls.split() for name in names.get(address, [address])]
        own = [name for name in functions if name.startswith(("oneactor::", "<oneactor::"))]
        print(f"{count:6} {what}: {' < '.join(own[: args.depth]) or 'outside the program'}")


if __name__ == "__main__":
    main()
