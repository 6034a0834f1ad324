"""Converts an encoder whose weights exist only as a pickle into a folder that `oneactor evaluate` reads.

    python scripts/convert_encoder.py facebook/dino-vitb16 --out models/dino-vitb16
    oneactor evaluate OUT --metrics dino --dino-model models/dino-vitb16

The source is a repository of the hub or a folder with config.json, preprocessor_config.json and pytorch_model.bin.

    python scripts/convert_encoder.py alexnet-owt-7be5be79.pth --as lpips --out models/lpips
    oneactor evaluate OUT --metrics lpips --lpips-model models/lpips

The source is torchvision's AlexNet (https://download.pytorch.org/models/alexnet-owt-7be5be79.pth). The heads are
weights/v0.1/alex.pth of the PyPI package lpips: `pip install lpips`, or --heads FILE.

    python -c "from dreamsim import dreamsim; dreamsim(device='cpu', cache_dir='models', dreamsim_type='dino_vitb16')"
    python scripts/convert_encoder.py models --as dreamsim --out models/dreamsim
    oneactor evaluate OUT --metrics dreamsim --dreamsim-model models/dreamsim

The source is the folder that the PyPI package dreamsim fills: dino_vitb16_single_lora/, and DINO's own weights in
checkpoints/dino_vitbase16_pretrain.pth or --base FILE. The LoRA is merged.

Needs torch and safetensors, for a repository also huggingface_hub (all in parity/requirements.txt or installed by it).
Tensors are read with torch's `weights_only`, which refuses every pickle that would run code.
"""

import argparse
import importlib.util
import json
import re
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

FILES = ["config.json", "preprocessor_config.json", "pytorch_model.bin"]
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}

# Parts of a block in DINO's own code, and their names in transformers' ViTModel.
BLOCK = {
    "norm1": "layernorm_before",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
# Settings with which the sum would not be W + alpha / r B A.
PLAIN_LORA = {
    "peft_type": "LORA",
    "bias": "none",
    "fan_in_fan_out": False,
    "use_rslora": False,
    "use_dora": False,
    "alpha_pattern": {},
}
LORA = re.compile(r"base_model\.model\.extractor_list\.(\d+)\.model\.(.+)\.lora_([AB])\.weight")


def fetch(source, revision):
    """The folder of the source's files."""
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(source, revision=revision, allow_patterns=FILES))


def read(path):
    """The tensors of a file."""
    if not path.is_file():
        raise SystemExit(f"there is no {path}")
    if path.suffix == ".safetensors":
        return load_file(path)
    state = torch.load(path, map_location="cpu", weights_only=True)
    return {name: value.detach() for name, value in state.items() if isinstance(value, torch.Tensor)}


def save(tensors, out):
    """Writes the weights into `out`; returns how many tensors there are."""
    out.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.clone().contiguous() for name, value in tensors.items()}
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    return len(tensors)


def convert(source, out):
    """A model of transformers: values and names stay the same."""
    missing = [name for name in FILES if not (source / name).is_file()]
    if missing:
        raise SystemExit(f"{source} has no {', '.join(missing)}")
    count = save(read(source / "pytorch_model.bin"), out)
    for name in FILES[:2]:
        shutil.copy(source / name, out / name)
    return count


def shipped_heads():
    """The heads in the PyPI package lpips, which is found without importing it."""
    found = importlib.util.find_spec("lpips")
    if found is None:
        raise SystemExit(
            "the heads of LPIPS are in the PyPI package lpips, which is not installed: "
            "`pip install lpips`, or give --heads"
        )
    return Path(found.origin).parent / "weights" / "v0.1" / "alex.pth"


def convert_lpips(alexnet, heads, out):
    """AlexNet's convolutions and the heads, under the names that their packages use."""
    features = {name: value.float() for name, value in read(alexnet).items() if name.startswith("features.")}
    lins = {
        name: value.float() for name, value in read(heads).items() if re.fullmatch(r"lin\d\.model\.1\.weight", name)
    }
    if len(features) != 10 or len(lins) != 5:
        raise SystemExit(
            f"found {len(features)} tensors features.… in {alexnet} and {len(lins)} heads lin….model.1.weight "
            f"in {heads}, expected 10 and 5: torchvision's AlexNet and the package's weights/v0.1/alex.pth"
        )
    count = save({**features, **lins}, out)
    (out / "config.json").write_text(
        json.dumps({"model_type": "lpips", "net": "alex", "version": "0.1"}, indent=2) + "\n"
    )
    return count


