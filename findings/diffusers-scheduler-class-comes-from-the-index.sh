#!/usr/bin/env bash
# diffusers 0.42.1: a pipeline takes the class of its sampler from model_index.json. If
# scheduler/scheduler_config.json names another `_class_name`, that name is ignored without a message,
# although the other values of the same file are used.
#
# This matters to anyone who changes a model's sampler by editing scheduler_config.json, or who writes another
# reader of diffusers folders: the class in the file is not the class that draws.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check diffusers==0.42.1 torch==2.11.0 numpy==2.4.6 transformers==5.23.0 accelerate==1.15.0
cd "$work"
"$work/venv/bin/python" - <<'P'
import contextlib
import io
import json
import logging
from pathlib import Path

import diffusers
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

unet = UNet2DModel(
    sample_size=8, block_out_channels=(4,), layers_per_block=1, norm_num_groups=2, down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
)
DDPMPipeline(unet, DDPMScheduler(num_train_timesteps=77)).save_pretrained("model")
path = Path("model/scheduler/scheduler_config.json")
path.write_text(json.dumps({**json.loads(path.read_text()), "_class_name": "EulerDiscreteScheduler", "num_train_timesteps": 55}))

said = io.StringIO()
diffusers.utils.logging.set_verbosity_warning()
diffusers.utils.logging.get_logger("diffusers").addHandler(logging.StreamHandler(said))
with contextlib.redirect_stderr(said):
    scheduler = DDPMPipeline.from_pretrained("model").scheduler
named = json.loads(path.read_text())["_class_name"]
assert type(scheduler).__name__ == "DDPMScheduler", f"changed: the file's {named} counts now"
assert scheduler.config.num_train_timesteps == 55, "changed: the file is not read"
assert "EulerDiscreteScheduler" not in said.getvalue(), f"changed: it is said now: {said.getvalue()}"
print(f"diffusers {diffusers.__version__}: the file names {named}, {type(scheduler).__name__} draws, with the file's other values and no warning")
P
