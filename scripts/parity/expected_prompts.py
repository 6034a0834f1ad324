"""Expected embeddings of long and weighted prompts, written from the definition around transformers' text encoders.

A token's state x with weight w becomes e + w (x - e), where e is the state of the end token of its chunk: the rule of
diffusers' examples/community/lpw_stable_diffusion_xl.py. This program adds four rules: chunks are padded like a plain
prompt, words are not divided between chunks, both encoders have the same text in the same chunk, and the pooled
embedding is that of the first chunk. `lpw.safetensors` follows the community pipeline alone, on a prompt for which
these rules change none of its rows; only for SDXL, because the community pipeline for SD has another rule. x is the
state that the pipeline of the model reads: SDXL's are the penultimate states, SD's the last states after the final
norm.

`prompts.json` lists the cases, `prompts.safetensors` holds for case `i` the tensors `i.ids.0`, for SDXL also `i.ids.1`
[chunks, S], `i.prompt_embeds`, `i.negative_prompt_embeds`, for SDXL the pooled ones, `i.base_embedding` (c_b of all
base words, one behind the other), `i.moved` (Eq. 8 with `i.offset`) and `i.noise_pred` (one U-Net row from `i.sample`
at t = 500 with the moved embedding).
"""

import json
import re

import torch

from expected_method import time_ids, with_offset
from expected_models import save

NUMBER = re.compile(r"(.*):\s*([0-9.]+)\s*", re.DOTALL)


def parse(text, at=0, closing=None):
    """Characters with their weights, and the index after the closing bracket; each call reads one level of brackets."""
    out = []
    while at < len(text):
        c = text[at]
        if c == closing:
            return out, at + 1
        if c == "\\" and text[at + 1 : at + 2] and text[at + 1] in "()[]:\\":
            out.append((text[at + 1], 1.0))
            at += 2
        elif c in "([":
            inner, end = parse(text, at + 1, {"(": ")", "[": "]"}[c])
            number = NUMBER.fullmatch(text[at + 1 : end - 1]) if c == "(" else None
            factor = 1.1 if c == "(" else 1 / 1.1
            if number:
                factor = float(number[2])
                inner = inner[: len(inner) - (end - 1 - (at + 1 + len(number[1])))]
            out += [(letter, weight * factor) for letter, weight in inner]
            at = end
        else:
            out.append((c, 1.0))
            at += 1
    assert closing is None, f"{closing} is missing"
    return out, at


def encoders_of(pipe):
    """Tokenizer and text encoder, for SDXL two of each."""
    pairs = [(pipe.tokenizer, pipe.text_encoder)]
    return [*pairs, (pipe.tokenizer_2, pipe.text_encoder_2)] if hasattr(pipe, "text_encoder_2") else pairs


def words_of(letters, bases):
    """Pieces between white space, each a list of letters with weights; a base word is one piece."""
    text = "".join(letter for letter, _ in letters)
    patterns = [r"\b" + r"\s+".join(base.split()) + r"\b" for base in bases]
    whole = [hit.span() for pattern in patterns for hit in re.finditer(pattern, text, re.IGNORECASE)]
    words, start = [], None
    for i, letter in enumerate([*text, " "]):
        if letter.isspace() and not any(a < i < b for a, b in whole):
            if start is not None:
                words.append(letters[start:i])
            start = None
        elif start is None:
            start = i
    return words


def tokens_of(tokenizer, word):
    """Ids and weights of one word: each run of equal weight is tokenised alone."""
    runs = []
    for letter, weight in word:
        if runs and runs[-1][1] == weight:
            runs[-1][0] += letter
        else:
            runs.append([letter, weight])
    return [(token, weight) for run, weight in runs for token in tokenizer(run).input_ids[1:-1]]


def fill_chunks(tokenizers, words, room):
    """The tokens of each chunk, for each encoder: as many words as fit in all, cut at the end of a phrase if one is
    near."""
    made = [[tokens_of(tokenizer, word) for tokenizer in tokenizers] for word in words]
    sizes = [[len(tokens) for tokens in word] for word in made]
    chunks, i = [], 0
    while True:
        taken = lambda end: max(sum(size[e] for size in sizes[i:end]) for e in range(len(tokenizers)))
        j = i
        while j < len(words) and taken(j + 1) <= room:
            j += 1
        if j < len(words):
            ends = [
                k for k in range(i + 1, j + 1) if words[k - 1][-1][0] in ",;." and room - taken(k) <= room * 20 // 75
            ]
            j = max(ends, default=j)
        chunks.append([[token for word in made[i:j] for token in word[e]] for e in range(len(tokenizers))])
        i = j
        if i == len(words):
            return chunks


def chunks_of(pipe, prompt, case):
    """Chunks of a prompt: text tokens with weights, one list for each encoder."""
    tokenizers = [tokenizer for tokenizer, _ in encoders_of(pipe)]
    letters = parse(prompt)[0] if case["prompt_weights"] else [(letter, 1.0) for letter in prompt]
    room = pipe.tokenizer.model_max_length - 2
    words = words_of(letters, case["bases"])
    if case["long_prompts"]:
        return fill_chunks(tokenizers, words, room)
    return [[[token for word in words for token in tokens_of(tokenizer, word)][:room] for tokenizer in tokenizers]]


