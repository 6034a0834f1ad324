"""Expected trajectories of the schedulers on a fixed sequence of made-up model outputs.

`schedulers/cases.json` lists the cases (kind, config, steps), `schedulers/expected.safetensors` holds for
case `i` the tensors `i.timesteps`, `i.trajectory` [steps + 1, ...] and `i.inputs` (what the model would be
given), all started from `noise` times the initial sigma. The outputs of pass `k` are `outputs[k]`; PNDM has one
pass more than steps.
`schedulers/timesteps.json` has the timesteps of every number of steps up to 150: rounding has corners.
"""

import itertools
import json

import diffusers
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, PNDMScheduler

from expected_models import save
from shapes import NOISE

STEPS = (5, 10, 30, 50)
SPACINGS = ("leading", "trailing", "linspace")
PREDICTIONS = ("epsilon", "v_prediction")
KINDS = {
    "euler": EulerDiscreteScheduler,
    "dpm++2m": DPMSolverMultistepScheduler,
    "ddim": DDIMScheduler,
    "pndm": PNDMScheduler,
}

# The file of stabilityai/stable-diffusion-xl-base-1.0. The other kinds are made from it as users do: by `from_config`.
SDXL = {
    "_class_name": "EulerDiscreteScheduler",
    "_diffusers_version": "0.19.0.dev0",
    **NOISE,
    "clip_sample": False,
    "interpolation_type": "linear",
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
    "use_karras_sigmas": False,
}

# The files of stable-diffusion-v1-5 and stable-diffusion-2-1 have no timestep_spacing, so each kind uses its own
# default.
SD15 = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    **NOISE,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
# Files of other classes, drawn with by `from_config`: each has the fields of its class, and those that all classes
# have.
OTHERS = [
    {"_class_name": name, **NOISE, "clip_sample": False, "skip_prk_steps": True, "steps_offset": 1, **own}
    for name, own in (
        ("EulerAncestralDiscreteScheduler", {"timestep_spacing": "trailing"}),
        ("DEISMultistepScheduler", {"algorithm_type": "deis", "solver_type": "logrho", "timestep_spacing": "leading"}),
        ("UniPCMultistepScheduler", {"solver_type": "bh2", "prediction_type": "v_prediction"}),
        ("LCMScheduler", {"original_inference_steps": 50, "timestep_spacing": "leading", "timestep_scaling": 10.0}),
        ("TCDScheduler", {"set_alpha_to_one": True}),
        ("KDPM2AncestralDiscreteScheduler", {"use_karras_sigmas": True, "timestep_spacing": "leading"}),
        (
            "HeunDiscreteScheduler",
            {"clip_sample_range": 1.0, "use_karras_sigmas": False, "timestep_spacing": "linspace"},
        ),
        ("LMSDiscreteScheduler", {"use_karras_sigmas": True}),
        ("DDPMScheduler", {"variance_type": "fixed_small", "timestep_spacing": "trailing"}),
    )
]
SD21 = {**SD15, "_class_name": "DDIMScheduler", "_diffusers_version": "0.8.0", "prediction_type": "v_prediction"}


def cases():
    """(kind, options on top of the noise schedule, steps)."""
    for spacing, offset, prediction, steps in itertools.product(SPACINGS, (0, 1), PREDICTIONS, STEPS):
        common = {"timestep_spacing": spacing, "steps_offset": offset, "prediction_type": prediction}
        for karras in (False, True):
            yield "euler", {**common, "use_karras_sigmas": karras}, steps
        for last in ("zero", "sigma_min"):
            yield "dpm++2m", {**common, "final_sigmas_type": last}, steps
        for to_one in (False, True):
            yield "ddim", {**common, "set_alpha_to_one": to_one, "clip_sample": False}, steps
            yield "pndm", {**common, "set_alpha_to_one": to_one, "skip_prk_steps": True}, steps
    for steps, config in itertools.product((*STEPS, 1, 2, 3, 4, 7, 14, 15), (SDXL, SD15, SD21)):
        for kind in KINDS:
            # One Euler step with linspace spacing begins at timestep 0, where diffusers' f32 tables have lost five
            # digits of 1 - ᾱ.
            if not (kind == "euler" and steps == 1 and config is not SDXL):
                yield kind, config, steps
    for kind, config in itertools.product(KINDS, OTHERS):
        yield kind, config, 7
    # The end of the last step if the file does not say: the classes differ.
    for kind in ("ddim", "pndm"):
        yield kind, {"clip_sample": False, "skip_prk_steps": True}, 20
    for schedule in ("linear", "scaled_linear"):
        yield (
            "euler",
            {"timestep_spacing": "leading", "steps_offset": 1, "beta_schedule": schedule, "beta_end": 0.02},
            20,
        )
    for lower, steps in itertools.product((True, False), (8, 20)):
        yield (
            "dpm++2m",
            {"timestep_spacing": "linspace", "lower_order_final": lower, "final_sigmas_type": "sigma_min"},
            steps,
        )


