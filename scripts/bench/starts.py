"""Cost of a process before it draws: time to the first step, loading, memory of the host and of the GPU."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time

from machine import HERE, PROMPT, first_line
from pairs import ENDING_SECONDS, Failed, Pairing, abba, process_cpu_seconds


def until_step(shown, command, machine, steps):
    """Wall and CPU seconds from the start of a process until its terminal shows `SHOWN/STEPS`, or a later step if that
    one was not shown. Then the process is ended.

    Each side writes to its own terminal, so that both show their progress as they do to a user."""
    done = re.compile(rb"\b(\d+)/%d\b" % steps)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
    env = {**machine.env, "TERM": "xterm"}  # a terminal with a progress bar, whatever the calling terminal is
    begin, text = time.perf_counter(), b""
    process = subprocess.Popen(
        [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=env
    )
    os.close(theirs)
    try:
        while not any(int(step) >= shown for step in done.findall(text)):
            if not select.select([ours], [], [], machine.budget.left())[0]:
                continue
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other end is closed: the process has ended
                part = b""
            if not part:
                raise Failed(f"no step {shown}: {text[-300:].decode(errors='replace')}")
            text += part
        return time.perf_counter() - begin, process_cpu_seconds(process.pid)
    finally:
        process.kill()
        process.wait(ENDING_SECONDS)
        os.close(ours)


def first_step(machine, model, side, steps, pairs):
    """Process start until step 1 is done, the program against the script in `first_step.py`.

    Both sides report a step once its work has been queued. On a CPU the work is then done. On a GPU the line of step 2
    counts, for both sides: the queue holds 1,024 pieces of work and a pass has some 2,000, so when two passes have been
    queued, the first one is done."""
    shown = 2 if machine.on_gpu else 1
    out = machine.folder / "first-step"
    ours = [*machine.pin(), *machine.sample_flags(model, [], [PROMPT], out, side=side, steps=steps)]
    script = [sys.executable, HERE / "first_step.py", model, machine.device, machine.dtype, side, steps, PROMPT]
    theirs = [*machine.pin(), *script]
    run = lambda command: until_step(shown, command, machine, steps)
    run(ours), run(theirs)  # fills the page cache
    return abba(lambda: run(ours), lambda: run(theirs), pairs)


def loads(machine, model, dtype, pairs, uses):
    """Two pairings: loading alone, then `uses` times loading with the first use of every weight. For both, the peak
    host memory of each side; also the bytes of the weight files. Both sides map the files, and read only what is used.
    Every use takes as much memory as the files, which may push them out of the page cache, so this pairing comes
    last."""
    sides = machine.ours, machine.peer
    for side in sides:  # reads program and libraries into the page cache
        with side(model, dtype):
            pass
    size = read_weights(model)
    loading, used, peaks = Pairing(), Pairing(), (([], []), ([], []))

    def measure(k, pairing, peaks, is_used):
        with sides[k](model, dtype) as side:
            seconds = side.loading()
            if is_used:
                touch = side.ask({"do": "touch", "prompt": PROMPT})
                seconds = tuple(a + b for a, b in zip(seconds, touch))
            peaks[k].append(side.peak_host_bytes())
            (pairing.ours, pairing.theirs)[k].add(seconds)

    for pairing, of_it, count, is_used in ((loading, peaks[0], pairs, False), (used, peaks[1], uses, True)):
        for i in range(count):
            for k in (0, 1) if i % 2 == 0 else (1, 0):
                measure(k, pairing, of_it, is_used)
    return loading, used, peaks, size


def read_weights(model):
    """Reads the weight files into the page cache; their bytes."""
    size = 0
    for path in model.rglob("*.safetensors"):
        size += path.stat().st_size
        with open(path, "rb") as file:
            while file.read(1 << 26):
                pass
    return size


def gpu_bytes():
    """Memory in use on the first GPU, by all processes: no other process should use it."""
    line = first_line(["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"])
    if line is None or not line.isdecimal():
        raise Failed(f"nvidia-smi does not report the memory in use: {line}")
    return int(line) * 2**20


def peak_device_bytes(machine, start, requests):
    """Memory that one side alone holds after these requests: on a GPU everything that its allocator took and did not
    give back, and the context; on a CPU its largest resident memory."""
    before = gpu_bytes() if machine.on_gpu else 0
    with start() as side:
        for request in requests:
            side.ask(request)
        return gpu_bytes() - before if machine.on_gpu else side.peak_host_bytes()
