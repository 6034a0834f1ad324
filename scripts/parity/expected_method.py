"""Expected results of the method, each written from the paper around diffusers' U-Net.

`eq19.safetensors`      final latents of cluster-guided sampling from given offsets (Eq. 19)
`gradient.safetensors`  gradient of the denoising loss with respect to the base word's offset (Eqs. 1, 8, 10)
`tuner.safetensors`     projector, three losses, AdamW: five steps on given batches (Eqs. 8-14, Algorithm 1)
`joint.safetensors`     the same with two subjects tuned together, one of them named by several tokens, and `joint_eq19`
                        with their offsets
The JSON files of the same names say what was run.
"""

import json
import re
from pathlib import Path

import torch
from torch.nn import functional as F

from expected_models import added_cond, save
from projector_reference import Projector

STEPS, K = 30, 3
OTHER = "red hat"  # the second subject of joint tuning; it is several tokens in every tokenizer
TEMPLATES = Path(__file__).resolve().parents[2] / "prompts" / "templates" / "character.txt"


def embed(pipe, text):
    """prompt_embeds and pooled, then the negative ones (None as negative prompt); SD has no pooled embedding."""
    with torch.no_grad():
        found = pipe.encode_prompt(text, do_classifier_free_guidance=True, device="cpu", num_images_per_prompt=1)
    return (*found, None, None)[:4]


def base_positions(pipe, text, word):
    """Positions of the base word's tokens: one list for each occurrence in the text; 0 is the start token."""
    ids = pipe.tokenizer(text.lower()).input_ids
    wanted = pipe.tokenizer(word).input_ids[1:-1]
    starts = [i for i in range(len(ids)) if ids[i : i + len(wanted)] == wanted]
    return [list(range(start, start + len(wanted))) for start in starts]


def all_positions(pipe, text, word):
    """The same positions in one list."""
    return [place for places in base_positions(pipe, text, word) for place in places]


def with_offset(prompt_embeds, positions, offset):
    """Eq. 8: adds the offset to the rows of the base word, at every occurrence."""
    moved = prompt_embeds.clone()
    for places in positions:
        moved[:, places] = moved[:, places] + offset
    return moved


def with_offsets(prompt_embeds, words, offsets):
    """The same for several words; `offsets` [R, W, D] or [W, D] has the rows of one word after the other."""
    for positions, offset in zip(words, offsets.split([len(positions[0]) for positions in words], -2)):
        prompt_embeds = with_offset(prompt_embeds, positions, offset)
    return prompt_embeds


def draw_offsets(pipe, shape, rng):
    """Offsets of the checkpoint's base word, as a tuned actor might have them."""
    tokens = len(base_positions(pipe, shape["prompt"], shape["base"])[0])
    dim = pipe.unet.config.cross_attention_dim
    return {name: 0.5 * torch.randn(tokens, dim, generator=rng) for name in ("target_offset", "average_offset")}


def base_embedding(embeds, words):
    """c_b [W, D]: the rows of every word at its first occurrence."""
    return torch.cat([embeds[0, positions[0]] for positions in words])


def time_ids(height, width):
    """Original size, crop, target size: those of an uncropped picture."""
    return torch.tensor([[height, width, 0, 0, height, width]]).float()


