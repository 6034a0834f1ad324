"""Expected results with ControlNets (arXiv 2302.05543), and of the preparation of their pictures.

`controlnet/`, `controlnet_small/` in a checkpoint's folder: a ControlNet with its U-Net's config, and one like the
small distilled ControlNets (no attention). Every weight is random: the convolutions that training starts at zero would
hide every mistake if they were zero.

`expected/controlnet*.safetensors`  residuals of one call, plain and in guess mode
`expected/control.safetensors`      final latents of StableDiffusion(XL)ControlNetPipeline, 30 steps (control.json has
                                    the runs)
`expected/control_eq19.safetensors` final latents of Eq. 19 with a ControlNet, written out around diffusers' modules
`control_pictures/`                 pictures resized by Pillow and by diffusers, and their edges by cv2.Canny; files of
                                    many kinds, and what diffusers' `load_image` reads from them
"""

import json

import cv2
import diffusers
import numpy as np
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, StableDiffusionXLControlNetPipeline
from PIL import Image

import expected_method
from expected_models import added_cond, call_unet, final_latents, plain_run, save, unet_inputs
from shapes import randomise

STEPS = 30
WHOLE = (11, 44)  # seeds of the checkpoints with the blocks of SDXL and of SD 1.5: these have all runs


def picture(height, width, seed):
    """A seeded picture with soft slopes, sharp corners, and noise: [H, W, 3] uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    levels = np.stack([128 + 90 * np.sin(x / 9 + seed), 255 * y / height, 40 + 0.5 * (x + y) % 160], -1)
    for _ in range(6):
        top, left = rng.integers(0, height), rng.integers(0, width)
        levels[top : top + height // 4, left : left + width // 5] = rng.integers(0, 256, 3)
    levels += rng.normal(0, 6, levels.shape)
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def make_controlnet(pipe, seed, folder, channels, **changes):
    """A ControlNet for this U-Net with random weights, saved into `folder`."""
    unet = pipe.unet.config
    same = (
        "in_channels",
        "flip_sin_to_cos",
        "freq_shift",
        "down_block_types",
        "block_out_channels",
        "layers_per_block",
        "downsample_padding",
        "norm_num_groups",
        "norm_eps",
        "cross_attention_dim",
        "transformer_layers_per_block",
        "attention_head_dim",
        "num_attention_heads",
        "use_linear_projection",
        "addition_embed_type",
        "addition_time_embed_dim",
        "upcast_attention",
        "projection_class_embeddings_input_dim",
    )
    options = {key: unet[key] for key in same if key in unet}
    net = ControlNetModel(**{**options, "conditioning_embedding_out_channels": channels, **changes})
    randomise(net, seed).save_pretrained(folder)
    return net


@torch.no_grad()
def write_network(net, inputs, folder, name, rng):
    """Residuals of three rows at different times: plain with a scale, and in guess mode."""
    rows, _, height, width = inputs["sample"].shape
    factor = 2 ** (len(net.config.conditioning_embedding_out_channels) - 1)
    times = torch.tensor([1.0, 487.25, 981.0])
    image = torch.rand(rows, 3, height * factor, width * factor, generator=rng)
    added = added_cond(inputs.get("text_embeds"), inputs.get("time_ids"))
    tensors = {**inputs, "timesteps": times, "image": image}
    for mode, (scale, guess) in {"plain": (1.0, False), "scaled": (0.35, False), "guess": (0.7, True)}.items():
        down, middle = net(
            inputs["sample"],
            times,
            inputs["encoder_hidden_states"],
            image,
            conditioning_scale=scale,
            guess_mode=guess,
            added_cond_kwargs=added,
            return_dict=False,
        )
        tensors |= {f"{mode}.{i}": value for i, value in enumerate(down)} | {f"{mode}.middle": middle}
    save(folder / f"{name}.safetensors", tensors)
    return tensors


def runs(shape):
    """Plain and guess mode. With SDXL's and SD 1.5's own patterns also: a scale, no guidance, a window of steps,
    another size, two ControlNets."""
    height, width = shape["image"]
    first = {"controlnet": "controlnet", "scale": 1.0, "picture": [height, width, 1]}
    small = {"controlnet": "controlnet_small", "scale": 0.8, "picture": [height, width, 2]}
    plain = {
        **plain_run(shape, 5),
        "guess_mode": False,
        "start": 0.0,
        "end": 1.0,
        "nets": [first],
    }
    yield plain
    yield {**plain, "guess_mode": True, "guidance_scale": 4.0, "seed": 7}
    if shape["seed"] not in WHOLE:
        return
    yield {**plain, "nets": [{**first, "scale": 0.45}], "negative_prompt": "blurry", "seed": 6}
    yield {**plain, "guess_mode": True, "guidance_scale": 1.0, "seed": 8}
    yield {**plain, "start": 0.1, "end": 0.7, "seed": 9}
    yield {**plain, "height": 72, "width": 104, "nets": [{**first, "picture": [40, 200, 3]}], "seed": 10}
    yield {**plain, "nets": [first, small], "seed": 11}
    yield {**plain, "nets": [first, small], "guess_mode": True, "start": 0.25, "seed": 12}


def pil(spec):
    return Image.fromarray(picture(*spec))


def control_pipeline(pipe, parts, net):
    """diffusers' pipeline with ControlNets for this kind of model, made from the model's parts."""
    if hasattr(pipe, "text_encoder_2"):
        kind = StableDiffusionXLControlNetPipeline
        options = {"force_zeros_for_empty_prompt": pipe.config.force_zeros_for_empty_prompt, "add_watermarker": False}
    else:
        kind, options = StableDiffusionControlNetPipeline, {"requires_safety_checker": False}
    control = kind(**parts, **options, controlnet=net)
    control.set_progress_bar_config(disable=True)
    return control


def draw(pipe, nets, run):
    """Final latents of one run of diffusers' pipeline."""
    chosen = [nets[net["controlnet"]] for net in run["nets"]]
    images, scales = [pil(net["picture"]) for net in run["nets"]], [net["scale"] for net in run["nets"]]
    one = len(chosen) == 1
    parts = {key: value for key, value in pipe.components.items() if key not in ("image_encoder", "feature_extractor")}
    parts["feature_extractor"] = None
    control = control_pipeline(pipe, parts, chosen[0] if one else chosen)
    return final_latents(
        control,
        run,
        STEPS,
        prompt=run["prompt"],
        negative_prompt=run["negative_prompt"],
        image=images[0] if one else images,
        controlnet_conditioning_scale=scales[0] if one else scales,
        guess_mode=run["guess_mode"],
        control_guidance_start=run["start"],
        control_guidance_end=run["end"],
    )


