"""Trains the toy's VAE on the pictures of data.py's shards. One thread.

Whole VAE, from nothing:   python vae.py DATA --out DIR --minutes 30
Decoder only:              python vae.py DATA --out DIR --minutes 12 --decoder-of CHECKPOINT
Training only the decoder keeps the latent space of an existing VAE, so a diffusion model trained on its latents stays
valid.
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

import data
import model
import training


def differences(x):
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def reconstruction_loss(result, pixels):
    """Squared, absolute and edge error; the edge error keeps patterns and outlines sharp."""
    error = result - pixels
    edges = sum(d.abs().mean() for d in differences(error))
    return error.square().mean() + 0.4 * error.abs().mean() + 0.4 * edges


def crop(pixels, latents, rng, size=8):
    """The same random window of pictures and latents: details are learnt at twice the speed."""
    y, x = rng.integers(0, 17 - size, 2)
    return (
        pixels[:, :, y * 4 : (y + size) * 4, x * 4 : (x + size) * 4],
        latents[:, :, y : y + size, x : x + size].contiguous() if latents is not None else None,
    )


def train(args):
    torch.manual_seed(1)
    rng = np.random.default_rng(3)
    decoder_only = args.decoder_of is not None
    if decoder_only:
        vae = AutoencoderKL.from_pretrained(args.decoder_of / "vae", torch_dtype=torch.float32)
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    else:
        vae = model.new_vae()
    arrays = data.load(args.data, ["images", "latents"] if decoder_only else ["images"])
    images = arrays["images"][:-500]
    learned = [p for p in vae.parameters() if p.requires_grad]
    average = [p.detach().clone() for p in learned]
    adam = torch.optim.AdamW(learned, lr=args.rate, weight_decay=1e-4, betas=(0.9, 0.99), fused=True)
    begin, step, progress = time.time(), 0, 0.0
    while progress < 1:
        progress = (time.time() - begin) / 60 / args.minutes
        training.set_rate(adam, args.rate * min(1, (step + 1) / 60) * training.cosine(progress) + 1e-5)
        rows = rng.integers(0, len(images), args.batch)
        pixels, latents = training.to_pixels(images[rows]), None
        if decoder_only:
            latents = torch.from_numpy(arrays["latents"][rows]).float() / vae.config.scaling_factor
        if progress < 0.6:
            pixels, latents = crop(pixels, latents, rng)
        divergence = 0.0
        if not decoder_only:
            posterior = vae.encode(pixels).latent_dist
            latents, divergence = posterior.sample(), posterior.kl().mean() / posterior.mean[0].numel()
        result = vae.decode(latents).sample
        loss = reconstruction_loss(result, pixels) + 1e-3 * divergence
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
        step += 1
        torch._foreach_lerp_(average, [p.detach() for p in learned], 1 - min(0.995, step / (step + 20)))
        if step % 200 == 0:
            print(f"{step} {time.time() - begin:.0f}s loss {loss.item():.4f}", flush=True)
    with torch.no_grad():
        for parameter, mean in zip(learned, average):
            parameter.copy_(mean)
    finish(vae.eval(), arrays["images"][-500:], args.out, keep_scale=decoder_only)


@torch.no_grad()
def finish(vae, held_out, out, keep_scale):
    pixels = training.to_pixels(held_out)
    latents = vae.encode(pixels).latent_dist.sample(torch.Generator().manual_seed(0))
    result = vae.decode(latents).sample.clamp(-1, 1)
    psnr = 10 * math.log10(4 / (result - pixels).square().mean().item())
    print(f"held-out PSNR {psnr:.2f} dB")
    if not keep_scale:
        vae.register_to_config(scaling_factor=1 / latents.std().item())
    vae.save_pretrained(out / "vae")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--decoder-of", type=Path, metavar="CHECKPOINT")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1.2e-3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train(arguments)
