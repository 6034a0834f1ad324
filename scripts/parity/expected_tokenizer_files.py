"""Expected token ids for all layouts of a tokenizer's files in a folder, by transformers' CLIPTokenizer.

`<case>/` is a folder; `expected.json` holds for each case `texts`, `ids` (start, at most `length` - 2 tokens, end and
padding) and `length`. Prompts first pass through diffusers' `maybe_convert_prompt`, as in its pipelines.
"""

import json
import random
import shutil
from pathlib import Path

from diffusers.loaders import TextualInversionLoaderMixin
from transformers import AddedToken, CLIPTokenizer

import prompts

TOY = Path(__file__).resolve().parents[2] / "src" / "io" / "toy" / "tokenizer"
CONFIG, MAP, ADDED, IN_ONE = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.json"
FLAGS = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": True, "special": False}
# Parts of the random texts. `<x>_1` is not one of them: if a text has it, diffusers replaces it a second time.
PIECES = [
    " ",
    " ",
    "  ",
    "\n",
    "\u3000",
    "a",
    "A cat",
    "cat",
    "s",
    "2",
    "!",
    "!!",
    ",",
    "(",
    ")",
    "é",
    "e\u0301",
    "ß",
    "猫",
    "<mychar>",
    "<MyChar>",
    "<MYCHAR>",
    "<my",
    "char>",
    "<café>",
    "<CAFÉ>",
    "<cafe\u0301>",
    "my char",
    "My  Char",
    "leftx",
    "rightx",
    "bothx",
    "wordx",
    "exactx",
    "Exactx",
    "<special>",
    "<extra>",
    "<image>",
    "[PAD]",
    "<|endoftext|>",
    "<|startoftext|>",
    "<|ENDOFTEXT|>",
    "hobbit",
    "robot wizard",
]


def texts(seed):
    """Prompts as people write them, and pieces in random order."""
    rng = random.Random(seed)
    written = [
        "",
        "<mychar>",
        "a photo of <mychar> on the street",
        "a <mychar>, a <MyChar>",
        "<mychar><mychar>",
        "a <mychar>s",
    ]
    pieces = ["".join(rng.choices(PIECES, k=rng.randint(1, 9))) for _ in range(300)]
    return written + rng.sample(prompts.tokenizer_prompts(20), 60) + pieces


