"""Where files are and how processes are started: binaries, models, environment, both kinds of sides, versions.

Every flag of `oneactor` that a benchmark uses is in this module.
"""

import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

from pairs import OUT_OF_TIME, Budget, Failed, Side

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TOY = ROOT / "src" / "io" / "toy"
PROMPT, WORD = "a photo of a robot in the snow", "robot"


class Machine:
    """One device, its precision, the core that processes are pinned to (None: not pinned), and the folder for weights
    and other generated files; `budget` is the time limit. In a dry run a busy machine does not matter."""

    def __init__(self, device, dtype, core, threads, folder, is_dry=False):
        self.device, self.dtype, self.core, self.folder, self.is_dry = device, dtype, core, Path(folder), is_dry
        self.budget = Budget()
        self.folder.mkdir(parents=True, exist_ok=True)
        release = Path(os.environ.get("ONEACTOR_RELEASE", ROOT / "target" / "release"))
        self.server, self.oneactor = release / "examples" / "bench_server", release / "oneactor"
        for binary in (self.server, self.oneactor):
            if not binary.exists():
                raise SystemExit(f"{binary} is missing; run: cargo build --release --locked --bins --examples")
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ONEACTOR_")},
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_VERBOSITY": "error",
            "DIFFUSERS_VERBOSITY": "error",
        }

    @property
    def on_gpu(self):
        return self.device != "cpu"

    def pin(self):
        return [] if self.core is None else ["taskset", "-c", str(self.core)]

    def ours(self, model, dtype=None):
        return Side([*self.pin(), self.server, model, self.device, dtype or self.dtype], self.env, self.budget)

    def peer(self, model, dtype=None, *flags):
        command = [*self.pin(), sys.executable, HERE / "peer.py", model, self.device, dtype or self.dtype, *flags]
        return Side(command, self.env, self.budget)

    def random_model(self, size, dtype, *more):
        """A checkpoint of `random_sdxl.py`, written on the first call; `more` are its switches."""
        folder = self.folder / "".join([f"{size}-{dtype}", *more])
        if not (folder / "model_index.json").exists():
            print(f"writing random weights: {folder}", file=sys.stderr)
            self.run([sys.executable, HERE / "random_sdxl.py", folder, "--size", size, "--dtype", dtype, *more])
        return folder

    def base_flags(self, model, word, side, images, steps, out):
        """`generate-base`: a base set of few steps. Its pictures are bad, but tuning costs the same."""
        return [
            *self._command("generate-base", model), "-p", f"a photo of a {word}", "--subject", word, "-o", out,
            "--num-images", images, "--steps", steps, "-W", side, "-H", side, "--seed", 1,
        ]  # fmt: skip

    def tune_flags(self, model, base, steps, num_auxiliary, *more):
        """`tune`; `num_auxiliary` is None for a baseline, which has no auxiliary images."""
        auxiliary = [] if num_auxiliary is None else ["--num-auxiliary", num_auxiliary]
        return [
            *self._command("tune", model), base, "--target", 0, "--max-steps", steps, *auxiliary, "--overwrite", *more,
        ]  # fmt: skip

    def sample_flags(self, model, actors, prompts, out, *, side, steps, images=1, batch=1, guided=None):
        """`sample`: guided if there are actors, otherwise plain."""
        prompts = [part for prompt in prompts for part in ("-p", prompt)]
        how = ["--guided-steps", guided or f"1-{max(1, 2 * steps // 3)}"] if actors else ["--no-actor"]
        return [
            *self._command("sample", model), *actors, *prompts, "-o", out, "--num-images", images, "--steps", steps,
            "-W", side, "-H", side, "--batch-size", batch, "--overwrite", *how,
        ]  # fmt: skip

    def evaluate_flags(self, encoder, model, metrics, target, prompt, pictures):
        """`evaluate` with one encoder; the prompt only if the measures read it. SAM's masks are used with the toy's
        small CLIP."""
        reads = ["--prompt", prompt] if "clip_t" in metrics else []
        masks = ["--masks", "sam", "--clip-model", "toy"] if encoder == "sam" else []
        return [
            self.oneactor, "evaluate", *pictures, "--metrics", ",".join(metrics), f"--{encoder}-model", model,
            "--target", target, *reads, *masks, "--device", self.device, "--offline", "--format", "json",
        ]  # fmt: skip

    def _command(self, name, model):
        where = ["--device", self.device, "--dtype", self.dtype, "--offline"]
        return [self.oneactor, name, "--model", model, *where]

    def run(self, command):
        """The output of a command that runs to its end; its messages are shown only if it fails."""
        return self._output([*self.pin(), *command], subprocess.PIPE)

    def run_once(self, command):
        """Wall seconds, CPU seconds and peak bytes of a process from start to end."""
        measured = [sys.executable, "-I", "-S", HERE / "once.py", *self.pin(), *command]
        seconds, cpu, peak, code = self._output(measured, None).split()
        if code != "0":
            raise Failed(f"exit code {code} of {' '.join(map(str, command))}")
        return float(seconds), float(cpu), int(peak)

    def _output(self, command, messages):
        """Runs a command to its end. When the budget is used up, the command and all its children are ended."""
        command = [str(part) for part in command]
        own = {"env": self.env, "stdout": subprocess.PIPE, "stderr": messages, "text": True, "process_group": 0}
        with subprocess.Popen(command, **own) as process:
            try:
                output, errors = process.communicate(timeout=self.budget.left())
            except subprocess.TimeoutExpired:
                raise Failed(OUT_OF_TIME) from None
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
        if process.returncode != 0:
            raise Failed(f"{' '.join(command)}: {(errors or '').strip().splitlines()[-1:]}")
        return output

    def base_set(self, model, word, side, images, steps=1):
        """The folder of a base set, drawn on the first call."""
        out = self.folder / f"base-{Path(model).name}-{word}-{side}-{images}"
        if not (out / "base.safetensors").exists():
            self.run(self.base_flags(model, word, side, images, steps, out))
        return out

    def actor(self, model, word, side):
        """The folder of an actor that was tuned for one step: drawing with it costs as much as with a finished one."""
        base = self.base_set(model, word, side, images=2)
        if not (base / "actor.safetensors").exists():
            self.run(self.tune_flags(model, base, steps=1, num_auxiliary=1))
        return base


FACT_SECONDS = 20


def first_line(command):
    try:
        silent = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        done = subprocess.run(command, check=True, cwd=ROOT, timeout=FACT_SECONDS, **silent)
        return done.stdout.splitlines()[0].strip()
    except (OSError, subprocess.SubprocessError, IndexError):
        return None


def facts(machine):
    """Conditions of the figures: hardware, versions, the commit."""
    import diffusers
    import torch
    import transformers

    cpu = next(
        (line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown"
    )
    return {
        "cpu": f"{cpu}, {os.cpu_count()} cores",
        "gpu": first_line(["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "device": machine.device,
        "pinned_to_core": machine.core,
        "threads": int(machine.env["OMP_NUM_THREADS"]),
        "oneactor": first_line([str(machine.oneactor), "--version"]),
        "commit": first_line(["git", "describe", "--always", "--dirty"]),
        "libtorch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
    }


def config_of(model, component):
    return json.loads((Path(model) / component / "config.json").read_text())
