"""CLIP's real vocabulary with the numbers of the package open_clip_torch, in the files of SDXL's two tokenizers and of
SD 1.5's."""

import gzip
from pathlib import Path

import open_clip
from open_clip.tokenizer import SimpleTokenizer

import clip_bpe
import shapes


def write(folder):
    """Writes `tokenizer` and `tokenizer_2`, which differ in their padding."""
    reference = SimpleTokenizer()
    # The package's own names of the two special tokens.
    names = {"<start_of_text>": clip_bpe.BOS, "<end_of_text>": clip_bpe.EOS}
    vocab = {names.get(token, token): number for token, number in reference.encoder.items()}
    lines = (
        gzip.decompress(Path(open_clip.__file__).with_name("bpe_simple_vocab_16e6.txt.gz").read_bytes())
        .decode()
        .split("\n")
    )
    merges = [tuple(line.split()) for line in lines[1 : len(reference.bpe_ranks) + 1]]
    assert all(reference.bpe_ranks[merge] == rank for rank, merge in enumerate(merges))
    for part, pad in (("tokenizer", clip_bpe.EOS), ("tokenizer_2", "!")):
        shapes.write_tokenizer(folder / part, vocab, merges, pad, {"max_length": 77, "tokenizer_files": "sdxl"})
