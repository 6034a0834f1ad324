"""Trains a small IP-Adapter for the toy (arXiv 2308.06721), so that `--model toy --method ip-adapter` needs no
download.

    python ip_adapter.py DATA --checkpoint ../../src/io/toy --minutes 11 --out ip-adapter.safetensors
    python ip_adapter.py DATA --checkpoint ../../src/io/toy --measure ip-adapter.safetensors

DATA are shards of data.py with latents; the last shard is left out of training and used for measuring. Trained are the
projection of the image embedding, and the keys and values of every cross-attention layer. U-Net, text encoders and the
image encoder (the vision half of the toy's CLIP) stay unchanged. The image prompt is never the training picture itself,
but another picture of the same identity in another pose, scene and style. So the tokens learn the identity of the
subject, not the picture.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPModel

import data
import diffusion
import judge
import model
import scenes
import training
import world
from captions import Describer, Mix

TOKENS = 4
TOKEN_WIDTH = 192
ARRAYS = ["latents", "ids", "nouns", "species", "classes"]


def cross_attention(unet):
    """The cross-attention layers by the numbers that diffusers gives them: 1, 3, 5 …, because self-attention counts
    too."""
    names = [name.removesuffix(".processor") for name in unet.attn_processors]
    layers = [(2 * i + 1, unet.get_submodule(name)) for i, name in enumerate(n for n in names if n.endswith("attn2"))]
    return dict(layers)


def begin(unet, embedding):
    """Keys and values start as copies of the text's, the projection with PyTorch's random values."""
    projection = nn.Linear(embedding, TOKENS * TOKEN_WIDTH)
    state = {
        "image_proj.proj.weight": projection.weight,
        "image_proj.proj.bias": projection.bias,
        "image_proj.norm.weight": torch.ones(TOKEN_WIDTH),
        "image_proj.norm.bias": torch.zeros(TOKEN_WIDTH),
    }
    for number, layer in cross_attention(unet).items():
        state[f"ip_adapter.{number}.to_k_ip.weight"] = layer.to_k.weight
        state[f"ip_adapter.{number}.to_v_ip.weight"] = layer.to_v.weight
    return {name: value.detach().clone() for name, value in state.items()}


def put_in(unet, state):
    """Loads the file with diffusers' own loader, on a plain U-Net."""
    parts = {
        part: {name.removeprefix(part + "."): value.float() for name, value in state.items() if name.startswith(part)}
        for part in ("image_proj", "ip_adapter")
    }
    unet._load_ip_adapter_weights([parts], low_cpu_mem_usage=False)


def learnt(unet):
    """The adapter's parameters by the names of its file."""
    (projection,) = unet.encoder_hid_proj.image_projection_layers
    state = {
        name.replace("image_embeds", "image_proj.proj").replace("norm", "image_proj.norm"): value
        for name, value in projection.named_parameters()
    }
    for number, layer in cross_attention(unet).items():
        for kind in ("to_k_ip", "to_v_ip"):
            state[f"ip_adapter.{number}.{kind}.weight"] = getattr(layer.processor, kind)[0].weight
    return state


class Toy:
    """The frozen networks."""

    def __init__(self, checkpoint):
        self.tokenizer = model.load_tokenizers(checkpoint)[0]
        *self.encoders, self.unet = model.load_networks(checkpoint, self.tokenizer)
        self.clip = CLIPModel.from_pretrained(checkpoint / "clip", torch_dtype=torch.float32)
        for network in (*self.encoders, self.unet, self.clip):
            network.eval().requires_grad_(False)

    @torch.no_grad()
    def text(self, describer, arrays, rows):
        ids, _, _ = describer.batch(arrays, rows)
        return model.hidden_states(self.encoders, ids, describer.second(ids))

    @torch.no_grad()
    def image_embeds(self, pixels):
        """Image embeddings [B, 128] of pixels in -1..1, which is the range that the toy's CLIP uses."""
        return self.clip.visual_projection(self.clip.vision_model(pixel_values=pixels).pooler_output)


def other_picture(species, classes, rng):
    """Another picture of the same identity. Half of these pictures have a plain backdrop, as targets often do."""
    facts = dict(zip(world.FACTOR_NAMES, map(int, classes)))
    name = world.SPECIES[species]
    scene = "plain" if rng.random() < 0.5 else str(rng.choice(scenes.NAMES[1:]))
    attribute = str(rng.choice(list(world.ATTRIBUTES))) if rng.random() < 0.15 else None
    subject = world.Subject(name, facts, world.make_look(facts, rng))
    return world.render(world.Picture([subject], scene, attribute), rng)


def image_prompts(arrays, rows, rng, generator):
    """Pixels [B, 3, 64, 64], some blurred and noisy: in use, the image prompt is a generated picture."""
    drawn = np.stack([other_picture(arrays["species"][i, 0], arrays["classes"][i, 0], rng) for i in rows])
    return judge.augment(training.to_pixels(drawn), generator)


