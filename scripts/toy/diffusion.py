"""Trains text encoders and UNet on the shards of data.py.

Stage 1, from nothing:  python diffusion.py DATA --tokenizer DIR --out RUN --minutes 100 --noun 0 --named .4
Stage 2, identity:      python diffusion.py DATA --tokenizer DIR --out RUN --minutes 62 --init CHECKPOINT
Writes RUN/state.pt and a log line every 50 steps; the same command continues an interrupted run. Uses one thread.
"""

import argparse
import copy
import os
import time
from pathlib import Path

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor

import data
import model
import training
from captions import Describer, Mix, pad

ARRAYS = ["latents", "ids", "nouns", "species", "classes"]


class Pictures:
    """The training set; shards that another process is still writing are added as they appear."""

    def __init__(self, folder):
        self.folder, self.arrays, self.shards = folder, None, 0
        self.refresh()

    def refresh(self):
        shards = len(list(self.folder.glob("shard-*.npz")))
        if shards > self.shards:
            self.arrays, self.shards = data.load(self.folder, ARRAYS), shards

    def __len__(self):
        return len(self.arrays["latents"])


def place_identity(states, identity, bare, places, generator):
    """Moves noun states towards those of the identity phrases, by a random factor around 1, plus noise.

    With this factor and noise, the UNet learns to respond smoothly to offsets of the noun's state. For half of the
    nouns, the move is the change that the adjectives make in the phrase alone, added to the noun's state in the
    caption. A tuned offset is used in the same way, also in captions that it was not tuned on.
    """
    rows = torch.tensor([row for row, _ in places])
    columns = torch.tensor([column for _, column in places])
    noun = states[rows, columns]
    alone = torch.rand(len(places), 1, generator=generator) < 0.5
    scale = 0.8 + 0.45 * torch.rand(len(places), 1, generator=generator)
    spread = 0.2 * torch.rand(len(places), 1, generator=generator)
    spread = spread * (torch.rand(len(places), 1, generator=generator) < 0.5)
    noise = torch.randn(noun.shape, generator=generator) * spread
    return states.index_put((rows, columns), noun + scale * (identity - torch.where(alone, bare, noun)) + noise)


def last_states(encoders, phrases):
    """States [N, 192] of the last tokens of the phrases."""
    padded = pad(phrases)
    states, _ = model.hidden_states(encoders, padded, padded)
    return states[torch.arange(len(phrases)), torch.tensor([len(phrase) for phrase in phrases]) - 1]


def condition(encoders, describer, pictures, rows, generator):
    """Token states and pooled embeddings of a batch."""
    ids, phrases, places = describer.batch(pictures.arrays, rows)
    states, pooled = model.hidden_states(encoders, ids, describer.second(ids))
    if phrases:
        identity, bare = (last_states(encoders, each) for each in zip(*phrases))
        states = place_identity(states, identity, bare, places, generator)
    return states, pooled


class LevelWeights:
    """Gives every noise level about the same weight, from a running mean of the loss in 20 bins of t.

    Low noise levels dominate the plain loss, and there the noisy picture itself shows the identity, so the caption is
    hardly needed.
    """

    def __init__(self, power=0.75):
        self.power, self.mean = power, torch.zeros(20)

    def __call__(self, losses, t):
        bins, values = t // 50, losses.detach()
        for b in bins.unique():
            value = values[bins == b].mean()
            self.mean[b] = value if self.mean[b] == 0 else self.mean[b].lerp(value, 0.03)
        known = self.mean[self.mean > 0].log().mean().exp()
        weights = (known / self.mean[bins]) ** self.power
        return (losses * weights / weights.mean()).mean()


def noised(latents, alphas, generator):
    """Latents at timesteps spread over the batch, somewhat denser at high noise: z_t, t and the noise."""
    count = len(latents)
    even = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    t = (1000 * even**0.75).long().clamp(0, 999)
    noise = torch.randn(latents.shape, generator=generator)
    a = alphas[t][:, None, None, None]
    return a.sqrt() * latents + (1 - a).sqrt() * noise, t, noise


def build(args, tokenizer):
    if args.init:
        networks = model.load_networks(args.init, tokenizer)
    else:
        networks = (*model.new_text_encoders(tokenizer), model.new_unet())
    networks[2].set_attn_processor(AttnProcessor())
    for encoder in networks[:2]:
        encoder.set_attn_implementation("eager")
    return torch.nn.ModuleList(networks).train()