def load(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def save(folder, name, value):
    (folder / name).write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def change(folder, name, **values):
    """Sets keys of a JSON file; None removes a key."""
    known = {**load(folder, name), **values}
    save(folder, name, {key: value for key, value in known.items() if value is not None})


def added(*tokens, first):
    """Records of `added_tokens_decoder`, numbered from `first`."""
    return {str(first + i): {"content": content, **FLAGS, **flags} for i, (content, flags) in enumerate(tokens)}


def saved(folder, *tokens):
    """Saves the folder in the form of transformers 5."""
    tokenizer = CLIPTokenizer.from_pretrained(TOY)
    tokenizer.add_tokens(list(tokens))
    shutil.rmtree(folder)
    tokenizer.save_pretrained(folder)


def shuffled(vocab, seed):
    """The same words with other numbers, except for the special tokens."""
    words = [word for word in vocab if not word.startswith("<|")]
    numbers = [vocab[word] for word in words]
    random.Random(seed).shuffle(numbers)
    return {**vocab, **dict(zip(words, numbers))}


def cases(out):
    """Makes the folders, by name; each starts as a copy of the toy's first tokenizer."""
    n = len(load(TOY, "vocab.json"))
    made = {}

    def case(name):
        made[name] = shutil.copytree(TOY, out / name)
        return made[name]

    saved(case("saved"))
    saved(
        case("saved_with_added"), "<mychar>", AddedToken("<MyChar>", normalized=False), AddedToken("leftx", lstrip=True)
    )
    folder = case("only_tokenizer_json")
    saved(folder, "<mychar>")
    (folder / CONFIG).unlink()
    folder = case("tokenizer_json_beside_vocab_json")
    saved(folder)
    other = load(folder, IN_ONE)
    shutil.rmtree(folder)
    shutil.copytree(TOY, folder)
    other["model"]["vocab"] = shuffled(other["model"]["vocab"], 3)
    other["model"]["merges"] = [" ".join(merge) for merge in other["model"]["merges"][::2]]
    save(folder, IN_ONE, other)
    folder = case("tokenizer_json_of_another_pipeline")
    saved(folder)
    change(
        folder,
        IN_ONE,
        normalizer={"type": "NFD"},
        pre_tokenizer={"type": "Whitespace"},
        post_processor={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        truncation={"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0},
        padding={
            "strategy": {"Fixed": 9},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 3,
            "pad_type_id": 0,
            "pad_token": "!",
        },
    )
    folder = case("added_tokens_json")
    save(folder, ADDED, {"<mychar>": n, "<special>": n + 1})
    change(folder, MAP, additional_special_tokens=["<special>"])
    folder = case("added_tokens_json_beside_tokenizer_json")
    saved(folder, "<extra>")
    save(folder, ADDED, {"<mychar>": n + 1})
    folder = case("decoder")
    change(folder, CONFIG, added_tokens_decoder=added(("<mychar>", {}), first=n))
    save(folder, ADDED, {"<mychar>": n})
    folder = case("decoder_alone_counts")
    change(folder, CONFIG, added_tokens_decoder=added(("<mychar>", {}), first=n))
    save(folder, ADDED, {"<extra>": n})
    change(folder, MAP, pad_token="!", additional_special_tokens=["<special>"])
    folder = case("map_counts_without_decoder")
    change(
        folder,
        MAP,
        pad_token={"content": "!", "lstrip": True, "rstrip": True, "normalized": False, "single_word": False},
    )
    folder = case("flags")
    change(
        folder,
        CONFIG,
        added_tokens_decoder=added(
            ("<mychar>", {}),
            ("<CAFÉ>", {}),
            ("my char", {}),
            ("leftx", {"lstrip": True}),
            ("rightx", {"rstrip": True}),
            ("bothx", {"lstrip": True, "rstrip": True}),
            ("wordx", {"single_word": True}),
            ("Exactx", {"normalized": False}),
            ("<special>", {"special": True, "normalized": False}),
            first=n,
        ),
    )
    folder = case("flags_of_special_tokens")
    change(
        folder,
        CONFIG,
        bos_token={"__type": "AddedToken", "content": "<|startoftext|>", "single_word": True},
        eos_token={"__type": "AddedToken", "content": "<|endoftext|>", "normalized": True, "lstrip": True},
    )
    (folder / MAP).unlink()
    folder = case("further_special_tokens")
    change(
        folder,
        CONFIG,
        extra_special_tokens=["<extra>", "<special>"],
        image_token="<image>",
        cls_token="<mychar>",
        add_bos_token=False,
    )
    (folder / MAP).unlink()
    folder = case("special_token_behind_the_vocabulary")
    change(folder, CONFIG, pad_token="[PAD]")
    (folder / MAP).unlink()
    folder = case("split_special_tokens")
    change(
        folder,
        CONFIG,
        split_special_tokens=True,
        added_tokens_decoder=added(("<mychar>", {}), ("<special>", {"special": True, "normalized": False}), first=n),
    )
    folder = case("vectors")
    change(
        folder,
        CONFIG,
        added_tokens_decoder=added(
            *[(f"<mychar>{end}", {}) for end in ("", "_1", "_2")],
            ("<MyChar>", {"normalized": False}),
            ("<MyChar>_1", {"normalized": False}),
            first=n,
        ),
    )
    folder = case("max_len")
    change(folder, CONFIG, model_max_length=None, max_len=12)
    return made


def write(out):
    """Writes all cases below `out`."""
    expected = {}
    for seed, (name, folder) in enumerate(cases(out).items()):
        tokenizer = CLIPTokenizer.from_pretrained(folder)
        length = min(tokenizer.model_max_length, 77)
        mixin = TextualInversionLoaderMixin()
        given = texts(seed)
        read = [mixin.maybe_convert_prompt(text, tokenizer) for text in given]
        ids = tokenizer(read, padding="max_length", max_length=length, truncation=True).input_ids
        expected[name] = {"texts": given, "ids": ids, "length": length, "tokens": len(tokenizer)}
    (out / "expected.json").write_text(json.dumps(expected))
