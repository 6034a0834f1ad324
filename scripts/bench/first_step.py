"""The script that a user would write to draw with diffusers: load, draw, and report each step once its work is queued.

Requirements: scripts/bench/requirements.txt
Usage: first_step.py MODEL DEVICE fp32|fp16 SIDE STEPS PROMPT
"""

import sys

import torch
from diffusers import StableDiffusionXLPipeline

model, device, dtype, side, steps, prompt = sys.argv[1:]


def tell(pipe, step, t, values):
    print(f"{step + 1}/{steps}", flush=True)
    return values


dtype = {"fp32": torch.float32, "fp16": torch.float16}[dtype]
pipe = StableDiffusionXLPipeline.from_pretrained(model, dtype=dtype, add_watermarker=False).to(device)
pipe.set_progress_bar_config(disable=True)
pipe(prompt, width=int(side), height=int(side), num_inference_steps=int(steps), callback_on_step_end=tell)
