"""LoRA files in every key style for the checkpoint `narrow`, and the results of diffusers with each.

`NAME.safetensors`           the file; `cases.json` lists them with the scale they are used at
`expected.safetensors`       for each NAME: `prompt_embeds`, `pooled_prompt_embeds`, `noise_pred` at `sample`,
                             `timesteps`, `time_ids`, and final `latents` of a guided run, all with diffusers'
                             `load_lora_weights` and `fuse_lora`, but for one file

After fusing, every weight is compared with `W + scale * alpha / rank * up @ down`, computed here. A layer that
diffusers left out, or a wrongly named key, stops the script.
"""

import json

import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import save_file

from expected_models import final_latents, save
from single_files import unet_to_ldm

# diffusers loses the alpha of attention layers if a file has several alphas, and loses the layers that SDXL adds to the
# time embedding if they have diffusers' own names. For this file only the formula is the reference.
BY_HAND = "kohya_mixed"
RUN = {"prompt": "a hobbit wearing robes", "height": 64, "width": 64, "seed": 21, "steps": 8, "guidance_scale": 5.0}
PARTS = {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "q_proj", "k_proj", "v_proj", "out_proj")
LINEAR = (*ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "fc1", "fc2")
OTHERS = (
    "conv1",
    "conv2",
    "conv_shortcut",
    "conv_in",
    "conv_out",
    "downsamplers.0.conv",
    "upsamplers.0.conv",
    "time_emb_proj",
    "linear_1",
    "linear_2",
)


def layers(pipe, endings, parts=PARTS):
    """(component, module name, weight) of all layers whose names end in one of these."""
    for part in parts:
        for name, module in getattr(pipe, part).named_modules():
            if name.endswith(endings) and hasattr(module, "weight"):
                yield part, name, module.weight


def draw(pipe, endings, seed, parts=PARTS, rank=4):
    """Random matrices for each layer; ranks differ if `rank` is a range."""
    rng = torch.Generator().manual_seed(seed)
    drawn = {}
    for i, (part, name, weight) in enumerate(layers(pipe, endings, parts)):
        r = rank if isinstance(rank, int) else rank[i % len(rank)]
        down = torch.randn(r, *weight.shape[1:], generator=rng) / weight[0].numel() ** 0.5
        up = torch.randn(weight.shape[0], r, *[1] * (weight.ndim - 2), generator=rng) * 0.3 / r**0.5
        drawn[part, name] = {"down": down, "up": up, "alpha": float(r)}
    return drawn


def full(part, name):
    """The module name as in files: transformers has dropped `text_model` from one encoder."""
    is_bare = part != "unet" and not name.startswith("text_model.") and name != "text_projection"
    return f"text_model.{name}" if is_bare else name


def peft(drawn):
    """`unet.….lora_A.weight`."""
    return {
        f"{part}.{full(part, name)}.{key}.weight": layer[role]
        for (part, name), layer in drawn.items()
        for key, role in (("lora_A", "down"), ("lora_B", "up"))
    }


def diffusers(drawn):
    """`unet.….lora.down.weight`, `text_encoder.….lora_linear_layer.down.weight`."""
    middle = {"unet": "lora"}
    return {
        f"{part}.{full(part, name)}.{middle.get(part, 'lora_linear_layer')}.{role}.weight": layer[role]
        for (part, name), layer in drawn.items()
        for role in ("down", "up")
    }


def old_diffusers(drawn):
    """`unet.….attn1.processor.to_q_lora.down.weight`, `text_encoder.….self_attn.to_q_lora.down.weight`: attention
    only."""
    tensors = {}
    for (part, name), layer in drawn.items():
        module, _, last = full(part, name).removesuffix(".0").rpartition(".")
        last = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}.get(last, last)
        module += ".processor" if part == "unet" else ""
        tensors |= {f"{part}.{module}.{last}_lora.{role}.weight": layer[role] for role in ("down", "up")}
    return tensors


def kohya(drawn, unet_name=lambda name: name, parts=PARTS, with_alpha=True):
    """`lora_unet_…_to_q.lora_down.weight`, with `.alpha`."""
    tensors = {}
    for (part, name), layer in drawn.items():
        module = unet_name(name) if part == "unet" else full(part, name)
        start = parts[part] + module.replace(".", "_")
        tensors |= {f"{start}.lora_{role}.weight": layer[role] for role in ("down", "up")}
        if with_alpha:
            tensors[f"{start}.alpha"] = torch.tensor(layer["alpha"])
    return tensors


