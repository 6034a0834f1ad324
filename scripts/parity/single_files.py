"""Whole checkpoints in one file, in the form of the original code of SDXL and SD 1.5, and what diffusers reads from
them.

`folder`, `folder_sd15`  a small SDXL and a small SD 1.5 in diffusers' layout, with the head width (64) or number (8)
                         and groups (32) that no file tells
`sdxl.safetensors`, `sd15.safetensors`  the same weights in one file, under the original's names; tokenizers, the same
                                        for both, lie beside
`NAME.COMPONENT.safetensors`  what diffusers' own converters make of it; asserted here to be what was started from
`latents.safetensors`    final latents of `from_single_file`, by model; asserted to be those of the folder
`full_size.json`         names and shapes of the real SDXL base and SD 1.5 in one file, from diffusers' classes without
                         weights
"""

import json
import re
import shutil

import torch
from diffusers import (
    AutoencoderKL,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.loaders import single_file_utils
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

import shapes
from checkpoints import TINY, TINY_SD15
from expected_models import save

FULL_SDXL = {
    "unet": {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 2,
        "transformer_layers_per_block": [1, 2, 10],
        "attention_head_dim": [5, 10, 20],
        "use_linear_projection": True,
        "cross_attention_dim": 2048,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    "vae": {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2},
    "text": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "vocab_size": 49408,
    },
    "text_2": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "vocab_size": 49408,
        "projection_dim": 1280,
    },
}
FULL_SD15 = {
    "unet": {
        "block_out_channels": (320, 640, 1280, 1280),
        "layers_per_block": 2,
        "attention_head_dim": 8,
        "cross_attention_dim": 768,
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    },
    "vae": {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2},
    "text": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "vocab_size": 49408,
    },
}
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}


def unet_layout(config):
    """New prefix for each part of a block, in the order in which the original code fills its lists."""
    layers, layout = config["layers_per_block"], {}
    place = 1
    for b, kind in enumerate(config["down_block_types"]):
        for layer in range(layers):
            layout[f"down_blocks.{b}.resnets.{layer}."] = f"input_blocks.{place}.0."
            if "CrossAttn" in kind:
                layout[f"down_blocks.{b}.attentions.{layer}."] = f"input_blocks.{place}.1."
            place += 1
        if b + 1 < len(config["down_block_types"]):
            layout[f"down_blocks.{b}.downsamplers.0.conv."] = f"input_blocks.{place}.0.op."
            place += 1
    layout |= {
        "mid_block.resnets.0.": "middle_block.0.",
        "mid_block.attentions.0.": "middle_block.1.",
        "mid_block.resnets.1.": "middle_block.2.",
    }
    place = 0
    for b, kind in enumerate(config["up_block_types"]):
        for layer in range(layers + 1):
            parts = [f"up_blocks.{b}.resnets.{layer}."]
            parts += [f"up_blocks.{b}.attentions.{layer}."] if "CrossAttn" in kind else []
            parts += (
                [f"up_blocks.{b}.upsamplers.0."] if layer == layers and b + 1 < len(config["up_block_types"]) else []
            )
            layout |= {part: f"output_blocks.{place}.{i}." for i, part in enumerate(parts)}
            place += 1
    return layout


def unet_to_ldm(state, config):
    """Renames a U-Net."""
    layout, renamed = unet_layout(config), {}
    for key, value in state.items():
        end = next((end for end in ENDS if key.startswith(end + ".")), None)
        if end:
            renamed[key.replace(end, ENDS[end], 1)] = value
            continue
        start = next(start for start in layout if key.startswith(start))
        rest = key[len(start) :]
        if ".resnets." in start:
            layer, _, kind = rest.partition(".")
            rest = f"{RESNET[layer]}.{kind}"
        renamed[layout[start] + rest] = value
    return renamed


