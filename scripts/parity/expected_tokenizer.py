"""Expected token ids by transformers' CLIPTokenizer on every prompt, checked with the algorithm in clip_bpe.py."""

import json

from transformers import CLIPTokenizer

import clip_bpe
import prompts

# A word, and prompts in which its places are tested: once, in capitals, beside marks, twice, inside another word, cut
# off.
WORDS = [
    (
        "hobbit",
        [
            "a hobbit wearing robes",
            "A HOBBIT!",
            "(hobbit), hobbit",
            "hobbits",
            "a halfling",
            "'hobbit's robes'",
            "Hobbit",
        ],
    ),
    (
        "pencil box",
        [
            "a pencil box",
            "Pencil  Box, pencil box.",
            "a pencil and a box",
            "pencil box" + " and so on" * 40,
            "very " * 60 + "pencil box",
        ],
    ),
    ("robot", ["robot-cat", "a robot!! and a robot", "!!! robot", "microrobot", "Robot's arm", "ｒｏｂｏｔ robot"]),
    ("café", ["a cafe\u0301 at night", "CAFÉ", "cafe"]),
    ("3d printer", ["a 3D printer", "the 3d   Printer."]),
]


def slow_tokenizer(folder, reference):
    """The tokenizer of clip_bpe.py from the same files, with the special strings that the reference cuts out."""
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")[1:]
    merges = [tuple(line.split()) for line in lines if line.strip()]
    special = {clip_bpe.BOS, clip_bpe.EOS, reference.pad_token}
    return clip_bpe.SlowTokenizer(vocab, merges, reference.model_max_length, reference.pad_token, special)


def write(folder, path, texts):
    """Writes `{"prompts", "ids", "words"}` for the tokenizer in `folder`; returns the number of prompts that the slow
    tokenizer encodes differently."""
    reference = CLIPTokenizer.from_pretrained(folder)
    slow = slow_tokenizer(folder, reference)
    ids = reference(texts, padding="max_length", max_length=reference.model_max_length, truncation=True).input_ids
    differing = [text for text, expected in zip(texts, ids) if slow.encode(text) != expected]
    words = [
        {"word": word, "prompt": text, "positions": slow.positions(text, word)}
        for word, where in WORDS
        for text in where
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {"pad": reference.pad_token, "prompts": texts, "ids": ids, "words": words, "slow_differs": differing}
    path.write_text(json.dumps(found, ensure_ascii=True))
    return differing


def all_prompts():
    """The list used for every tokenizer."""
    return prompts.tokenizer_prompts(20)