def with_alphas(drawn, alphas):
    """One alpha for each component, or a list that the U-Net's layers use in turn."""
    for i, ((part, _), layer) in enumerate(drawn.items()):
        layer["alpha"] = alphas[part][i % len(alphas[part])] if isinstance(alphas[part], list) else alphas[part]
    return drawn


def cases(pipe):
    """Name, layers, tensors, metadata, scale."""

    def ldm(name):
        return next(iter(unet_to_ldm({f"{name}.weight": None}, pipe.unet.config))).removesuffix(".weight")

    drawn = draw(pipe, LINEAR + OTHERS, 1)
    yield "peft", drawn, peft(drawn), None, 1.0
    drawn = draw(pipe, LINEAR, 2, rank=(2, 3, 5))
    yield "diffusers", drawn, diffusers(drawn), None, 0.7
    drawn = draw(pipe, ATTENTION, 3)
    yield "old_diffusers", drawn, old_diffusers(drawn), None, 1.0
    drawn = with_alphas(
        draw(pipe, LINEAR + tuple(set(OTHERS) - {"linear_1", "linear_2"}), 4),
        {"unet": 1.0, "text_encoder": 2.0, "text_encoder_2": 8.0},
    )
    yield "kohya", drawn, kohya(drawn), None, 0.8
    drawn = with_alphas(
        draw(pipe, LINEAR + OTHERS + ("text_projection",), 8, rank=(1, 4)),
        {"unet": [2.0, 2.0, 4.0, 1.0], "text_encoder": [2.0, 3.0], "text_encoder_2": [8.0, 1.0, 1.0]},
    )
    yield BY_HAND, drawn, kohya(drawn), None, 0.8
    drawn = with_alphas(draw(pipe, LINEAR + OTHERS, 5), {"unet": 2.0, "text_encoder": 1.0, "text_encoder_2": 1.0})
    yield "kohya_ldm", drawn, kohya(drawn, ldm), None, -1.5
    drawn = draw(pipe, LINEAR, 6, parts=("unet", "text_encoder"))
    yield (
        "kohya_te",
        drawn,
        kohya(drawn, parts={"unet": "lora_unet_", "text_encoder": "lora_te_"}, with_alpha=False),
        None,
        1.0,
    )
    drawn = with_alphas(
        draw(pipe, ATTENTION, 7, parts=("unet", "text_encoder_2")), {"unet": 6.0, "text_encoder_2": 2.0}
    )
    config = {
        "r": 4,
        "use_dora": False,
        "lora_bias": False,
        "use_rslora": False,
        "bias": "none",
        "target_modules": ["to_q", "to_k", "to_v", "to_out.0"],
    }
    metadata = {
        f"unet.{key}": value
        for key, value in {**config, "lora_alpha": 6, "alpha_pattern": {}, "rank_pattern": {}}.items()
    }
    metadata |= {
        f"text_encoder_2.{key}": value
        for key, value in {
            **config,
            "lora_alpha": 2,
            "alpha_pattern": {},
            "rank_pattern": {},
            "target_modules": ["q_proj", "k_proj", "v_proj", "out_proj"],
        }.items()
    }
    yield "peft_metadata", drawn, peft(drawn), metadata, 1.0
    # The first matching pattern of the file counts, a dot in it matches any character, and with rsLoRA alpha is divided
    # by the root of the rank.
    drawn = draw(pipe, ("to_q", "to_k", "to_v", "q_proj"), 9, parts=("unet", "text_encoder_2"))
    for (part, name), layer in drawn.items():
        in_unet = {"to_q": 1.0, "to_k": 12.0 if name.endswith("attn1.to_k") else 6.0, "to_v": 2.5}
        layer["alpha"] = (
            in_unet[name.rpartition(".")[2]] if part == "unet" else 2.0 * (3.0 if ".layers.1." in name else 2.0)
        )
    patterns = {
        "unet.alpha_pattern": {"to_q": 1, "attn1.to_q": 12, "attn1.to_k": 12, "attn..to_v$": 2.5},
        "unet.lora_alpha": 6,
    }
    patterns |= {
        "text_encoder_2.alpha_pattern": {"^text_model.encoder.layers.1.self_attn.q_proj": 3},
        "text_encoder_2.use_rslora": True,
    }
    yield "peft_patterns", drawn, peft(drawn), metadata | patterns, 1.0


