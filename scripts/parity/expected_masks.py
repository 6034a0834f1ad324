"""Expected results of masked cross-attention and of the independent variant of several subjects.

`otsu.safetensors`    lists of values and the threshold that scikit-image finds for each
`masks.safetensors`   one U-Net pass in which offsets act only inside masks, and its attention maps
`several.safetensors` final latents and last masks of runs with two subjects (Eq. 19, masks of every step by Otsu)
`figures.safetensors` masks, and the box that scikit-image finds around the largest part of each
`boxes.json`          boxes of subjects and faces from the attention to their words in noised latents

Written from the description: at every position of the picture, the base word's key and value are either the plain ones
or those with the offset. Here nothing is appended to the text.
"""

import json

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from skimage.filters import threshold_otsu
from skimage.measure import label, regionprops
from torch.nn import functional as F

from expected_method import all_positions, base_positions, embed, time_ids
from expected_models import added_cond, save, unet_inputs


def shrink(regions, height, width):
    """A position of a coarser layer is in a region if at least half of its area is: [R, G, HW]."""
    rows, subjects, tall, wide = regions.shape
    small = torch.zeros(rows, subjects, height, width)
    for i in range(height):
        for j in range(width):
            top, bottom = i * tall // height, -(-(i + 1) * tall // height)
            left, right = j * wide // width, -(-(j + 1) * wide // width)
            small[:, :, i, j] = (regions[:, :, top:bottom, left:right].mean((2, 3)) >= 0.5).float()
    return small.flatten(2)


class Regional:
    """Attention processor. `subjects` is a list of (places, offset [R, len(places), D]); `regions` is [R, G, H, W]."""

    def __init__(self, size):
        self.sizes = {}
        height, width = size
        while height * width > 0 and len(self.sizes) < 4:
            self.sizes[height * width] = (height, width)
            height, width = -(-height // 2), -(-width // 2)
        self.subjects, self.regions, self.seen = [], None, []

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **rest):
        if encoder_hidden_states is None:
            return AttnProcessor()(attn, hidden_states, **rest)
        split = lambda x: x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
        query = split(attn.to_q(hidden_states))
        key, value = (split(layer(encoder_hidden_states)) for layer in (attn.to_k, attn.to_v))
        scale = query.shape[-1] ** -0.5
        logits = query @ key.transpose(2, 3) * scale
        height, width = self.sizes[hidden_states.shape[1]]
        others = []
        for g, (places, offset) in enumerate(self.subjects):
            inside = shrink(self.regions, height, width)[:, g, None, :, None]
            moved = encoder_hidden_states[:, places] + offset
            moved_key, moved_value = split(attn.to_k(moved)), split(attn.to_v(moved))
            there = query @ moved_key.transpose(2, 3) * scale
            logits[..., places] = torch.where(inside > 0, there, logits[..., places])
            others.append((places, inside, moved_value - value[:, :, places]))
        weights = logits.softmax(-1)
        out = weights @ value
        for places, inside, difference in others:
            out = out + (weights[..., places] * inside) @ difference
        self.seen.append(weights.mean(1).transpose(1, 2).unflatten(-1, (height, width)))
        return attn.to_out[0](out.transpose(1, 2).flatten(2))


def write_otsu(path):
    """Lists with two clusters, many values, few values, ties, tiny and negative values."""
    rng = np.random.default_rng(5)
    lists = [
        rng.normal(size=4096),
        np.concatenate([rng.normal(0, 1, 900), rng.normal(6, 0.5, 300)]),
        rng.random(16 * 16) ** 8,
        rng.random(5),
        np.repeat([1.0, 3.0], [3, 5]),
        np.repeat([-2.0, 0.0, 2.0], 4),
        1e-7 * rng.random(64) + 0.05,
        np.arange(257) / 256,
        rng.integers(0, 256, 1000) / 255,
        np.full(9, 0.1),
        rng.normal(size=128 * 128) ** 3,
    ]
    tensors = {}
    for i, values in enumerate(lists):
        tensors |= {
            f"{i}.values": torch.tensor(values),
            f"{i}.threshold": torch.tensor(float(threshold_otsu(values)), dtype=torch.float64),
        }
    save(path, tensors)


