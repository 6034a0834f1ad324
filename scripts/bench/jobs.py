"""Inputs of the benchmarks, written once for both sides, and the comparison of the two sides' outputs."""

from dataclasses import dataclass

import torch
from safetensors.torch import load_file, save_file

from machine import PROMPT, WORD, config_of
from recipe import projector_for


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def unet_inputs(model, rows, latent_side, path):
    """Tensors of a U-Net pass; every row has its own timestep."""
    config, generator = config_of(model, "unet"), rng()
    draw = lambda *shape: torch.randn(shape, generator=generator)
    pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
    pixels = 8.0 * latent_side
    tensors = {
        "sample": draw(rows, config["in_channels"], latent_side, latent_side),
        "timesteps": torch.linspace(900, 100, rows),
        "prompt_embeds": draw(rows, 77, config["cross_attention_dim"]),
        "text_embeds": draw(rows, pooled),
        "time_ids": torch.tensor([[pixels, pixels, 0.0, 0.0, pixels, pixels]]).repeat(rows, 1),
    }
    save_file(tensors, path)
    return str(path)


def offsets(model, folder):
    """Offsets for one token, as large as those of a tuned actor."""
    width, generator = config_of(model, "unet")["cross_attention_dim"], rng(1)
    names, path = ("target_offset", "average_offset"), folder / "offsets.safetensors"
    save_file({name: 0.5 * torch.randn(1, width, generator=generator) for name in names}, path)
    return str(path)


@dataclass(frozen=True)
class Drawing:
    """A picture of `side` pixels in `steps` steps; with guidance by an actor, the first `guided` steps are guided."""

    side: int
    steps: int
    guided: int = 0

    def plain(self):
        return {"do": "image", "prompt": PROMPT, "seed": 3, "steps": self.steps, "size": self.side}

    def with_offsets(self, path, eta_2):
        how = {"word": WORD, "offsets": path, "eta_2": eta_2, "guided_steps": [1, self.guided]}
        return self.plain() | how


def tune_inputs(base, num_auxiliary, path):
    """A batch of a base set, and a projector whose offsets are not zero."""
    tensors, generator = load_file(base / "base.safetensors"), rng(2)
    rows = [0, *range(1, num_auxiliary + 1), 1]
    z_0 = tensors["latents"][rows].clone()
    width = tensors_width(base)
    torch.manual_seed(2)
    projector = projector_for(tensors["encoder_features"], width)
    batch = {
        "auxiliary": torch.arange(1, num_auxiliary + 1),
        "z_0": z_0,
        "eps": torch.randn(z_0.shape, generator=generator),
        "timesteps": torch.randint(0, 1000, (len(rows),), generator=generator),
    }
    own = {f"projector.{name}": value.detach().clone() for name, value in projector.named_parameters()}
    save_file(batch | own, path)
    return str(path)


def tensors_width(base):
    """The token width of the model that drew a base set."""
    from safetensors import safe_open

    with safe_open(base / "base.safetensors", "pt") as file:
        return config_of(file.metadata()["model"], "unet")["cross_attention_dim"]


def difference(path_a, path_b, name="output"):
    """Relative difference of two results, by norms; infinite if a value is not finite."""
    a, b = load_file(path_a)[name].double(), load_file(path_b)[name].double()
    if a.shape != b.shape or not (a.isfinite().all() and b.isfinite().all()):
        return float("inf")
    return ((a - b).norm() / b.norm()).item()