def vae_to_ldm(state, blocks):
    """Renames a VAE; its attention becomes 1 x 1 convolutions."""
    renamed = {}
    for key, value in state.items():
        new = (
            key.replace("conv_norm_out", "norm_out")
            .replace("conv_shortcut", "nin_shortcut")
            .replace(".downsamplers.0.", ".downsample.")
            .replace(".upsamplers.0.", ".upsample.")
        )
        new = re.sub(r"down_blocks\.(\d+)\.", r"down.\1.", new)
        new = re.sub(r"up_blocks\.(\d+)\.", lambda found: f"up.{blocks - 1 - int(found[1])}.", new)
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", new).replace(
            ".resnets.", ".block."
        )
        if "mid_block.attentions.0" in new:
            new = (
                new.replace("mid_block.attentions.0", "mid.attn_1")
                .replace("group_norm", "norm")
                .replace("to_out.0", "proj_out")
                .replace(".to_", ".")
            )
            value = value[:, :, None, None] if value.ndim == 2 else value
        renamed[new] = value
    return renamed


def open_clip(state):
    """Renames a text encoder with projection to OpenCLIP's names."""
    state, renamed = dict(state), {}
    for layer in sorted({key.rpartition(".self_attn.q_proj.")[0] for key in state if ".q_proj." in key}):
        for kind in ("weight", "bias"):
            parts = [state.pop(f"{layer}.self_attn.{part}_proj.{kind}") for part in "qkv"]
            state[f"{layer}.attn.in_proj_{kind}"] = torch.cat(parts)
    names = {
        "text_model.encoder.layers.": "transformer.resblocks.",
        "self_attn.out_proj": "attn.out_proj",
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.embeddings.token_embedding": "token_embedding",
        "text_model.final_layer_norm": "ln_final",
        "text_projection.weight": "text_projection",
    }
    for key, value in state.items():
        new = key
        for old, name in names.items():
            new = new.replace(old, name)
        renamed[new] = value.T if new == "text_projection" else value
    return renamed


def prefixed(prefix, state):
    """Adds a prefix to all keys."""
    return {prefix + key: value.contiguous() for key, value in state.items()}


def with_text_model(state):
    """The names from the time when the files were made; `CLIPTextModel` has lost its prefix since then."""
    return {
        key if key.startswith(("text_model.", "text_projection")) else f"text_model.{key}": value
        for key, value in state.items()
    }


def single_file(unet, vae, text, text_2=None):
    """One state dict of a whole model, with the leftovers of training that the real files have."""
    vae_state = vae_to_ldm(vae.state_dict(), len(vae.config.block_out_channels))
    tensors = {
        **prefixed("model.diffusion_model.", unet_to_ldm(unet.state_dict(), unet.config)),
        **prefixed("first_stage_model.", vae_state),
    }
    prefix = "conditioner.embedders.0.transformer." if text_2 else "cond_stage_model.transformer."
    tensors |= prefixed(prefix, with_text_model(text.state_dict()))
    tensors[f"{prefix}text_model.embeddings.position_ids"] = torch.arange(text.config.max_position_embeddings)[None]
    if text_2:
        tensors |= prefixed("conditioner.embedders.1.model.", open_clip(text_2.state_dict()))
        tensors["conditioner.embedders.1.model.logit_scale"] = torch.tensor(4.6)
    else:
        tables = (
            "betas",
            "alphas_cumprod",
            "alphas_cumprod_prev",
            "sqrt_alphas_cumprod",
            "log_one_minus_alphas_cumprod",
            "posterior_variance",
            "posterior_mean_coef1",
        )
        tensors |= {table: torch.zeros(1000) for table in tables} | {
            "model_ema.decay": torch.tensor(0.9),
            "model_ema.num_updates": torch.tensor(7),
        }
    return tensors


