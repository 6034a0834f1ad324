"""Builds the small seeded checkpoints of checkpoints.py, in the folder layout of diffusers.

Weights are drawn so that every one of them changes the output: matrices keep the variance, norm scales differ from one,
no bias is zero. In `convproj` the values on the residual path are also small, so that the epsilon that a norm adds to
the variance changes the output too.
"""

import json
import re
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

import clip_bpe
import prompts
from checkpoints import SHAPES

NOISE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}

# The files of SD 1.5 and 2.1 are from early versions of diffusers and have few fields; the other fields have their
# defaults.
SD_UNET_FIELDS = """_class_name _diffusers_version act_fn attention_head_dim block_out_channels center_input_sample
cross_attention_dim down_block_types downsample_padding flip_sin_to_cos freq_shift in_channels layers_per_block
mid_block_scale_factor norm_eps norm_num_groups out_channels sample_size up_block_types""".split()
SD21_UNET_FIELDS = """dual_cross_attention num_class_embeds only_cross_attention resnet_time_scale_shift
upcast_attention use_linear_projection""".split()
SD_VAE_FIELDS = """_class_name _diffusers_version act_fn block_out_channels down_block_types in_channels latent_channels
layers_per_block norm_num_groups out_channels sample_size up_block_types""".split()


# Layers that write to the residual path of U-Net and VAE, and layers on this path of which only the bias is made small.
WRITES = re.compile(r"(conv_in|conv2|proj_in|proj_out|to_out\.0|ff\.net\.2)\.|(conv_shortcut|samplers\.0\.conv)\.bias")


def randomise(module, seed, residual=1.0):
    """Draws every parameter: matrices with variance 1 / fan-in, norm scales about 1, biases about 0.

    The weights of layers that add to the residual path are multiplied by `residual`.
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
    """A special token in the form of SDXL's files."""
    return {"content": text, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}


def write_tokenizer(folder, vocab, merges, pad, shape):
    """Writes the four tokenizer files of SDXL's repository, no tokenizer.json."""
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    bos, eos = clip_bpe.BOS, clip_bpe.EOS
    special = {"bos_token": bos, "eos_token": eos, "unk_token": eos, "pad_token": pad}
    config = {
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": shape["max_length"],
        "tokenizer_class": "CLIPTokenizer",
    }
    if shape["tokenizer_files"] == "transformers":
        config.update(special)
    else:
        for key in ("bos_token", "eos_token", "unk_token"):
            special[key] = added_token(special[key])
            config[key] = {"__type": "AddedToken", **special[key]}
        # SD 2.1: tokenizer_config.json names the end token as pad, special_tokens_map.json another token.
        config["pad_token"] = eos if shape["tokenizer_files"] == "conflict" else pad
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2))
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))


def text_config(spec, shape, vocab):
    """SDXL's configs have the old placeholder ids 0, 1, 2; newer configs have the true ids."""
    bos, eos, pad = (
        (0, 2, 1) if shape["legacy_eos"] else (vocab[clip_bpe.BOS], vocab[clip_bpe.EOS], vocab[clip_bpe.EOS])
    )
    return CLIPTextConfig(
        vocab_size=len(vocab),
        max_position_embeddings=shape["max_length"],
        bos_token_id=bos,
        eos_token_id=eos,
        pad_token_id=pad,
        **spec,
    )


def write_text_encoder(folder, model, keys):
    """Saves a text encoder under key names of real files: with or without the prefix `text_model.`, with or without
    `position_ids`."""
    model.save_pretrained(folder)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors = {name.removeprefix("text_model."): value for name, value in tensors.items()}
    if keys == "position_ids":
        tensors["embeddings.position_ids"] = torch.arange(model.config.max_position_embeddings)[None]
    if keys != "bare" or "text_projection.weight" in tensors:
        tensors = {
            name if name.startswith("text_projection") else f"text_model.{name}": value
            for name, value in tensors.items()
        }
    save_file({name: value.contiguous() for name, value in tensors.items()}, path, {"format": "pt"})


def keep(path, fields):
    """Keeps only these fields in a config."""
    config = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in config.items() if key in fields}, indent=2))


