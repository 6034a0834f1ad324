"""A small CNN that reads a toy picture: subject, scene and every factor of the subject's identity.

Training:  python judge.py DATA --vae CHECKPOINT --minutes 12    (writes judge.safetensors next to this file)
Half of its training pictures have been encoded and decoded by the VAE, and some are blurred and noisy, so that it reads
generated pictures as well as drawn ones. The last shard of DATA is held out for the printed accuracies.
"""

import argparse
import itertools
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import scenes
import training
import world

WEIGHTS = Path(__file__).with_name("judge.safetensors")
CLASSES = {
    "species": len(world.SPECIES),
    "scene": len(scenes.NAMES),
    "main": 11,
    "second": 11,
    "pattern": 4,
    "skin": 3,
    "hair": 3,
}
VALUES = {"width": (1.0, 0.13), "head": (1.0, 0.115), "ear": (1.0, 0.26), "eye": (2.18, 0.65)}  # centre and spread
COLORS = ("main", "second")
WIDTH = sum(CLASSES.values()) + 3 * len(COLORS) + len(VALUES) * len(world.SPECIES)


class Judge(nn.Module):
    def __init__(self):
        super().__init__()
        layers, channels = [], [3, 24, 48, 96, 128]
        for i, (before, after) in enumerate(itertools.pairwise(channels)):
            layers += [nn.Conv2d(before, after, 3, 2 if i == 0 else 1, 1), nn.BatchNorm2d(after), nn.ReLU()]
            if i:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 16, 192), nn.ReLU())
        self.answers = nn.Linear(192, WIDTH)

    def forward(self, pixels):
        """pixels [B, 3, 64, 64] in -1..1; returns logits for each class factor, colours in 0..1, standardised
        values."""
        out, at, answers = self.answers(self.features(pixels)), 0, {}
        for name, count in CLASSES.items():
            answers[name] = out[:, at : at + count]
            at += count
        for name in COLORS:
            answers[name + "_color"] = out[:, at : at + 3].sigmoid()
            at += 3
        species = answers["species"].detach().softmax(1)
        for name in VALUES:  # one answer for each species, because a long ear differs in length between species
            answers[name] = (out[:, at : at + len(world.SPECIES)] * species).sum(1)
            at += len(world.SPECIES)
        return answers

    @torch.no_grad()
    def read(self, images):
        """Answers for byte pictures [N, 64, 64, 3]: probabilities, colours in 0..255, values in the units of the
        drawing."""
        answers = {}
        for start in range(0, len(images), 200):
            batch = self(training.to_pixels(np.asarray(images[start : start + 200])))
            for name, value in batch.items():
                if name in CLASSES:
                    value = value.softmax(1)
                elif name in VALUES:
                    value = value * VALUES[name][1] + VALUES[name][0]
                else:
                    value = value * 255
                answers.setdefault(name, []).append(value.numpy())
        return {name: np.concatenate(parts) for name, parts in answers.items()}


def load(path=WEIGHTS):
    """The trained judge and the numbers stored with it (normalisers of the identity distance)."""
    judge = Judge()
    with safe_open(path, "pt") as file:
        names = list(file.keys())
        judge.load_state_dict({name: file.get_tensor(name).float() for name in names}, strict=False)
        facts = json.loads(file.metadata()["facts"])
    return judge.eval(), facts


def save(judge, facts, path=WEIGHTS):
    state = {key: value.half() if value.is_floating_point() else value for key, value in judge.state_dict().items()}
    save_file({key: value.contiguous() for key, value in state.items()}, path, {"facts": json.dumps(facts)})


def labels(arrays):
    """Targets, and for every factor whether it can be seen."""
    single = (arrays["species"][:, 1] < 0) & (arrays["style"] % 4 == 0)  # no style, or the invisible 'cartoon'
    rows = np.flatnonzero(single)
    names = {name: i for i, name in enumerate(world.FACTOR_NAMES)}
    species, classes = arrays["species"][rows, 0], arrays["classes"][rows, 0]
    target = {"species": torch.tensor(species).long(), "scene": torch.tensor(arrays["scene"][rows]).long()}
    for name in ("main", "second", "pattern", "skin", "hair"):
        target[name] = torch.tensor(classes[:, names[name]]).long()
    for i, name in enumerate(COLORS):
        target[name + "_color"] = torch.tensor(arrays["colors"][rows, 0, i]).float() / 255
    for i, (name, (centre, spread)) in enumerate(VALUES.items()):
        target[name] = (torch.tensor(arrays["values"][rows, 0, i]) - centre) / spread
    seen = {name: torch.tensor([name not in world.HIDDEN[world.SPECIES[s]] for s in species]).float() for name in names}
    sunglasses = list(world.ATTRIBUTES).index("sunglasses") + 1
    seen["eye"] *= torch.tensor(arrays["attribute"][rows] != sunglasses).float()
    return rows, target, seen


