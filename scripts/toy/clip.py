"""Trains a small CLIP of the toy world, so that `oneactor evaluate --model toy` needs no download.

    python clip.py DATA --tokenizer CHECKPOINT --minutes 9 --out FOLDER

DATA are shards of data.py, which need no latents; the last shard is left out. clip_agreement.py measures how good the
CLIP is. The architecture is transformers' CLIPModel. Most captions name the identity with adjectives. Every other batch
holds one species only, because otherwise species and scene alone would distinguish all captions of a batch. Pictures
are blurred, shifted and made noisy as for the judge, so that the CLIP reads generated pictures as well as drawn ones.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTextModelWithProjection, CLIPTokenizer

import data
import judge
import training
import world
from captions import Describer, Mix

BATCH = 160
NAMES = ["images", "ids", "nouns", "species", "classes", "colors", "values", "scene", "attribute", "style"]
PREPROCESSOR = {
    "crop_size": {"height": 64, "width": 64},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 64},
}


def new_model(tokenizer):
    text = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tokenizer.model_max_length,
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.eos_token_id,
        "hidden_act": "gelu",
        "projection_dim": 128,
    }
    vision = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_attention_heads": 4,
        "num_hidden_layers": 4,
        "image_size": 64,
        "patch_size": 16,
        "projection_dim": 128,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=128))


def begin_with_text_of(checkpoint, model):
    """Starts the text half from the toy's second text encoder, which already knows the adjectives."""
    encoder = CLIPTextModelWithProjection.from_pretrained(checkpoint / "text_encoder_2", torch_dtype=torch.float32)
    model.load_state_dict(encoder.state_dict(), strict=False)
    missing = [key for key in encoder.state_dict() if key not in model.state_dict()]
    if missing:
        raise SystemExit(f"the text encoder has other names than CLIPModel: {missing}")


def rows_of_batch(arrays, by_species, count, step, rng):
    """Rows of any pictures, or, every other time, rows of pictures of one species."""
    if step % 2:
        return rng.choice(by_species[int(rng.integers(len(by_species)))], BATCH, replace=False)
    return rng.integers(0, count, BATCH)


def loss(model, pixels, ids):
    """CLIP's symmetric cross entropy; equal captions count as right for each other's pictures."""
    output = model(input_ids=ids, pixel_values=pixels)
    alike = (ids[:, None] == ids[None]).all(-1).float()
    wanted = alike / alike.sum(1, keepdim=True)
    logits = output.logits_per_image
    return 0.5 * (F.cross_entropy(logits, wanted) + F.cross_entropy(logits.T, wanted))


def train(args):
    torch.manual_seed(0)
    rng, generator = np.random.default_rng(1), torch.Generator().manual_seed(1)
    tokenizer = CLIPTokenizer.from_pretrained(args.tokenizer / "tokenizer")
    arrays = data.load(args.data, NAMES)
    count = len(arrays["images"]) - data.SHARD
    single = arrays["species"][:count, 1] < 0
    by_species = [np.flatnonzero(single & (arrays["species"][:count, 0] == i)) for i in range(len(world.SPECIES))]
    model, describer = new_model(tokenizer), Describer(tokenizer, Mix(empty=0, noun=0, named=0.8), rng)
    print(f"{count} pictures, {sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    begin_with_text_of(args.tokenizer, model)
    adam = torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=0.05, betas=(0.9, 0.98))
    begin, step, progress, recent = time.process_time(), 0, 0.0, []
    while progress < 1:
        progress = (time.process_time() - begin) / 60 / args.minutes
        warm = min(1, (step + 1) / 60)
        training.set_rate(adam, args.rate * warm * training.cosine(progress) + 1e-6)
        rows = rows_of_batch(arrays, by_species, count, step, rng)
        ids, _, _ = describer.batch(arrays, rows)
        ids = ids[:, : int((ids != tokenizer.eos_token_id).sum(1).max()) + 1]  # tokens after the end mark are not read
        pixels = judge.augment(training.to_pixels(arrays["images"][rows]), generator)
        value = loss(model, pixels, ids)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100))
        recent.append(value.item())
        step += 1
        if step % 50 == 0:
            print(
                f"{step} {time.process_time() - begin:.0f}s loss {np.mean(recent[-50::2]):.3f} any, "
                f"{np.mean(recent[-49::2]):.3f} one species",
                flush=True,
            )
    save(model, args.tokenizer / "tokenizer", args.out)


def save(model, tokenizer, out):
    """Writes the folder in Hugging Face's layout, in float16."""
    model.half().save_pretrained(out, safe_serialization=True)
    training.forget_origin(out / "config.json")
    (out / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=2) + "\n")
    training.copy_tokenizer(tokenizer, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True, help="checkpoint: its tokenizer and text encoder 2")
    parser.add_argument("--minutes", type=float, default=9, help="minutes of processor time")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train(arguments)
