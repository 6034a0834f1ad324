"""Writes a trained toy as a diffusers checkpoint: `python export.py RUN/state.pt --tokenizer DIR --vae DIR --out
CHECKPOINT`.

Averaged weights, float16 safetensors; the tokenizer folders keep the plain CLIP files and no tokenizer.json. Beside
them lies words.txt, the words of the captions.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL

import model
import vocabulary

LIMIT = 15_900_000
TOKENIZER_FILES = ("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json")


def export(state_path, tokenizer_folder, vae_folder, out):
    tokenizers = model.load_tokenizers(tokenizer_folder)
    networks = torch.nn.ModuleList([*model.new_text_encoders(tokenizers[0]), model.new_unet()])
    networks.load_state_dict(torch.load(state_path)["average"])
    vae = AutoencoderKL.from_pretrained(vae_folder / "vae", torch_dtype=torch.float32)
    pipeline = model.pipeline(tokenizers, networks[:2], networks[2], vae).to(dtype=torch.float16)
    shutil.rmtree(out, ignore_errors=True)
    pipeline.save_pretrained(out, safe_serialization=True)
    strip_paths(out)
    for folder in ("tokenizer", "tokenizer_2"):
        shutil.rmtree(out / folder)
        (out / folder).mkdir()
        for name in TOKENIZER_FILES:
            shutil.copy(tokenizer_folder / folder / name, out / folder / name)
    (out / vocabulary.WORDS.name).write_text(vocabulary.text())
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: {size:,} bytes")
    if size > LIMIT:
        raise SystemExit(f"larger than {LIMIT:,} bytes")


def strip_paths(out):
    """diffusers notes the folder that a component came from; that is of no use to anybody else."""
    for path in out.glob("*/config.json"):
        config = json.loads(path.read_text())
        config.pop("_name_or_path", None)
        path.write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("state", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    export(args.state, args.tokenizer, args.vae, args.out)
