"""Measures two subjects in one picture on the toy model: does each keep its own look?

    python subjects_table.py --split test --work DIR --json subjects.json [--binary target/release/oneactor]
    python subjects_table.py --check [MODEL]    how well the judge reads halves of drawn pictures (needs skia-python),
                                                with a diffusers folder: through its VAE, as generated ones are

For every pair of subjects, in both of the paper's variants: `independent` (one actor for each subject, tuned apart,
offsets confined to masks) and `joint` (one actor, tuned on pictures of both). The same prompts and seeds are drawn with
the actors and without. The toy draws the first subject of the prompt on the left. Each half of a picture is cut out,
scaled to the size of a single subject, and read by the judge. The species that the judge reads decides which half shows
which subject, so a picture with exchanged places counts fully. Folders of single subjects are those of evaluate.py.
Targets are the clearest base images in which the main colours of the two subjects differ by APART: for two subjects of
one colour, nobody could say whether they have swapped it. If the clearest pictures of both have similar colours, the
second subject of the pair gets its own actor for this pair, whose target is its clearest picture of another colour.

own distance   identity distance of each subject to its own target, relative to plain in the table's last column
swapped        pictures in which both main colours are nearer to the other's target than to the own (CIE Lab)
leaked         pictures in which at least one is
both there     pictures in which both species are read
"""

import argparse
import json
import sys
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

import evaluate
import identity
import scenes
import world
from evaluate import (
    Scorer,
    add_plan_arguments,
    draw_base,
    mean_and_error,
    plan_from,
    read_picture,
    scenes_of,
    settings_of,
    sureness,
    target_number,
    tune,
)

# A subject of a pair is drawn at x = 17 or 47 and y = 40, at 0.68 of its size; alone it is drawn at x = 32 and y = 37,
# at 0.94. A window of 46 pixels is therefore scaled to 64; it ends where the other half begins.
WINDOW, TOP, HALF = 46, 13, 34
APART = 25  # in CIE Lab; the eleven colours of the world differ by at least 27, by 80 on average
MEASURES = ["distance", "swapped", "leaked", "both_there"]


def halves(picture):
    """The left and the right subject of a picture [64, 64, 3], as two pictures of the same size."""
    cut = []
    for columns, centre in ((picture[:, :HALF], 17), (picture[:, -HALF:], 47 - (64 - HALF))):
        left, right = WINDOW // 2 - centre, WINDOW // 2 + centre - HALF
        wide = np.pad(columns[TOP : TOP + WINDOW], ((0, 0), (max(left, 0), max(right, 0)), (0, 0)), "edge")
        wide = wide[:, max(-left, 0) :][:, :WINDOW]
        cut.append(np.asarray(Image.fromarray(wide).resize((64, 64), Image.BICUBIC)))
    return cut


def pick(answers, rows):
    return {name: value[rows] for name, value in answers.items()}


def read_pairs(judge, pictures, pair):
    """Answers for both subjects, in the order of `pair`, and whether both species are read."""
    answers = judge.read(np.stack([half for picture in pictures for half in halves(picture)]))
    chance = np.log(answers["species"][:, [world.SPECIES.index(name) for name in pair]] + 1e-9)
    left = np.arange(0, len(chance), 2)
    as_named = chance[left, 0] + chance[left + 1, 1] >= chance[left, 1] + chance[left + 1, 0]
    first, second = np.where(as_named, left, left + 1), np.where(as_named, left + 1, left)
    read = answers["species"].argmax(1)
    both = np.ones(len(left), bool)
    for rows, name in ((first, pair[0]), (second, pair[1])):
        both &= read[rows] == world.SPECIES.index(name)
    return [pick(answers, first), pick(answers, second)], both


def score(judge, scales, pictures, pair, targets):
    """Every measure, with one value for each picture."""
    found, both = read_pairs(judge, pictures, pair)
    own = [identity.distances(found[i], targets[i], pair[i], scales)[0] for i in (0, 1)]
    lab = lambda answers: identity.lab(answers["main_color"])
    gap = lambda i, j: np.linalg.norm(lab(found[i]) - lab(targets[j]), axis=-1)
    nearer_other = [gap(i, 1 - i) < gap(i, i) for i in (0, 1)]
    result = {
        "distance": (own[0] + own[1]) / 2,
        "swapped": nearer_other[0] & nearer_other[1],
        "leaked": nearer_other[0] | nearer_other[1],
        "both_there": both,
    }
    return {name: np.asarray(value, float) for name, value in result.items()}