def converted(tensors, unet, vae, text_2=None):
    """The state dicts that diffusers' own converters make from the file, by component."""
    found = {
        "unet": single_file_utils.convert_ldm_unet_checkpoint(dict(tensors), unet.config),
        "vae": single_file_utils.convert_ldm_vae_checkpoint(dict(tensors), vae.config),
        "text_encoder": single_file_utils.convert_ldm_clip_checkpoint(dict(tensors)),
    }
    found["text_encoder"].pop("text_model.embeddings.position_ids")
    if text_2:
        found["text_encoder_2"] = single_file_utils.convert_open_clip_checkpoint(
            text_2, dict(tensors), prefix="conditioner.embedders.1.model."
        )
    return found


def prove(found, networks):
    """Checks that the converters return the networks that the file was made from, to the bit."""
    for name, network in networks.items():
        state = network.state_dict()
        state = with_text_model(state) if name.startswith("text") else state
        assert found[name].keys() == state.keys(), (name, found[name].keys() ^ state.keys())
        for key, value in state.items():
            assert torch.equal(found[name][key], value), (name, key)


def write_model(folder, name, shape, kind):
    """Writes a checkpoint as a folder and as one file, the output of the converters, and the final latents, which both
    must give."""
    home = folder / {"sdxl": "folder", "sd15": "folder_sd15"}[name]
    shapes.build("single", home, shape)
    unused = shapes.unused_parts(shape)
    pipe = kind.from_pretrained(home, low_cpu_mem_usage=False, **unused)
    parts = ("unet", "vae", "text_encoder", "text_encoder_2")
    networks = {part: getattr(pipe, part) for part in parts if hasattr(pipe, part)}
    tensors = single_file(*networks.values())
    path = folder / f"{name}.safetensors"
    save_file(tensors, path)
    found = converted(tensors, pipe.unet, pipe.vae, networks.get("text_encoder_2"))
    prove(found, networks)
    for part, state in found.items():
        save(folder / f"{name}.{part}.safetensors", state)

    loaded = kind.from_single_file(str(path), config=str(home), local_files_only=True, **unused)
    prove(
        {
            part: with_text_model(getattr(loaded, part).state_dict())
            if part.startswith("text")
            else getattr(loaded, part).state_dict()
            for part in networks
        },
        networks,
    )
    latents = []
    for model in (pipe, loaded):
        model.set_progress_bar_config(disable=True)
        generator = torch.Generator("cpu").manual_seed(3)
        latents.append(
            model(
                "a red hobbit",
                height=64,
                width=48,
                num_inference_steps=8,
                guidance_scale=5.0,
                generator=generator,
                output_type="latent",
            ).images
        )
    # The weights are equal to the bit; on some processors the address of a tensor decides which kernel runs, and so the
    # last bits.
    assert torch.linalg.norm(latents[0] - latents[1]) < 1e-5 * torch.linalg.norm(latents[0])
    return latents[0]


def full_size(spec):
    """Names and shapes of a real checkpoint, without memory for its weights."""
    with torch.device("meta"):
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            **spec["vae"],
        )
        networks = [UNet2DConditionModel(**spec["unet"]), vae, CLIPTextModel(CLIPTextConfig(**spec["text"]))]
        if "text_2" in spec:
            networks.append(CLIPTextModelWithProjection(CLIPTextConfig(**spec["text_2"])))
        return {key: list(value.shape) for key, value in single_file(*networks).items()}


@torch.no_grad()
def write(folder):
    """Writes everything."""
    folder.mkdir()
    latents = {
        "sdxl": write_model(folder, "sdxl", TINY, StableDiffusionXLPipeline),
        "sd15": write_model(folder, "sd15", TINY_SD15, StableDiffusionPipeline),
    }
    save(folder / "latents.safetensors", latents)
    vocabularies = [(folder / home / "tokenizer" / "vocab.json").read_bytes() for home in ("folder", "folder_sd15")]
    assert vocabularies[0] == vocabularies[1]
    for part in ("tokenizer", "tokenizer_2"):
        shutil.copytree(folder / "folder" / part, folder / part)
    (folder / "full_size.json").write_text(json.dumps({"sdxl": full_size(FULL_SDXL), "sd15": full_size(FULL_SD15)}))
