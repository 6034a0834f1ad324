"""Expected results of the experiments: a photo as the target, and semantic interpolation (Fig. 3), around diffusers'
pipeline.

Writes `experiments.json` (a photo's run and a list of interpolated runs) and `experiments.safetensors`: `photo.image`,
`photo.latents`, `photo.encoder_features`, and for each interpolated run i `i.latents`.
"""

import json

import torch

from expected_method import embed, time_ids
from expected_models import added_cond, final_latents, save


def photo(pipe, shape):
    """z_0 and h of a picture that was not generated, at the last of twenty steps of the checkpoint's own scheduler."""
    height, width = shape["image"]
    run = {"prompt": shape["prompt"], "height": height, "width": width, "seed": 12, "steps": 20}
    image = torch.rand((1, 3, height, width), generator=torch.Generator().manual_seed(77))
    z_0 = pipe.vae.encode(image * 2 - 1).latent_dist.mean * pipe.vae.config.scaling_factor
    eps = torch.randn(z_0.shape, generator=torch.Generator("cpu").manual_seed(run["seed"]))
    pipe.scheduler.set_timesteps(run["steps"])
    timestep = pipe.scheduler.timesteps[-1:]
    run["timestep"] = round(timestep.item())
    model_input = pipe.scheduler.scale_model_input(pipe.scheduler.add_noise(z_0, eps, timestep), timestep[0])
    embeds, _, pooled, _ = embed(pipe, run["prompt"])
    kept = []
    hook = pipe.unet.mid_block.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    pipe.unet(model_input, timestep[0], embeds, added_cond_kwargs=added_cond(pooled, time_ids(height, width)))
    hook.remove()
    return run, {"photo.image": image, "photo.latents": z_0, "photo.encoder_features": kept[0]}


def runs(shape):
    """Runs towards the empty prompt, at the empty prompt, and beyond the prompt."""
    height, width = shape["image"]
    plain = {
        "prompt": shape["prompt"],
        "height": height,
        "width": width,
        "seed": 13,
        "guidance_scale": 7.5,
        "steps": 10,
    }
    yield {**plain, "semantic_interpolation": 0.4}
    yield {**plain, "semantic_interpolation": 0.0}
    yield {**plain, "semantic_interpolation": 1.5, "guidance_scale": 3.0}


def draw(pipe, run):
    """Final latents of one run: c' = c_0 + g (c - c_0) for both embeddings, where c_0 is the encoded empty prompt; with
    the pipeline's own negative.

    SD has no pooled embedding.
    """
    embeds, negative, pooled, negative_pooled = embed(pipe, run["prompt"])
    empty, _, empty_pooled, _ = embed(pipe, "")
    g = run["semantic_interpolation"]
    added = {}
    if pooled is not None:
        added = {
            "pooled_prompt_embeds": empty_pooled + g * (pooled - empty_pooled),
            "negative_pooled_prompt_embeds": negative_pooled,
        }
    embeds = {"prompt_embeds": empty + g * (embeds - empty), "negative_prompt_embeds": negative, **added}
    return final_latents(pipe, run, run["steps"], **embeds)


@torch.no_grad()
def write(pipe, shape, folder):
    """The photo and all runs of one checkpoint."""
    pipe.set_progress_bar_config(disable=True)
    target, tensors = photo(pipe, shape)
    listed = list(runs(shape))
    tensors |= {f"{i}.latents": draw(pipe, run) for i, run in enumerate(listed)}
    (folder / "experiments.json").write_text(json.dumps({"photo": target, "interpolations": listed}, indent=1))
    save(folder / "experiments.safetensors", tensors)
