"""Writes a trained toy as a diffusers checkpoint.

    python export.py RUN/state.pt --tokenizer DIR --vae DIR --out CHECKPOINT

The weights are the averaged ones, in float16 safetensors. The tokenizer folders have the plain CLIP files and no
tokenizer.json. words.txt beside them has the words of the captions.
"""

import argparse
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL

import model
import training
import vocabulary

LIMIT = 15_900_000


def export(state_path, tokenizer_folder, vae_folder, out):
    tokenizers = model.load_tokenizers(tokenizer_folder)
    networks = torch.nn.ModuleList([*model.new_text_encoders(tokenizers[0]), model.new_unet()])
    networks.load_state_dict(torch.load(state_path)["average"])
    vae = AutoencoderKL.from_pretrained(vae_folder / "vae", torch_dtype=torch.float32)
    pipeline = model.pipeline(tokenizers, networks[:2], networks[2], vae).to(dtype=torch.float16)
    shutil.rmtree(out, ignore_errors=True)
    pipeline.save_pretrained(out, safe_serialization=True)
    for path in out.glob("*/config.json"):
        training.forget_origin(path)
    for folder in ("tokenizer", "tokenizer_2"):
        shutil.rmtree(out / folder)
        (out / folder).mkdir()
        training.copy_tokenizer(tokenizer_folder / folder, out / folder)
    (out / vocabulary.WORDS.name).write_text(vocabulary.text())
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: {size:,} bytes")
    if size > LIMIT:
        raise SystemExit(f"larger than {LIMIT:,} bytes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("state", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    export(args.state, args.tokenizer, args.vae, args.out)
