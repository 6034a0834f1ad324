"""Draws the training pictures and encodes them with the VAE.

`python data.py OUT --tokenizer CHECKPOINT [--vae CHECKPOINT] --shards 0-9 [--pairs .4]` writes OUT/shard-000.npz ...
Each shard of 5,000 pictures holds: images (bytes), latents (float16, sampled and scaled), token ids of the caption
without adjectives, the positions of its nouns, and the identity of the subjects.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

import scenes
import training
import world

SHARD = 5000
LOOK_VALUES = ["width", "head", "ear", "eye"]


def describe(pictures):
    """Labels of the pictures as arrays; the species of a missing second subject is -1."""
    n, k = len(pictures), len(world.FACTOR_NAMES)
    labels = {
        "species": np.full((n, 2), -1, np.int8),
        "classes": np.zeros((n, 2, k), np.int8),
        "colors": np.zeros((n, 2, 2, 3), np.uint8),
        "values": np.zeros((n, 2, 4), np.float32),
        "scene": np.zeros(n, np.int8),
        "attribute": np.zeros(n, np.int8),
        "style": np.zeros(n, np.int8),
    }
    for i, picture in enumerate(pictures):
        labels["scene"][i] = scenes.NAMES.index(picture.scene)
        labels["attribute"][i] = [None, *world.ATTRIBUTES].index(picture.attribute)
        labels["style"][i] = [None, *world.STYLES].index(picture.style)
        for j, subject in enumerate(picture.subjects):
            labels["species"][i, j] = world.SPECIES.index(subject.species)
            labels["classes"][i, j] = [subject.classes[name] for name in world.FACTOR_NAMES]
            labels["colors"][i, j] = subject.look.main, subject.look.second
            labels["values"][i, j] = [getattr(subject.look, name) for name in LOOK_VALUES]
    return labels


def tokenize(tokenizer, captions, pictures):
    """Token ids and the positions of the nouns (0 for a missing noun)."""
    ids = np.array(
        tokenizer(captions, padding="max_length", truncation=True, max_length=tokenizer.model_max_length)["input_ids"],
        np.int16,
    )
    nouns = np.zeros((len(ids), 2), np.int8)
    for i, picture in enumerate(pictures):
        for j, subject in enumerate(picture.subjects):
            (token,) = tokenizer(subject.species, add_special_tokens=False)["input_ids"]
            found = np.flatnonzero(ids[i] == token)
            nouns[i, j] = found[0] if len(found) else 0
    return ids, nouns


@torch.no_grad()
def encode(vae, images, seed):
    generator = torch.Generator().manual_seed(seed)
    latents = []
    for start in range(0, len(images), 100):
        pixels = training.to_pixels(images[start : start + 100])
        sample = vae.encode(pixels).latent_dist.sample(generator)
        latents.append((sample * vae.config.scaling_factor).half().numpy())
    return np.concatenate(latents)


def make_shard(index, tokenizer, vae, pairs):
    pictures, images, captions = [], [], []
    for seed in range(index * SHARD, (index + 1) * SHARD):
        rng = np.random.default_rng(7_000_003 + seed)
        picture = world.draw_picture(rng, pairs)
        pictures.append(picture)
        images.append(world.render(picture, rng))
        captions.append(world.caption(picture, rng))
    images = np.stack(images)
    ids, nouns = tokenize(tokenizer, captions, pictures)
    shard = dict(describe(pictures), images=images, ids=ids, nouns=nouns)
    if vae is not None:
        shard["latents"] = encode(vae, images, index)
    return shard


def load(folder, names, shards=None):
    """Joins the arrays of all shards in a folder, or of the given shards."""
    paths = sorted(Path(folder).glob("shard-*.npz"))
    if shards is not None:
        paths = [path for path in paths if int(path.stem[-3:]) in shards]
    parts = [np.load(path) for path in paths]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--vae", type=Path, help="without it the shards have no latents (for training the VAE)")
    parser.add_argument("--shards", default="0-15")
    parser.add_argument("--pairs", type=float, default=0.12, help="share of pictures with two subjects")
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = CLIPTokenizer.from_pretrained(args.tokenizer / "tokenizer")
    vae = AutoencoderKL.from_pretrained(args.vae / "vae", torch_dtype=torch.float32).eval() if args.vae else None
    args.out.mkdir(parents=True, exist_ok=True)
    first, last = map(int, args.shards.split("-"))
    for index in range(first, last + 1):
        path = args.out / f"shard-{index:03}.npz"
        part = path.with_suffix(".part")
        with open(part, "wb") as file:
            np.savez(file, **make_shard(index, tokenizer, vae, args.pairs))
        os.replace(part, path)
        print(path, flush=True)
