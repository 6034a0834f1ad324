"""Expected values of the distances of `evaluate`: LPIPS and DreamSim by their authors' packages `lpips` and `dreamsim`,
on folders that scripts/convert_encoder.py makes from checkpoints in the packages' own files. AlexNet and DINO have
random weights; the heads of LPIPS are those that its package ships."""

import contextlib
import io
import sys
import tempfile
import warnings
from pathlib import Path
from unittest import mock

import lpips
import numpy as np
import torch
import torchvision
from dreamsim import dreamsim
from dreamsim.feature_extraction.vision_transformer import VisionTransformer
from peft import LoraConfig, get_peft_model
from PIL import Image
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import convert_encoder

# A picture of 41 x 29 pixels is too small for AlexNet.
LARGE_ENOUGH = [0, 1, 2, 4, 5]
# The level of each channel that LPIPS and DreamSim map to 0.
MEAN = [0.485, 0.456, 0.406]
HEADS = 3


def pairs(pictures, distance):
    """Distances of all pairs `[N, N]`, f64."""
    return torch.tensor([[float(distance(a, b)) for b in pictures] for a in pictures], dtype=torch.float64)


def resized(picture, size):
    """The picture at this size, widths first, see `widths_first` of expected_evaluate.py."""
    return picture.resize((size[0], picture.height), Image.Resampling.BICUBIC).resize(size, Image.Resampling.BICUBIC)


def lpips_model(folder, randomise):
    """The package's network; the files that it is converted from go to `folder`."""
    alexnet = randomise(torchvision.models.alexnet(weights=None), 400)
    torch.save(alexnet.state_dict(), folder / "alexnet.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package still uses torchvision's old parameter `pretrained`
        model = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    for slice_ in (model.net.slice1, model.net.slice2, model.net.slice3, model.net.slice4, model.net.slice5):
        for name, layer in slice_.named_children():
            layer.load_state_dict(alexnet.features[int(name)].state_dict())
    return model.eval()


def write_lpips(out, shown, part, randomise):
    """Distances of pictures from their mirror images at their own size, and of all pairs at the least width and
    height."""
    with tempfile.TemporaryDirectory() as folder:
        model = lpips_model(Path(folder), randomise)
        convert_encoder.convert_lpips(Path(folder) / "alexnet.pth", convert_encoder.shipped_heads(), out)
    large = [shown[i] for i in LARGE_ENOUGH]
    size = tuple(min(picture.size[axis] for picture, _ in large) for axis in (0, 1))
    prepare = lambda picture: lpips.im2tensor(np.asarray(picture))
    mirror = lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    tensors = {
        "native": torch.tensor([float(model(prepare(p), prepare(mirror(p)))) for p, _ in large], dtype=torch.float64),
        "size": torch.tensor(size),
        "pairs": pairs([prepare(resized(p, size)) for p, _ in large], model),
    }
    for i, (picture, _) in zip(LARGE_ENOUGH, large):
        tensors[f"pixel_values.{i}"] = model.scaling_layer(prepare(picture))[0]
    for region, is_foreground in (("foreground", True), ("background", False)):
        parts = [resized(part(*both, MEAN, is_foreground), size) for both in large]
        tensors[region] = pairs([prepare(p) for p in parts], model)
    save_file({key: value.contiguous() for key, value in tensors.items()}, out / "expected.safetensors")


def dino():
    """DINO's own class, as small as possible with twelve layers."""
    sizes = {"img_size": [224], "patch_size": 16, "embed_dim": 24, "depth": 12, "num_heads": HEADS}
    return VisionTransformer(**sizes, qkv_bias=True, norm_layer=lambda dim: torch.nn.LayerNorm(dim, eps=1e-6))


def fill_cache(cache, base):
    """The files that the package would download, with a LoRA of random weights."""
    (cache / "checkpoints").mkdir()
    torch.save(base.state_dict(), cache / "checkpoints" / "dino_vitbase16_pretrain.pth")
    # The package reads DINO's head for a feature that the single branch does not use.
    names = [f"mlp.{i}.{part}" for i in (0, 2, 4) for part in ("weight", "bias")] + ["last_layer.weight"]
    torch.save(
        {"student": {f"module.head.{name}": torch.zeros(1) for name in names}}, cache / "dino_vitb16_pretrain.pth"
    )
    branch = torch.nn.Module()
    branch.extractor_list = torch.nn.ModuleList([torch.nn.Module()])
    branch.extractor_list[0].model = base
    config = LoraConfig(r=4, lora_alpha=6, lora_dropout=0.3, bias="none", target_modules=["qkv"])
    adapted = get_peft_model(branch, config)
    rng = torch.Generator().manual_seed(402)
    for name, value in adapted.named_parameters():
        if "lora_" in name:
            value.copy_(torch.randn(value.shape, generator=rng) / value.shape[1] ** 0.5)
    adapted.save_pretrained(cache / "dino_vitb16_single_lora")


def write_dreamsim(out, shown, part, randomise):
    """Preparation, embeddings and distances of all pairs."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        cache = Path(folder)
        fill_cache(cache, randomise(dino(), 401))
        convert_encoder.convert_dreamsim(cache, None, out, heads=HEADS)
        base = randomise(dino(), 401)
        with mock.patch("torch.hub.load", lambda *_: base):
            model, preprocess = dreamsim(device="cpu", cache_dir=str(cache), dreamsim_type="dino_vitb16")
    branch = model.base_model.model
    prepare = lambda picture: preprocess(picture.resize((224, picture.height), Image.Resampling.BICUBIC))
    normalised = lambda pixels: branch._preprocess(pixels, "dino_vitb16")[0]
    whole = [prepare(picture) for picture, _ in shown]
    tensors = {"embeds": torch.cat([model.embed(pixels) for pixels in whole]), "pairs": pairs(whole, model)}
    for i, (picture, _) in enumerate(shown):
        tensors[f"pixel_values.{i}"] = normalised(whole[i])
        tensors[f"at_once.{i}"] = normalised(preprocess(picture))
    for region, is_foreground in (("foreground", True), ("background", False)):
        tensors[region] = pairs([prepare(part(*both, MEAN, is_foreground)) for both in shown], model)
    save_file({key: value.contiguous() for key, value in tensors.items()}, out / "expected.safetensors")