def build(kind, config):
    """The sampler that `from_config` makes from a file, via the file's own class if that class is another one."""
    if config not in OTHERS:
        return KINDS[kind].from_config(config)
    own = getattr(diffusers, config["_class_name"]).from_config(config).config
    # DPM-Solver++ replaces the algorithm of DEIS by its own, but first refuses a last sigma of zero for it.
    mended = {"algorithm_type": "dpmsolver++"} if kind == "dpm++2m" else {}
    return KINDS[kind].from_config(own, **mended)


def run(scheduler, steps, noise, outputs):
    """Timesteps, the latents before each step and after the last, and the scaled inputs."""
    scheduler.set_timesteps(steps)
    latents = noise * scheduler.init_noise_sigma
    trajectory, inputs = [latents], []
    for i, t in enumerate(scheduler.timesteps):
        inputs.append(scheduler.scale_model_input(latents, t))
        latents = scheduler.step(outputs[i], t, latents).prev_sample
        trajectory.append(latents)
    return scheduler.timesteps.double(), torch.stack(trajectory), torch.stack(inputs)


def write(folder):
    """All cases, and the noising in training (`ddpm.safetensors`)."""
    folder.mkdir(parents=True)
    rng = torch.Generator().manual_seed(7)
    noise, outputs = torch.randn(2, 4, 3, 2, generator=rng), torch.randn(max(STEPS) + 1, 2, 4, 3, 2, generator=rng)
    listed, tensors = [], {"noise": noise, "outputs": outputs}
    for i, (kind, options, steps) in enumerate(cases()):
        config = options if "_class_name" in options else {"_class_name": KINDS[kind].__name__, **NOISE, **options}
        scheduler = build(kind, config)
        timesteps, trajectory, inputs = run(scheduler, steps, noise, outputs)
        tensors |= {f"{i}.timesteps": timesteps, f"{i}.trajectory": trajectory, f"{i}.inputs": inputs}
        listed.append(
            {"kind": kind, "steps": steps, "config": config, "init_noise_sigma": float(scheduler.init_noise_sigma)}
        )
    (folder / "cases.json").write_text(json.dumps(listed, indent=1))
    save(folder / "expected.safetensors", tensors)

    swept = []
    for kind, spacing in itertools.product(KINDS, SPACINGS):
        config = {
            "_class_name": KINDS[kind].__name__,
            **NOISE,
            "timestep_spacing": spacing,
            "steps_offset": 1,
            "clip_sample": False,
            "skip_prk_steps": True,
        }
        scheduler = KINDS[kind].from_config(config)
        rows = []
        for steps in range(1, 151):
            scheduler.set_timesteps(steps)
            rows.append([round(t, 3) for t in scheduler.timesteps.tolist()])
        swept.append({"kind": kind, "config": config, "timesteps": rows})
    (folder / "timesteps.json").write_text(json.dumps(swept))

    scheduler = DDPMScheduler(**NOISE)
    z0, eps = torch.randn(40, 4, 3, 2, generator=rng), torch.randn(40, 4, 3, 2, generator=rng)
    t = torch.cat([torch.tensor([0, 1, 998, 999]), torch.randint(0, 1000, (36,), generator=rng)])
    noisy, velocity = scheduler.add_noise(z0, eps, t), scheduler.get_velocity(z0, eps, t)
    save(folder / "ddpm.safetensors", {"z0": z0, "eps": eps, "timesteps": t, "noisy": noisy, "velocity": velocity})
