"""Writes an encoder of `oneactor evaluate` in its published size with random weights, in the layout of transformers.

clip is openai/clip-vit-large-patch14, dinov2 is facebook/dinov2-base, sam is facebook/sam-vit-base; CLIP's vocabulary
is that of random_sdxl.py.

Requirements: scripts/parity/requirements.txt
Usage: random_encoder.py FOLDER --kind clip|dinov2|sam
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel, Dinov2Config, Dinov2Model, SamConfig, SamModel

from random_sdxl import TEXT_1, TOY, write_tokenizer

sys.path.append(str(Path(__file__).resolve().parents[1] / "parity"))
import expected_sam

OPENAI = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
CROP = {"do_center_crop": True, "crop_size": {"height": 224, "width": 224}, "resample": 3}
PREPARATION = {
    "clip": {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 224}, **CROP, **OPENAI},
    "dinov2": {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256}, **CROP, **IMAGENET},
    "sam": {
        **expected_sam.CLASS, **expected_sam.PROCESSOR, "resample": 2,
        "size": {"longest_edge": 1024}, "pad_size": {"height": 1024, "width": 1024},
    },
}  # fmt: skip
VISION_L = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "image_size": 224, "patch_size": 14, "projection_dim": 768,
}  # fmt: skip


@torch.no_grad()
def network(kind):
    """Random matrices that keep the norm of their input, so that embeddings of different pictures differ."""
    if kind == "sam":
        return expected_sam.randomise(SamModel(SamConfig()), 0)
    if kind == "clip":
        model = CLIPModel(CLIPConfig(text_config=TEXT_1, vision_config=VISION_L, projection_dim=768))
    else:
        model = Dinov2Model(Dinov2Config(image_size=518, patch_size=14))
    generator = torch.Generator().manual_seed(0)
    for value in (value for value in model.parameters() if value.dim() > 1):
        value.normal_(std=value[0].numel() ** -0.5, generator=generator)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", choices=PREPARATION, required=True)
    args = parser.parse_args()
    network(args.kind).save_pretrained(args.folder)
    if args.kind == "clip":
        write_tokenizer(TOY / "tokenizer", args.folder)
    settings = json.dumps(PREPARATION[args.kind])
    (args.folder / "preprocessor_config.json").write_text(settings)  # written last: it marks a complete folder


if __name__ == "__main__":
    main()
