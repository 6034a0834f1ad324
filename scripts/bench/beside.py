"""Files that are loaded beside a model, with random values: a LoRA of its attention layers, and a ControlNet with its
control image.

Used by memory.py, which needs only the right names and sizes.

Requirements: scripts/parity/requirements.txt
"""

import numpy as np
import torch
from diffusers import ControlNetModel
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from machine import config_of
from random_sdxl import write_component

RANK = 4
WEIGHTS = "diffusion_pytorch_model.safetensors"
# Keys that the config of a ControlNet shares with that of its U-Net.
SHARED = (
    "in_channels", "block_out_channels", "down_block_types", "layers_per_block", "transformer_layers_per_block",
    "attention_head_dim", "cross_attention_dim", "use_linear_projection", "addition_embed_type",
    "addition_time_embed_dim", "projection_class_embeddings_input_dim", "norm_num_groups",
)  # fmt: skip


def write_lora(model, path):
    """Updates for every attention layer of the U-Net, under PEFT's names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    generator, tensors = torch.Generator().manual_seed(5), {}
    with safe_open(model / "unet" / WEIGHTS, "pt") as file:
        for key in file.keys():  # noqa: SIM118, a safetensors file is not a dict
            if ".attn" not in key or not key.endswith((".to_q.weight", ".to_k.weight", ".to_v.weight")):
                continue
            high, wide = file.get_slice(key).get_shape()
            layer = "unet." + key.removesuffix(".weight")
            tensors[f"{layer}.lora_A.weight"] = 0.01 * torch.randn((RANK, wide), generator=generator)
            tensors[f"{layer}.lora_B.weight"] = 0.01 * torch.randn((high, RANK), generator=generator)
    save_file(tensors, path)
    return path


def write_controlnet(model, folder, side, is_hollow=False):
    """The folder of a ControlNet for this model, and a control image. With `is_hollow`, its weights are holes."""
    unet = config_of(model, "unet")
    halvings = len(config_of(model, "vae")["block_out_channels"])
    config = {name: unet[name] for name in SHARED if name in unet}
    config["conditioning_embedding_out_channels"] = [16, 32, 96, 256][:halvings]
    with torch.device("meta"):
        net = ControlNetModel(**config)
    config = {"_class_name": "ControlNetModel", **net.config}
    write_component(folder, net, config, torch.float32, "diffusion_pytorch_model", is_hollow)
    image = folder / "image.png"
    y, x = np.mgrid[0:side, 0:side]
    Image.fromarray(((x // 16 + y // 16) % 2 * 255).astype(np.uint8)).convert("RGB").save(image)
    return folder, image
