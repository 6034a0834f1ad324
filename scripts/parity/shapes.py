"""The three small seeded checkpoints, in the folder layout of diffusers.

`narrow`   SDXL's own block pattern and files: 8 x VAE, Euler, pad `!` in the second tokenizer.
`words`    few merges, so that words are several tokens; two levels; v-prediction; `force_upcast`; head widths differ.
`convproj` 1 x 1 convolutions for projections (SD 1.5's way), odd group counts, whole numbers where SDXL has lists, DDIM.

Weights are drawn so that every one of them shows in the output: matrices keep the variance, norm scales
differ from one, no bias is zero. In `convproj` what flows along the residual path is small besides, so that
what the norms add to a variance shows too.
"""

import json
import re
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

import clip_bpe
import prompts

NOISE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}

SHAPES = {
    "narrow": {
        "seed": 11, "merges": 700, "max_length": 77, "pads": ("<|endoftext|>", "!"), "tokenizer_files": "sdxl",
        "force_zeros": True, "text_keys": "prefixed", "legacy_eos": True, "base": "hobbit", "image": (64, 64), "residual": 1.0,
        "prompt": "a hobbit wearing robes, oil painting", "template": "a photo of a hobbit",
        "text": {"hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 4, "num_attention_heads": 4, "projection_dim": 32},
        "text_2": {"hidden_size": 40, "intermediate_size": 96, "num_hidden_layers": 5, "num_attention_heads": 5, "projection_dim": 24},
        "unet": {
            "block_out_channels": (32, 64, 96), "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "layers_per_block": 2,
            "transformer_layers_per_block": [1, 2, 3], "attention_head_dim": [2, 4, 6], "use_linear_projection": True,
            "norm_num_groups": 8, "addition_time_embed_dim": 16, "sample_size": 8,
        },
        "vae": {"block_out_channels": (16, 32, 48, 48), "layers_per_block": 2, "norm_num_groups": 8, "scaling_factor": 0.13025, "force_upcast": True},
        "scheduler": (EulerDiscreteScheduler, {"timestep_spacing": "leading", "steps_offset": 1}),
    },
    "words": {
        "seed": 22, "merges": 40, "max_length": 77, "pads": ("<|endoftext|>", "<|endoftext|>"), "tokenizer_files": "transformers",
        "force_zeros": True, "text_keys": "bare", "legacy_eos": False, "base": "pencil box", "image": (96, 96), "residual": 1.0,
        "prompt": "a Pencil Box in the snow", "template": "a drawing of a pencil box",
        "text": {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 3, "projection_dim": 48},
        "text_2": {"hidden_size": 24, "intermediate_size": 60, "num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 36},
        "unet": {
            "block_out_channels": (24, 48), "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "layers_per_block": 3, "transformer_layers_per_block": [1, 2],
            "attention_head_dim": [2, 3], "use_linear_projection": True, "norm_num_groups": 12, "addition_time_embed_dim": 10, "sample_size": 12,
        },
        "vae": {"block_out_channels": (12, 24, 24, 36), "layers_per_block": 1, "norm_num_groups": 4, "scaling_factor": 0.18215, "force_upcast": True},
        "scheduler": (EulerDiscreteScheduler, {"timestep_spacing": "trailing", "steps_offset": 0, "prediction_type": "v_prediction"}),
    },
    "convproj": {
        "seed": 33, "merges": 300, "max_length": 40, "pads": ("!", "<|endoftext|>"), "tokenizer_files": "conflict",
        "force_zeros": False, "text_keys": "position_ids", "legacy_eos": True, "base": "robot", "image": (32, 32), "residual": 0.1,
        "prompt": "a ROBOT, reading the newspaper!", "template": "a robot",
        "text": {"hidden_size": 20, "intermediate_size": 50, "num_hidden_layers": 3, "num_attention_heads": 5, "projection_dim": 20},
        "text_2": {"hidden_size": 36, "intermediate_size": 72, "num_hidden_layers": 3, "num_attention_heads": 3, "projection_dim": 28},
        "unet": {
            "block_out_channels": (20, 40, 60), "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"), "layers_per_block": 1,
            "transformer_layers_per_block": 2, "attention_head_dim": 5, "use_linear_projection": False,
            "norm_num_groups": 5, "addition_time_embed_dim": 6, "sample_size": 8,
        },
        "vae": {"block_out_channels": (18, 27, 36), "layers_per_block": 2, "norm_num_groups": 9, "scaling_factor": 0.9, "force_upcast": False},
        "scheduler": (DDIMScheduler, {"timestep_spacing": "leading", "steps_offset": 1, "clip_sample": False, "set_alpha_to_one": False}),
    },
}


# What writes to the residual path of U-Net and VAE, and what on that path has only a bias to make small.
WRITES = re.compile(r"(conv_in|conv2|proj_in|proj_out|to_out\.0|ff\.net\.2)\.|(conv_shortcut|samplers\.0\.conv)\.bias")


def randomise(module, seed, residual=1.0):
    """Draws every parameter: matrices with variance 1 / fan-in, norm scales about 1, biases about 0.

    What a block adds to the residual path is multiplied by `residual`.
    """
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in sorted(module.named_parameters()):
            noise = torch.randn(value.shape, generator=rng)
            if value.ndim == 1:
                value.copy_(1.0 + 0.2 * noise if name.endswith("weight") else 0.2 * noise)
            elif "embedding" in name and value.ndim == 2 and "linear" not in name:
                value.copy_(0.7 * noise)
            else:
                value.copy_(noise / value[0].numel() ** 0.5)
            if WRITES.search(name):
                value.mul_(residual)
    return module.eval()


def added_token(text):
    """A special token the way SDXL's files spell it."""
    return {"content": text, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}


def write_tokenizer(folder, vocab, merges, pad, shape):
    """The four tokenizer files of SDXL's repository, no tokenizer.json."""
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    bos, eos = clip_bpe.BOS, clip_bpe.EOS
    special = {"bos_token": bos, "eos_token": eos, "unk_token": eos, "pad_token": pad}
    config = {"add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": shape["max_length"], "tokenizer_class": "CLIPTokenizer"}
    if shape["tokenizer_files"] == "transformers":
        config.update(special)
    else:
        for key in ("bos_token", "eos_token", "unk_token"):
            special[key] = added_token(special[key])
            config[key] = {"__type": "AddedToken", **special[key]}
        # SD 2.1: tokenizer_config.json names the end token as pad, special_tokens_map.json another.
        config["pad_token"] = eos if shape["tokenizer_files"] == "conflict" else pad
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2))
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))