def draw(plan, pair, actors, out, *extra):
    """Pictures of a pair in all scenes."""
    prompts = scenes_of(plan, " and ".join(map(world.article, pair)))
    return [read_picture(row["path"]) for row in evaluate.draw(plan, actors, out, prompts, *extra)]


def apart(answers, others):
    """Whether the main colours can be distinguished."""
    lab = lambda answers: identity.lab(answers["main_color"])
    return np.linalg.norm(lab(answers) - lab(others), axis=-1) > APART


def clearest_pair(judge, folder, pair):
    """Like Scorer.clearest, for both subjects; a base image that does not show both, in two colours, comes last."""
    pictures = [read_picture(path) for path in sorted((folder / "base").glob("*.png"))]
    found, both = read_pairs(judge, pictures, pair)
    sure = sureness(found[0]) + sureness(found[1]) + 1000 * both + 500 * apart(*found)
    return int(sure.argmax())


def clearest_beside(scorer, folder, other):
    """Like Scorer.clearest, among the base images with another colour than `other`."""
    answers = scorer.answers(sorted((folder / "base").glob("*.png")))
    return int((sureness(answers) + 1000 * apart(answers, other)).argmax())


def independent(plan, pair, scorer):
    """The pair's actors, and the answers for their targets."""
    folders = [plan.work / subject for subject in pair]
    for subject, folder in zip(pair, folders):
        draw_base(plan, folder, subject)
        tune(plan, folder, scorer)
    first, second = [scorer.target(folder) for folder in folders]
    if not apart(first, second)[0]:
        own = plan.work / f"{pair[1]}-beside-{pair[0]}"
        draw_base(plan, own, pair[1])
        tune(replace(plan, target=clearest_beside(scorer, own, first)), own, scorer)
        folders[1], second = own, scorer.target(own)
    if not apart(first, second)[0]:
        print(f"{'-'.join(pair)}: no two base images of different colours", file=sys.stderr)
    return folders, [first, second]


def joint(plan, pair, scorer):
    """The pair's common actor, and the answers for both targets."""
    name = "-".join(pair)
    folder = plan.work / name
    draw_base(plan, folder, *pair)
    tune(replace(plan, target=clearest_pair(scorer.judge, folder, pair)), folder, scorer)
    picture = read_picture(folder / "base" / f"{target_number(folder):02}.png")
    targets, both = read_pairs(scorer.judge, [picture], pair)
    if not both[0] or not apart(*targets)[0]:
        print(f"{name}: the joint target does not show both subjects in two colours", file=sys.stderr)
    return [folder], targets


VARIANTS = {"independent": independent, "joint": joint}


def run_pair(plan, pair, scorer, variants):
    """Scores of the variants, guided and plain; each is measured against its own targets."""
    name, result = "-".join(pair), {}
    for variant in variants:
        actors, targets = VARIANTS[variant](plan, pair, scorer)
        drawn = {
            "guided": draw(plan, pair, actors, plan.work / variant / name, *plan.sample_args),
            "plain": draw(plan, pair, actors, plan.work / "plain" / name, "--no-actor"),
        }
        result[variant] = {
            kind: score(scorer.judge, scorer.scales, pictures, pair, targets) for kind, pictures in drawn.items()
        }
    return result


def table(results):
    """Means over pairs, with standard errors; the error of the ratio is that of the pairs' own ratios."""
    rows = {}
    for variant in results[0]:
        for kind in ("guided", "plain"):
            scores = [result[variant][kind] for result in results]
            rows[f"{variant}, {kind}"] = {name: mean_and_error([s[name].mean() for s in scores]) for name in MEASURES}
        of = lambda kind: np.array([result[variant][kind]["distance"].mean() for result in results])
        error = mean_and_error(of("guided") / of("plain"))["error"]
        rows[f"{variant}, guided"]["ratio"] = {"mean": float(of("guided").mean() / of("plain").mean()), "error": error}
    return rows


