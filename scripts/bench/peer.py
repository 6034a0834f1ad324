"""The peer: diffusers in a process that answers the same requests as `server.rs`, which lists them.

It measures nothing, except for `profile`, a request that the server does not have: it runs passes over `inputs` under
PyTorch's profiler and answers where the time went (`kernels.py`). `--channels-last` uses this layout for the U-Net;
`--compile MODE` also compiles it (in the first pass). `--tf32` lets f32 matrix products use TF32, as the method's
authors do; without it PyTorch's default stays, TF32 in convolutions only. `tune` is the authors' step as they ship it,
see `recipe.py`. Guidance by Eq. (19) is implemented here around diffusers' U-Net.

Requirements: scripts/bench/requirements.txt
Usage: peer.py MODEL DEVICE fp32|fp16 [--tf32] [--channels-last] [--compile MODE]
"""

import argparse
import json
import os
import sys
import traceback

import torch
from diffusers import StableDiffusionXLPipeline
from diffusers.utils import logging
from safetensors.torch import load_file, save_file
from torch.profiler import ProfilerActivity
from transformers.utils import logging as transformers_logging

import kernels
from recipe import AuthorsTuning

ETA = 7.5
V = 0.8
SMALL = 16
HALF_LOSS_SCALE = 4096.0


class Peer:
    def __init__(self, args):
        self.device, self.dtype = torch.device(args.device), {"fp32": torch.float32, "fp16": torch.float16}[args.dtype]
        self.pipe = StableDiffusionXLPipeline.from_pretrained(args.model, dtype=self.dtype, add_watermarker=False)
        self.pipe.to(self.device)
        self.pipe.set_progress_bar_config(disable=True)
        for network in (self.pipe.unet, self.pipe.vae, self.pipe.text_encoder, self.pipe.text_encoder_2):
            network.eval().requires_grad_(False)
        if args.channels_last or args.compile:
            self.pipe.unet.to(memory_format=torch.channels_last)
        if args.compile:
            kind = {"backend": "eager"} if args.compile == "eager" else {"mode": args.compile}
            self.pipe.unet = torch.compile(self.pipe.unet, fullgraph=True, dynamic=False, **kind)
        self.tuning = None
        self.wait()

    def wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def inputs(self, request, name="inputs"):
        return {key: value.to(self.device) for key, value in load_file(request[name]).items()}

    def unet(self, sample, t, text, pooled, time_ids):
        cast = lambda x: x.to(self.dtype)
        added = {"text_embeds": cast(pooled), "time_ids": cast(time_ids)}
        return self.pipe.unet(cast(sample), t, cast(text), added_cond_kwargs=added).sample

    def pass_inputs(self, request):
        """The inputs of a U-Net pass, in the model's precision; timesteps keep theirs."""
        x = self.inputs(request)
        return {name: value if name == "timesteps" else value.to(self.dtype) for name, value in x.items()}

    def forward(self, request, grad=False):
        x = self.pass_inputs(request)
        for _ in range(request.get("repeat", 1)):
            text = x["prompt_embeds"].clone().requires_grad_(grad)
            with torch.set_grad_enabled(grad):
                out = self.unet(x["sample"], x["timesteps"], text, x["text_embeds"], x["time_ids"])
                if grad:
                    (out.float().square().mean() * (HALF_LOSS_SCALE if self.dtype == torch.float16 else 1.0)).backward()
                    out = text.grad
        save(request, output=out)

    def backward(self, request):
        self.forward(request, grad=True)

    def profile(self, request):
        on_gpu = self.device.type == "cuda"
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
        x = self.pass_inputs(request)
        self.wait()
        with torch.profiler.profile(activities=activities, acc_events=True) as profiler:
            self.unet(x["sample"], x["timesteps"], x["prompt_embeds"], x["text_embeds"], x["time_ids"])
            self.wait()
        return kernels.found(profiler, on_gpu)

    def upcast_vae(self):
        """SDXL's VAE overflows in fp16: diffusers decodes in f32, and so do both sides here."""
        if self.pipe.vae.config.force_upcast and self.pipe.vae.dtype == torch.float16:
            self.pipe.vae.to(torch.float32)
        return self.pipe.vae

    def picture(self, latents):
        vae = self.upcast_vae()
        picture = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor).sample
        return (picture.float() / 2 + 0.5).clamp(0, 1)

    def decode(self, request):
        """Copies the picture to the host's memory at the end, as ours does."""
        latents = self.inputs(request)["sample"][:1]
        for _ in range(request.get("repeat", 1)):
            out = self.picture(latents).cpu()
        save(request, output=out)

    def touch(self, request):
        vae, side = self.upcast_vae(), SMALL * self.pipe.vae_scale_factor
        text, _, pooled, _ = self.pipe.encode_prompt(request["prompt"], device=self.device)
        latents = torch.randn(1, 4, SMALL, SMALL, generator=torch.Generator().manual_seed(0)).to(self.device)
        ids = torch.tensor([[side, side, 0, 0, side, side]], dtype=torch.float32, device=self.device)
        self.unet(latents, torch.tensor([500], device=self.device), text, pooled, ids)
        vae.encode(self.picture(latents).to(vae.dtype) * 2 - 1)

    def image(self, request):
        for _ in range(request.get("repeat", 1)):
            latents = self.guided(request) if request.get("offsets") else self.plain(request)
            picture = self.picture(latents)
            if request.get("png"):
                self.pipe.image_processor.numpy_to_pil(picture.permute(0, 2, 3, 1).cpu().numpy())[0].save(
                    request["png"]
                )
        save(request, output=latents, picture=picture)

    def noise(self, request):
        """Random values are drawn in f32, as in ours: in fp16 the same seed gives other numbers."""
        side = request["size"] // self.pipe.vae_scale_factor
        return torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(request["seed"])).to(self.device)

    def plain(self, request):
        """A call of diffusers' pipeline."""
        return self.pipe(
            request["prompt"],
            height=request["size"],
            width=request["size"],
            num_inference_steps=request["steps"],
            guidance_scale=ETA,
            latents=self.noise(request).to(self.dtype),
            output_type="latent",
        ).images

    def guided(self, request):
        """Eq. (19) on the guided steps, Eq. (3) on the others; all rows of a step in one batch."""
        pipe, x, size = self.pipe, self.inputs(request, "offsets"), request["size"]
        eta_2, (first, last) = request["eta_2"], request["guided_steps"]
        text, empty, pooled, pooled_empty = pipe.encode_prompt(
            request["prompt"], do_classifier_free_guidance=True, device=self.device
        )
        at = pipe.tokenizer(request["prompt"]).input_ids.index(pipe.tokenizer(request["word"]).input_ids[1])
        moved = lambda offset: torch.cat([text[:, :at], text[:, at : at + 1] + offset.to(text), text[:, at + 1 :]], 1)
        target, average = moved(V * x["target_offset"][0]), moved(x["average_offset"][0])
        guided = [empty, target, average] if eta_2 else [empty, target]
        batches = {True: torch.cat(guided), False: torch.cat([empty, text])}
        ids = torch.tensor([[size, size, 0, 0, size, size]], dtype=torch.float32, device=self.device)
        pipe.scheduler.set_timesteps(request["steps"], device=self.device)
        latents = self.noise(request) * pipe.scheduler.init_noise_sigma
        for step, t in enumerate(pipe.scheduler.timesteps, start=1):
            is_guided = first <= step <= last
            text = batches[is_guided]
            rows = len(text)
            sample = pipe.scheduler.scale_model_input(latents, t).repeat(rows, 1, 1, 1)
            pooled_rows = torch.cat([pooled_empty, *[pooled] * (rows - 1)])
            eps, eps_target, *rest = self.unet(sample, t, text, pooled_rows, ids.repeat(rows, 1)).float().chunk(rows)
            scale = ETA + eta_2 if is_guided else ETA
            guess = eps + scale * (eps_target - eps)
            if rest:
                guess = guess - eta_2 * (rest[0] - eps)
            latents = pipe.scheduler.step(guess, t, latents).prev_sample
        return latents

    def prepare_tune(self, request):
        self.tuning = AuthorsTuning(self.pipe, request["base"], request["num_auxiliary"], self.device)

    def tune_check(self, request):
        errors, gradients = self.tuning.check(self.inputs(request))
        save(request, output=errors, gradients=gradients)

    def tune(self, request):
        for _ in range(request.get("repeat", 1)):
            self.tuning.step()


def save(request, **tensors):
    if request.get("output"):
        save_file({name: t.detach().float().cpu().contiguous() for name, t in tensors.items()}, request["output"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("device")
    parser.add_argument("dtype", choices=["fp32", "fp16"])
    parser.add_argument("--tf32", action="store_true")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", metavar="MODE", help="a mode of torch.compile, or eager: traced, not compiled")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    torch.set_grad_enabled(False)
    if args.tf32:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    # Output of libraries must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    say = lambda line: print(line, file=answers, flush=True)
    say("started")
    peer = Peer(args)
    say("ready")
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(peer, request["do"])(request)
            peer.wait()
            say(json.dumps(answer or {}))
        except Exception as error:  # the driver then gives up the row
            traceback.print_exc()
            say(json.dumps({"error": f"{type(error).__name__}: {error}"}))
            if peer.device.type == "cuda":
                torch.cuda.empty_cache()  # after running out of memory, the other side may need this memory


if __name__ == "__main__":
    main()
