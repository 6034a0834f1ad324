"""Writes a checkpoint with the full sizes of SDXL base 1.0 and random weights, in diffusers layout.

Its pictures are noise, but it loads, runs and needs memory like the real one. The configs are those of
stabilityai/stable-diffusion-xl-base-1.0; names and shapes of tensors come from diffusers and transformers. The
tokenizers are a small vocabulary padded to CLIP's 49408 entries, because the real vocabulary cannot be fetched without
the hub. Tensors are written one at a time, so 2 GB of memory are enough for 13.9 GB of weights. If there is a GPU, the
values are drawn on it; they differ from those of a CPU. `--size mini` keeps the topology with a fifth of the channels
(158 M parameters in the UNet) and two layers in each text encoder; `--size thin` has all of the UNet's layers with 32
and 64 channels, which take almost no time to compute; `--size tiny` also has only one transformer layer in each block:
a few megabytes for trying out the benchmarks. `--hollow` writes holes in place of values: every weight is 0, and the
files take nearly no space on disk, for work that needs only their sizes (`gpu_memory.py`).

Requirements: scripts/bench/requirements.txt
Usage: random_sdxl.py FOLDER [--dtype fp32|fp16] [--size full|mini|thin|tiny] [--hollow]
"""

import argparse
import json
import math
import shutil
import struct
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

TOY = Path(__file__).resolve().parents[2] / "src" / "io" / "toy"
VOCAB = 49408
UNET = {
    "sample_size": 128,
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 2,
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 1024,
    "scaling_factor": 0.13025,
    "force_upcast": True,
}
TEXT = {"vocab_size": VOCAB, "max_position_embeddings": 77, "bos_token_id": 49406, "eos_token_id": 49407}
TEXT_1 = {
    **TEXT,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "quick_gelu",
    "projection_dim": 768,
}
TEXT_2 = {
    **TEXT,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
}
SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "interpolation_type": "linear",
    "use_karras_sigmas": False,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "sample_max_value": 1.0,
    "trained_betas": None,
}


def write_weights(path, model, dtype, is_hollow=False):
    """Random values under the model's names; activations keep their size from layer to layer. With `is_hollow`, a hole
    in the file takes the place of the values."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(0)
    header, offset, tensors = {}, 0, list(model.state_dict().items())
    width, name = (2, "F16") if dtype == torch.float16 else (4, "F32")
    for key, tensor in tensors:
        end = offset + tensor.numel() * width
        header[key] = {"dtype": name, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        if is_hollow:
            file.truncate(file.tell() + offset)
            return
        for key, tensor in tensors:
            value = torch.randn(tensor.shape, generator=generator, device=device)
            if tensor.dim() > 1:
                value /= math.sqrt(tensor[0].numel()) * (1 if "embedding" not in key else 10)
            else:
                value = value * 0.02 + (1.0 if "norm" in key and key.endswith("weight") else 0.0)
            file.write(value.to(dtype).cpu().numpy())


def write_component(folder, model, config, dtype, stem, is_hollow=False):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    write_weights(folder / f"{stem}.safetensors", model, dtype, is_hollow)


def write_tokenizer(source, folder):
    folder.mkdir(parents=True, exist_ok=True)
    vocab = json.loads((source / "vocab.json").read_text())
    words = [w for w, _ in sorted(vocab.items(), key=lambda item: item[1]) if not w.startswith("<|")]
    words += [f"<unused{i}>" for i in range(VOCAB - 2 - len(words))] + ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}, ensure_ascii=False))
    for name in ("merges.txt", "special_tokens_map.json"):
        shutil.copy(source / name, folder / name)
    config = json.loads((source / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 77}))


def shrink(size):
    """Fewer channels and layers than SDXL has."""
    if size == "full":
        return
    UNET.update(block_out_channels=[64, 128, 256], attention_head_dim=[1, 2, 4])
    VAE.update(block_out_channels=[32, 64, 128, 128])
    TEXT_1.update(num_hidden_layers=2)
    TEXT_2.update(num_hidden_layers=2)
    if size == "tiny":
        UNET.update(transformer_layers_per_block=[1, 1, 1])
    if size == "thin":
        UNET.update(
            norm_num_groups=8
        )  # with the norms' own 32 groups, a group would have one or two channels and enlarge rounding errors
    if size in ("tiny", "thin"):
        UNET.update(
            sample_size=16,
            block_out_channels=[32, 64, 64],
            attention_head_dim=[1, 2, 2],
            cross_attention_dim=96,
            addition_time_embed_dim=32,
            projection_class_embeddings_input_dim=64 + 6 * 32,
        )
        VAE.update(block_out_channels=[32, 32, 32, 32], sample_size=128)
        small = {"num_attention_heads": 2, "intermediate_size": 64}
        TEXT_1.update(hidden_size=32, projection_dim=32, **small)
        TEXT_2.update(hidden_size=64, projection_dim=64, **small)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", choices=["fp32", "fp16"], default="fp32")
    parser.add_argument("--size", choices=["full", "mini", "thin", "tiny"], default="full")
    parser.add_argument("--hollow", action="store_true", help="write holes in place of values")
    args = parser.parse_args()
    shrink(args.size)
    dtype = torch.float16 if args.dtype == "fp16" else torch.float32
    args.folder.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNET)
        vae = AutoencoderKL.from_config(VAE)
        text_1 = CLIPTextModel(CLIPTextConfig(**TEXT_1))
        text_2 = CLIPTextModelWithProjection(CLIPTextConfig(**TEXT_2))
    stem = "diffusion_pytorch_model"
    write_component(args.folder / "unet", unet, dict(unet.config), dtype, stem, args.hollow)
    write_component(args.folder / "vae", vae, dict(vae.config), dtype, stem, args.hollow)
    for name, model, config in (("text_encoder", text_1, TEXT_1), ("text_encoder_2", text_2, TEXT_2)):
        config = {
            **config,
            "layer_norm_eps": 1e-5,
            "architectures": [type(model).__name__],
            "model_type": "clip_text_model",
        }
        write_component(args.folder / name, model, config, dtype, "model", args.hollow)
    for name in ("tokenizer", "tokenizer_2"):
        write_tokenizer(TOY / name, args.folder / name)
    (args.folder / "scheduler").mkdir(exist_ok=True)
    (args.folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER, indent=2))
    index = json.loads((TOY / "model_index.json").read_text())
    index["force_zeros_for_empty_prompt"] = True
    (args.folder / "model_index.json").write_text(json.dumps(index, indent=2))


if __name__ == "__main__":
    main()
