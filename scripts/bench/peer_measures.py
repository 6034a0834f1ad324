"""The script that a user would write to measure pictures with transformers: mean CLIP-I and CLIP-T, mean DINOv2
similarity, or the shares of the pictures and the target that SAM finds to be foreground.

Requirements: scripts/parity/requirements.txt
Usage: peer_measures.py clip|dinov2|sam MODEL DEVICE TARGET PROMPT PICTURE …
"""

import json
import sys
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoModel, AutoTokenizer
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

sys.path.append(str(Path(__file__).resolve().parents[1] / "parity"))
import expected_sam

kind, model, device, target, prompt, *paths = sys.argv[1:]
processor = {"clip": CLIPImageProcessorPil, "dinov2": BitImageProcessorPil, "sam": SamImageProcessorPil}[
    kind
].from_pretrained(model)
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


@torch.inference_mode()
def share(path):
    """Shares of the foreground, by the program's twelve prompts."""
    inputs = processor(Image.open(path).convert("RGB"), return_tensors="pt").to(device)
    sizes = [tuple(inputs[key][0].tolist()) for key in ("original_sizes", "reshaped_input_sizes")]
    found = expected_sam.foreground(network, processor, network.get_image_embeddings(inputs.pixel_values), *sizes)
    return found["mask"].float().mean()


def cosines():
    pictures = torch.cat([embedded(path) for path in paths])
    means = [(pictures @ embedded(target).T).mean()]
    return means if kind == "dinov2" else [*means, (pictures @ embedded_text(prompt).T).mean()]


found = [share(path) for path in [*paths, target]] if kind == "sam" else cosines()
print(json.dumps([value.item() for value in found]))
