"""Writes src/io/clip/merges.txt and src/io/clip/LICENSE: CLIP's merges and their licence, from a package that contains
them.

Pinned: open_clip_torch==3.3.0 (`pip download --no-deps open_clip_torch==3.3.0`). A wheel is a ZIP archive, and none of
its code is run.

    python scripts/clip_vocabulary.py open_clip_torch-3.3.0-py3-none-any.whl

The package's list has more merges than CLIP was trained with: the first 48,894 make 49,408 tokens with 256 bytes, 256
bytes at the end of a word and two special tokens. The result is equal, byte for byte, to the `merges.txt` of
transformers' CLIP models.
"""

import gzip
import sys
import zipfile
from pathlib import Path

LIST = "open_clip/bpe_simple_vocab_16e6.txt.gz"
LICENCE = "open_clip_torch-3.3.0.dist-info/licenses/LICENSE"
TOKENS = 49_408
MERGES = TOKENS - 2 * 256 - 2
# The list is older than the package, as the package's tokenizer says.
ORIGIN = """The merges of CLIP's vocabulary (merges.txt) are those of the package open_clip_torch 3.3.0, which has them
from https://github.com/openai/CLIP: MIT License, Copyright (c) 2021 OpenAI. The package's own licence:

"""


def main() -> None:
    (wheel,) = sys.argv[1:]
    folder = Path(__file__).parent.parent / "src" / "io" / "clip"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(wheel) as package:
        lines = gzip.decompress(package.read(LIST)).decode("utf-8").split("\n")
        licence = package.read(LICENCE).decode("utf-8")
    merges = lines[1 : MERGES + 1]
    assert all(len(merge.split(" ")) == 2 for merge in merges)
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    (folder / "LICENSE").write_text(ORIGIN + licence, encoding="utf-8")


if __name__ == "__main__":
    main()
