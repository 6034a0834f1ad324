"""Expected outputs of the networks: text encoders, U-Net (with h, the output of its down path and input of the middle
block), VAE."""

import torch
from safetensors.torch import save_file

TEXTS = ["a red hobbit reading the newspaper, digital art", "", "a tiny wizard and a dragon at the beach " * 12]


def save(path, tensors):
    """Writes tensors as contiguous copies."""
    save_file({name: value.detach().clone().contiguous() for name, value in tensors.items()}, path)


def tokenize(tokenizer, texts):
    """Ids [B, S], tokenized as the pipeline does."""
    options = {
        "padding": "max_length",
        "max_length": tokenizer.model_max_length,
        "truncation": True,
        "return_tensors": "pt",
    }
    return tokenizer(texts, **options).input_ids


def plain_run(shape, seed):
    """Arguments that every run of diffusers' pipelines has, before a script changes some."""
    height, width = shape["image"]
    return {
        "prompt": shape["prompt"],
        "negative_prompt": None,
        "height": height,
        "width": width,
        "seed": seed,
        "guidance_scale": 7.5,
    }


def final_latents(pipe, run, steps, **options):
    """Final latents of diffusers' own pipeline, from the size, scale and seed of a run."""
    return pipe(
        height=run["height"],
        width=run["width"],
        num_inference_steps=steps,
        guidance_scale=run["guidance_scale"],
        generator=torch.Generator("cpu").manual_seed(run["seed"]),
        output_type="latent",
        **options,
    ).images


def unet_inputs(pipe, height, width, rows, rng):
    """Random inputs of one U-Net call, as keyword arguments and as tensors to save."""
    unet = pipe.unet.config
    length = pipe.tokenizer.model_max_length
    inputs = {
        "sample": torch.randn(rows, 4, height, width, generator=rng),
        "encoder_hidden_states": torch.randn(rows, length, unet.cross_attention_dim, generator=rng),
    }
    if hasattr(pipe, "text_encoder_2"):
        sizes = torch.tensor([[1024, 768, 0, 0, 1024, 768], [512, 512, 16, 32, 640, 384], [64, 96, 0, 8, 64, 96]])
        inputs["text_embeds"] = torch.randn(rows, pipe.text_encoder_2.config.projection_dim, generator=rng)
        inputs["time_ids"] = sizes[torch.arange(rows) % 3].float()
    return inputs


def added_cond(text_embeds, time_ids):
    """The conditions of SDXL's U-Net besides the prompt; None without a pooled embedding, as in SD."""
    return None if text_embeds is None else {"text_embeds": text_embeds, "time_ids": time_ids}


def call_unet(unet, timesteps, inputs):
    """Noise prediction and h."""
    kept = []
    hook = unet.mid_block.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    added = added_cond(inputs.get("text_embeds"), inputs.get("time_ids"))
    noise_pred = unet(inputs["sample"], timesteps, inputs["encoder_hidden_states"], added_cond_kwargs=added).sample
    hook.remove()
    return noise_pred, kept[0]


@torch.no_grad()
def write_text_encoders(pipe, folder):
    """All hidden states, the last state after the final norm, and the pooled output, for every encoder."""
    for name in [name for name in ("text_encoder", "text_encoder_2") if hasattr(pipe, name)]:
        ids = tokenize(getattr(pipe, name.replace("text_encoder", "tokenizer")), TEXTS)
        out = getattr(pipe, name)(ids, output_hidden_states=True)
        tensors = {f"hidden_states.{i}": state for i, state in enumerate(out.hidden_states)}
        pooled = out.text_embeds if name.endswith("_2") else out.pooler_output
        save(
            folder / f"{name}.safetensors",
            {"ids": ids, "last_hidden_state": out.last_hidden_state, "pooled": pooled, **tensors},
        )


@torch.no_grad()
def write_unet(pipe, folder, seed):
    """One call with three rows at different times; another at a size that no level divides."""
    rng = torch.Generator().manual_seed(seed)
    size = pipe.unet.config.sample_size
    times = torch.tensor([1.0, 487.25, 981.0])
    for name, (height, width) in {"unet": (size * 2, size * 2), "unet_uneven": (9, 13)}.items():
        inputs = unet_inputs(pipe, height, width, 3, rng)
        noise_pred, h = call_unet(pipe.unet, times, inputs)
        save(folder / f"{name}.safetensors", {**inputs, "timesteps": times, "noise_pred": noise_pred, "h": h})


@torch.no_grad()
def write_vae(pipe, folder, seed):
    """Posterior of two pictures, and two decoded latents; none of them square."""
    rng = torch.Generator().manual_seed(seed)
    factor = pipe.vae_scale_factor
    images = torch.rand(2, 3, factor * 6, factor * 4, generator=rng) * 2 - 1
    latents = torch.randn(2, 4, 7, 5, generator=rng)
    posterior = pipe.vae.encode(images).latent_dist
    tensors = {
        "images": images,
        "mean": posterior.mean,
        "std": posterior.std,
        "latents": latents,
        "decoded": pipe.vae.decode(latents).sample,
    }
    save(folder / "vae.safetensors", tensors)


@torch.no_grad()
def write_vae_tiles(pipe, folder, seed):
    """Posterior and decoded latents of a VAE with tiling: with tiles of its own size and of half of it, for a picture
    that neither size divides; and for a picture of a single tile, which is not cut."""
    rng = torch.Generator().manual_seed(seed)
    vae, factor = pipe.vae, pipe.vae_scale_factor
    own = vae.config.sample_size
    size = (own * 2 + factor, own + own // 2 - factor)
    tensors = {
        "images": torch.rand(1, 3, *size, generator=rng) * 2 - 1,
        "latents": torch.randn(1, 4, *(side // factor for side in size), generator=rng),
        "small": torch.randn(1, 4, own // factor, own // factor, generator=rng),
    }
    vae.enable_tiling()
    for tile in (own, own // 2):
        vae.tile_sample_min_size, vae.tile_latent_min_size = tile, tile // factor
        posterior = vae.encode(tensors["images"]).latent_dist
        tensors |= {
            f"mean.{tile}": posterior.mean,
            f"std.{tile}": posterior.std,
            f"decoded.{tile}": vae.decode(tensors["latents"]).sample,
        }
        if tile == own:
            tensors["small_decoded"] = vae.decode(tensors["small"]).sample
    vae.tile_sample_min_size, vae.tile_latent_min_size = own, own // factor
    vae.disable_tiling()
    save(folder / "vae_tiles.safetensors", tensors)


def write(pipe, shape, folder):
    """All of the above for one checkpoint."""
    write_text_encoders(pipe, folder)
    write_unet(pipe, folder, shape["seed"] + 100)
    write_vae(pipe, folder, shape["seed"] + 101)
    write_vae_tiles(pipe, folder, shape["seed"] + 102)
