"""Expected results of combined features: several subjects under masks, together with long prompts and weights.

`combined.safetensors`  final latents and last masks of runs as in expected_masks, with texts as in
                        expected_prompts; and the offsets
`combined.json`         what was run

Every subject is named in two chunks. A place of c belongs to a subject if either text encoder has a token of its word
there. The offset at that place changes only the columns of the encoders that have such a token.
"""

import json

import torch

import expected_masks
import expected_prompts
from expected_models import save


def spread(pipe, places_of_encoders, offset, length):
    """Places that a word's offset [W, D] changes, and the value added at each: [places], [len(places), D]."""
    widths = [encoder.config.hidden_size for _, encoder in expected_prompts.encoders_of(pipe)]
    added, column = torch.zeros(length, offset.shape[-1]), 0
    for width, times in zip(widths, places_of_encoders):
        for places in times:
            added[places, column : column + width] += offset[:, column : column + width]
        column += width
    places = sorted({place for times in places_of_encoders for positions in times for place in positions})
    return places, added[places]


def cases(shape):
    """Both subjects in both chunks, with weights; and marks that become different numbers of tokens in the two
    tokenizers of `narrow`."""
    base, room = shape["base"], shape["max_length"] - 2
    letters = [chr(ord("a") + i % 26) for i in range(2 * room)]
    text = lambda count: " ".join(letters[:count])
    common = {"bases": [base, "red hat"], "long_prompts": True, "prompt_weights": True}
    yield {
        **common,
        "negative_prompt": None,
        "prompt": (
            f"a ({base}:1.3) and a (red hat:0.7), (wearing robes:1.2) {text(room - 8)}, "
            f"the ({base}) beside the Red  Hat in [the snow]"
        ),
    }
    yield {
        **common,
        "negative_prompt": f"(blurry:1.4) {text(room + 3)}",
        "prompt": f"wow''! a {base}''! and a red hat, "
        + "red''! hat " * (room // 4)
        + f"and a ({base}:1.5) on a ((red hat))",
    }


@torch.no_grad()
def write(pipe, shape, folder):
    """All runs of one checkpoint: the first guided throughout, the second from its second step on and without
    exclusion."""
    rng = torch.Generator().manual_seed(shape["seed"] + 500)
    height, width = shape["image"]
    settings = [
        {"seed": 41, "guided_steps": [1, 4], "eta_1": 8.5, "eta_2": 1.0, "semantic_scale": 0.8},
        {"seed": 42, "guided_steps": [2, 5], "eta_1": 7.5, "eta_2": 0.0, "semantic_scale": 0.9},
    ]
    own, runs, tensors = pipe.unet.attn_processors, [], {}
    for i, (case, chosen) in enumerate(zip(cases(shape), settings)):
        run = {**case, **chosen, "everywhere": [], "height": height, "width": width, "steps": 6, "guidance_scale": 7.5}
        chunks, (_, c, pooled), (negative, negative_pooled) = expected_prompts.encode_pair(
            pipe, case, shape.get("force_zeros")
        )
        assert len(chunks) > 1
        subjects = []
        for g, base in enumerate(case["bases"]):
            of_encoders = expected_prompts.positions(pipe, chunks, base)
            places = [place for times in of_encoders[0] for place in times]
            assert min(places) < len(chunks[0][0]) < max(places), "the word must be in two chunks"
            assert i == 0 or shape["seed"] != 11 or of_encoders[0] != of_encoders[1], (
                "the encoders must have different places"
            )
            subject = {}
            for which in ("target", "average"):
                offset = torch.randn(len(of_encoders[0][0]), c.shape[-1], generator=rng)
                tensors[f"{i}.{which}.{g}"] = offset
                subject["places"], subject[which] = spread(pipe, of_encoders, offset, c.shape[1])
            subjects.append(subject)
        latents, masks = expected_masks.sample(pipe, run, (c, negative, pooled, negative_pooled), subjects)
        assert 0.02 < masks.mean() < 0.98, "masks that are empty or full would test little"
        tensors |= {f"{i}.latents": latents, f"{i}.masks": masks}
        runs.append(run)
    pipe.unet.set_attn_processor(own)
    save(folder / "combined.safetensors", tensors)
    (folder / "combined.json").write_text(json.dumps(runs, indent=1))
