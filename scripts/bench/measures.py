"""Rows that compare `oneactor evaluate` with a script on transformers: encoders of the published sizes with random
weights, whole processes from start to end."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from machine import HERE
from pairs import Failed, abba
from report import Row

F32 = 1e-4  # cosines of embeddings after 24 layers; another library prepares the pictures, equal within a level
F32_MASK = 1e-3  # share of the picture in a mask: border values near 0 may fall on the other side
SIDE, PROMPT = 512, "a cat"
ENCODERS = {
    "clip": ("CLIP ViT-L/14", ["clip_i", "clip_t"]),
    "dinov2": ("DINOv2 ViT-B/14", ["dinov2"]),
    "sam": ("masks by SAM ViT-B", ["clip_i"]),
}


def rows(machine, encoder, count, pairs):
    """Time and memory for comparing `count` pictures with a target: both sides read, prepare and embed them, and print
    means."""
    title, metrics = ENCODERS[encoder]
    time = Row(f"evaluate, {title}, {count} pictures of {SIDE}×{SIDE}, whole process", "transformers")
    memory = Row(f"evaluate, {title}: peak memory of the host", "transformers", unit="GB")
    try:
        model = random_encoder(machine, encoder)
        *pictures, target = waves(machine.folder / "waves", count + 1)
        ours = machine.evaluate_flags(encoder, model, metrics, target, PROMPT, pictures)
        theirs = [sys.executable, HERE / "peer_measures.py", encoder, model, machine.device, target, PROMPT, *pictures]
        read = shares if encoder == "sam" else overall
        found = read(machine, ours, metrics), np.array(json.loads(machine.run(theirs)))
        if time.agree(float(np.abs(found[0] - found[1]).max()), F32_MASK if encoder == "sam" else F32):
            peaks = [], []

            def taken(k, command):
                *seconds, peak = machine.run_once(command)
                peaks[k].append(peak / 1e9)
                return seconds

            time.fill(abba(lambda: taken(0, ours), lambda: taken(1, theirs), pairs), machine)
            memory.fill_values(*peaks)
    except Failed as error:
        time.give_up(str(error)), memory.give_up(str(error))
    return time, memory


def shares(machine, command, _):
    """The shares of each picture and of the target that the program's masks cover."""
    folder = machine.folder / "masks"
    shutil.rmtree(folder, ignore_errors=True)
    machine.run([*command, "--save-masks", folder])
    return np.array([(np.asarray(Image.open(path)) > 127).mean() for path in sorted(folder.rglob("*.png"))])


def overall(machine, command, metrics):
    """The means over all pictures in the program's JSON."""
    lines = [json.loads(line) for line in machine.run(command).splitlines()]
    scores = next(line["scores"] for line in lines if line["kind"] == "overall")
    return np.array([scores[name]["mean"] for name in metrics])


def waves(folder, count):
    """Paths of smooth pictures of many colours."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, paths = np.random.default_rng(3), [folder / f"{i:02}.png" for i in range(count)]
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    for path in paths:
        wave = lambda: np.sin(6.28 * (x * rng.uniform(-4, 4) + y * rng.uniform(-4, 4) + rng.uniform()))
        levels = 127 + 90 * np.stack([wave() for _ in range(3)], -1)
        Image.fromarray(levels.astype(np.uint8)).save(path)
    return paths


def random_encoder(machine, encoder) -> Path:
    """A checkpoint of `random_encoder.py`, written on the first call."""
    folder = machine.folder / f"random-{encoder}"
    if not (folder / "preprocessor_config.json").exists():
        print(f"writing random weights: {folder}", file=sys.stderr)
        subprocess.run([sys.executable, HERE / "random_encoder.py", folder, "--kind", encoder], check=True)
    return folder