@torch.no_grad()
def sample_eq19(pipe, net, run, offsets):
    """Eq. 19 on the guided steps, Eq. 3 elsewhere; every U-Net row has its own ControlNet row with the same text.

    In guess mode the branch without the prompt has no ControlNet.
    """
    plain, negative, pooled, negative_pooled = expected_method.embed(pipe, run["prompt"])
    positions = expected_method.base_positions(pipe, run["prompt"], run["base"])
    attract = expected_method.with_offset(plain, positions, run["semantic_scale"] * offsets["target_offset"])
    exclude = expected_method.with_offset(plain, positions, offsets["average_offset"])
    ids = expected_method.time_ids(run["height"], run["width"])
    image = torch.from_numpy(np.array(pil(run["picture"]))).permute(2, 0, 1)[None].float() / 255
    factor = pipe.vae_scale_factor
    generator = torch.Generator("cpu").manual_seed(run["seed"])
    latents = torch.randn(1, 4, run["height"] // factor, run["width"] // factor, generator=generator)
    scheduler = pipe.scheduler
    scheduler.set_timesteps(STEPS)
    latents = latents * scheduler.init_noise_sigma

    def predict(x, t, embeds, pooled, controlled=True):
        added = added_cond(pooled, ids)
        down = middle = None
        if controlled:
            down, middle = net(
                x,
                t,
                embeds,
                image,
                conditioning_scale=run["scale"],
                guess_mode=run["guess_mode"],
                added_cond_kwargs=added,
                return_dict=False,
            )
        return pipe.unet(
            x,
            t,
            embeds,
            added_cond_kwargs=added,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        ).sample

    first, last = run["guided_steps"]
    # PNDM makes its first step in two passes.
    for i, t in enumerate(scheduler.timesteps, start=1 - (len(scheduler.timesteps) - STEPS)):
        i = max(i, 1)
        x = scheduler.scale_model_input(latents, t)
        empty = predict(x, t, negative, negative_pooled, not run["guess_mode"])
        if first <= i <= last:
            eps = (
                empty
                + run["eta_1"] * (predict(x, t, attract, pooled) - empty)
                - run["eta_2"] * (predict(x, t, exclude, pooled) - empty)
            )
        else:
            eps = empty + run["guidance_scale"] * (predict(x, t, plain, pooled) - empty)
        latents = scheduler.step(eps, t, latents).prev_sample
    return latents


def write_eq19(pipe, shape, net, folder):
    """With the offsets of expected_method: plain and guess mode."""
    from safetensors.torch import load_file

    height, width = shape["image"]
    run = {
        "prompt": shape["prompt"],
        "base": shape["base"],
        "height": height,
        "width": width,
        "seed": 12,
        "guided_steps": [1, 20],
        "eta_1": 8.5,
        "eta_2": 1.0,
        "semantic_scale": 0.8,
        "guidance_scale": 7.5,
        "scale": 0.6,
        "guess_mode": False,
        "picture": [height, width, 4],
    }
    listed = [run, {**run, "guess_mode": True, "seed": 13}] if shape["seed"] in WHOLE else [run]
    offsets = load_file(folder / "offsets.safetensors")
    save(
        folder / "control_eq19.safetensors",
        {str(i): sample_eq19(pipe, net, each, offsets) for i, each in enumerate(listed)},
    )
    (folder / "control_eq19.json").write_text(json.dumps(listed, indent=1))


def write(pipe, shape, folder):
    """All of the above for one checkpoint; `folder` is its `expected`, which already has the offsets of
    expected_method."""
    rng = torch.Generator().manual_seed(shape["seed"] + 300)
    levels = len(pipe.vae.config.block_out_channels)
    nets = {
        "controlnet": make_controlnet(pipe, shape["seed"] + 5, folder.parent / "controlnet", (6, 10, 12, 18)[:levels]),
        "controlnet_small": make_controlnet(
            pipe,
            shape["seed"] + 6,
            folder.parent / "controlnet_small",
            (5, 7, 9, 8)[:levels],
            mid_block_type="UNetMidBlock2D",
            down_block_types=("DownBlock2D",) * len(pipe.unet.config.block_out_channels),
        ),
    }
    for name, net in nets.items():
        inputs = unet_inputs(pipe, 8, 12, 3, rng)
        found = write_network(net, inputs, folder, name, rng)
        added = added_cond(inputs.get("text_embeds"), inputs.get("time_ids"))
        down = [found[f"plain.{i}"] for i in range(len(net.controlnet_down_blocks))]
        with torch.no_grad():
            noise_pred = pipe.unet(
                inputs["sample"],
                found["timesteps"],
                inputs["encoder_hidden_states"],
                added_cond_kwargs=added,
                down_block_additional_residuals=down,
                mid_block_additional_residual=found["plain.middle"],
            ).sample
            _, h = call_unet(pipe.unet, found["timesteps"], inputs)
        save(folder / f"{name}_unet.safetensors", {"noise_pred": noise_pred, "h": h})
    listed = list(runs(shape))
    save(folder / "control.safetensors", {str(i): draw(pipe, nets, run) for i, run in enumerate(listed)})
    (folder / "control.json").write_text(json.dumps(listed, indent=1))
    pictures = {
        f"{h}x{w}.{seed}": torch.from_numpy(picture(h, w, seed))
        for h, w, seed in {tuple(n["picture"]) for r in listed for n in r["nets"]}
    }
    pictures |= {"eq19": torch.from_numpy(picture(*shape["image"], 4))}
    save(folder / "control_pictures.safetensors", pictures)
    write_eq19(pipe, shape, nets["controlnet"], folder)


def write_files(out):
    """PNGs and JPEGs of many kinds; `files.safetensors` has the pixels that diffusers' `load_image` reads from each, by
    its name."""
    out.mkdir()
    pixels = picture(37, 51, 70)
    image, grey = Image.fromarray(pixels), Image.fromarray(pixels[..., 1])
    alpha = Image.fromarray(picture(37, 51, 71)[..., 1])
    turned = lambda orientation: {
        "exif": bytes.fromhex(f"45786966000049492a0008000000010012010300010000000{orientation}00000000000000")
    }
    image.save(out / "444.jpg", quality=95, subsampling=0)
    image.save(out / "420.jpg", quality=85, subsampling=2)
    image.save(out / "progressive.jpg", quality=85, progressive=True)
    image.convert("CMYK").save(out / "cmyk.jpg", quality=95)
    grey.save(out / "grey.jpg", quality=90)
    for orientation in range(1, 9):
        image.save(out / f"turned{orientation}.jpg", quality=95, subsampling=0, **turned(orientation))
    image.save(out / "turned.png", **turned(6))
    image.save(out / "plain.png")
    grey.save(out / "grey.png")
    grey.point(lambda level: 255 * (level > 100)).convert("1").save(out / "bits.png")
    image.convert("P", palette=Image.Palette.ADAPTIVE).save(out / "palette.png", transparency=3)
    Image.merge("RGBA", [*image.split(), alpha]).save(out / "alpha.png")
    Image.merge("LA", [grey, alpha]).save(out / "grey_alpha.png")
    tensors = {
        path.name: torch.from_numpy(np.array(diffusers.utils.load_image(str(path)))) for path in sorted(out.iterdir())
    }
    save(out.parent / "files.safetensors", tensors)


def write_pictures(out):
    """Pillow's LANCZOS, widths first; the output of diffusers' VaeImageProcessor for the same pictures; cv2.Canny of
    colour pictures.

    Up to version 12 Pillow resizes the widths first. Version 13 sometimes resizes the heights first, so `resized` does
    one direction at a time, and `direct` is compared with a larger tolerance.
    """
    out.mkdir()
    processor = diffusers.image_processor.VaeImageProcessor(vae_scale_factor=8, do_convert_rgb=True, do_normalize=False)
    tensors, cases = {}, []
    sizes = [(64, 64), (101, 77), (40, 200), (9, 300), (256, 192)]
    for number, (height, width) in enumerate(sizes):
        pixels = picture(height, width, 50 + number)
        image = Image.fromarray(pixels)
        tensors[f"picture.{number}"] = torch.from_numpy(pixels)
        for to in [(64, 64), (128, 96), (72, 104), (256, 192)]:
            name = f"{number}.{to[0]}x{to[1]}"
            widths_first = image.resize((to[1], height), Image.Resampling.LANCZOS).resize(
                (to[1], to[0]), Image.Resampling.LANCZOS
            )
            tensors[f"resized.{name}"] = torch.from_numpy(np.array(widths_first))
            direct = processor.preprocess(image, height=to[0], width=to[1])  # [1, 3, H, W] in [0, 1]
            tensors[f"direct.{name}"] = (direct[0].permute(1, 2, 0) * 255).round().to(torch.uint8)
            cases.append({"picture": number, "height": to[0], "width": to[1], "name": name})
        for low, high in [(100, 200), (30, 90), (0, 0), (50, 400), (200, 100)]:
            tensors[f"canny.{number}.{low}.{high}"] = torch.from_numpy(cv2.Canny(pixels, low, high))
    write_files(out / "files")
    save(out / "pictures.safetensors", tensors)
    (out / "resized.json").write_text(json.dumps(cases, indent=1))
