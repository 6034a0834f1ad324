#!/usr/bin/env bash
# diffusers 0.42.1: DPMSolverMultistepScheduler names DEISMultistepScheduler as compatible, and turns its
# `algorithm_type: deis` into `dpmsolver++`. This works for a DEIS sampler made in memory, whose defaults are
# not passed on. The same sampler, saved and loaded, ends with a ValueError about `final_sigmas_type`: the
# name is replaced in the stored config, but the check after it uses the old name. Euler, DDIM and UniPC
# accept the saved config.
#
# This matters to programs that let users change the sampler of a model whose file names DEIS. The one-liner
# of the documentation passes a test with samplers made in memory, and fails on every model folder. Giving
# `algorithm_type="dpmsolver++"` with the config helps.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check diffusers==0.42.1 torch==2.11.0 numpy==2.4.6 transformers==5.23.0 accelerate==1.15.0
cd "$work"
"$work/venv/bin/python" - <<'P'
from diffusers import (
    DDIMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
    __version__,
)

made = DEISMultistepScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
made.save_pretrained("deis")
saved = DEISMultistepScheduler.from_pretrained("deis").config
assert DEISMultistepScheduler in DPMSolverMultistepScheduler().compatibles, "changed: no longer named as compatible"
assert DPMSolverMultistepScheduler.from_config(made.config).config.algorithm_type == "dpmsolver++"
for other in (EulerDiscreteScheduler, DDIMScheduler, UniPCMultistepScheduler):
    other.from_config(saved)
try:
    DPMSolverMultistepScheduler.from_config(saved)
except ValueError as error:
    assert "final_sigmas_type" in str(error) and "deis" in str(error), error
    print(f"diffusers {__version__}: a saved DEIS config for DPM-Solver++: {error}")
else:
    raise SystemExit("changed: DPM-Solver++ now takes the saved config of DEIS")
mended = DPMSolverMultistepScheduler.from_config(saved, algorithm_type="dpmsolver++")
print("made in memory: taken; with algorithm_type given:", mended.config.algorithm_type)
P
