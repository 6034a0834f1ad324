"""A tuning step as the method's authors ship it, on diffusers: everything is computed again at every step.

K + 2 pictures pass through the VAE and K + 2 prompts through both text encoders. The projector and the frozen U-Net are
differentiated in one batch, with anomaly detection on, and AdamW makes its step. `check` gives losses and gradients of
a given batch, so that the arithmetic can be compared before the timing.
"""

import random
import sys
from pathlib import Path

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "parity"))
from projector_reference import Projector

LAMBDA_1, LAMBDA_2 = 0.5, 0.2
TEMPLATES = Path(__file__).resolve().parents[2] / "prompts" / "templates" / "character.txt"


def strides_of(side):
    """The map is halved while its side is 4 or more."""
    strides = []
    for _ in range(5):
        strides.append(2 if side >= 4 else 1)
        side = (side + 1) // 2 if side >= 4 else side
    return strides


def projector_for(features, width):
    """The projector for features [N, C, h, w] and one token of this width."""
    channels, side = features.shape[1], min(features.shape[2:])
    first = max(channels // 10, 64)
    return Projector(channels, [first, first, 2 * first, 2 * first, 4 * first], strides_of(side), 1, width)


class AuthorsTuning:
    """Tuning on the folder of a base set; image 0 is the target."""

    def __init__(self, pipe, folder, num_auxiliary, device):
        self.pipe, self.k, self.device = pipe, num_auxiliary, device
        base = Path(folder)
        with safe_open(base / "base.safetensors", "pt") as file:
            self.word = file.metadata()["base_word"]
        self.h = load_file(base / "base.safetensors")["encoder_features"].float().to(device)
        self.pictures = torch.stack([pixels(base / "base" / f"{i:02}.png") for i in range(len(self.h))]).to(device)
        lines = (line.strip() for line in TEMPLATES.read_text().splitlines())
        self.templates = [line.replace("[b]", self.word) for line in lines if line and not line.startswith("#")]
        self.projector = projector_for(self.h, pipe.unet.config.cross_attention_dim).to(device).train()
        self.optimizer = torch.optim.AdamW(self.projector.parameters(), lr=1e-4, weight_decay=0.01)
        self.alphas_cumprod = pipe.scheduler.alphas_cumprod.to(device)

    def encode(self, prompts):
        text, _, pooled, _ = self.pipe.encode_prompt(prompts, do_classifier_free_guidance=False, device=self.device)
        return text, pooled

    def row_errors(self, prompts, auxiliary, z_0, eps, t):
        """Eqs. (1), (8), (10), (11), (13): the error of every row with its offset."""
        text, pooled = self.encode(prompts)
        ids = self.pipe.tokenizer(prompts[0]).input_ids
        at = ids.index(self.pipe.tokenizer(self.word).input_ids[1])
        offsets = self.projector(self.h, text[0, at : at + 1].float())  # [N, 1, D]
        own = offsets[auxiliary]
        offsets = torch.cat([offsets[:1], own, own.mean(0, keepdim=True)]).to(text.dtype)
        text = torch.cat([text[:, :at], text[:, at : at + 1] + offsets, text[:, at + 1 :]], 1)
        alpha = self.alphas_cumprod[t].view(-1, 1, 1, 1)
        z_t = (alpha.sqrt() * z_0 + (1 - alpha).sqrt() * eps).to(text.dtype)
        side = z_0.shape[-1] * self.pipe.vae_scale_factor
        ids = torch.tensor([[side, side, 0, 0, side, side]], dtype=text.dtype, device=self.device).repeat(len(z_0), 1)
        added = {"text_embeds": pooled, "time_ids": ids}
        guess = self.pipe.unet(z_t, t, text, added_cond_kwargs=added).sample
        return F.mse_loss(guess.float(), eps, reduction="none").mean((1, 2, 3))

    def loss(self, errors):
        return errors[0] + LAMBDA_1 * errors[1:-1].mean() + LAMBDA_2 * errors[-1]

    def step(self):
        others = random.sample(range(1, len(self.h)), self.k)
        rows = [0, *others, random.choice([0, *others])]
        vae = self.pipe.vae
        posterior = vae.encode(self.pictures[rows].to(vae.dtype) * 2 - 1).latent_dist
        z_0 = posterior.sample().float() * vae.config.scaling_factor
        eps, t = torch.randn_like(z_0), torch.randint(0, 1000, (len(rows),), device=self.device)
        prompts = [random.choice(self.templates)] * len(rows)
        with torch.enable_grad(), torch.autograd.set_detect_anomaly(True):
            loss = self.loss(self.row_errors(prompts, others, z_0, eps, t))
            self.optimizer.zero_grad()
            loss.backward()
        self.optimizer.step()
        loss.item()

    def check(self, x):
        """Errors of the rows of a given batch, and the gradients of a given projector in the order of their names."""
        own = {name.removeprefix("projector."): t for name, t in x.items() if name.startswith("projector.")}
        self.projector.load_state_dict(own, strict=False)
        self.projector.zero_grad()
        prompts = [self.templates[0]] * (self.k + 2)
        with torch.enable_grad():
            errors = self.row_errors(prompts, x["auxiliary"].tolist(), x["z_0"], x["eps"], x["timesteps"])
            self.loss(errors).backward()
        gradients = [p.grad.flatten() for _, p in sorted(self.projector.named_parameters())]
        self.projector.zero_grad()
        return errors, torch.cat(gradients)


def pixels(path):
    """A picture as [3, H, W] with values in [0, 1]."""
    image = Image.open(path).convert("RGB")
    values = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return values.view(image.height, image.width, 3).permute(2, 0, 1).float() / 255
