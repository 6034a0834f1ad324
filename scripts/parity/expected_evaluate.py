"""Expected values of `evaluate`, on tiny CLIPs, a DINO and two DINOv2 with random weights and on the toy's CLIP: the
results of transformers' image processors and models, and of the measures' formulas in numpy, for a few pictures and
texts."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
    ViTConfig,
    ViTModel,
)
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

import expected_distances

TOY = Path(__file__).resolve().parents[2] / "src" / "io" / "toy" / "clip"
PROCESSORS = {"CLIP": CLIPImageProcessorPil, "Bit": BitImageProcessorPil, "ViT": ViTImageProcessorPil}
TEXTS = ["a red cat at the beach", "a tiny wizard, in the snow.", "a robot and a dragon in a library " * 5]
OPENAI = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}

# Sizes of pictures: equal, larger, smaller, and with sides that leave half pixels when cropped.
SIZES = [(64, 64), (97, 131), (300, 64), (41, 29), (640, 481), (56, 57)]


def randomise(model, seed, small=0.2, is_wide=lambda name: False):
    """Weights with which every part of a picture matters; the library's own make all embeddings nearly equal. Vectors
    have the deviation `small` around 0, or around 1 if they scale; matrices keep the variance, except wide ones."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=rng)
            if value.dim() < 2:
                is_scale = "norm" in name and name.endswith("weight")
                value.copy_(small * noise + (1.0 if is_scale else 0.0))
            elif is_wide(name):
                value.copy_(0.5 * noise)
            else:
                value.copy_(noise / max(1, value[0].numel()) ** 0.5)
    return model.eval()


def clip(text, vision, projection_dim):
    """A CLIPModel on the toy's tokenizer."""
    tokenizer = CLIPTokenizer.from_pretrained(TOY)
    text = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, **text}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=projection_dim))


def encoders():
    """For each folder: the model, its processor's settings, and keys that old files leave out of `text_config`."""
    vit_l = {"hidden_size": 24, "intermediate_size": 96, "num_attention_heads": 3, "num_hidden_layers": 3}
    big_g = {
        "hidden_size": 32,
        "intermediate_size": 100,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "hidden_act": "gelu",
    }
    toy_end = {"max_position_embeddings": 32, "eos_token_id": 1755, "bos_token_id": 1754}
    old = {"max_position_embeddings": 77, "eos_token_id": 2, "num_attention_heads": 8, "hidden_size": 40}
    crop = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}, "resample": 3}
    return {
        # Like openai/clip-vit-large-patch14: quick GELU, sizes as plain numbers.
        "clip": (
            clip({**vit_l, **old}, {**vit_l, "image_size": 56, "patch_size": 14}, 20),
            "CLIP",
            {
                "feature_extractor_type": "CLIPFeatureExtractor",
                "size": 56,
                "crop_size": 56,
                "resample": 3,
                "do_center_crop": True,
                **OPENAI,
            },
            ["num_attention_heads", "layer_norm_eps", "hidden_act", "max_position_embeddings"],
        ),
        # Like bigG: the exact GELU, and a width other than the projection's.
        "clip_gelu": (
            clip({**big_g, **toy_end}, {**big_g, "image_size": 60, "patch_size": 12}, 28),
            "CLIP",
            {
                "image_processor_type": "CLIPImageProcessor",
                **crop,
                "size": {"shortest_edge": 61},
                "crop_size": {"height": 60, "width": 60},
                **OPENAI,
            },
            [],
        ),
        # Like facebook/dino-vitb16: both sides given, bilinear, position embeddings of the same size.
        "dino": (
            ViTModel(ViTConfig(**vit_l, image_size=64, patch_size=16)),
            "ViT",
            {
                "feature_extractor_type": "ViTFeatureExtractor",
                "image_processor_type": "ViTFeatureExtractor",
                "size": 64,
                "resample": 2,
                **IMAGENET,
            },
            [],
        ),
        # Like facebook/dinov2-base: position embeddings of a larger picture.
        "dinov2": (
            Dinov2Model(
                Dinov2Config(
                    hidden_size=24,
                    num_attention_heads=3,
                    num_hidden_layers=3,
                    mlp_ratio=4,
                    image_size=98,
                    patch_size=14,
                )
            ),
            "Bit",
            {
                "image_processor_type": "BitImageProcessor",
                "do_center_crop": True,
                **crop,
                "size": {"shortest_edge": 64},
                **IMAGENET,
            },
            [],
        ),
        # Not square, and with position embeddings of a smaller picture.
        "dinov2_wide": (
            Dinov2Model(
                Dinov2Config(
                    hidden_size=16, num_attention_heads=2, num_hidden_layers=2, mlp_ratio=2, image_size=24, patch_size=8
                )
            ),
            "Bit",
            {
                "image_processor_type": "BitImageProcessor",
                **crop,
                "crop_size": {"height": 40, "width": 56},
                "resample": 1,
                **IMAGENET,
            },
            [],
        ),
    }