def frame(tokenizer, tokens):
    """Ids of one chunk, in the form of a plain prompt."""
    ids = [tokenizer.bos_token_id, *(token for token, _ in tokens), tokenizer.eos_token_id]
    return ids + [tokenizer.pad_token_id] * (tokenizer.model_max_length - len(ids))


def encode(pipe, chunks, weighted=True):
    """Ids of all encoders, prompt_embeds [1, S, D] and, for SDXL, the pooled embedding of the first chunk."""
    ids, columns, pooled = [], [], None
    pairs = encoders_of(pipe)
    for e, (tokenizer, encoder) in enumerate(pairs):
        rows = [frame(tokenizer, chunk[e]) for chunk in chunks]
        states = []
        for chunk, row in zip(chunks, rows):
            output = encoder(torch.tensor([row]), output_hidden_states=True)
            x = (output.last_hidden_state if len(pairs) == 1 else output.hidden_states[-2])[0].clone()
            end = x[len(chunk[e]) + 1].clone()
            for j, (_, weight) in enumerate(chunk[e], start=1):
                if weighted and weight != 1.0:
                    x[j] = end + weight * (x[j] - end)
            states.append(x)
            if e == 1 and pooled is None:
                pooled = output.text_embeds
        ids.append(torch.tensor(rows))
        columns.append(torch.cat(states))
    return ids, torch.cat(columns, -1)[None], pooled


def positions(pipe, chunks, base):
    """For each encoder the places of a base word among all rows: one list for each occurrence that is whole in all
    encoders."""
    out = []
    for e, (tokenizer, _) in enumerate(encoders_of(pipe)):
        wanted = tokenizer(base).input_ids[1:-1]
        ids = [token for chunk in chunks for token in frame(tokenizer, chunk[e])]
        starts = [i for i in range(len(ids)) if ids[i : i + len(wanted)] == wanted]
        out.append([list(range(start, start + len(wanted))) for start in starts])
    times = min(map(len, out))
    return [places[:times] for places in out]


