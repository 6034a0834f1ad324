"""Expected results of whole guided runs of diffusers' pipelines for SDXL and SD, f32 on the CPU.

`pipeline.json` lists the runs. `pipeline.safetensors` holds for run `i` the tensors `i.initial` (latents as drawn,
before the scheduler's factor), `i.latents` (`output_type="latent"`), `i.image` (uint8 [H, W, 3]), `i.encoder_features`
(h of the conditional row at the last step), `i.prompt_embeds` and `i.negative_prompt_embeds`, and for SDXL
`i.pooled_prompt_embeds` and `i.negative_pooled_prompt_embeds`. For SDXL, `vae_statistics.image` is run 0 again with
`VAE_STATISTICS` in the VAE's config, and `index.json` has the sampler that diffusers uses if two files name different
ones.
"""

import json
import shutil
import tempfile
from pathlib import Path

import torch
from diffusers import DiffusionPipeline

from expected_models import final_latents, plain_run, save
from expected_schedulers import KINDS


def runs(shape):
    """Negative prompt absent, empty and given; another size; the other schedulers; no guidance."""
    plain = {
        **plain_run(shape, 5),
        "steps": 30,
        "scheduler": None,
    }
    yield plain
    yield {**plain, "negative_prompt": "", "seed": 6}
    yield {**plain, "negative_prompt": "blurry, low quality café", "seed": 2**40 + 7}
    yield {**plain, "height": 72, "width": 104, "seed": 8, "negative_prompt": "watermark"}
    yield {**plain, "guidance_scale": 1.0, "seed": 9}
    # The other schedulers that `from_config` can make from the checkpoint's file: DDIM needs clip_sample false, PNDM
    # skip_prk_steps.
    for kind in shape["samplers"]:
        yield {**plain, "scheduler": kind, "seed": 10}


# Values as large as those of Playground v2.5, whose VAE is the best known with these fields.
VAE_STATISTICS = {"latents_mean": [-1.6, 1.1, 0.4, -0.8], "latents_std": [8.4, 5.9, 5.4, 3.0]}


def with_statistics(pipe, run):
    """The picture of a run with mean and deviation of latents in the VAE's config."""
    own = dict(pipe.vae.config)
    pipe.vae.register_to_config(**VAE_STATISTICS)
    generator = torch.Generator("cpu").manual_seed(run["seed"])
    image = pipe(
        run["prompt"],
        height=run["height"],
        width=run["width"],
        num_inference_steps=run["steps"],
        guidance_scale=run["guidance_scale"],
        generator=generator,
    ).images[0]
    pipe.vae.register_to_config(**{name: own[name] for name in VAE_STATISTICS})
    return pixels_of(image)


def index_counts(folder):
    """The sampler's class of a checkpoint whose `model_index.json` names another class than the sampler's own file."""
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        index = Path(copy, "model_index.json")
        index.write_text(json.dumps({**json.loads(index.read_text()), "scheduler": ["diffusers", "DDIMScheduler"]}))
        pipe = DiffusionPipeline.from_pretrained(copy, low_cpu_mem_usage=False)
        return {
            "own": json.loads(Path(copy, "scheduler/scheduler_config.json").read_text())["_class_name"],
            "drawn_with": type(pipe.scheduler).__name__,
        }


def pixels_of(image):
    """Levels [H, W, 3], uint8."""
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(image.height, image.width, 3)


def draw(pipe, run):
    """Tensors of one run."""
    own = pipe.scheduler
    if run["scheduler"]:
        pipe.scheduler = KINDS[run["scheduler"]].from_config(own.config)
    kept = []
    hook = pipe.unet.mid_block.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    words = {"prompt": run["prompt"], "negative_prompt": run["negative_prompt"]}
    latents = final_latents(pipe, run, run["steps"], **words)
    hook.remove()
    generator = torch.Generator("cpu").manual_seed(run["seed"])
    initial = torch.randn(latents.shape, generator=generator)
    guided = run["guidance_scale"] > 1
    embeds = pipe.encode_prompt(
        run["prompt"],
        negative_prompt=run["negative_prompt"],
        do_classifier_free_guidance=guided,
        device="cpu",
        num_images_per_prompt=1,
    )
    pipe.scheduler = own
    decoded = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    image = pipe.image_processor.postprocess(decoded, output_type="pil")[0]
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    found = {name: value for name, value in zip(names, embeds) if value is not None}
    return {
        "initial": initial,
        "latents": latents,
        "image": pixels_of(image),
        "encoder_features": kept[-1][-1:],
        **found,
    }


@torch.no_grad()
def write(pipe, shape, folder):
    """All runs of one checkpoint."""
    pipe.set_progress_bar_config(disable=True)
    listed = list(runs(shape))
    tensors = {f"{i}.{name}": value for i, run in enumerate(listed) for name, value in draw(pipe, run).items()}
    if hasattr(pipe, "text_encoder_2"):
        tensors["vae_statistics.image"] = with_statistics(pipe, listed[0])
        (folder / "index.json").write_text(json.dumps(index_counts(folder.parent)))
    (folder / "pipeline.json").write_text(json.dumps(listed, indent=1))
    save(folder / "pipeline.safetensors", tensors)