def loss(answers, target, seen):
    total = 0.0
    for name in CLASSES:
        each = F.cross_entropy(answers[name], target[name], reduction="none")
        mask = seen.get(name, torch.ones_like(each))
        total = total + (each * mask).sum() / mask.sum().clamp(min=1) * (1.0 if name in ("species", "scene") else 0.6)
    for name in COLORS:
        total = total + 20 * F.mse_loss(answers[name + "_color"], target[name + "_color"])
    for name in VALUES:
        total = total + 0.5 * (F.smooth_l1_loss(answers[name], target[name], reduction="none") * seen[name]).mean()
    return total


def augment(pixels, generator):
    """Blurs half of the batch; adds noise and a small shift to all of it."""
    blurred = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, 1)
    amount = torch.rand(len(pixels), 1, 1, 1, generator=generator)
    amount = 0.6 * amount * (torch.rand(amount.shape, generator=generator) < 0.5)
    pixels = pixels + amount * (blurred - pixels)
    noise = torch.randn(pixels.shape, generator=generator) * 0.08 * torch.rand(amount.shape, generator=generator)
    dy, dx = torch.randint(-2, 3, (2,), generator=generator).tolist()
    shifted = F.pad(pixels, (2, 2, 2, 2), mode="replicate")[:, :, 2 + dy : 66 + dy, 2 + dx : 66 + dx]
    return shifted + noise


@torch.no_grad()
def through_vae(vae, latents):
    decoded = []
    for start in range(0, len(latents), 50):
        z = torch.from_numpy(latents[start : start + 50]).float() / vae.config.scaling_factor
        decoded.append(training.to_bytes(vae.decode(z).sample))
    return np.concatenate(decoded)


def accuracies(judge, images, target, seen):
    answers, result = judge.read(images), {}
    for name in CLASSES:
        right = torch.from_numpy(answers[name].argmax(1)) == target[name]
        mask = seen.get(name, torch.ones(len(right)))
        result[name] = (right * mask).sum().item() / mask.sum().item()
    for name in COLORS:
        error = torch.from_numpy(answers[name + "_color"]) - target[name + "_color"] * 255
        result[name + "_rgb_error"] = error.square().sum(1).sqrt().mean().item()
    for name, (centre, spread) in VALUES.items():
        truth = target[name] * spread + centre
        keep = seen[name].bool()
        error = (torch.from_numpy(answers[name]) - truth)[keep]
        result[name + "_r2"] = 1 - (error.square().mean() / truth[keep].var()).item()
    return {name: round(value, 3) for name, value in result.items()}


def take(values, rows):
    return {name: value[rows] for name, value in values.items()}


def train(args):
    from diffusers import AutoencoderKL

    import data
    import identity

    torch.manual_seed(0)
    vae = AutoencoderKL.from_pretrained(args.vae / "vae", torch_dtype=torch.float32).eval()
    names = ["images", "latents", "species", "classes", "colors", "values", "scene", "attribute", "style"]
    arrays = data.load(args.data, names)
    rows, target, seen = labels(arrays)
    images, latents = arrays["images"][rows], arrays["latents"][rows]
    held_out = len(rows) - int((rows >= len(arrays["images"]) - data.SHARD).sum())
    decoded = through_vae(vae, latents[: args.decoded])
    print(f"{held_out} pictures, {len(decoded)} decoded", flush=True)
    judge, begin, step, progress = Judge(), time.time(), 0, 0.0
    if args.features_of:
        state = load_file(args.features_of)
        judge.features.load_state_dict(
            {key[9:]: value.float() for key, value in state.items() if key.startswith("features.")}, strict=False
        )
    adam = torch.optim.AdamW(judge.parameters(), lr=args.rate, weight_decay=0.02)
    generator = torch.Generator().manual_seed(1)
    while progress < 1:
        progress = (time.time() - begin) / 60 / args.minutes
        training.set_rate(adam, args.rate * training.cosine(progress) + 1e-6)
        drawn = torch.randint(held_out, (40,), generator=generator)
        coded = torch.randint(len(decoded), (40,), generator=generator)
        chosen = torch.cat([drawn, coded])
        pixels = training.to_pixels(np.concatenate([images[drawn.numpy()], decoded[coded.numpy()]]))
        value = loss(judge(augment(pixels, generator)), take(target, chosen), take(seen, chosen))
        value.backward()
        adam.step()
        adam.zero_grad(set_to_none=True)
        step += 1
        if step % 200 == 0:
            print(f"{step} {time.time() - begin:.0f}s loss {value.item():.3f}", flush=True)
    judge.eval()
    rest = torch.arange(held_out, len(rows))
    test_target, test_seen = take(target, rest), take(seen, rest)
    report = {
        "drawn": accuracies(judge, images[held_out:], test_target, test_seen),
        "through the VAE": accuracies(judge, through_vae(vae, latents[held_out:]), test_target, test_seen),
    }
    scales = identity.measure_scales(judge)
    report["distance"] = identity.floor_and_ceiling(judge, scales, vae)
    print(json.dumps(report, indent=1))
    save(judge, {"identity_scales": scales, "report": report}, args.out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--decoded", type=int, default=15000, help="pictures to put through the VAE")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--features-of", type=Path, help="earlier weights whose features to start from")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train(arguments)