@torch.no_grad()
def sample(pipe, run, offsets):
    """Eq. 19 on the guided steps, Eq. 3 elsewhere."""
    plain, negative, pooled, negative_pooled = embed(pipe, run["prompt"])
    words = [base_positions(pipe, run["prompt"], base) for base in run["bases"]]
    attract = with_offsets(plain, words, run["semantic_scale"] * offsets["target_offset"])
    factor = run["semantic_scale"] if run["scale_average"] else 1.0
    exclude = with_offsets(plain, words, factor * offsets["average_offset"])
    ids = time_ids(run["height"], run["width"])
    scale = pipe.vae_scale_factor
    generator = torch.Generator("cpu").manual_seed(run["seed"])
    latents = torch.randn(1, 4, run["height"] // scale, run["width"] // scale, generator=generator)

    scheduler = pipe.scheduler
    scheduler.set_timesteps(STEPS)
    latents = latents * scheduler.init_noise_sigma

    def predict(x, t, embeds, pooled):
        return pipe.unet(x, t, embeds, added_cond_kwargs=added_cond(pooled, ids)).sample

    first, last = run["guided_steps"]
    # PNDM makes its first step in two passes.
    passes_more = len(scheduler.timesteps) - STEPS
    for i, t in enumerate(scheduler.timesteps, start=1 - passes_more):
        i = max(i, 1)
        x = scheduler.scale_model_input(latents, t)
        empty = predict(x, t, negative, negative_pooled)
        if first <= i <= last:
            eps = empty + run["eta_1"] * (predict(x, t, attract, pooled) - empty)
            if run["eta_2"] != 0:
                eps = eps - run["eta_2"] * (predict(x, t, exclude, pooled) - empty)
        else:
            eps = empty + run["guidance_scale"] * (predict(x, t, plain, pooled) - empty)
        latents = scheduler.step(eps, t, latents).prev_sample
    return latents


def write_sampling(pipe, shape, folder):
    """The paper's setting, no exclusion, other windows, a scaled average offset too, the word twice."""
    height, width = shape["image"]
    rng = torch.Generator().manual_seed(shape["seed"] + 200)
    offsets = draw_offsets(pipe, shape, rng)
    paper = {
        "prompt": shape["prompt"],
        "bases": [shape["base"]],
        "height": height,
        "width": width,
        "seed": 12,
        "guided_steps": [1, 20],
        "eta_1": 8.5,
        "eta_2": 1.0,
        "semantic_scale": 0.8,
        "guidance_scale": 7.5,
        "scale_average": False,
    }
    runs = [
        paper,
        {**paper, "eta_1": 7.5, "eta_2": 0.0, "seed": 13},
        {**paper, "guided_steps": [4, 11], "semantic_scale": 0.3, "seed": 14},
        {**paper, "scale_average": True, "height": 72, "width": 104, "eta_1": 9.0, "eta_2": 1.5},
        {**paper, "guided_steps": [30, 30], "eta_1": 12.0, "eta_2": 4.0},
        {**paper, "prompt": f"a {shape['base']} beside another {shape['base']}"},
    ]
    save(folder / "offsets.safetensors", offsets)
    save(folder / "eq19.safetensors", {str(i): sample(pipe, run, offsets) for i, run in enumerate(runs)})
    (folder / "eq19.json").write_text(json.dumps(runs, indent=1))


def noised(pipe, z0, eps, t):
    """Eq. 1, and the target of the prediction: eps, or v if the checkpoint predicts v."""
    alpha = pipe.scheduler.alphas_cumprod[t].view(-1, 1, 1, 1).float()
    z_t = alpha.sqrt() * z0 + (1 - alpha).sqrt() * eps
    is_v = pipe.scheduler.config.prediction_type == "v_prediction"
    return z_t, alpha.sqrt() * eps - (1 - alpha).sqrt() * z0 if is_v else eps


def batch(pipe, rows, rng):
    """z0, eps and t of a batch."""
    size = pipe.unet.config.sample_size
    z0, eps = (
        torch.randn(rows, 4, 2 * size, 2 * size, generator=rng),
        torch.randn(rows, 4, 2 * size, 2 * size, generator=rng),
    )
    return z0, eps, torch.randint(0, 1000, (rows,), generator=rng)


def write_gradient(pipe, shape, folder):
    """Three rows with their own offsets; the mean of squares over all of them."""
    rng = torch.Generator().manual_seed(shape["seed"] + 201)
    z0, eps, t = batch(pipe, 3, rng)
    z_t, target = noised(pipe, z0, eps, t)
    embeds, _, pooled, _ = embed(pipe, shape["template"])
    positions = base_positions(pipe, shape["template"], shape["base"])
    offset = (0.3 * torch.randn(3, len(positions[0]), embeds.shape[-1], generator=rng)).requires_grad_()
    size = z0.shape[-1] * pipe.vae_scale_factor
    added = None if pooled is None else added_cond(pooled.expand(3, -1), time_ids(size, size).expand(3, -1))
    noise_pred = pipe.unet(
        z_t, t, with_offset(embeds.expand(3, -1, -1), positions, offset), added_cond_kwargs=added
    ).sample
    loss = F.mse_loss(noise_pred, target)
    loss.backward()
    saved = {
        "z0": z0,
        "eps": eps,
        "timesteps": t,
        "offset": offset,
        "base_embedding": embeds[0, positions[0]],
        "z_t": z_t,
        "target": target,
        "noise_pred": noise_pred,
        "loss": loss,
        "gradient": offset.grad,
    }
    save(folder / "gradient.safetensors", saved)


def tuning_step(pipe, projector, features, tensors, spec):
    """One batch of K + 2 rows: target, K auxiliary, average. Returns the three losses and their sum (Eq. 14)."""
    template = spec["templates"][tensors["template"].item()]
    embeds, _, pooled, _ = embed(pipe, template)
    words = [base_positions(pipe, template, base) for base in spec["bases"]]
    offsets = projector(features, base_embedding(embeds, words))
    auxiliary = offsets[tensors["auxiliary"]]
    offsets = torch.cat([offsets[[spec["target"]]], auxiliary, auxiliary.mean(0, keepdim=True)])
    z_t, target = noised(pipe, tensors["z0"], tensors["eps"], tensors["timesteps"])
    rows = K + 2
    added = (
        None
        if pooled is None
        else added_cond(pooled.expand(rows, -1), time_ids(spec["size"], spec["size"]).expand(rows, -1))
    )
    moved = with_offsets(embeds.expand(rows, -1, -1), words, offsets)
    noise_pred = pipe.unet(z_t, tensors["timesteps"], moved, added_cond_kwargs=added).sample
    each = F.mse_loss(noise_pred, target, reduction="none").mean((1, 2, 3))
    parts = {"loss_target": each[0], "loss_auxiliary": each[1:-1].mean(), "loss_average": each[-1]}
    loss = parts["loss_target"] + spec["lambda_1"] * parts["loss_auxiliary"] + spec["lambda_2"] * parts["loss_average"]
    return {"loss": loss, **parts, "row_errors": each}


def make_projector(seed, spec, token_width, rng):
    """A projector with random weights, norms and biases too: an untrained projector gives no offset."""
    torch.manual_seed(seed)
    projector = Projector(
        spec["feature_shape"][0], spec["widths"], spec["strides"], spec["num_tokens"], token_width
    ).train()
    with torch.no_grad():
        for value in projector.parameters():
            if value.ndim == 1:
                value.add_(0.1 * torch.randn(value.shape, generator=rng))
        projector.linear.weight.mul_(0.5)
    return projector


def filled(template, bases):
    """A template with one base word, or with several words, each with the article and adjective that precede `[b]`;
    with `a` or `an` if there is no article."""
    if len(bases) == 1:
        return template.replace("[b]", bases[0])
    before, after = template.split("[b]")
    found = re.search(r"(?:^|(?<= ))(?:a|an|the|one|my) (?:(?!of )\S+ )?$", before)
    start = before[: found.start()] if found else before
    phrase = lambda base: (found[0] if found else "an " if base[0] in "aeiou" else "a ") + base
    return start + " and ".join(map(phrase, bases)) + after


def tuner_spec(pipe, shape, bases, prompt):
    """Sizes and settings of the tuner's check; widths and strides follow the projector's rule, calculated by hand."""
    channels, levels = pipe.unet.config.block_out_channels[-1], len(pipe.unet.config.block_out_channels)
    side = 2 * pipe.unet.config.sample_size // 2 ** (levels - 1)
    templates = [
        filled(line.strip(), bases)
        for line in TEMPLATES.read_text().splitlines()
        if line.strip() and not line.startswith("#")
    ]
    return {
        "feature_shape": [channels, side, side],
        "num_tokens": sum(len(base_positions(pipe, prompt, base)[0]) for base in bases),
        "widths": [64, 64, 128, 128, 256],
        "strides": {3: [1, 1, 1, 1, 1], 4: [2, 1, 1, 1, 1], 12: [2, 2, 1, 1, 1]}[side],
        "steps": 5,
        "num_base_images": 6,
        "num_auxiliary": K,
        "target": 1,
        "lambda_1": 0.5,
        "lambda_2": 0.2,
        "learning_rate": 1e-4,
        "weight_decay": 0.01,
        "betas": [0.9, 0.999],
        "epsilon": 1e-8,
        "templates": templates,
        "bases": bases,
        "prompt": prompt,
        "size": 2 * pipe.unet.config.sample_size * pipe.vae_scale_factor,
    }


def write_tuner(pipe, spec, seed, path):
    """Five AdamW steps, each on its own batch; `step.k.*` are inputs and results of step k (from 0). Returns the
    offsets."""
    rng = torch.Generator().manual_seed(seed)
    projector = make_projector(seed + 1, spec, pipe.unet.config.cross_attention_dim, rng)
    optimiser = torch.optim.AdamW(
        projector.parameters(), spec["learning_rate"], tuple(spec["betas"]), spec["epsilon"], spec["weight_decay"]
    )
    saved = {f"initial.{name}": value.detach().clone() for name, value in projector.named_parameters()}
    # One base set; the auxiliary images and the template change with the step.
    images = spec["num_base_images"]
    features = 3.0 * torch.randn(images, *spec["feature_shape"], generator=rng) + torch.randn(
        1, spec["feature_shape"][0], 1, 1, generator=rng
    )
    others = torch.tensor([i for i in range(images) if i != spec["target"]])
    for k in range(spec["steps"]):
        z0, eps, t = batch(pipe, K + 2, rng)
        template = torch.randint(0, len(spec["templates"]), (), generator=rng)
        auxiliary = others[torch.randperm(images - 1, generator=rng)[:K]]
        tensors = {"z0": z0, "eps": eps, "timesteps": t, "auxiliary": auxiliary, "template": template}
        result = tuning_step(pipe, projector, features, tensors, spec)
        optimiser.zero_grad()
        result["loss"].backward()
        if k == 0:
            saved |= {f"gradient.{name}": value.grad.clone() for name, value in projector.named_parameters()}
        optimiser.step()
        saved |= {f"step.{k}.{name}": value.detach().clone() for name, value in {**tensors, **result}.items()}
    saved |= {f"final.{name}": value for name, value in projector.named_parameters()}
    # For the words in another prompt.
    offsets_of = lambda c_b: eqs_16_17(projector, features, spec["target"], c_b)
    saved |= {"encoder_features": features, **offsets_of(embedding_in(pipe, spec["prompt"], spec["bases"]))}
    save(path.with_suffix(".safetensors"), saved)
    path.with_suffix(".json").write_text(json.dumps(spec, indent=1))
    return offsets_of


def embedding_in(pipe, prompt, bases):
    """c_b of these words in a prompt."""
    return base_embedding(embed(pipe, prompt)[0], [base_positions(pipe, prompt, base) for base in bases])


@torch.no_grad()
def eqs_16_17(projector, features, target, c_b):
    """The target's offset and the mean of the others' offsets."""
    offsets = projector(features, c_b)
    others = [i for i in range(len(features)) if i != target]
    return {"target_offset": offsets[target], "average_offset": offsets[others].mean(0)}


def write_joint(pipe, shape, folder):
    """Two subjects with one projector: the tuner, and Eq. 19 for a prompt that names both and for a prompt that names
    only the second."""
    bases = [shape["base"], OTHER]
    prompt = f"a {OTHER} and a {bases[0]} beside another {OTHER}"
    offsets_of = write_tuner(pipe, tuner_spec(pipe, shape, bases, prompt), shape["seed"] + 212, folder / "joint")
    height, width = shape["image"]
    both = {
        "prompt": prompt,
        "bases": bases,
        "height": height,
        "width": width,
        "seed": 31,
        "guided_steps": [1, 20],
        "eta_1": 8.5,
        "eta_2": 1.0,
        "semantic_scale": 0.8,
        "guidance_scale": 7.5,
        "scale_average": False,
    }
    second = {**both, "prompt": f"a {OTHER} in the snow", "bases": [OTHER], "seed": 32}
    whole, part = embedding_in(pipe, prompt, bases), embedding_in(pipe, second["prompt"], [OTHER])
    first = len(whole) - len(part)
    assert len(part) > 1, "the second word must be several tokens"
    # The offset of a token depends on h and on this token only. The row of the word that is not named can hold
    # anything.
    share = {name: offset[first:] for name, offset in offsets_of(torch.cat([whole[:first], part])).items()}
    tensors = {f"1.{name}": offset for name, offset in share.items()}
    tensors |= {"0": sample(pipe, both, offsets_of(whole)), "1": sample(pipe, second, share)}
    save(folder / "joint_eq19.safetensors", tensors)
    (folder / "joint_eq19.json").write_text(json.dumps([both, second], indent=1))


def write(pipe, shape, folder):
    """All of the above for one checkpoint."""
    pipe.unet.requires_grad_(False)
    write_sampling(pipe, shape, folder)
    write_gradient(pipe, shape, folder)
    write_tuner(pipe, tuner_spec(pipe, shape, [shape["base"]], shape["prompt"]), shape["seed"] + 202, folder / "tuner")
    write_joint(pipe, shape, folder)
