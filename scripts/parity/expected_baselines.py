"""Expected results of the baselines with tuning, each written from its paper around diffusers' U-Net.

`inversion.safetensors`   textual inversion (arXiv 2208.01618, Eq. 2): five AdamW steps on given batches, and a guided
                          run with what was learnt
`dreambooth.safetensors`  DreamBooth (arXiv 2208.12242, Eq. 2) with PEFT's LoRA: the same
`dreambooth_lora.safetensors`  what diffusers' `save_lora_weights` makes of the tuned adapter
The JSON files of the first two say what was run.
"""

import copy
import json
from contextlib import contextmanager

import torch
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from torch.nn import functional as F

from expected_method import TEMPLATES, base_positions, batch, embed, noised, time_ids
from expected_models import added_cond, save

STEPS, ROWS, RANK, IDENTIFIER = 5, 4, 4, "sks"
RUN = {"seed": 41, "steps": 8, "guidance_scale": 5.0}


def encoders(pipe):
    """The text encoders by name."""
    return {name: getattr(pipe, name) for name in ("text_encoder", "text_encoder_2") if hasattr(pipe, name)}


@contextmanager
def word_replaced(pipe, text, word, vectors):
    """Context: the token embeddings of `word` in `text` are those of `vectors` at every occurrence."""
    handles = []
    for name, encoder in encoders(pipe).items():

        def replace(module, args, output, vector=vectors[name]):
            output = output.clone()
            for places in base_positions(pipe, text, word):
                output[0, places] = vector
            return output

        handles.append(encoder.get_input_embeddings().register_forward_hook(replace))
    yield
    for handle in handles:
        handle.remove()


def encode(pipe, text):
    """prompt_embeds and pooled embedding with gradients; SD has no pooled embedding."""
    found = pipe.encode_prompt(text, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)
    return (found[0], found[2]) if len(found) == 4 else (found[0], None)


def predict(pipe, z_t, t, embeds, pooled, size):
    """One row of conditions for each row of latents."""
    ids = None if pooled is None else time_ids(size, size).expand(len(t), -1)
    return pipe.unet(z_t, t, embeds, added_cond_kwargs=added_cond(pooled, ids)).sample


def spec_of(pipe, shape, word, rate, weight_decay):
    """The fields that both baselines have."""
    lines = [line.strip() for line in TEMPLATES.read_text().splitlines()]
    return {
        "base": shape["base"],
        "prompt": shape["prompt"],
        "templates": [line.replace("[b]", word) for line in lines if line and not line.startswith("#")],
        "steps": STEPS,
        "learning_rate": rate,
        "weight_decay": weight_decay,
        "size": 2 * pipe.unet.config.sample_size * pipe.vae_scale_factor,
        "run": {
            **RUN,
            "prompt": f"a {word} beside another {word}",
            "height": shape["image"][0],
            "width": shape["image"][1],
        },
    }


@torch.no_grad()
def draw(pipe, run, embeds, pooled):
    """Final latents of a guided run with the pipeline's own negative branch."""
    _, negative, _, negative_pooled = embed(pipe, run["prompt"])
    generator = torch.Generator("cpu").manual_seed(run["seed"])
    prompts = {"prompt_embeds": embeds, "negative_prompt_embeds": negative}
    if pooled is not None:
        prompts |= {"pooled_prompt_embeds": pooled, "negative_pooled_prompt_embeds": negative_pooled}
    pipe.set_progress_bar_config(disable=True)
    options = {name: run[name] for name in ("height", "width", "guidance_scale")}
    return pipe(
        **prompts, **options, num_inference_steps=run["steps"], generator=generator, output_type="latent"
    ).images


def learn(parameters, spec, rng, pipe, rows, loss_of):
    """AdamW on batches of so many rows; inputs and results of step k are `step.k.*` (from 0)."""
    optimiser = torch.optim.AdamW(parameters.values(), spec["learning_rate"], weight_decay=spec["weight_decay"])
    saved = {f"initial.{name}": value.detach().clone() for name, value in parameters.items()}
    for k in range(STEPS):
        z0, eps, t = batch(pipe, rows, rng)
        template = torch.randint(0, len(spec["templates"]), (), generator=rng)
        errors, loss = loss_of(spec["templates"][template.item()], z0, eps, t)
        optimiser.zero_grad()
        loss.backward()
        if k == 0:
            saved |= {f"gradient.{name}": value.grad.clone() for name, value in parameters.items()}
        optimiser.step()
        found = {"z0": z0, "eps": eps, "timesteps": t, "template": template, "row_errors": errors, "loss": loss}
        saved |= {f"step.{k}.{name}": value.detach().clone() for name, value in found.items()}
    return saved | {f"final.{name}": value.detach().clone() for name, value in parameters.items()}


