"""Functions that all trainings share: pictures as tensors and back, and a falling learning rate."""

import json
import math
import shutil

import torch

TOKENIZER_FILES = ("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json")


def to_pixels(images):
    """Byte pictures [N, H, W, 3] as floats [N, 3, H, W] in -1..1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_bytes(pixels):
    """Pixels as byte pictures: clamped and rounded."""
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def cosine(progress):
    """Half a cosine wave: 1 at the beginning, 0 at the end and after it."""
    return 0.5 + 0.5 * math.cos(math.pi * min(progress, 1))


def set_rate(optimizer, rate):
    for group in optimizer.param_groups:
        group["lr"] = rate


def forget_origin(path):
    """Removes the note of diffusers and transformers in a config.json about where its component came from."""
    config = json.loads(path.read_text())
    config.pop("_name_or_path", None)
    path.write_text(json.dumps(config, indent=2) + "\n")


def copy_tokenizer(source, out):
    """Leaves the plain files of CLIP's tokenizers, and no tokenizer.json."""
    for name in TOKENIZER_FILES:
        shutil.copy(source / name, out / name)