def text_config(spec, shape, vocab, activation):
    """SDXL's configs carry the old placeholder ids 0, 1, 2; newer ones carry the true ids."""
    bos, eos, pad = (0, 2, 1) if shape["legacy_eos"] else (vocab[clip_bpe.BOS], vocab[clip_bpe.EOS], vocab[clip_bpe.EOS])
    return CLIPTextConfig(
        vocab_size=len(vocab), max_position_embeddings=shape["max_length"], hidden_act=activation,
        bos_token_id=bos, eos_token_id=eos, pad_token_id=pad, **spec,
    )


def write_text_encoder(folder, model, keys):
    """Saves a text encoder under the key names found in the wild: `text_model.` before or not, `position_ids` kept or not."""
    model.save_pretrained(folder)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors = {name.removeprefix("text_model."): value for name, value in tensors.items()}
    if keys == "position_ids":
        tensors["embeddings.position_ids"] = torch.arange(model.config.max_position_embeddings)[None]
    if keys != "bare" or "text_projection.weight" in tensors:
        tensors = {name if name.startswith("text_projection") else f"text_model.{name}": value for name, value in tensors.items()}
    save_file({name: value.contiguous() for name, value in tensors.items()}, path, {"format": "pt"})


def build(name, folder, shape=None):
    """Writes the checkpoint `name`, or one of another shape, into `folder`."""
    shape, folder = shape or SHAPES[name], Path(folder)
    seed = shape["seed"]
    folder.mkdir(parents=True)
    vocab, merges = clip_bpe.learn(prompts.training_text(seed), shape["merges"])
    for tokenizer, pad in zip(("tokenizer", "tokenizer_2"), shape["pads"]):
        write_tokenizer(folder / tokenizer, vocab, merges, pad, shape)

    first = text_config(shape["text"], shape, vocab, "quick_gelu")
    second = text_config(shape["text_2"], shape, vocab, "gelu")
    write_text_encoder(folder / "text_encoder", randomise(CLIPTextModel(first), seed + 1), shape["text_keys"])
    write_text_encoder(folder / "text_encoder_2", randomise(CLIPTextModelWithProjection(second), seed + 2), shape["text_keys"])

    unet = UNet2DConditionModel(
        in_channels=4, out_channels=4, addition_embed_type="text_time",
        cross_attention_dim=first.hidden_size + second.hidden_size,
        projection_class_embeddings_input_dim=second.projection_dim + 6 * shape["unet"]["addition_time_embed_dim"],
        **shape["unet"],
    )
    randomise(unet, seed + 3, shape["residual"]).save_pretrained(folder / "unet")
    levels = len(shape["vae"]["block_out_channels"])
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
        latent_channels=4, sample_size=shape["unet"]["sample_size"] * 2 ** (levels - 1), **shape["vae"],
    )
    randomise(vae, seed + 4, shape["residual"]).save_pretrained(folder / "vae")
    scheduler, options = shape["scheduler"]
    scheduler(**NOISE, **options).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionXLPipeline", "_diffusers_version": "0.42.1", "force_zeros_for_empty_prompt": shape["force_zeros"],
        "add_watermarker": None, "feature_extractor": [None, None], "image_encoder": [None, None],
        "scheduler": ["diffusers", scheduler.__name__], "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))