def print_table(rows):
    print(
        "| pictures | own distance | swapped | leaked | both there | of plain |\n| --- | --- | --- | --- | --- | --- |"
    )
    for name, row in rows.items():
        cells = [row.get(measure) for measure in [*MEASURES, "ratio"]]
        print(f"| {name} | " + " | ".join(f"{c['mean']:.3f} ± {c['error']:.3f}" if c else "" for c in cells) + " |")


def check(judge, scales, vae=None, pairs=300):
    """How well halves of drawn pictures are read; the figures through the VAE are the best that generated pictures can
    reach. The same identity is compared with a half of another picture, as for the joint variant, and with a picture of
    the subject alone."""
    rng, rng_alone = np.random.default_rng(77), np.random.default_rng(78)
    report = {name: [] for name in ("both_there", "main_colour", "same", "as_alone", "random", "swapped")}
    for _ in range(pairs):
        names = [world.SPECIES[i] for i in rng.choice(len(world.SPECIES), 2, replace=False)]
        people = [
            [
                world.Subject(name, classes, world.make_look(classes, rng))
                for name in names
                for classes in [world.draw_identity(rng)]
            ]
            for _ in range(2)
        ]
        scene = lambda: str(rng.choice(scenes.NAMES))
        draw_pair = lambda subjects: world.render(world.Picture(subjects, scene()), rng)
        pictures = np.stack([draw_pair(people[0]), draw_pair(people[0]), draw_pair(people[1])])
        alone = np.stack([world.render(world.Picture([subject], "plain"), rng_alone) for subject in people[0]])
        if vae is not None:
            pictures = identity.through_vae(vae, pictures)
            alone = identity.through_vae(vae, alone)
        found, both = read_pairs(judge, pictures, names)
        wanted = [subject.classes["main"] for subject in people[0]]
        report["both_there"] += list(both)
        report["main_colour"] += [found[i]["main"][:2].argmax(1) == wanted[i] for i in (0, 1)]
        targets = [pick(answers, [0]) for answers in found]
        scores = score(judge, scales, pictures, names, targets)
        report["same"].append(scores["distance"][1])
        answers = judge.read(alone)
        targets = [pick(answers, [i]) for i in (0, 1)]
        report["as_alone"].append(score(judge, scales, pictures[1:2], names, targets)["distance"][0])
        report["random"].append(scores["distance"][2])
        report["swapped"].append(scores["swapped"][1])
    for name, values in report.items():
        print(f"{name:12} {np.mean(values):.3f}")


def load_vae(checkpoint):
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(checkpoint, subfolder="vae").float().eval()


def main():
    torch.set_num_threads(1)
    scorer = Scorer()
    if sys.argv[1:2] == ["--check"] and len(sys.argv) <= 3:
        check(scorer.judge, scorer.scales, *map(load_vae, sys.argv[2:3]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_plan_arguments(parser)
    parser.add_argument("--variants", default=",".join(VARIANTS), help="one or both of them; default: both")
    args = parser.parse_args()
    plan, variants = plan_from(args), args.variants.split(",")
    if unknown := set(variants) - set(VARIANTS):
        parser.error(f"--variants: found {', '.join(sorted(unknown))}, expected {' or '.join(VARIANTS)}")
    if len(plan.subjects) % 2:
        parser.error(f"--subjects: found {len(plan.subjects)}, expected pairs")
    pairs = list(zip(plan.subjects[::2], plan.subjects[1::2]))
    results = [run_pair(plan, pair, scorer, variants) for pair in pairs]
    rows = table(results)
    print_table(rows)
    if args.json:
        each = {
            "-".join(pair): {
                variant: {
                    kind: {name: float(value.mean()) for name, value in scores.items()}
                    for kind, scores in kinds.items()
                }
                for variant, kinds in result.items()
            }
            for pair, result in zip(pairs, results)
        }
        report = {
            "split": args.split,
            **settings_of(plan),
            "table": rows,
            "pairs": each,
        }
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