def merged(drawn, scale, part, name, value):
    """The formula, in f64."""
    layer = drawn.get((part, name.removesuffix(".weight"))) if name.endswith(".weight") else None
    if layer is None:
        return value.double()
    up, down = layer["up"].double().flatten(1), layer["down"].double().flatten(1)
    return value.double() + scale * layer["alpha"] / down.shape[0] * (up @ down).reshape(value.shape)


def merge_by_hand(pipe, plain, drawn, scale):
    """Writes the formula's weights into the model."""
    for part in PARTS:
        getattr(pipe, part).load_state_dict(
            {name: merged(drawn, scale, part, name, value).float() for name, value in plain[part].items()}
        )


def check_fused(pipe, plain, drawn, scale):
    """Compares every weight with the formula."""
    for part in PARTS:
        state = {
            name.replace(".base_layer", ""): value
            for name, value in getattr(pipe, part).state_dict().items()
            if ".lora_" not in name
        }
        for name, value in plain[part].items():
            value = merged(drawn, scale, part, name, value)
            gap = (state[name].double() - value).abs().max() / value.abs().max()
            assert gap < 1e-6, (part, name, gap)


def outputs(pipe):
    """Text, one prediction, and a short run."""
    embeds = pipe.encode_prompt(RUN["prompt"], do_classifier_free_guidance=False)
    rng = torch.Generator().manual_seed(5)
    sample, timesteps = torch.randn(1, 4, 8, 8, generator=rng), torch.tensor([341.0])
    time_ids = torch.tensor([[64.0, 64.0, 0.0, 0.0, 64.0, 64.0]])
    added = {"text_embeds": embeds[2], "time_ids": time_ids}
    noise_pred = pipe.unet(sample, timesteps, embeds[0], added_cond_kwargs=added).sample
    latents = final_latents(pipe, RUN, RUN["steps"], prompt=RUN["prompt"])
    return {
        "prompt_embeds": embeds[0],
        "pooled_prompt_embeds": embeds[2],
        "sample": sample,
        "timesteps": timesteps,
        "time_ids": time_ids,
        "noise_pred": noise_pred,
        "latents": latents,
    }


@torch.no_grad()
def write(folder, checkpoint):
    """Writes all files, and the results of the model with each of them alone and with two together."""
    folder.mkdir()
    expected, listed = {}, []
    pipe = StableDiffusionXLPipeline.from_pretrained(checkpoint, low_cpu_mem_usage=False)
    made = list(cases(pipe))
    for name, _, tensors, metadata, _ in made:
        text = {"format": "pt"} | ({"lora_adapter_metadata": json.dumps(metadata)} if metadata else {})
        save_file({key: value.contiguous() for key, value in tensors.items()}, folder / f"{name}.safetensors", text)
    plain = {part: {name: value.clone() for name, value in getattr(pipe, part).state_dict().items()} for part in PARTS}
    for name, drawn, _, _, scale in made:
        pipe = StableDiffusionXLPipeline.from_pretrained(checkpoint, low_cpu_mem_usage=False)
        pipe.set_progress_bar_config(disable=True)
        if name == BY_HAND:
            merge_by_hand(pipe, plain, drawn, scale)
        else:
            pipe.load_lora_weights(str(folder), weight_name=f"{name}.safetensors")
            pipe.fuse_lora(lora_scale=scale)
        check_fused(pipe, plain, drawn, scale)
        expected |= {f"{name}.{key}": value for key, value in outputs(pipe).items()}
        listed.append({"loras": [[name, scale]], "name": name})
    # Two LoRAs: diffusers fuses one adapter after the other.
    pipe = StableDiffusionXLPipeline.from_pretrained(checkpoint, low_cpu_mem_usage=False)
    pipe.set_progress_bar_config(disable=True)
    both = [("kohya", 0.5), ("peft", -0.4)]
    for name, _ in both:
        pipe.load_lora_weights(str(folder), weight_name=f"{name}.safetensors", adapter_name=name)
    pipe.set_adapters([name for name, _ in both], [scale for _, scale in both])
    expected |= {f"both.{key}": value for key, value in outputs(pipe).items()}
    listed.append({"loras": both, "name": "both"})
    save(folder / "expected.safetensors", expected)
    (folder / "cases.json").write_text(json.dumps({"run": RUN, "cases": listed}, indent=1))
