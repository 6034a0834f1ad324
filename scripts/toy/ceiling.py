"""An upper bound for tuning: two subjects with their true offsets, on the toy model.

    python ceiling.py --like DIR/rabbit --checkpoint ../../src/io/toy --work DIR \\
        --try 'v1=--semantic-scale 1' --try 'more=--semantic-scale 1.4 --eta-1 6 --guided-steps 1-30'

In training, the state of the noun was that of the last noun in a phrase with the whole identity ("a photo of a wide
striped red cat"). The difference to the bare phrase is therefore the offset that tuning looks for. This script writes
these offsets into actors: it copies the file of a tuned actor (`--like`), and makes the last layer of its projector 0
except for the shift. Target and average offset are then equal, so everything is drawn with eta_2 0. Pairs, scenes and
seeds are those of the development split, and the identities are random; the target is the clearest of four pictures of
the subject alone. The table has the same columns as that of subjects_table.py, with a row for the pictures of each
`--try` and for the plain ones, in both variants, the joint variant also with masks.
"""

import argparse
import json
import shlex
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import world
from evaluate import ROOT, SPLITS, Plan, Scorer, call, sureness
from subjects_table import MEASURES, draw, pick, score

IDENTITY_SEED, TARGET_SEED, GUIDANCE = 3, 77, 4
VARIANTS = {"independent": [], "joint": [], "joint with masks": ["--subject-masks", "on"]}


class Encoder:
    """Both text encoders' penultimate states of the last noun in a phrase."""

    def __init__(self, checkpoint):
        from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

        self.tokenizer = CLIPTokenizer.from_pretrained(checkpoint / "tokenizer")
        self.encoders = [
            CLIPTextModel.from_pretrained(checkpoint / "text_encoder").float().eval(),
            CLIPTextModelWithProjection.from_pretrained(checkpoint / "text_encoder_2").float().eval(),
        ]

    @torch.no_grad()
    def noun(self, words):
        """State [D] of the last of `words` in a photo of them. The encoders are causal, so the phrase ends there."""
        ids = self.tokenizer("a photo of a " + " ".join(words))["input_ids"][:-1]
        states = [
            encoder(torch.tensor([ids]), output_hidden_states=True).hidden_states[-2] for encoder in self.encoders
        ]
        return torch.cat(states, -1)[0, -1]

    def offset(self, species, classes):
        words = world.adjectives(
            species, dict(zip(world.FACTOR_NAMES, map(classes.get, world.FACTOR_NAMES))), set(world.FACTOR_NAMES)
        )
        return self.noun([*words, species]) - self.noun([species])


def write_actor(like, folder, words, offsets):
    """An actor of `words` whose projector gives these offsets [W, D] for any input."""
    tensors = load_file(like)
    with safe_open(like, "pt") as file:
        facts = dict(file.metadata())
    del facts["base_word"]
    named = {"base_word": words[0]} if len(words) == 1 else {"base_words": json.dumps(words)}
    facts.update(
        named,
        num_tokens=str(len(words)),
        tokens_of_words=json.dumps([1] * len(words)),
        prompt="a photo of " + " and ".join(map(world.article, words)),
    )
    shift = torch.cat([torch.zeros_like(offsets), offsets], 1).flatten()
    tensors["projector.linear.bias"] = shift
    tensors["projector.linear.weight"] = torch.zeros(len(shift), tensors["projector.linear.weight"].shape[1])
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(folder / "actor.safetensors"), metadata=facts)


def target(plan, actor, subject, scorer):
    """The judge's answers for the clearest of four pictures of the subject alone."""
    out = plan.work / "single" / subject
    if not (out / "manifest.jsonl").exists():
        what = ["-p", f"a photo of {world.article(subject)}", "--num-images", 4, "--seed", TARGET_SEED]
        how = ["--eta-2", 0, "--semantic-scale", 1, "--guided-steps", "1-30"]
        call(plan, "sample", actor, "--model", plan.model, *what, *plan.draw_args, *how, "-o", out)
    answers = scorer.answers(sorted(out.glob("0*.png")))
    return pick(answers, [int(sureness(answers).argmax())])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--like", type=Path, required=True, help="folder of a tuned actor of one word")
    parser.add_argument("--checkpoint", type=Path, required=True, help="the toy model as a diffusers folder")
    parser.add_argument("--work", type=Path, required=True, help="folder for all pictures; finished parts are reused")
    parser.add_argument("--binary", default=str(ROOT / "target/release/oneactor"))
    parser.add_argument("--try", dest="tries", action="append", required=True, metavar="NAME=FLAGS")
    args = parser.parse_args()
    torch.set_num_threads(1)
    split, scorer, encoder = SPLITS["dev"], Scorer(), Encoder(args.checkpoint)
    plan = Plan(
        binary=args.binary,
        work=args.work,
        model=args.checkpoint,
        subjects=[],
        scenes=split["scenes"],
        base_seed=split["base_seed"],
        seed=split["seed"],
        images=1,
        draw_args=["--guidance-scale", str(GUIDANCE)],
    )
    pairs = list(zip(split["subjects"][::2], split["subjects"][1::2]))
    rng, actors, targets = np.random.default_rng(IDENTITY_SEED), args.work / "actors", {}
    for pair in pairs:
        offsets = torch.stack([encoder.offset(subject, world.draw_identity(rng)) for subject in pair])
        for subject, offset in zip(pair, offsets):
            write_actor(args.like / "actor.safetensors", actors / subject, [subject], offset[None])
        write_actor(args.like / "actor.safetensors", actors / "-".join(pair), list(pair), offsets)
        targets[pair] = [target(plan, actors / subject, subject, scorer) for subject in pair]

    def measure(name, is_joint, flags):
        rows = []
        for pair in pairs:
            named = ["-".join(pair)] if is_joint else pair
            pictures = draw(plan, pair, [actors / one for one in named], args.work / name / "-".join(pair), *flags)
            scores = score(scorer.judge, scorer.scales, pictures, pair, targets[pair])
            rows.append([scores[measure].mean() for measure in MEASURES])
        return np.mean(rows, 0)

    plain = measure("plain", False, ["--no-actor"])
    print(f"| pictures | {' | '.join(MEASURES)} | of plain |\n" + "| --- " * (len(MEASURES) + 2) + "|")

    def row(name, values):
        cells = [f"{value:.3f}" for value in [*values, values[0] / plain[0]]]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)

    row("plain", plain)
    for text in args.tries:
        name, _, flags = text.partition("=")
        for variant, more in VARIANTS.items():
            drawn = measure(f"{name}-{variant}", "joint" in variant, ["--eta-2", "0", *shlex.split(flags), *more])
            row(f"{name}, {variant}", drawn)


if __name__ == "__main__":
    main()