def predict(toy, z_t, t, text, embeds):
    states, pooled = text
    added = {
        "text_embeds": pooled,
        "time_ids": torch.tensor([model.TIME_IDS]).repeat(len(z_t), 1),
        "image_embeds": [embeds[:, None]],
    }
    return toy.unet(z_t, t, states, added_cond_kwargs=added, return_dict=False)[0]


def single(arrays, first, last):
    """Rows of pictures with one subject."""
    return first + np.flatnonzero(arrays["species"][first:last, 1] < 0)


def train(args, toy, arrays):
    torch.manual_seed(0)
    rng, generator = np.random.default_rng(3), torch.Generator().manual_seed(3)
    beginning = load_file(args.init) if args.init else begin(toy.unet, toy.clip.config.projection_dim)
    put_in(toy.unet, beginning)
    parameters = learnt(toy.unet)
    for value in parameters.values():
        value.requires_grad_(True)
    average = {name: value.detach().clone() for name, value in parameters.items()}
    print(f"{sum(value.numel() for value in parameters.values()):,} parameters", flush=True)
    adam = torch.optim.AdamW(parameters.values(), lr=args.rate, weight_decay=0.01, betas=(0.9, 0.99))
    describer = Describer(toy.tokenizer, Mix(empty=0.1, noun=0, named=0), rng)
    rows_of_training = single(arrays, 0, len(arrays["latents"]) - data.SHARD)
    alphas, weigh = model.alphas_cumprod(), diffusion.LevelWeights()
    start, step, progress, recent = time.process_time(), 0, 0.0, []
    while progress < 1:
        progress = (time.process_time() - start) / 60 / args.minutes
        training.set_rate(adam, args.rate * min(1, (step + 1) / 50) * training.cosine(progress) + 1e-6)
        rows = rng.choice(rows_of_training, args.batch)
        z_t, t, noise = diffusion.noised(torch.from_numpy(arrays["latents"][rows]).float(), alphas, generator)
        embeds = toy.image_embeds(image_prompts(arrays, rows, rng, generator))
        embeds[torch.rand(len(rows), generator=generator) < 0.1] = 0  # zeros, as in the branch without the prompt
        prediction = predict(toy, z_t, t, toy.text(describer, arrays, rows), embeds)
        losses = (prediction - noise).square().mean((1, 2, 3))
        weigh(losses, t).backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
        step += 1
        recent.append(losses.mean().item())
        with torch.no_grad():
            for name, value in parameters.items():
                average[name].lerp_(value, 1 - min(0.995, (step + 1) / (step + 20)))
        if step % 50 == 0:
            print(f"{step} {time.process_time() - start:.0f}s loss {np.mean(recent[-50:]):.4f}", flush=True)
    half = {name: value.half().contiguous() for name, value in average.items()}
    save_file(half, args.out, {"format": "pt"})
    print(f"{args.out}: {args.out.stat().st_size:,} bytes")
    return half


@torch.no_grad()
def measure(toy, arrays, state, batches=6):
    """Loss on the shard that was left out, at t from 650 to 850, where the identity is decided."""
    put_in(toy.unet, state)
    rng, generator = np.random.default_rng(11), torch.Generator().manual_seed(11)
    describer = Describer(toy.tokenizer, Mix(empty=0, noun=0, named=0), rng)
    rows_left_out = single(arrays, len(arrays["latents"]) - data.SHARD, len(arrays["latents"]))
    alphas, table = model.alphas_cumprod(), {"none": [], "same identity": [], "another identity": []}
    for _ in range(batches):
        rows = rng.choice(rows_left_out, 32, replace=False)
        latents = torch.from_numpy(arrays["latents"][rows]).float()
        t = torch.randint(650, 850, (len(rows),), generator=generator)
        noise, a = torch.randn(latents.shape, generator=generator), alphas[t][:, None, None, None]
        text = toy.text(describer, arrays, rows)
        same = toy.image_embeds(image_prompts(arrays, rows, rng, generator))
        prompts = {"none": torch.zeros_like(same), "same identity": same, "another identity": same.roll(1, 0)}
        for name, embeds in prompts.items():
            prediction = predict(toy, a.sqrt() * latents + (1 - a).sqrt() * noise, t, text, embeds)
            table[name] += (prediction - noise).square().mean((1, 2, 3)).tolist()
    print(f"loss on {batches * 32} pictures: " + ", ".join(f"{name} {np.mean(v):.4f}" for name, v in table.items()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--checkpoint", type=Path, required=True, help="the toy, with its CLIP")
    parser.add_argument("--minutes", type=float, default=11, help="minutes of processor time")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--init", type=Path, help="file to start from, for instance of an earlier U-Net")
    parser.add_argument("--out", type=Path, help="file to train")
    parser.add_argument("--measure", type=Path, help="existing file to measure")
    args = parser.parse_args()
    if (args.out is None) == (args.measure is None):
        parser.error("expected either --out or --measure")
    torch.set_num_threads(1)
    toy, arrays = Toy(args.checkpoint), data.load(args.data, ARRAYS)
    measure(toy, arrays, train(args, toy, arrays) if args.out else load_file(args.measure))


if __name__ == "__main__":
    main()
