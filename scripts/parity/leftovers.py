"""Checkpoints with tensors that no network reads, as trainers, mergers and older tools write them; and a check that
diffusers draws with them.

`sdxl.safetensors`, `sd15.safetensors`  the single files of `single_files.py` with the tensors of LEFTOVERS among the
                                        others
`linear_projection.safetensors`         SDXL's with the second text encoder's projection as a linear layer: the
                                        transposed matrix, under another name
`folder`                                the SD 1.5 of `single_files.py` whose text encoder is a whole CLIP, with one
                                        tensor more in U-Net and VAE
`leftovers.json`                        the keys of each that nothing reads, sorted

Asserted here: `from_single_file` and `from_pretrained` have the weights of the plain checkpoint, to the bit. diffusers'
converter does not know the linear projection; there the transposed matrix itself is the reference.
"""

import json
import shutil

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, CLIPTextModel

from single_files import with_text_model

CLIP, OPEN_CLIP, CLIP_OF_SD15 = "conditioner.embedders.0.", "conditioner.embedders.1.model.", "cond_stage_model."
UNET, VAE = "model.diffusion_model.", "first_stage_model."
COUNT, SCALE = torch.tensor(7), torch.tensor(4.6)
LEFTOVERS = {
    "sdxl": {
        f"{CLIP}logit_scale": SCALE,
        f"{CLIP}transformer.logit_scale": SCALE,
        f"{CLIP}transformer.text_projection.weight": torch.eye(64),
        f"{OPEN_CLIP}attn_mask": torch.zeros(77, 77),
        "denoiser.log_sigmas": torch.zeros(1000),
        f"{VAE}model_ema.decay": torch.tensor(0.9),
        f"{VAE}model_ema.num_updates": COUNT,
        f"{UNET}time_embedding.cond_proj.weight": torch.ones(64, 256),
        "global_step": COUNT,
        "epoch": COUNT,
    },
    "sd15": {
        f"{CLIP_OF_SD15}transformer.text_projection.weight": torch.eye(64),
        f"{CLIP_OF_SD15}transformer.logit_scale": SCALE,
        "embedding_manager.embedder.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
        "model_ema.diffusion_modelout2weight": torch.ones(4, 32, 3, 3),
        f"{UNET}time_embed.cond_proj.weight": torch.ones(32, 256),
        f"{VAE}loss_of_a_trainer.weight": torch.ones(3),
        "global_step": COUNT,
    },
}
# Tensors of this kind that `single_files.py` already wrote.
ALREADY = {"sdxl": set(), "sd15": {"model_ema.decay", "model_ema.num_updates"}}


def same_weights(found, plain):
    """Checks that all networks of two pipelines have the same weights, to the bit."""
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        if hasattr(plain, part):
            found_state, state = (getattr(pipe, part).state_dict() for pipe in (found, plain))
            assert found_state.keys() == state.keys(), part
            for key, value in state.items():
                assert torch.equal(found_state[key], value), (part, key)


def add(path, tensors):
    """Adds tensors to a file, with the metadata of transformers."""
    save_file({**load_file(path), **tensors}, path, {"format": "pt"})


def whole_clip(folder):
    """Writes the text encoder in `folder` under the names of a whole CLIP, with all other tensors of a CLIP."""
    text = CLIPTextModel.from_pretrained(folder)
    vision = {
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 16,
    }
    torch.manual_seed(0)
    clip = CLIPModel(CLIPConfig(text_config=text.config.to_dict(), vision_config=vision, projection_dim=24))
    others = {key: value.contiguous() for key, value in clip.state_dict().items() if not key.startswith("text_model.")}
    assert {"logit_scale", "text_projection.weight", "visual_projection.weight"} < others.keys()
    save_file({**with_text_model(text.state_dict()), **others}, folder / "model.safetensors", {"format": "pt"})
    return sorted(others)


@torch.no_grad()
def write(folder, single):
    """Writes everything, from the folder that `single_files.py` wrote."""
    folder.mkdir()
    for part in ("tokenizer", "tokenizer_2"):
        shutil.copytree(single / part, folder / part)
    kinds = {
        "sdxl": ("folder", StableDiffusionXLPipeline, {}),
        "sd15": ("folder_sd15", StableDiffusionPipeline, {"safety_checker": None, "feature_extractor": None}),
    }
    added, plain = {}, {}
    for name, (home, kind, unused) in kinds.items():
        plain[name] = kind.from_pretrained(single / home, low_cpu_mem_usage=False, **unused)
        path = folder / f"{name}.safetensors"
        added_here = {key: value.clone() for key, value in LEFTOVERS[name].items()}
        save_file({**load_file(single / f"{name}.safetensors"), **added_here}, path)
        same_weights(
            kind.from_single_file(str(path), config=str(single / home), local_files_only=True, **unused), plain[name]
        )
        added[name] = sorted(LEFTOVERS[name].keys() | ALREADY[name])

    tensors = load_file(single / "sdxl.safetensors")
    matrix = tensors.pop(f"{OPEN_CLIP}text_projection")
    tensors[f"{OPEN_CLIP}text_projection.weight"] = matrix.T.contiguous()
    assert torch.equal(plain["sdxl"].text_encoder_2.text_projection.weight, matrix.T)
    save_file(tensors, folder / "linear_projection.safetensors")

    home, kind, unused = kinds["sd15"]
    whole = folder / "folder"
    shutil.copytree(single / home, whole)
    keys = whole_clip(whole / "text_encoder")
    for part, key in (("unet", "time_embedding.cond_proj.weight"), ("vae", "loss.logvar")):
        add(whole / part / "diffusion_pytorch_model.safetensors", {key: torch.ones(32, 256)})
        keys.append(key)
    same_weights(kind.from_pretrained(whole, low_cpu_mem_usage=False, **unused), plain["sd15"])
    added["folder"] = sorted(keys)
    (folder / "leftovers.json").write_text(json.dumps(added))
