"""The `oneactor` program as the figures use it: running it, its methods, and the files in its folders."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

OURS = "oneactor"
PLAIN = "plain"
UNTUNED = (PLAIN, "ip-adapter", "consistory")


@dataclass(frozen=True)
class Program:
    binary: Path
    folder: Path
    """The folder in which the program is started: paths in its records are relative to this folder, so the folder can
    be moved."""

    def run(self, *words: object) -> str:
        """Its output; warnings are passed on, and an error ends the script."""
        command = [str(self.binary), *map(str, words)]
        # In a job of Slurm the program would do only a part of the work; here the study is shared, by targets.
        environment = {**os.environ, "ONEACTOR_SHARD": "1/1"}
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            raise SystemExit(
                f"{shlex.join(command)}\nin {self.folder}, exit code {done.returncode}: {done.stderr.strip()}"
            )
        sys.stderr.write(done.stderr)
        return done.stdout

    def rows(self, folder: Path) -> list[dict]:
        """The rows of the manifest in a folder that the program has drawn into."""
        return read_lines((self.folder / folder / "manifest.jsonl").read_text())

    @cache  # noqa: B019 (a study has one program, as long as it runs)
    def methods(self, command: str) -> list[str]:
        """The methods that a command accepts."""
        return methods_of(self.run(command, "--help"))

    def is_tuned(self, method: str) -> bool:
        """Whether `tune` can tune the method: it lists all methods, and refuses those without tuning."""
        return method in self.methods("tune") and method not in UNTUNED

    def measures(self) -> list[str]:
        """The names that `evaluate --metrics` accepts."""
        return measures_of(self.run("evaluate", "--help"))


def read_lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def methods_of(help_text: str) -> list[str]:
    """The possible values of `--method` in a long help; only the paper's method if there is no such flag."""
    flag = re.search(r"^ +--method <\w+>\n((?:(?! +--?\w).*\n)*)", help_text, re.MULTILINE)
    # Long descriptions continue on further lines.
    values = flag and re.search(r"Possible values:\n((?: +\S.*\n?)+)", flag[1])
    return re.findall(r"^ +- ([\w-]+)", values[1], re.MULTILINE) if values else [OURS]


def measures_of(help_text: str) -> list[str]:
    """The names after "Measures to compute:"."""
    names = re.search(r"Measures to compute: ((?:\w+,\s+)*\w+)", help_text)
    if not names:
        raise SystemExit('evaluate --help names no measures after "Measures to compute:"')
    return re.split(r",\s+", names[1])
