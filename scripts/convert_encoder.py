"""Turns an encoder whose weights are only pickled into a folder that `oneactor evaluate` reads.

    python scripts/convert_encoder.py facebook/dino-vitb16 --out models/dino-vitb16
    oneactor evaluate OUT --metrics dino --dino-model models/dino-vitb16

The source is a repository of the hub or a folder with config.json, preprocessor_config.json and pytorch_model.bin.
Needs torch and safetensors, for a repository huggingface_hub too (all in parity/requirements.txt or needed by it).
Tensors are read with torch's `weights_only`, which refuses every pickle that would run code; values and names stay.
"""

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

FILES = ["config.json", "preprocessor_config.json", "pytorch_model.bin"]


def fetch(source, revision):
    """The folder of the source's files."""
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(source, revision=revision, allow_patterns=FILES))


def convert(source, out):
    """Writes `out`; returns how many tensors it has."""
    missing = [name for name in FILES if not (source / name).is_file()]
    if missing:
        raise SystemExit(f"{source} has no {', '.join(missing)}")
    state = torch.load(source / "pytorch_model.bin", map_location="cpu", weights_only=True)
    tensors = {name: value.detach().clone().contiguous() for name, value in state.items() if isinstance(value, torch.Tensor)}
    out.mkdir(parents=True, exist_ok=True)
    for name in FILES[:2]:
        shutil.copy(source / name, out / name)
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    return len(tensors)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="repository (owner/name) or folder")
    parser.add_argument("--revision", help="branch, tag or commit of the repository")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    args = parser.parse_args()
    count = convert(fetch(args.source, args.revision), args.out)
    print(f"{args.out}: {count} tensors")
