"""Expected results of ConsiStory's shared self-attention (arXiv 2402.03286), written from the paper's formulas.

`consistory_pass.safetensors`  U-Net passes of three images, the last two of them anchors: nothing shared, shared under
                               given masks, and with queries blended with those of the first pass
`consistory.safetensors`       final latents of two pictures beside two anchors, with the masks, dropout and blending of
                               every step
`consistory.json`              what was run

Here the keys of all images are concatenated, and the keys that an image may not see get log 0; the program uses only
the keys of the anchors. The branches with and without the prompt are separate passes.
"""

import json
import zlib

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from skimage.filters import threshold_otsu
from torch.nn import functional as F

from expected_masks import shrink
from expected_method import all_positions, embed, time_ids
from expected_models import added_cond, save, unet_inputs

DROPOUT, FIRST_NU, LAST_NU, STEPS_FOR_ONE_BLENDED = 0.5, 0.9, 0.8, 10


class Sizes:
    """Height and width of a layer by its number of positions, for latents of this size."""

    def __init__(self, height, width):
        self.known = {}
        while len(self.known) < 4:
            self.known[height * width] = (height, width)
            height, width = -(-height // 2), -(-width // 2)

    def of(self, tokens):
        return self.known[tokens.shape[1]]


class State:
    """State shared by all processors of a pass."""

    def __init__(self, sizes):
        self.sizes, self.seen = sizes, []
        self.answers = (
            None  # subject masks [N, H, W], and the part of them that image i sees [N, N, H, W]; None: no sharing
        )
        self.queries, self.nu = {}, None  # of the pass before; None: this pass stores its queries


def at_corner(kept, height, width):
    """The values of a finer grid [.., H, W] at the upper left corners of a coarser grid's positions."""
    tall, wide = kept.shape[-2:]
    return kept[..., [i * tall // height for i in range(height)], :][..., [j * wide // width for j in range(width)]]


class Shared:
    """Self-attention of one decoder layer."""

    def __init__(self, state):
        self.state = state

    def __call__(self, attn, x, encoder_hidden_states=None, **rest):
        state, query = self.state, attn.to_q(x)
        if state.nu is None:
            state.queries[self] = query
        else:
            query = (1 - state.nu) * query + state.nu * state.queries[self]
        key, value = attn.to_k(x), attn.to_v(x)
        images, positions, _ = x.shape
        out = []
        for i in range(images):
            # K+ = [K_1 + … + K_N], M_i+ = [M_1 + … + 1 + … + M_N]
            mask = torch.zeros(images, positions)
            if state.answers is not None:
                subject, kept = state.answers
                height, width = state.sizes.of(x)
                mask = shrink(subject[None], height, width)[0] * at_corner(kept[i], height, width).flatten(1)
            mask[i] = 1
            heads = lambda t: t.reshape(-1, attn.heads, t.shape[-1] // attn.heads).transpose(0, 1)
            q, k, v = heads(query[i]), heads(key.flatten(0, 1)), heads(value.flatten(0, 1))
            logits = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5 + mask.flatten().log()
            out.append((logits.softmax(-1) @ v).transpose(0, 1).flatten(1))
        return attn.to_out[0](torch.stack(out))


class Watching:
    """Unchanged cross-attention that stores its maps [N, S, h, w]."""

    def __init__(self, state):
        self.state = state

    def __call__(self, attn, x, encoder_hidden_states=None, **rest):
        split = lambda t: t.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
        query, key = split(attn.to_q(x)), split(attn.to_k(encoder_hidden_states))
        weights = (query @ key.transpose(2, 3) / query.shape[-1] ** 0.5).softmax(-1)
        self.state.seen.append(weights.mean(1).transpose(1, 2).unflatten(-1, self.state.sizes.of(x)))
        return AttnProcessor()(attn, x, encoder_hidden_states, **rest)


def install(unet, state):
    """Replaces only the decoder's self-attention; returns the processors that were there."""
    own = unet.attn_processors
    kinds = {}
    for name in own:
        is_self, is_decoder = ".attn1." in name, name.startswith("up_blocks.")
        kinds[name] = (Shared(state) if is_decoder else AttnProcessor()) if is_self else Watching(state)
    unet.set_attn_processor(kinds)
    return own


def write_pass(pipe, seed, folder):
    """Two rows of three images at a size that no level divides; an anchor does not see its own keys twice."""
    rng = torch.Generator().manual_seed(seed)
    height, width, images = 9, 13, 3
    inputs = unet_inputs(pipe, height, width, 2 * images, rng)
    subjects = (torch.rand(2, height, width, generator=rng) > 0.4).float()
    kept = (torch.rand(images, 2, height, width, generator=rng) > 0.3).float()
    kept[1, 0], kept[2, 1] = 0, 0
    times = torch.full((2 * images,), 487.25)
    of_all = torch.cat([torch.zeros(1, height, width), subjects])
    answers = (of_all, torch.cat([torch.zeros(images, 1, height, width), kept], 1))
    found = {}
    state = State(Sizes(height, width))
    own = install(pipe.unet, state)
    for row in range(2):
        rows = slice(row * images, (row + 1) * images)
        part = {name: value[rows] for name, value in inputs.items()}

        def predict():
            added = added_cond(part.get("text_embeds"), part.get("time_ids"))
            return pipe.unet(part["sample"], times[rows], part["encoder_hidden_states"], added_cond_kwargs=added).sample

        state.answers, state.nu, state.queries = answers, None, {}
        shared = predict()
        state.answers, state.queries = None, {}
        vanilla = predict()
        state.answers, state.nu = answers, 0.85
        for name, value in {"vanilla": vanilla, "shared": shared, "blended": predict()}.items():
            found.setdefault(name, []).append(value)
    pipe.unet.set_attn_processor(own)
    found = {name: torch.cat(rows) for name, rows in found.items()}
    saved = {**inputs, **found, "timesteps": times, "subjects": subjects, "kept": kept}
    save(folder / "consistory_pass.safetensors", saved)


def sample(pipe, run):
    """Final latents of the pictures, and the anchors' masks at the last step."""
    height, width = run["height"], run["width"]
    size = (height // pipe.vae_scale_factor, width // pipe.vae_scale_factor)
    noise = lambda seed: torch.randn(1, 4, *size, generator=torch.Generator("cpu").manual_seed(seed))
    pictures, anchors = len(run["seeds"]), len(run["anchor_seeds"])
    images = pictures + anchors
    initial = torch.cat([noise(seed) for seed in run["seeds"] + run["anchor_seeds"]])
    own_text, anchor_text = embed(pipe, run["prompt"]), embed(pipe, run["anchor_prompt"])
    join = lambda k: (
        None
        if own_text[k] is None
        else torch.cat([own_text[k].repeat_interleave(pictures, 0), anchor_text[k].repeat_interleave(anchors, 0)])
    )
    c, negative, pooled, negative_pooled = (join(k) for k in range(4))
    ids = time_ids(height, width).repeat(images, 1)
    places = all_positions(pipe, run["anchor_prompt"], run["word"])
    numbers = [zlib.crc32(one.numpy().tobytes()) for one in initial]

    state = State(Sizes(*size))
    own = install(pipe.unet, state)
    scheduler, steps = pipe.scheduler, run["steps"]
    scheduler.set_timesteps(steps)
    latents = initial * scheduler.init_noise_sigma
    blended = -(-steps // STEPS_FOR_ONE_BLENDED)
    seen, mask = [], None

    def predict(x, t, embeds, pooled):
        state.seen = []
        return pipe.unet(x, t, embeds, added_cond_kwargs=added_cond(pooled, ids)).sample

    def look():
        """The word's maps of the anchors, from the latest pass with the prompt."""
        layers = [F.interpolate(layer[pictures:], size, mode="bilinear", align_corners=False) for layer in state.seen]
        seen.append(torch.stack(layers).mean(0)[:, places].mean(1))

    # PNDM makes its first step in two passes.
    passes_more = len(scheduler.timesteps) - steps
    for step, t in enumerate(scheduler.timesteps, start=1 - passes_more):
        step = max(step, 1)
        x = scheduler.scale_model_input(latents, t)
        rows = [(negative, negative_pooled), (c, pooled)] if run["guidance_scale"] > 1 else [(c, pooled)]
        kept_queries = [{} for _ in rows]
        if step <= blended:
            state.answers, state.nu = None, None
            for row, (embeds, pool) in enumerate(rows):
                state.queries = kept_queries[row]
                predict(x, t, embeds, pool)
            look()
            state.nu = FIRST_NU if blended == 1 else FIRST_NU + (LAST_NU - FIRST_NU) * (step - 1) / (blended - 1)
        mean = torch.stack(seen).mean(0).double().numpy()
        mask = torch.tensor(np.stack([one > threshold_otsu(one) for one in mean])).float()
        subject = torch.cat([torch.zeros(pictures, *size), mask])
        kept = torch.zeros(images, images, *size)
        for i, number in enumerate(numbers):
            uniform = torch.rand(anchors, *size, generator=torch.Generator("cpu").manual_seed(number + step))
            kept[i, pictures:] = (uniform >= DROPOUT).float()
        state.answers = (subject, kept)
        found = []
        for row, (embeds, pool) in enumerate(rows):
            state.queries = kept_queries[row]
            found.append(predict(x, t, embeds, pool))
        look()
        state.nu = None
        eps = found[0] if len(found) == 1 else found[0] + run["guidance_scale"] * (found[1] - found[0])
        latents = scheduler.step(eps, t, latents).prev_sample
    pipe.unet.set_attn_processor(own)
    return latents[:pictures], mask


def write_runs(pipe, shape, folder):
    """Two anchors and two blended steps; without guidance, one anchor and one blended step."""
    height, width = shape["image"]
    word = shape["base"]
    run = {
        "prompt": f"a {word} in a castle",
        "anchor_prompt": f"a photo of a {word}, a {word}",
        "word": word,
        "seeds": [31, 32],
        "anchor_seeds": [33, 34],
        "height": height,
        "width": width,
        "steps": 12,
        "guidance_scale": 7.5,
    }
    runs = [run, {**run, "seeds": [35], "anchor_seeds": [36], "steps": 5, "guidance_scale": 1.0}]
    tensors = {}
    for i, run in enumerate(runs):
        latents, mask = sample(pipe, run)
        assert 0.02 < mask.mean() < 0.98, "masks that are empty or full would test little"
        tensors[f"{i}.latents"] = latents
    save(folder / "consistory.safetensors", tensors)
    (folder / "consistory.json").write_text(json.dumps(runs, indent=1))


@torch.no_grad()
def write(pipe, shape, folder):
    """All results for one checkpoint."""
    write_pass(pipe, shape["seed"] + 600, folder)
    write_runs(pipe, shape, folder)