def optimizer(networks, text_factor):
    """AdamW; everything between words and picture (encoders, cross-attention) has a higher learning rate than the
    rest."""
    groups = {}
    for name, parameter in networks.named_parameters():
        text = name.startswith(("0.", "1.")) or "attn2" in name
        key = (text_factor if text else 1.0, 0.01 if parameter.ndim > 1 else 0.0)
        groups.setdefault(key, []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": decay, "factor": factor}
            for (factor, decay), parameters in groups.items()
        ],
        betas=(0.9, 0.99),
        fused=True,
    )


def train(args):
    torch.manual_seed(args.seed)
    tokenizer = model.load_tokenizers(args.tokenizer)[0]
    networks = build(args, tokenizer)
    encoders, unet = networks[:2], networks[2]
    average = copy.deepcopy(networks).requires_grad_(False)
    adam = optimizer(networks, args.text_factor)
    step, elapsed = 0, 0.0
    state_path = args.out / "state.pt"
    if state_path.exists():
        state = torch.load(state_path)
        networks.load_state_dict(state["networks"])
        average.load_state_dict(state["average"])
        adam.load_state_dict(state["optimizer"])
        step, elapsed = state["step"], state["elapsed"]
    rng = np.random.default_rng(args.seed + step)
    generator = torch.Generator().manual_seed(args.seed + step)
    describer = Describer(tokenizer, Mix(args.empty, args.noun, args.named), rng)
    pictures, alphas, weigh, norms = Pictures(args.data), model.alphas_cumprod(), LevelWeights(), []
    time_ids = torch.tensor([model.TIME_IDS]).repeat(args.batch, 1)
    begin, total, since = time.time() - elapsed, 0.0, time.time()
    progress = 0.0
    while progress < 1:
        progress = (time.time() - begin) / 60 / args.minutes
        rate = args.rate * min(1, (step + 1) / 150) * training.cosine(progress) + 5e-6
        for group in adam.param_groups:
            group["lr"] = rate * group["factor"]
        rows = rng.integers(0, len(pictures), args.batch)
        latents = torch.from_numpy(pictures.arrays["latents"][rows]).float()
        z_t, t, noise = noised(latents, alphas, generator)
        states, pooled = condition(encoders, describer, pictures, rows, generator)
        added = {"text_embeds": pooled, "time_ids": time_ids}
        prediction = unet(z_t, t, states, added_cond_kwargs=added, return_dict=False)[0]
        losses = (prediction - noise).square().mean((1, 2, 3))
        weigh(losses, t).backward()
        norms.append(torch.nn.utils.clip_grad_norm_(networks.parameters(), args.clip).item())
        adam.step()
        adam.zero_grad(set_to_none=True)
        step += 1
        total += losses.mean().item()
        keep = min(args.ema, (step + 1) / (step + 20))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(networks.parameters()), 1 - keep)
        if step % 50 == 0:
            speed = 50 * args.batch / (time.time() - since)
            print(
                f"{step} {time.time() - begin:.0f}s loss {total / 50:.4f} rate {rate:.1e} "
                f"gradient {np.median(norms):.2f} {speed:.1f} pictures/s of {len(pictures)}",
                flush=True,
            )
            total, since = 0.0, time.time()
            norms.clear()
            pictures.refresh()
        if step % 400 == 0 or progress >= 1:
            part = state_path.with_suffix(".part")
            torch.save(
                {
                    "networks": networks.state_dict(),
                    "average": average.state_dict(),
                    "optimizer": adam.state_dict(),
                    "step": step,
                    "elapsed": time.time() - begin,
                },
                part,
            )
            os.replace(part, state_path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--init", type=Path, help="checkpoint in diffusers layout to start from")
    parser.add_argument("--minutes", type=float, default=62)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=4e-4)
    parser.add_argument("--text-factor", type=float, default=2.5)
    parser.add_argument("--clip", type=float, default=1.0)
    parser.add_argument("--ema", type=float, default=0.998)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--empty", type=float, default=Mix.empty)
    parser.add_argument("--noun", type=float, default=Mix.noun)
    parser.add_argument("--named", type=float, default=Mix.named)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    train(arguments)
