"""Expected results with an IP-Adapter (arXiv 2308.06721), f32 on the CPU, by diffusers' own loader and pipelines.

`ip_adapter/` in a checkpoint's folder has the layout of the repository h94/IP-Adapter: `sdxl_models/` or `models/` with
the adapter's file and `image_encoder/`. Every weight is random. `pictures/` has two image prompts, neither of them
square.

`expected/ip_adapter.json`         the runs
`expected/ip_adapter.safetensors`  `image_embeds.{0,1}` of both pictures, `tokens.{0,1}` and `tokens.none` behind the
                                   projection; one call of the U-Net with zeros, picture 0 and picture 1 in its three
                                   rows; final latents `{i}.latents` of each run of 30 steps, and `{i}.control`, what a
                                   ControlNet sees beside it
"""

import json

import torch
from diffusers import ControlNetModel
from diffusers.models.embeddings import ImageProjection
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import shapes
from expected_control import WHOLE, control_pipeline, picture
from expected_models import call_unet, final_latents, plain_run, save, unet_inputs

STEPS = 30
UNET_SCALE = 0.7
PICTURES = ((80, 56, 21), (40, 96, 22))  # height, width, seed


def layout(shape):
    """Folder and file name of the adapter in the repository."""
    return (
        ("sdxl_models", "ip-adapter_sdxl.safetensors")
        if shapes.is_sdxl(shape)
        else ("models", "ip-adapter_sd15.safetensors")
    )


def build(pipe, shape, folder):
    """Image encoder and adapter with random weights."""
    below, name = layout(shape)
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=72,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=48,
        patch_size=12,
        projection_dim=20,
        hidden_act="gelu" if shapes.is_sdxl(shape) else "quick_gelu",
    )
    encoder = shapes.randomise(CLIPVisionModelWithProjection(vision), shape["seed"] + 70)
    encoder.save_pretrained(folder / below / "image_encoder")
    width = pipe.unet.config.cross_attention_dim
    projection = shapes.randomise(ImageProjection(vision.projection_dim, width, 4), shape["seed"] + 71)
    tensors = {
        f"image_proj.{key.replace('image_embeds', 'proj')}": value for key, value in projection.state_dict().items()
    }
    rng = torch.Generator().manual_seed(shape["seed"] + 72)
    layers = [name.removesuffix(".processor") for name in pipe.unet.attn_processors if "attn2" in name]
    for number, layer in enumerate(layers):
        inner = pipe.unet.get_submodule(layer).to_k.weight.shape[0]
        for kind in ("to_k_ip", "to_v_ip"):
            weight = torch.randn(inner, width, generator=rng) / width**0.5
            tensors[f"ip_adapter.{2 * number + 1}.{kind}.weight"] = weight
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / below / name)


def pil(spec):
    return Image.fromarray(picture(*spec))


def runs(shape):
    """Two scales; with SDXL's and SD 1.5's own patterns also a negative prompt, no guidance, another size, a
    ControlNet."""
    height, width = shape["image"]
    plain = {
        **plain_run(shape, 15),
        "scale": 0.6,
        "picture": 0,
        "controlnet": None,
    }
    yield plain
    yield {**plain, "scale": 1.0, "picture": 1, "seed": 16}
    if shape["seed"] not in WHOLE:
        return
    yield {**plain, "negative_prompt": "blurry", "seed": 17}
    yield {**plain, "guidance_scale": 1.0, "seed": 18}
    yield {**plain, "height": 72, "width": 104, "seed": 19}
    yield {**plain, "controlnet": [height, width, 1], "seed": 20}


def draw(pipe, net, run):
    """Final latents of one run; with the ControlNet `net` if the run has a control image."""
    options = {}
    if run["controlnet"]:
        pipe = control_pipeline(pipe, pipe.components, net)
        options["image"] = pil(run["controlnet"])
    pipe.set_ip_adapter_scale(run["scale"])
    options |= {"prompt": run["prompt"], "negative_prompt": run["negative_prompt"]}
    return final_latents(pipe, run, STEPS, ip_adapter_image=pil(PICTURES[run["picture"]]), **options)


def call_with_pictures(pipe, shape, embeds):
    """One call with another picture in every row, and h."""
    rng = torch.Generator().manual_seed(shape["seed"] + 73)
    inputs = unet_inputs(pipe, 9, 13, 3, rng)
    timesteps = torch.tensor([1.0, 487.25, 981.0])
    pipe.set_ip_adapter_scale(UNET_SCALE)
    rows = torch.cat([torch.zeros_like(embeds[0]), *embeds])[:, None]  # [3, 1, E]
    forward = pipe.unet.forward

    def with_rows(*args, added_cond_kwargs=None, **kwargs):
        return forward(*args, added_cond_kwargs={**(added_cond_kwargs or {}), "image_embeds": [rows]}, **kwargs)

    pipe.unet.forward = with_rows
    noise_pred, h = call_unet(pipe.unet, timesteps, inputs)
    del pipe.unet.forward
    return {**inputs, "timesteps": timesteps, "noise_pred": noise_pred, "h": h}


@torch.no_grad()
def write(pipe, shape, folder, expected):
    """Adapter, pictures and results of one checkpoint. The pipeline is restored at the end."""
    where = folder / "ip_adapter"
    (where / "pictures").mkdir(parents=True)
    build(pipe, shape, where)
    for i, spec in enumerate(PICTURES):
        pil(spec).save(where / "pictures" / f"{i}.png")
    below, name = layout(shape)
    pipe.load_ip_adapter(str(where), subfolder=below, weight_name=name, low_cpu_mem_usage=False)
    # If torchvision is installed, diffusers' loader would use an image processor that resizes tensors. This one has the
    # sizes that the loader sets.
    side = pipe.image_encoder.config.image_size
    pipe.register_modules(feature_extractor=CLIPImageProcessorPil(size=side, crop_size=side))
    pipe.set_progress_bar_config(disable=True)
    embeds = [pipe.encode_image(pil(spec), "cpu", 1)[0] for spec in PICTURES]
    projection = pipe.unet.encoder_hid_proj.image_projection_layers[0]
    tensors = {f"image_embeds.{i}": value for i, value in enumerate(embeds)}
    tensors |= {f"tokens.{i}": projection(value) for i, value in enumerate(embeds)}
    tensors["tokens.none"] = projection(torch.zeros_like(embeds[0]))
    tensors |= call_with_pictures(pipe, shape, embeds)
    net = ControlNetModel.from_pretrained(folder / "controlnet", low_cpu_mem_usage=False)
    listed = list(runs(shape))
    tensors |= {f"{i}.latents": draw(pipe, net, run) for i, run in enumerate(listed)}
    tensors |= {
        f"{i}.control": torch.from_numpy(picture(*run["controlnet"]))
        for i, run in enumerate(listed)
        if run["controlnet"]
    }
    (expected / "ip_adapter.json").write_text(json.dumps(listed, indent=1))
    save(expected / "ip_adapter.safetensors", tensors)
    pipe.unload_ip_adapter()
