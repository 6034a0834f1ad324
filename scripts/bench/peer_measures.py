"""The script that somebody writes to measure pictures with transformers: mean CLIP-I and CLIP-T, or mean DINOv2 likeness.

Requirements: scripts/bench/requirements.txt
Usage: peer_measures.py clip|dinov2 MODEL DEVICE TARGET PROMPT PICTURE …
"""

import json
import sys

import torch
from PIL import Image
from transformers import AutoModel, AutoTokenizer
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

kind, model, device, target, prompt, *paths = sys.argv[1:]
processor = {"clip": CLIPImageProcessorPil, "dinov2": BitImageProcessorPil}[kind].from_pretrained(model)
network = AutoModel.from_pretrained(model).to(device).eval()


def unit(vectors):
    return vectors / vectors.norm(dim=-1, keepdim=True)


@torch.inference_mode()
def embedded(path):
    pixels = processor(Image.open(path).convert("RGB"), return_tensors="pt")["pixel_values"].to(device)
    if kind == "dinov2":
        return unit(network(pixels).last_hidden_state[:, 0])
    return unit(network.visual_projection(network.vision_model(pixels).pooler_output))


@torch.inference_mode()
def embedded_text(text):
    tokens = AutoTokenizer.from_pretrained(model)(text, return_tensors="pt").to(device)
    return unit(network.text_projection(network.text_model(**tokens).pooler_output))


pictures = torch.cat([embedded(path) for path in paths])
means = [(pictures @ embedded(target).T).mean()]
if kind == "clip":
    means.append((pictures @ embedded_text(prompt).T).mean())
print(json.dumps([mean.item() for mean in means]))