def largest(mask):
    """Left, top, width, height of the largest part, and the part itself; of equal parts the first. None for an empty
    mask."""
    parts = regionprops(label(mask))
    if not parts:
        return None, mask
    part = max(parts, key=lambda part: part.area)
    top, left, bottom, right = part.bbox
    return [left, top, right - left, bottom - top], label(mask) == part.label


def write_figures(path):
    """Noise of several densities, smooth noise, equal parts, corners that touch, full and empty masks."""
    rng = np.random.default_rng(6)
    smooth = np.kron(rng.random((8, 10)), np.ones((4, 4)))
    twins = np.zeros((9, 11))
    twins[1:3, 7:10], twins[5:8, 2:4] = 1, 1
    masks = [rng.random((16, 16)) > density for density in (0.3, 0.5, 0.7, 0.9)]
    masks += [
        rng.random((5, 33)) > 0.6,
        smooth > 0.6,
        twins > 0,
        np.eye(7) > 0,
        np.ones((3, 4)) > 0,
        np.zeros((4, 3)) > 0,
    ]
    tensors = {}
    for i, mask in enumerate(masks):
        box, part = largest(mask)
        tensors |= {
            f"{i}.mask": torch.tensor(mask).float(),
            f"{i}.part": torch.tensor(part).float(),
            f"{i}.box": torch.tensor(box or [0, 0, 0, 0]),
        }
    save(path, tensors)


def word_mask(pipe, z_0, prompt, word, size):
    """The mask where attention to a word is above its Otsu threshold: mean over layers, tokens and three levels of
    noise."""
    c, _, pooled, _ = embed(pipe, prompt)
    places = all_positions(pipe, prompt, word)
    alphas = pipe.scheduler.alphas_cumprod
    processor = Regional(z_0.shape[2:])
    own = pipe.unet.attn_processors
    pipe.unet.set_attn_processor(processor)
    levels = []
    for level in (1, 3, 5):
        t = len(alphas) * level // 10
        eps = torch.randn(z_0.shape, generator=torch.Generator("cpu").manual_seed(level))
        noisy = alphas[t] ** 0.5 * z_0 + (1 - alphas[t]) ** 0.5 * eps
        processor.seen = []
        pipe.unet(noisy, t, c, added_cond_kwargs=added_cond(pooled, time_ids(*size)))
        maps = [F.interpolate(layer, z_0.shape[2:], mode="bilinear", align_corners=False) for layer in processor.seen]
        levels.append(torch.stack(maps).mean(0)[0, places].mean(0))
    pipe.unet.set_attn_processor(own)
    mean = torch.stack(levels).mean(0).double().numpy()
    return mean > threshold_otsu(mean)


