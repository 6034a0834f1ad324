"""The toy's CLIP-format tokenizer: byte-level BPE with end-of-word marks.

`python tokenizer.py OUT` trains one from the captions (stage 1);
`python tokenizer.py OUT --extend CHECKPOINT` adds the identity adjectives to an existing one as
single tokens (stage 2). Both write vocab.json, merges.txt and special_tokens_map.json to
OUT/tokenizer and OUT/tokenizer_2; start and end of text are the last two ids.
"""

import argparse
import collections
import itertools
import json
import re
from pathlib import Path

import numpy as np

import world

START, END, MAX_LENGTH = "<|startoftext|>", "<|endoftext|>", 32
# Words of ordinary prompts that the captions may not contain.
EXTRA_WORDS = """a photo of the clean dirty cropped bright dark cool weird small large nice itself rendition
illustration painting cat dog man woman girl boy hobbit with robes elf knight witch fox bear horse princess king
queen pirate chef wearing holding sitting standing sleeping sword shield flower coat dress shirt scarf glasses hat
red orange yellow green teal blue purple pink brown gray grey white black two three and on at in under near beside
between"""


def byte_symbols():
    """The printable character that represents each byte, as in GPT-2 and CLIP."""
    plain = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    others = [byte for byte in range(256) if byte not in plain]
    symbols = {byte: chr(byte) for byte in plain}
    symbols.update({byte: chr(256 + i) for i, byte in enumerate(others)})
    return {byte: symbols[byte] for byte in plain + others}


def split_word(word):
    symbols = [byte_symbols()[byte] for byte in word.encode()]
    return [*symbols[:-1], symbols[-1] + "</w>"]


def merge_pair(pieces, pair):
    merged, i = [], 0
    while i < len(pieces):
        if tuple(pieces[i : i + 2]) == pair:
            merged.append("".join(pair))
            i += 2
        else:
            merged.append(pieces[i])
            i += 1
    return merged


def train(num_merges=1150, num_captions=3000):
    counts = collections.Counter()
    for seed in range(num_captions):
        rng = np.random.default_rng(77 + seed)
        counts.update(re.findall(r"[a-z]+|[^\sa-z]+", world.caption(world.draw_picture(rng), rng).lower()))
    for word in EXTRA_WORDS.split():
        counts[word] += 3
    pieces = {word: split_word(word) for word in counts}
    merges = []
    while len(merges) < num_merges:
        pairs = collections.Counter()
        for word, parts in pieces.items():
            for pair in itertools.pairwise(parts):
                pairs[pair] += counts[word]
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        pieces = {word: merge_pair(parts, best) for word, parts in pieces.items()}
    return merges


def extend(merges, words):
    """Adds merges at the end of the list until each word is one token; older words keep their tokens."""
    merges = list(merges)
    for word in words:
        parts = split_word(word)
        ranks = {pair: rank for rank, pair in enumerate(merges)}
        while True:
            known = [pair for pair in itertools.pairwise(parts) if pair in ranks]
            if not known:
                break
            parts = merge_pair(parts, min(known, key=ranks.get))
        while len(parts) > 1:
            pair = (parts[0], parts[1])
            merges.append(pair)
            parts = merge_pair(parts, pair)
    return merges


def vocabulary(merges):
    letters = list(byte_symbols().values())
    tokens = letters + [letter + "</w>" for letter in letters] + [a + b for a, b in merges]
    tokens = [*dict.fromkeys(tokens), START, END]
    return {token: i for i, token in enumerate(tokens)}


def save(out, merges):
    for folder, pad in (("tokenizer", END), ("tokenizer_2", "!")):
        path = Path(out, folder)
        path.mkdir(parents=True, exist_ok=True)
        special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad}
        config = dict(
            special,
            add_prefix_space=False,
            do_lower_case=True,
            errors="replace",
            model_max_length=MAX_LENGTH,
            tokenizer_class="CLIPTokenizer",
        )
        (path / "vocab.json").write_text(json.dumps(vocabulary(merges), ensure_ascii=False), encoding="utf-8")
        lines = ["#version: 0.2"] + [" ".join(pair) for pair in merges]
        (path / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (path / "special_tokens_map.json").write_text(json.dumps(special))
        (path / "tokenizer_config.json").write_text(json.dumps(config, indent=2))


def read_merges(folder):
    lines = Path(folder, "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    return [tuple(line.split(" ")) for line in lines if line]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    parser.add_argument("--extend", metavar="CHECKPOINT")
    args = parser.parse_args()
    base = read_merges(Path(args.extend, "tokenizer")) if args.extend else train()
    save(args.out, extend(base, world.all_words()))