def write_vae(folder, vae, keys):
    """Saves a VAE; `old` names the layers of its attention as files before diffusers 0.15 do."""
    vae.save_pretrained(folder)
    if keys == "old":
        path = folder / "diffusion_pytorch_model.safetensors"
        spelling = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
        renamed = re.compile(r"(attentions\.0)\.(" + "|".join(map(re.escape, spelling)) + r")\.")
        tensors = {
            renamed.sub(lambda hit: f"{hit[1]}.{spelling[hit[2]]}.", name): value
            for name, value in load_file(path).items()
        }
        save_file(tensors, path, {"format": "pt"})


def unused_parts(shape):
    """Sets fields that the folders lack and diffusers would warn about."""
    return {} if is_sdxl(shape) else {"safety_checker": None, "feature_extractor": None}


def is_sdxl(shape):
    """Whether the shape has SDXL's second text encoder and its added conditions."""
    return "text_2" in shape


def write_index(folder, shape, scheduler):
    """Writes `model_index.json`; SD's names a safety checker, whose files hold text that no loader can read."""
    index = {
        "_diffusers_version": "0.42.1",
        "scheduler": ["diffusers", scheduler],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    if is_sdxl(shape):
        index |= {
            "_class_name": "StableDiffusionXLPipeline",
            "force_zeros_for_empty_prompt": shape["force_zeros"],
            "add_watermarker": None,
            "feature_extractor": [None, None],
            "image_encoder": [None, None],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        }
    else:
        index |= {
            "_class_name": "StableDiffusionPipeline",
            "feature_extractor": ["transformers", "CLIPFeatureExtractor"],
            "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        }
        for path in (
            "feature_extractor/preprocessor_config.json",
            "safety_checker/config.json",
            "safety_checker/model.safetensors",
        ):
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text("not to be read")
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))


def build(name, folder, shape=None):
    """Writes the checkpoint `name`, or one of another shape, into `folder`."""
    shape, folder = shape or SHAPES[name], Path(folder)
    seed = shape["seed"]
    folder.mkdir(parents=True)
    vocab, merges = clip_bpe.learn(prompts.training_text(seed), shape["merges"])
    for tokenizer, pad in zip(("tokenizer", "tokenizer_2"), shape["pads"]):
        write_tokenizer(folder / tokenizer, vocab, merges, pad, shape)

    first = text_config(shape["text"], shape, vocab)
    write_text_encoder(folder / "text_encoder", randomise(CLIPTextModel(first), seed + 1), shape["text_keys"])
    width, added = first.hidden_size, {}
    if is_sdxl(shape):
        second = text_config(shape["text_2"], shape, vocab)
        write_text_encoder(
            folder / "text_encoder_2", randomise(CLIPTextModelWithProjection(second), seed + 2), shape["text_keys"]
        )
        width += second.hidden_size
        inputs = second.projection_dim + 6 * shape["unet"]["addition_time_embed_dim"]
        added = {"addition_embed_type": "text_time", "projection_class_embeddings_input_dim": inputs}
    unet = UNet2DConditionModel(in_channels=4, out_channels=4, cross_attention_dim=width, **added, **shape["unet"])
    randomise(unet, seed + 3, shape["residual"]).save_pretrained(folder / "unet")
    levels = len(shape["vae"]["block_out_channels"])
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        latent_channels=4,
        sample_size=shape["unet"]["sample_size"] * 2 ** (levels - 1),
        **shape["vae"],
    )
    write_vae(folder / "vae", randomise(vae, seed + 4, shape["residual"]), shape.get("vae_keys"))
    scheduler, options = shape["scheduler"]
    if is_sdxl(shape):
        scheduler(**NOISE, **options).save_pretrained(folder / "scheduler")
    else:
        keep(
            folder / "unet" / "config.json",
            [*SD_UNET_FIELDS, *shape["unet"], *(SD21_UNET_FIELDS if "upcast_attention" in shape["unet"] else [])],
        )
        keep(folder / "vae" / "config.json", SD_VAE_FIELDS)
        (folder / "scheduler").mkdir()
        (folder / "scheduler" / "scheduler_config.json").write_text(
            json.dumps({"_class_name": scheduler.__name__, **NOISE, **options}, indent=2)
        )
    write_index(folder, shape, scheduler.__name__)