def crop_of(box, factor, size):
    """The box in pixels: a twentieth larger on each side, at least a quarter of the picture, with the picture's
    proportions."""
    quarter = [-(-side // 4) for side in size]
    sides = []
    for start, length, most, least in zip(box[:2], box[2:], size, quarter):
        start, length = start * factor, length * factor
        wide = max(length + 2 * ((length + 10) // 20), least)
        first = start - (wide - length) // 2
        first, last = max(first, 0), min(first + wide, most)
        length = max(last - first, least)
        sides.append((min(first, most - length), length))
    (x, w), (y, h) = sides
    wide = min(max(w, int(h * size[0] / size[1] + 0.5)), size[0])
    tall = min(max(h, int(w * size[1] / size[0] + 0.5)), size[1])
    x = min(max(x - (wide - w) // 2, 0), size[0] - wide)
    y = min(max(y - (tall - h) // 2, 0), size[1] - tall)
    return [x, y, wide, tall]


def write_boxes(pipe, shape, folder):
    """The subject's box and the face's in the latents of a few pictures, which are blobs on noise."""
    rng = torch.Generator().manual_seed(shape["seed"] + 302)
    height, width = shape["image"]
    factor = pipe.vae_scale_factor
    tall, wide = height // factor, width // factor
    cases, latents = [], []
    for word in (shape["base"], "castle", "owl"):
        z_0 = torch.randn(1, 4, tall, wide, generator=rng)
        z_0[:, :, tall // 4 : tall // 2, wide // 4 : wide // 2] += 3 * torch.randn(1, 4, 1, 1, generator=rng)
        article = "an" if word[0] in "aeiou" else "a"
        subject, _ = largest(word_mask(pipe, z_0, f"a picture of {article} {word}", word, (height, width)))
        mask = word_mask(pipe, z_0, f"a picture of the face of {article} {word}", "face", (height, width))
        x, y, w, h = subject
        inside = np.zeros_like(mask)
        inside[y : y + h, x : x + w] = mask[y : y + h, x : x + w]
        face, _ = largest(inside)
        if inside.sum() * 2 < mask.sum() or face is None or face[2] * face[3] * 2 > w * h:
            face = None
        crops = [crop_of(box, factor, (width, height)) for box in (subject, face or subject)]
        cases.append({"word": word, "subject": crops[0], "face": crops[1], "is_face": face is not None})
        latents.append(z_0)
    save(folder / "boxes.safetensors", {"z_0": torch.cat(latents)})
    (folder / "boxes.json").write_text(json.dumps(cases, indent=1))


def write_pass(pipe, seed, folder):
    """Three rows with their own regions, at sizes that no level divides. A row's regions may be empty or full."""
    rng = torch.Generator().manual_seed(seed)
    height, width = 9, 13
    inputs = unet_inputs(pipe, height, width, 3, rng)
    dim = inputs["encoder_hidden_states"].shape[-1]
    places = [[2, 3, 7], [5]]
    offsets = [torch.randn(3, len(p), dim, generator=rng) for p in places]
    regions = (torch.rand(3, 2, height, width, generator=rng) > 0.5).float()
    regions[:, 1] *= 1 - regions[:, 0]
    regions[0, 0], regions[0, 1], regions[2, 1] = 1, 0, 0
    times = torch.tensor([1.0, 487.25, 981.0])
    processor = Regional((height, width))
    processor.subjects, processor.regions = list(zip(places, offsets)), regions
    own = pipe.unet.attn_processors
    pipe.unet.set_attn_processor(processor)
    added = added_cond(inputs.get("text_embeds"), inputs.get("time_ids"))
    noise_pred = pipe.unet(inputs["sample"], times, inputs["encoder_hidden_states"], added_cond_kwargs=added).sample
    pipe.unet.set_attn_processor(own)
    maps = {f"map.{i}": layer for i, layer in enumerate(processor.seen)}
    offsets = {f"offset.{g}": offset for g, offset in enumerate(offsets)}
    save(
        folder / "masks.safetensors",
        {**inputs, **maps, **offsets, "timesteps": times, "regions": regions, "noise_pred": noise_pred},
    )


def masks_of(seen, words, size):
    """Masks [1, G, H, W] from the attention maps of one row: mean over layers and tokens, Otsu; an overlap belongs to
    the larger attention."""
    maps = torch.stack([F.interpolate(layer, size, mode="bilinear", align_corners=False) for layer in seen]).mean(0)[0]
    maps = np.stack([maps[places].mean(0).double().numpy() for places in words])
    claimed = np.stack([one > threshold_otsu(one) for one in maps])
    normal = np.stack([(one - one.min()) / (one.max() - one.min()) for one in maps])
    winner = np.where(claimed, normal, -1).argmax(0)
    return torch.tensor(claimed & (winner == np.arange(len(words))[:, None, None])).float()[None]


def sample(pipe, run, text, subjects):
    """Eq. 19 with masks on the guided steps, Eq. 3 elsewhere; one image, and one row in each pass.

    `text` is the result of `embed` for the prompt. `subjects` has, for each word, its places in c and an offset
    [len(places), D] for `target` and one for `average`. The last `len(run["everywhere"])` of them are styles, which
    have no place in the picture.
    """
    c, negative, pooled, negative_pooled = text
    everywhere = len(run["everywhere"])
    placed = [subject["places"] for subject in subjects[: len(subjects) - everywhere]]
    ids = time_ids(run["height"], run["width"])
    scale = pipe.vae_scale_factor
    size = (run["height"] // scale, run["width"] // scale)
    latents = torch.randn(1, 4, *size, generator=torch.Generator("cpu").manual_seed(run["seed"]))
    scheduler = pipe.scheduler
    scheduler.set_timesteps(run["steps"])
    latents = latents * scheduler.init_noise_sigma
    processor = Regional(size)
    pipe.unet.set_attn_processor(processor)

    def predict(x, t, embeds, pooled, subjects=(), regions=None):
        processor.subjects, processor.regions, processor.seen = subjects, regions, []
        return pipe.unet(x, t, embeds, added_cond_kwargs=added_cond(pooled, ids)).sample

    def moved(which, factor):
        return [(subject["places"], factor * subject[which][None]) for subject in subjects]

    first, last = run["guided_steps"]
    seen = last_masks = None
    # PNDM makes its first step in two passes.
    passes_more = len(scheduler.timesteps) - run["steps"]
    for i, t in enumerate(scheduler.timesteps, start=1 - passes_more):
        i = max(i, 1)
        x = scheduler.scale_model_input(latents, t)
        if seen is None:
            predict(x, t, c, pooled)
            seen = processor.seen
        empty = predict(x, t, negative, negative_pooled)
        if first <= i <= last:
            last_masks = masks_of(seen, placed, size)
            # A style has no place: its region is the whole picture.
            regions = torch.cat([last_masks, torch.ones(1, everywhere, *size)], 1)
            target = predict(x, t, c, pooled, moved("target", run["semantic_scale"]), regions)
            seen = processor.seen
            eps = empty + run["eta_1"] * (target - empty)
            if run["eta_2"] != 0:
                eps = eps - run["eta_2"] * (predict(x, t, c, pooled, moved("average", 1.0), regions) - empty)
        else:
            plain = predict(x, t, c, pooled)
            seen = processor.seen
            eps = empty + run["guidance_scale"] * (plain - empty)
        latents = scheduler.step(eps, t, latents).prev_sample
    return latents, last_masks


def write_runs(pipe, shape, folder):
    """Two subjects, one of them named twice; the third run without exclusion and guided from the third step on; the
    last run with a style, whose offset acts everywhere."""
    rng = torch.Generator().manual_seed(shape["seed"] + 301)
    height, width = shape["image"]
    words = [shape["base"], "castle"]
    prompt = f"a {words[0]} and a {words[1]} beside a {words[0]}"
    styled = f"{prompt}, in the night"
    dim = pipe.unet.config.cross_attention_dim
    tokens = [len(base_positions(pipe, styled, word)[0]) for word in [*words, "night"]]
    offsets = {
        f"{which}.{g}": torch.randn(count, dim, generator=rng)
        for which in ("target", "average")
        for g, count in enumerate(tokens)
    }
    paper = {
        "prompt": prompt,
        "words": words,
        "everywhere": [],
        "height": height,
        "width": width,
        "seed": 21,
        "steps": 6,
        "guided_steps": [1, 4],
        "eta_1": 8.5,
        "eta_2": 1.0,
        "semantic_scale": 0.8,
        "guidance_scale": 7.5,
    }
    runs = [
        paper,
        {**paper, "seed": 22},
        {**paper, "eta_1": 7.5, "eta_2": 0.0, "guided_steps": [3, 5]},
        {**paper, "seed": 23, "prompt": styled, "everywhere": ["night"]},
    ]
    own = pipe.unet.attn_processors
    tensors = dict(offsets)
    for i, run in enumerate(runs):
        # A word that occurs twice has its offset at both places.
        places = [all_positions(pipe, run["prompt"], word) for word in run["words"] + run["everywhere"]]
        spread = lambda which, g: offsets[f"{which}.{g}"].repeat(len(places[g]) // tokens[g], 1)
        subjects = [
            {"places": places[g], **{which: spread(which, g) for which in ("target", "average")}}
            for g in range(len(places))
        ]
        latents, masks = sample(pipe, run, embed(pipe, run["prompt"]), subjects)
        assert 0.02 < masks.mean() < 0.98, "masks that are empty or full would test little"
        tensors |= {f"{i}.latents": latents, f"{i}.masks": masks}
    pipe.unet.set_attn_processor(own)
    save(folder / "several.safetensors", tensors)
    (folder / "several.json").write_text(json.dumps(runs, indent=1))


@torch.no_grad()
def write(pipe, shape, folder):
    """All results for one checkpoint."""
    write_pass(pipe, shape["seed"] + 300, folder)
    write_runs(pipe, shape, folder)
    write_boxes(pipe, shape, folder)