def cases(shape):
    """A base word after the limit, in two chunks, at the border, in weights; several base words; a negative prompt of
    other length."""
    base, room = shape["base"], shape["max_length"] - 2
    letters = [chr(ord("a") + i % 26) for i in range(3 * room)]
    text = lambda count, first=0: " ".join(letters[first : first + count])
    plain = {"bases": [base], "negative_prompt": None, "long_prompts": True, "prompt_weights": False}
    both = {**plain, "prompt_weights": True}
    yield {**plain, "prompt": f"{text(room + 4)} {base} in the snow (red, blue:1.3), [oil]"}
    yield {
        **plain,
        "prompt": f"a {base} {text(room)} a {base.upper()}! at night",
        "negative_prompt": f"{text(2 * room + 3)}",
    }
    # The border is at the base word, and between a phrase and its last words.
    yield {**plain, "prompt": f"{text(room - 6)} {base} c d e f g h i"}
    yield {**plain, "prompt": f"{text(room)} {base} c", "negative_prompt": ""}
    yield {**plain, "prompt": f"{text(room - 8)}, d e f g h i j {base}; {text(room - 6)}. k l m n o p q"}
    # Marks that become different numbers of tokens in the two tokenizers of `narrow`. In the second, `!` is the pad and
    # is cut out first, so the quotes before it become one token.
    yield {**plain, "prompt": f"wow''!!! a {base}''! " + "red''! hat " * (room // 4) + f"and a {base}"}
    yield {
        **both,
        "prompt": f"a (({base})) with (blue eyes:1.4) and [[a hat]], {text(room)} (({base}, e:0.5) f)",
        "negative_prompt": "(blurry:1.5), low",
    }
    yield {
        **both,
        "prompt": f"{text(room - 3)} (q r ({base}:1.25) s:0.8) t \\(u\\) {base}",
        "negative_prompt": f"(x:2) {text(room)} [y]",
    }
    yield {**both, "long_prompts": False, "prompt": f"a (photo:0.3)ed ({base}:0.4) of a {base}, (wearing robes:1.7)!"}
    yield {
        **both,
        "long_prompts": False,
        "prompt": f"[a] ({base}:1.6) {text(room - 4)} (z:3) (lost {base}:2)",
        "negative_prompt": "(a\\:b: 2.5)",
    }
    # Two base words, each in two chunks; the border is at the second one, which has two words.
    yield {
        **both,
        "bases": [base, "red hat"],
        "prompt": (
            f"a ({base}:1.3) and {text(room - 5)} Red  Hat, (a red hat:0.7) in the snow, "
            f"{text(room - 9, 3)} a {base} [{base}]"
        ),
        "negative_prompt": text(room + 1),
    }
    yield {
        **both,
        "bases": ["red hat", base],
        "long_prompts": False,
        "prompt": f"a (red hat:1.5) on a {base}, {text(room)} {base}",
    }


def write_lpw(pipe, folder):
    """The community pipeline's own steps: tokens of each span, cut at every 75th, weights relative to the chunk's last
    row."""
    room = pipe.tokenizer.model_max_length - 2
    letters = [chr(ord("a") + i % 26) for i in range(room + 7)]
    spans = [(letter, {3: 1.3, 4: 0.6, room - 1: 1.8, room + 2: 0.4}.get(i, 1.0)) for i, letter in enumerate(letters)]
    prompt = " ".join(f"({letter}:{weight})" if weight != 1 else letter for letter, weight in spans)
    groups = []
    for tokenizer in (pipe.tokenizer, pipe.tokenizer_2):
        ids = [token for letter, _ in spans for token in tokenizer(letter).input_ids[1:-1]]
        assert len(ids) == len(spans), "a letter must be one token"
        bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        groups.append([[bos, *ids[i : i + room], eos] for i in range(0, len(ids), room)])
    rows = []
    for k, (first, second) in enumerate(zip(*groups)):
        states = [
            encoder(torch.tensor([ids]), output_hidden_states=True).hidden_states[-2]
            for encoder, ids in ((pipe.text_encoder, first), (pipe.text_encoder_2, second))
        ]
        embedding = torch.cat(states, -1)[0].clone()
        weights = [1.0, *(weight for _, weight in spans[k * room : (k + 1) * room]), 1.0]
        for j, weight in enumerate(weights):
            if weight != 1.0:
                embedding[j] = embedding[-1] + (embedding[j] - embedding[-1]) * weight
        rows.append(embedding)
    save(folder / "lpw.safetensors", {"prompt_embeds": torch.cat(rows)[None]})
    (folder / "lpw.json").write_text(json.dumps({"prompt": prompt}))


def encode_pair(pipe, case, force_zeros):
    """A case's prompt and negative prompt in equal numbers of chunks: the chunks of the prompt, then the results of
    `encode` for both."""
    chunks = chunks_of(pipe, case["prompt"], case)
    negative = chunks_of(pipe, case["negative_prompt"] or "", case)
    length = max(len(chunks), len(negative))
    for shorter in (chunks, negative):
        shorter += [[[]] * len(encoders_of(pipe))] * (length - len(shorter))
    ids, embeds, pooled = encode(pipe, chunks)
    _, negative_embeds, negative_pooled = encode(pipe, negative)
    if case["negative_prompt"] is None and force_zeros:
        negative_embeds, negative_pooled = torch.zeros_like(negative_embeds), torch.zeros_like(negative_pooled)
    return chunks, (ids, embeds, pooled), (negative_embeds, negative_pooled)


@torch.no_grad()
def write(pipe, shape, folder):
    """All cases of one checkpoint."""
    rng = torch.Generator().manual_seed(shape["seed"] + 300)
    height, width = shape["image"]
    scale = pipe.vae_scale_factor
    listed, tensors = list(cases(shape)), {}
    for i, case in enumerate(listed):
        chunks, (ids, embeds, pooled), (negative_embeds, negative_pooled) = encode_pair(
            pipe, case, shape.get("force_zeros")
        )
        case["positions"] = [positions(pipe, chunks, base) for base in case["bases"]]
        if shape["seed"] == 11 and "''!" in case["prompt"]:
            assert case["positions"][0][0] != case["positions"][0][1], "the encoders must have different places"
        _, unweighted, _ = encode(pipe, chunks, weighted=False)
        widths = [encoder.config.hidden_size for _, encoder in encoders_of(pipe)]
        split = lambda x: x.split(widths, -1)
        first_rows = lambda word: torch.cat([part[0, places[0]] for part, places in zip(split(unweighted), word)], -1)
        c_b = torch.cat([first_rows(word) for word in case["positions"]])
        offset, first = 0.5 * torch.randn(c_b.shape, generator=rng), 0
        moved = embeds
        for word in case["positions"]:
            count = len(word[0][0])
            parts = zip(split(moved), word, split(offset[first : first + count]))
            moved, first = (
                torch.cat([with_offset(part, places, delta) for part, places, delta in parts], -1),
                first + count,
            )
        sample = torch.randn(1, 4, height // scale, width // scale, generator=rng)
        added = (
            {}
            if pooled is None
            else {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": time_ids(height, width)}}
        )
        noise_pred = pipe.unet(sample, torch.tensor([500]), moved, **added).sample
        found = {
            "prompt_embeds": embeds,
            "negative_prompt_embeds": negative_embeds,
            "base_embedding": c_b,
            "offset": offset,
            "moved": moved,
            "sample": sample,
            "noise_pred": noise_pred,
            **{f"ids.{e}": rows for e, rows in enumerate(ids)},
        }
        if pooled is not None:
            found |= {"pooled_prompt_embeds": pooled, "negative_pooled_prompt_embeds": negative_pooled}
        tensors |= {f"{i}.{name}": value for name, value in found.items()}
    (folder / "prompts.json").write_text(json.dumps(listed, indent=1))
    save(folder / "prompts.safetensors", tensors)
    if len(encoders_of(pipe)) == 2:
        write_lpw(pipe, folder)