def merged(base, adapter):
    """DINO's weights with the LoRA of a single branch added: W + alpha / r B A."""
    config = json.loads((adapter / "adapter_config.json").read_text())
    for key, plain in PLAIN_LORA.items():
        if (config.get(key) or plain) != plain:
            raise SystemExit(f"{adapter}/adapter_config.json: {key}: found {config[key]}, expected {plain}")
    names = [name for name in ("adapter_model.safetensors", "adapter_model.bin") if (adapter / name).is_file()]
    if not names:
        raise SystemExit(f"{adapter} has no adapter_model.safetensors or adapter_model.bin")
    parts = {}
    for name, value in read(adapter / names[0]).items():
        found = LORA.fullmatch(name)
        if not found or found[1] != "0" or f"{found[2]}.weight" not in base:
            raise SystemExit(
                f"{adapter / names[0]}: found {name}, expected LoRAs of the layers of one DINO ViT: "
                "the single branch dino_vitb16"
            )
        parts.setdefault(found[2], {})[found[3]] = value.float()
    result = dict(base)
    for layer, part in parts.items():
        scale = config["lora_alpha"] / part["A"].shape[0]
        result[f"{layer}.weight"] = base[f"{layer}.weight"].float() + scale * part["B"] @ part["A"]
    return result


def as_transformers(state):
    """The same weights with the names of transformers' ViTModel, without the last norm, which DreamSim does not use."""
    tensors = {
        "embeddings.cls_token": state["cls_token"],
        "embeddings.position_embeddings": state["pos_embed"],
        "embeddings.patch_embeddings.projection.weight": state["patch_embed.proj.weight"],
        "embeddings.patch_embeddings.projection.bias": state["patch_embed.proj.bias"],
    }
    for name, value in state.items():
        found = re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", name)
        if not found:
            continue
        layer = f"encoder.layer.{found[1]}"
        if found[2] == "attn.qkv":
            for part, third in zip(("query", "key", "value"), value.chunk(3)):
                tensors[f"{layer}.attention.attention.{part}.{found[3]}"] = third
        else:
            tensors[f"{layer}.{BLOCK[found[2]]}.{found[3]}"] = value
    return {name: value.float() for name, value in tensors.items()}


def convert_dreamsim(cache, base, out, heads=12):
    """DINO with the LoRA of DreamSim's single branch, and the package's preparation of pictures. The number of heads is
    set here, because no tensor shows it."""
    base = base or cache / "checkpoints" / "dino_vitbase16_pretrain.pth"
    tensors = as_transformers(merged(read(base), cache / "dino_vitb16_single_lora"))
    _, count, dim = tensors["embeddings.position_embeddings"].shape
    patch = tensors["embeddings.patch_embeddings.projection.weight"].shape[-1]
    layers = {name.split(".")[2] for name in tensors if name.startswith("encoder.layer.")}
    config = {
        "model_type": "dreamsim",
        "hidden_size": dim,
        "num_hidden_layers": len(layers),
        "num_attention_heads": heads,
        "intermediate_size": tensors["encoder.layer.0.intermediate.dense.weight"].shape[0],
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "image_size": round((count - 1) ** 0.5) * patch,
        "patch_size": patch,
        "num_channels": 3,
        "qkv_bias": True,
    }
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 224, "width": 224},
        "resample": 3,
        **IMAGENET,
    }
    written = save(tensors, out)
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (out / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")
    return written


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="repository (owner/name), folder or file, see above")
    parser.add_argument(
        "--as",
        dest="kind",
        choices=("transformers", "lpips", "dreamsim"),
        default="transformers",
        help="the kind of encoder",
    )
    parser.add_argument("--revision", help="branch, tag or commit of the repository")
    parser.add_argument(
        "--heads", type=Path, help="for lpips: weights/v0.1/alex.pth of its package, if the package is not installed"
    )
    parser.add_argument(
        "--base", type=Path, help="for dreamsim: dino_vitbase16_pretrain.pth, if it is not in the folder"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    args = parser.parse_args()
    for flag, kind in (("revision", "transformers"), ("heads", "lpips"), ("base", "dreamsim")):
        if getattr(args, flag) is not None and args.kind != kind:
            parser.error(f"--{flag} is for --as {kind}, found --as {args.kind}")
    if args.kind == "lpips":
        count = convert_lpips(Path(args.source), args.heads or shipped_heads(), args.out)
    elif args.kind == "dreamsim":
        count = convert_dreamsim(Path(args.source), args.base, args.out)
    else:
        count = convert(fetch(args.source, args.revision), args.out)
    print(f"{args.out}: {count} tensors")


if __name__ == "__main__":
    main()
