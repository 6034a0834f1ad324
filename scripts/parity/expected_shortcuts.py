"""Expected results of the approximations, written around diffusers' U-Net: a guidance interval (arXiv 2404.07724) and
reused features (arXiv 2312.00858), alone and together, with plain guidance and with Eq. 19.

Writes `shortcuts.json` (the runs) and `shortcuts.safetensors` (final latents of run i as `i`).
"""

import json

import torch

from expected_method import base_positions, draw_offsets, embed, time_ids, with_offset
from expected_models import added_cond, save

STEPS = 12


class Unet:
    """diffusers' U-Net, whose last up block can be given the features of an earlier step."""

    def __init__(self, unet):
        self.unet, self.features, self.is_whole = unet, {}, True
        self.row = None
        unet.up_blocks[-1].register_forward_pre_hook(self.before_last, with_kwargs=True)

    def before_last(self, module, args, kwargs):
        assert not args, "diffusers must pass the inputs of a block by name"
        if self.is_whole:
            self.features[self.row] = kwargs["hidden_states"]
        return args, {**kwargs, "hidden_states": self.features[self.row]}

    def rows(self, x, t, conditions, ids, is_whole):
        """The predictions for each of the prompt embeddings and pooled embeddings. In a pass that reuses features, the
        results of the other blocks are not used."""
        self.is_whole = is_whole or len(self.features) != len(conditions)
        if self.is_whole:
            self.features = {}
        found = []
        for self.row, (embeds, pooled) in enumerate(conditions):
            found.append(self.unet(x, t, embeds, added_cond_kwargs=added_cond(pooled, ids)).sample)
        return found


def draw(pipe, unet, run, offsets):
    """Final latents of one run."""
    plain, negative, pooled, negative_pooled = embed(pipe, run["prompt"])
    words = base_positions(pipe, run["prompt"], run["base"])
    attract = with_offset(plain, words, run["semantic_scale"] * offsets["target_offset"])
    exclude = with_offset(plain, words, offsets["average_offset"])
    ids = time_ids(run["height"], run["width"])
    size = [run[side] // pipe.vae_scale_factor for side in ("height", "width")]
    latents = torch.randn(1, 4, *size, generator=torch.Generator("cpu").manual_seed(run["seed"]))
    scheduler = pipe.scheduler
    scheduler.set_timesteps(STEPS)
    latents = latents * scheduler.init_noise_sigma
    passes = len(scheduler.timesteps)
    first, last = run["guidance_interval"] or (1, STEPS)
    guided_first, guided_last = run["guided_steps"] or (1, 0)
    unet.features = {}
    for i, t in enumerate(scheduler.timesteps):
        step = max(i + 1 - (passes - STEPS), 1)  # PNDM makes its first step in two passes
        is_cluster = guided_first <= step <= guided_last
        told = [(attract, pooled), (exclude, pooled)] if is_cluster else [(plain, pooled)]
        conditions = [(negative, negative_pooled), *told] if first <= step <= last else told[:1]
        is_whole = i % run["feature_reuse"] == 0 or i + 1 == passes
        rows = unet.rows(scheduler.scale_model_input(latents, t), t, conditions, ids, is_whole)
        if len(rows) == 1:
            eps = rows[0]
        elif is_cluster:
            eps = rows[0] + run["eta_1"] * (rows[1] - rows[0]) - run["eta_2"] * (rows[2] - rows[0])
        else:
            eps = rows[0] + run["guidance_scale"] * (rows[1] - rows[0])
        latents = scheduler.step(eps, t, latents).prev_sample
    return latents


@torch.no_grad()
def write(pipe, shape, folder):
    """All runs of one checkpoint, with their own offsets."""
    height, width = shape["image"]
    rng = torch.Generator().manual_seed(shape["seed"] + 300)
    offsets = draw_offsets(pipe, shape, rng)
    plain = {
        "prompt": shape["prompt"],
        "base": shape["base"],
        "height": height,
        "width": width,
        "seed": 15,
        "guidance_scale": 5.0,
        "eta_1": 6.0,
        "eta_2": 1.0,
        "semantic_scale": 0.8,
        "guided_steps": None,
        "guidance_interval": None,
        "feature_reuse": 1,
    }
    cluster = {**plain, "guided_steps": [1, 7]}
    runs = [
        {**plain, "guidance_interval": [3, 8]},
        {**plain, "feature_reuse": 2},
        {**plain, "feature_reuse": 5},
        {**cluster, "guidance_interval": [4, 9]},
        {**cluster, "feature_reuse": 3},
        {**cluster, "guidance_interval": [2, 10], "feature_reuse": 2},
    ]
    unet = Unet(pipe.unet)
    tensors = {f"{i}": draw(pipe, unet, run, offsets) for i, run in enumerate(runs)}
    (folder / "shortcuts.json").write_text(json.dumps(runs, indent=1))
    save(folder / "shortcuts.safetensors", tensors | offsets)
