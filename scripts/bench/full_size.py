"""Full-size SDXL on a CPU: load, one guided step (Eq. 19, three U-Net rows), decode; seconds and peak memory.

Both sides do the same work from the same inputs in f32 with one thread, each in a process of its own, one after
the other (twice 14 GB do not fit in 24), and a warm-up of the page cache before the first. The outputs are
compared first of all. The peer is diffusers with the three rows in one batch.

Requirements: scripts/parity/requirements.txt; cargo build --release --example bench_full_size; a model folder:
python scripts/bench/random_sdxl.py FOLDER
Usage: full_size.py FOLDER [--size 512] [--cpu 0]
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
PROMPT, WORD = "a photo of a robot in the snow", "robot"
V, ETA_1, ETA_2 = 0.8, 8.5, 1.0


def serve(args):
    """The Python side: the same stages as scripts/bench/full_size.rs."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    from diffusers import StableDiffusionXLPipeline
    from diffusers.utils import logging
    from transformers.utils import logging as transformers_logging

    logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    x, stages, clock = load_file(args.serve), {}, time.perf_counter()

    def stage(name):
        nonlocal clock
        stages[name] = time.perf_counter() - clock
        clock = time.perf_counter()

    pipe = StableDiffusionXLPipeline.from_pretrained(args.model, torch_dtype=torch.float32, add_watermarker=False)
    stage("load")
    c, empty, pooled, pooled_empty = pipe.encode_prompt(PROMPT, do_classifier_free_guidance=True, device="cpu")
    stage("text")
    size = x["latents"].shape[-1] * pipe.vae_scale_factor
    at = pipe.tokenizer(PROMPT).input_ids.index(pipe.tokenizer(WORD).input_ids[1])
    c_tar, c_aver = c.clone(), c.clone()
    c_tar[:, at] += V * x["target_offset"][0]
    c_aver[:, at] += x["average_offset"][0]
    added = {
        "text_embeds": torch.cat([pooled_empty, pooled, pooled]),
        "time_ids": torch.tensor([[size, size, 0, 0, size, size]] * 3, dtype=torch.float32),
    }
    pipe.scheduler.set_timesteps(1)
    t = pipe.scheduler.timesteps[0]
    z = x["latents"] * pipe.scheduler.init_noise_sigma
    rows = pipe.scheduler.scale_model_input(z, t).repeat(3, 1, 1, 1)
    eps, eps_tar, eps_aver = pipe.unet(
        rows, t, encoder_hidden_states=torch.cat([empty, c_tar, c_aver]), added_cond_kwargs=added
    ).sample.chunk(3)
    eps = eps + ETA_1 * (eps_tar - eps) - ETA_2 * (eps_aver - eps)
    z = pipe.scheduler.step(eps, t, z).prev_sample
    stage("step")
    picture = pipe.vae.decode(z / pipe.vae.config.scaling_factor).sample
    stage("decode")
    stages["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    save_file({"latents": z, "picture": (picture / 2 + 0.5).clamp(0, 1)}, args.output)
    print(json.dumps(stages))


def inputs_for(model, size):
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=generator)
    width = json.loads((model / "unet" / "config.json").read_text())["cross_attention_dim"]
    return {"latents": draw(1, 4, size // 8, size // 8), "target_offset": draw(1, width), "average_offset": draw(1, width)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--size", type=int, default=512, help="side of the picture in pixels")
    parser.add_argument("--cpu", default="0", help="core for taskset")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--output", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve(args)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder) / "inputs.safetensors", {}
        save_file(inputs_for(args.model, args.size), inputs)
        for path in args.model.rglob("*.safetensors"):
            with open(path, "rb") as file:
                while file.read(1 << 26):
                    pass
        commands = {
            "oneactor": [ROOT / "target/release/examples/bench_full_size", args.model, inputs, PROMPT, WORD],
            "diffusers": [sys.executable, __file__, args.model, "--serve", inputs, "--output"],
        }
        results = {}
        for name, command in commands.items():
            outputs[name] = Path(folder) / f"{name}.safetensors"
            run = ["taskset", "-c", args.cpu, *command, outputs[name]]
            done = subprocess.run(run, env=env, check=True, stdout=subprocess.PIPE, text=True)
            results[name] = json.loads(done.stdout.splitlines()[-1])
        ours, theirs = (load_file(outputs[name]) for name in commands)
        for name in ("latents", "picture"):
            error = ((ours[name] - theirs[name]).norm() / theirs[name].norm()).item()
            print(f"relative difference of the {name}: {error:.1e}")
            if not error < 1e-4:
                raise SystemExit("the two sides do not agree: nothing to compare")
    print("| stage | oneactor | diffusers | ratio |\n| --- | --- | --- | --- |")
    units = {name: (1, "s") for name in ("load", "text", "step", "decode")} | {"peak": (1e9, "GB")}
    for name, (unit, label) in units.items():
        a, b = (results[side][name] / unit for side in commands)
        print(f"| {name}, {label} | {a:.1f} | {b:.1f} | {a / b:.2f} |")


if __name__ == "__main__":
    main()