def pictures(folder):
    """Smooth pictures with sharp noise added, and masks of a third of their size."""
    rng = np.random.default_rng(5)
    found = []
    for i, (width, height) in enumerate(SIZES):
        y, x = np.mgrid[0:height, 0:width] / max(width, height)
        waves = [np.sin(6.28 * (x * rng.uniform(-4, 4) + y * rng.uniform(-4, 4) + rng.uniform())) for _ in range(3)]
        levels = 127 + 90 * np.stack(waves, -1) + rng.normal(0, 40, (height, width, 3))
        picture = Image.fromarray(levels.clip(0, 255).astype(np.uint8))
        mask = Image.fromarray((rng.random((height // 3, width // 3)) < 0.4).astype(np.uint8) * 255)
        picture.save(folder / f"{i}.png")
        mask.save(folder / f"{i}-mask.png")
        found.append((picture, mask))
    return found


def widths_first(picture, kind, settings):
    """A picture with its width already resized, before its height is. Pillow before 13 always resizes the widths first;
    Pillow 13 starts with the heights if they shrink more. The order changes values by one level, which a random network
    turns into 2e-3."""
    if kind != "ViT":
        return picture
    return picture.resize((settings["size"], picture.height), settings["resample"])


def part(picture, mask, mean, is_foreground):
    """The foreground or background: all other pixels have the encoder's mean colour."""
    levels = np.asarray(picture)
    height, width = levels.shape[:2]
    small = np.asarray(mask)
    rows, columns = np.arange(height) * small.shape[0] // height, np.arange(width) * small.shape[1] // width
    is_subject = small[rows][:, columns] >= 128
    fill = np.floor(np.array(mean) * 255 + 0.5)
    return Image.fromarray(np.where((is_subject == is_foreground)[..., None], levels, fill).astype(np.uint8))


def image_embeds(model, pixel_values):
    """The pictures that the measures compare."""
    if isinstance(model, CLIPModel):
        pooled = model.vision_model(pixel_values=pixel_values).pooler_output
        return model.visual_projection(pooled)
    options = {"interpolate_pos_encoding": True} if isinstance(model, ViTModel) else {}
    return model(pixel_values=pixel_values, **options).last_hidden_state[:, 0]


def text_embeds(model, folder, texts):
    """Ids, cut to the length that the model reads, and the projected states at their ends."""
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    options = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
    ids = tokenizer(texts, max_length=model.config.text_config.max_position_embeddings, **options).input_ids
    return ids, model.text_projection(model.text_model(input_ids=ids).pooler_output)


def cosines(a, b):
    """a · b / (|a| |b|) of all pairs, in f64."""
    a, b = a.double().numpy(), b.double().numpy()
    return (a @ b.T) / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)


def save_folder(model, folder, settings, left_out):
    """Writes a folder in Hugging Face's layout."""
    model.save_pretrained(folder, safe_serialization=True)
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2))
    if not isinstance(model, CLIPModel):
        return
    config = json.loads((folder / "config.json").read_text())
    for key in left_out:
        del config["text_config"][key]
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    for name in ("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json"):
        shutil.copy(TOY / name, folder / name)
    length = model.config.text_config.max_position_embeddings
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**tokenizer, "model_max_length": length}))


def expected(model, kind, settings, folder, shown):
    """Expected values for all pictures and texts."""
    processor = PROCESSORS[kind](**{key: value for key, value in settings.items() if not key.endswith("_type")})
    at_once = lambda picture: processor(picture, return_tensors="pt").pixel_values
    prepare = lambda picture: at_once(widths_first(picture, kind, settings))
    tensors = {f"pixel_values.{i}": prepare(picture)[0] for i, (picture, _) in enumerate(shown)}
    whole = image_embeds(model, torch.stack(list(tensors.values())))
    tensors.update({f"at_once.{i}": at_once(picture)[0] for i, (picture, _) in enumerate(shown)})
    tensors.update(image_embeds=whole, cosines=torch.from_numpy(cosines(whole, whole)))
    for region, is_foreground in (("foreground", True), ("background", False)):
        parts = [prepare(part(*both, settings["image_mean"], is_foreground)) for both in shown]
        embeds = image_embeds(model, torch.cat(parts))
        tensors[f"{region}.cosines"] = torch.from_numpy(cosines(embeds, embeds))
    if kind == "CLIP":
        ids, texts = text_embeds(model, folder, TEXTS)
        likeness = cosines(whole, texts)
        scores = torch.from_numpy(100 * np.maximum(likeness, 0))
        tensors.update(ids=ids, text_embeds=texts, clip_t=torch.from_numpy(likeness), clip_score=scores)
    return {key: value.contiguous() for key, value in tensors.items()}


@torch.no_grad()
def write(out):
    """Writes everything below `out`."""
    (out / "pictures").mkdir(parents=True)
    shown = pictures(out / "pictures")
    for seed, (name, (model, kind, settings, left_out)) in enumerate(encoders().items()):
        folder = out / name
        randomise(model, 300 + seed)
        save_folder(model, folder, settings, left_out)
        save_file(expected(model, kind, settings, folder, shown), folder / "expected.safetensors")
    toy = CLIPModel.from_pretrained(TOY, torch_dtype=torch.float32).eval()
    settings = json.loads((TOY / "preprocessor_config.json").read_text())
    (out / "toy").mkdir()
    save_file(expected(toy, "CLIP", settings, TOY, shown), out / "toy" / "expected.safetensors")
    expected_distances.write_lpips(out / "lpips", shown, part, randomise)
    expected_distances.write_dreamsim(out / "dreamsim", shown, part, randomise)
    (out / "texts.json").write_text(json.dumps(TEXTS))