def row_errors(pipe, z0, eps, t, embeds, pooled, size):
    """The mean of squares of every row."""
    z_t, target = noised(pipe, z0, eps, t)
    return F.mse_loss(predict(pipe, z_t, t, embeds, pooled, size), target, reduction="none").mean((1, 2, 3))


def write_inversion(pipe, shape, folder):
    """v* of every text encoder, one vector for each token of the base word."""
    word = shape["base"]
    spec = spec_of(pipe, shape, word, 5e-3, 0.01)
    tokenizers = {"text_encoder": pipe.tokenizer, "text_encoder_2": getattr(pipe, "tokenizer_2", None)}
    vectors = {}
    for name, encoder in encoders(pipe).items():
        encoder.requires_grad_(False)
        ids = torch.tensor(tokenizers[name](word).input_ids[1:-1])
        vectors[name] = encoder.get_input_embeddings().weight[ids].detach().clone().requires_grad_()

    def loss_of(template, z0, eps, t):
        with word_replaced(pipe, template, word, vectors):
            embeds, pooled = encode(pipe, template)
        rows = len(t)
        pooled = None if pooled is None else pooled.expand(rows, -1)
        errors = row_errors(pipe, z0, eps, t, embeds.expand(rows, -1, -1), pooled, spec["size"])
        return errors, errors.mean()

    saved = learn(vectors, spec, torch.Generator().manual_seed(shape["seed"] + 300), pipe, ROWS, loss_of)
    with torch.no_grad(), word_replaced(pipe, spec["run"]["prompt"], word, vectors):
        embeds, pooled = encode(pipe, spec["run"]["prompt"])
    saved |= {"prompt_embeds": embeds, "latents": draw(pipe, spec["run"], embeds, pooled)}
    save(folder / "inversion.safetensors", saved | ({} if pooled is None else {"pooled": pooled}))
    (folder / "inversion.json").write_text(json.dumps(spec, indent=1))


def write_dreambooth(pipe, shape, folder):
    """The first row is the subject with its template, the second a picture of the prior with the class prompt."""
    spec = spec_of(pipe, shape, f"{IDENTIFIER} {shape['base']}", 1e-4, 0.01)
    plain = pipe.unet
    pipe.unet = copy.deepcopy(plain)
    layers = ["to_q", "to_k", "to_v", "to_out.0"]
    pipe.unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=layers))
    # B is random too: if B is zero, A has no gradient.
    rng = torch.Generator().manual_seed(shape["seed"] + 301)
    drawn = {}
    for name, value in get_peft_model_state_dict(pipe.unet).items():
        drawn[name] = torch.randn(value.shape, generator=rng) * (0.05 if "lora_B" in name else 1 / RANK)
    set_peft_model_state_dict(pipe.unet, drawn)
    named = {name.replace(".default", ""): value for name, value in pipe.unet.named_parameters() if value.requires_grad}
    assert sorted(named) == sorted(drawn), "every trained tensor must belong to the adapter"

    def loss_of(template, z0, eps, t):
        with torch.no_grad():
            texts = [encode(pipe, text) for text in (template, spec["prompt"])]
        embeds = torch.cat([embeds for embeds, _ in texts])
        pooled = None if texts[0][1] is None else torch.cat([pooled for _, pooled in texts])
        errors = row_errors(pipe, z0, eps, t, embeds, pooled, spec["size"])
        return errors, errors[0] + errors[1]

    saved = learn(named, spec, rng, pipe, 2, loss_of)
    with torch.no_grad():
        embeds, pooled = encode(pipe, spec["run"]["prompt"])
    saved["latents"] = draw(pipe, spec["run"], embeds, pooled)
    save(folder / "dreambooth.safetensors", saved)
    (folder / "dreambooth.json").write_text(json.dumps(spec, indent=1))
    state = convert_state_dict_to_diffusers(get_peft_model_state_dict(pipe.unet))
    pipe.save_lora_weights(folder, unet_lora_layers=state, weight_name="dreambooth_lora.safetensors")
    pipe.unet = plain


def write(pipe, shape, folder):
    """Both baselines for one checkpoint."""
    pipe.unet.requires_grad_(False)
    write_inversion(pipe, shape, folder)
    write_dreambooth(pipe, shape, folder)
