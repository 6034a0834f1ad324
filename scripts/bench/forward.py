"""One U-Net pass, here and in diffusers, as paired ratios in one run.

Both sides use the same libtorch, weights, inputs, f32 and number of threads. Each is a process that waits for a
line and answers with seconds; the lines go A B B A A B B A, so that a drift of the machine hits both. First the
outputs are compared: a fast wrong answer is worth nothing. `grad` also differentiates to the prompt embeddings.

Requirements: scripts/parity/requirements.txt; the server: cargo build --release --example bench_server
Usage: forward.py MODEL [--size LATENT_SIDE] [--rows 2] [--pairs 15] [--threads 1] [--cpu 0]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]


def inputs_for(config, rows, size):
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=generator)
    width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    pixels = float(size * 8)
    return {
        "sample": draw(rows, config.in_channels, size, size),
        "timesteps": torch.linspace(900, 100, rows),
        "prompt_embeds": draw(rows, 77, config.cross_attention_dim),
        "text_embeds": draw(rows, width),
        "time_ids": torch.tensor([[pixels, pixels, 0.0, 0.0, pixels, pixels]]).repeat(rows, 1),
    }


def serve(args):
    """The Python side: the same loop as scripts/bench/server.rs."""
    torch.set_num_threads(args.threads)
    unet = UNet2DConditionModel.from_pretrained(args.model, subfolder="unet").float().eval().requires_grad_(False)
    x = load_file(args.serve)

    def run():
        text = x["prompt_embeds"].clone().requires_grad_(args.mode == "grad")
        with torch.set_grad_enabled(args.mode == "grad"):
            added = {"text_embeds": x["text_embeds"], "time_ids": x["time_ids"]}
            out = unet(x["sample"], x["timesteps"], text, added_cond_kwargs=added).sample
        if args.mode == "forward":
            return out
        out.square().mean().backward()
        return text.grad

    save_file({"output": run().contiguous()}, args.output)
    print("ready", flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        print(time.perf_counter() - wall, time.process_time() - cpu, flush=True)


class Side:
    def __init__(self, command, env):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        if self.process.stdout.readline().strip() != "ready":
            raise SystemExit(f"did not start: {' '.join(map(str, command))}")

    def time(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline().split()[0])


def measure(args, mode, folder):
    inputs, ours, theirs = folder / "inputs.safetensors", folder / f"ours-{mode}", folder / f"theirs-{mode}"
    config = UNet2DConditionModel.load_config(args.model, subfolder="unet")
    size = args.size or config["sample_size"]
    save_file(inputs_for(argparse.Namespace(**config), args.rows, size), inputs)
    env = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "MKL_NUM_THREADS": str(args.threads)}
    pin = ["taskset", "-c", args.cpu]
    server = ROOT / "target/release/examples/bench_server"
    a = Side([*pin, server, args.model, inputs, ours, mode], env)
    this = [sys.executable, __file__, args.model, "--serve", inputs, "--mode", mode, "--output", theirs]
    b = Side([*pin, *this, "--threads", str(args.threads)], env)
    x, y = load_file(ours)["output"], load_file(theirs)["output"]
    error = ((x - y).norm() / y.norm()).item()
    for _ in range(3):
        a.time(), b.time()
    pairs = []
    for i in range(args.pairs):
        if i % 2:
            t_b, t_a = b.time(), a.time()
        else:
            t_a, t_b = a.time(), b.time()
        pairs.append((t_a, t_b))
    ratios = sorted(t_a / t_b for t_a, t_b in pairs)
    median = lambda k: statistics.median(p[k] for p in pairs)
    print(
        f"| {Path(args.model).name} | {mode} | {args.rows}x{size}x{size} | {args.threads} | {median(0):.3f} | {median(1):.3f} "
        f"| {statistics.median(ratios):.3f} | {ratios[0]:.3f}-{ratios[-1]:.3f} | {error:.1e} |",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--size", type=int)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpu", default="0", help="cores for taskset")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--mode", default="forward", help=argparse.SUPPRESS)
    parser.add_argument("--output", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve(args)
    print("| model | pass | rows | threads | oneactor s | diffusers s | ratio, median | range | difference |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for mode in ("forward", "grad"):
            measure(args, mode, Path(folder))


if __name__ == "__main__":
    main()
