"""The stages of a run, as commands of the program on the embedded toy model, and the flags of the scripts that disturb
them. Needs Python 3.9 and no packages."""

import argparse
import os
import random
import shutil
import subprocess
import time
from pathlib import Path

BASE = "generate-base --model toy -p robot --subject robot -o robot --num-images 4 --steps 2 --seed 5"
TUNE = "tune robot --target 1 --max-steps {tune_steps} --num-auxiliary 1 --seed 5"
SAMPLE = "sample robot -o out --num-images 2 --steps 2 --seed 5 --save-latents --compare -p [b],snow -p [b],beach"
SHARDS = [f"{SAMPLE} --shard {part}/2" for part in (1, 2)]

# Name: the stages before it, and its commands, which run at the same time; then the commands that follow.
STAGES = {
    "generate-base": ([], [BASE], []),
    "tune": ([BASE], [TUNE], []),
    "sample": ([BASE, TUNE], [SAMPLE], []),
    "shards": ([BASE, TUNE], SHARDS, ["merge out"]),
    "merge": ([BASE, TUNE, *SHARDS], ["merge out"], []),
}


def options(description, work="a folder for all files; emptied first"):
    """A parser with the flags that all scripts have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help=work)
    return parser


def stage_options(description, stages):
    """The same parser, for a script that runs stages."""
    parser = options(description)
    parser.add_argument("--stages", nargs="+", choices=stages, default=stages)
    parser.add_argument(
        "--tune-steps", type=int, default=60, help="above 50, a tuning saves a checkpoint before its end"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser


def environment():
    """One thread, on any machine."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def start(flags, folder, command):
    words = command.format(tune_steps=flags.tune_steps).split()
    return subprocess.Popen(
        [flags.program, *words],
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def run(flags, folder, command):
    """Runs a command to its end; returns its messages, and whether it succeeded."""
    process = start(flags, folder, command)
    message = process.communicate()[1]
    return process.returncode == 0, message


def prepare(flags, stage):
    """The folder before a stage, the folder after it, and the seconds of its first command."""
    first, own, then = STAGES[stage]
    before, after = state(flags, first), state(flags, first + own + then)
    return before, after, flags.seconds[tuple(first + own[:1])]


def set_up(flags):
    flags.program, flags.work = flags.program.resolve(), flags.work.resolve()
    flags.states, flags.seconds = {}, {}
    shutil.rmtree(flags.work, ignore_errors=True)
    random.seed(flags.seed)


def state(flags, commands):
    """A folder in which only these commands have run, one after the other; made once."""
    if tuple(commands) in flags.states:
        return flags.states[tuple(commands)]
    folder = flags.work / f"state-{len(flags.states)}-{len(commands)}"
    if not commands:
        folder.mkdir(parents=True)
    else:
        shutil.copytree(state(flags, commands[:-1]), folder)
        started = time.monotonic()
        ok, message = run(flags, folder, commands[-1])
        assert ok, message
        flags.seconds[tuple(commands)] = time.monotonic() - started
    flags.states[tuple(commands)] = folder
    return folder
