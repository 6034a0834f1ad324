"""Builds the parity fixtures: five small seeded checkpoints, and the results of Python diffusers and transformers with
them.

    python scripts/parity/make_fixtures.py --out target/parity

Needs the packages of requirements.txt beside this file, no network, and some minutes on one core. A second run does
nothing unless a script, an installed version, the toy's tokenizers or CLIP, or the templates changed. tests/parity
reads the result.
"""

import argparse
import hashlib
import os
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOY = HERE.parents[1] / "src" / "io" / "toy"
TEMPLATES = HERE.parents[1] / "prompts" / "templates" / "character.txt"
PACKAGES = [line.split("==") for line in (HERE / "requirements.txt").read_text().splitlines() if "==" in line]


def stamp():
    """Everything that the fixtures depend on, with one line for each file or package."""
    files = sorted(
        [
            *HERE.glob("*.py"),
            HERE.parent / "convert_encoder.py",
            HERE / "requirements.txt",
            *TOY.glob("tokenizer*/*"),
            *TOY.glob("clip/*"),
            TEMPLATES,
        ]
    )
    lines = [f"{path.parent.name}/{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files]
    return "\n".join(lines + [f"{name} {version(name)}" for name, _ in PACKAGES]) + "\n"


def build(out):  # noqa: PLR0915 (a line for each part)
    """Writes everything below `out`."""
    import diffusers
    import torch
    import transformers

    import checkpoints
    import expected_baselines
    import expected_combined
    import expected_consistory
    import expected_constructors
    import expected_control
    import expected_evaluate
    import expected_experiments
    import expected_folders
    import expected_ip_adapter
    import expected_jpegs
    import expected_masks
    import expected_method
    import expected_models
    import expected_noise
    import expected_pipeline
    import expected_prompts
    import expected_sam
    import expected_schedulers
    import expected_shortcuts
    import expected_tokenizer
    import expected_tokenizer_files
    import expected_vocabulary
    import leftovers
    import loras
    import shapes
    import single_files

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    began = time.time()
    expected_constructors.write(out / "constructors.json")
    expected_schedulers.write(out / "schedulers")
    expected_masks.write_otsu(out / "otsu.safetensors")
    expected_masks.write_figures(out / "figures.safetensors")
    texts = expected_tokenizer.all_prompts()
    tokenizers = [(f"toy_{name}", TOY / name) for name in ("tokenizer", "tokenizer_2")]
    for name, shape in checkpoints.SHAPES.items():
        folder = out / name
        shapes.build(name, folder)
        expected = folder / "expected"
        expected.mkdir()
        unused = shapes.unused_parts(shape)
        pipe = diffusers.DiffusionPipeline.from_pretrained(folder, low_cpu_mem_usage=False, **unused)
        expected_models.write(pipe, shape, expected)
        expected_pipeline.write(pipe, shape, expected)
        expected_method.write(pipe, shape, expected)
        expected_masks.write(pipe, shape, expected)
        expected_prompts.write(pipe, shape, expected)
        expected_experiments.write(pipe, shape, expected)
        expected_shortcuts.write(pipe, shape, expected)
        expected_control.write(pipe, shape, expected)
        expected_combined.write(pipe, shape, expected)
        expected_consistory.write(pipe, shape, expected)
        expected_baselines.write(pipe, shape, expected)
        expected_ip_adapter.write(pipe, shape, folder, expected)
        tokenizers += [(f"{name}_{part}", folder / part) for part in ("tokenizer", "tokenizer_2")[: len(shape["pads"])]]
        print(f"{name}: {time.time() - began:.0f} s", file=sys.stderr)
    single_files.write(out / "single")
    leftovers.write(out / "leftovers", out / "single")
    loras.write(out / "lora", out / "narrow")
    print(f"single files and LoRAs: {time.time() - began:.0f} s", file=sys.stderr)
    expected_control.write_pictures(out / "control_pictures")
    expected_jpegs.write(out / "jpegs")
    expected_noise.write(out / "noise.safetensors")
    expected_evaluate.write(out / "evaluate")
    expected_sam.write(out / "sam")
    expected_vocabulary.write(out / "clip")
    tokenizers += [(f"clip_{part}", out / "clip" / part) for part in ("tokenizer", "tokenizer_2")]
    expected_folders.write(out / "folders", out)
    (out / "tokenizer_files").mkdir()
    expected_tokenizer_files.write(out / "tokenizer_files")
    for name, folder in tokenizers:
        differing = expected_tokenizer.write(folder, out / "tokenizers" / f"{name}.json", texts)
        print(f"{name}: the slow algorithm differs on {len(differing)} of {len(texts)} prompts", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("target/parity"), help="folder to write (replaced as a whole)")
    out = parser.parse_args().out
    for name, wanted in PACKAGES:
        if version(name) != wanted:
            print(f"warning: {name} is {version(name)}, the bars were measured with {wanted}", file=sys.stderr)
    if (out / "stamp").is_file() and (out / "stamp").read_text() == stamp():
        print(f"{out} is up to date", file=sys.stderr)
        return
    os.environ["HF_HUB_OFFLINE"] = "1"
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    build(partial)
    (partial / "stamp").write_text(stamp())
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    print(out)


if __name__ == "__main__":
    main()
