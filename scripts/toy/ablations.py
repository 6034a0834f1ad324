"""The effect of each part of the method on the toy model (the paper's Figs. 11 and 12).

    python ablations.py --split test --work DIR --json ablations.json --subjects cat,robot,owl --seeds 3

Every tuning variant is tuned with several seeds on the same base images; error bars are over these seeds (the value of
each seed is a mean over all subjects). Sampling variants use the full tuning. A small run (3 subjects, 3 seeds,
`--scenes 4 --images 2`) takes about 15 minutes on two cores.
"""

import argparse
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from evaluate import Scorer, add_plan_arguments, draw_base, mean_and_error, plan_from, sample, tune

TUNINGS = {"full": [], "no L_aver": ["--lambda-2", "0"], "no L_aux, no L_aver": ["--lambda-1", "0", "--lambda-2", "0"]}
# If only eta_2 is given, eta_1 is 7.5 + eta_2, so the guidance as a whole keeps its strength.
SAMPLINGS = {
    "eta_2 = 0": ["--eta-2", "0"],
    "v = 0": ["--semantic-scale", "0"],
    "v = 0.25": ["--semantic-scale", "0.25"],
    "v = 0.5": ["--semantic-scale", "0.5"],
    "v = 1": ["--semantic-scale", "1"],
}
MEASURES = ["main_colour", "identity_distance", "subject", "scene"]


def share_base(source, folder):
    """Makes a folder for each tuning, with the same base images."""
    if not (folder / "base.json").exists():
        shutil.copytree(source, folder, dirs_exist_ok=True)


def run_subject(plan, subject, seed, chosen, scorer):
    """All variants of one subject and tuning seed: {variant: scores}."""
    base = plan.work / "base" / subject
    results = {}
    for name, flags in TUNINGS.items():
        if name not in chosen and name != "full":
            continue
        folder = plan.work / f"{slug(name)}-{seed}" / subject
        share_base(base, folder)
        tune(plan, folder, scorer, "--seed", seed, *flags)
        target = scorer.target(folder)
        samplings = {name: []} if name != "full" else {"full": [], **SAMPLINGS}
        for variant, extra in samplings.items():
            if variant in chosen:
                rows = sample(plan, subject, folder, folder / slug(variant), *plan.sample_args, *extra)
                results[variant] = scorer.score(subject, rows, target)
        if name == "full" and "plain" in chosen:
            rows = sample(plan, subject, folder, plan.work / "plain" / subject, "--no-actor")
            results["plain"] = scorer.score(subject, rows, target)
    return results


def slug(name):
    return "".join(c if c.isalnum() or c == "." else "-" for c in name)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_plan_arguments(parser)
    parser.add_argument("--seeds", type=int, default=3, help="tuning seeds")
    parser.add_argument("--variants", help="comma-separated; default: all")
    args = parser.parse_args()
    torch.set_num_threads(1)
    plan, scorer = plan_from(args), Scorer()
    every = ["plain", *TUNINGS, *SAMPLINGS]
    chosen = args.variants.split(",") if args.variants else every
    unknown = set(chosen) - set(every)
    if unknown:
        parser.error(f"unknown variant {sorted(unknown)}; known: {every}")
    for subject in plan.subjects:
        draw_base(plan, plan.work / "base" / subject, subject)
    jobs = [(subject, seed) for seed in range(args.seeds) for subject in plan.subjects]
    with ThreadPoolExecutor(args.jobs) as pool:
        results = list(pool.map(lambda job: run_subject(plan, *job, chosen, scorer), jobs))
    report = {}
    for variant in [name for name in every if name in chosen]:
        by_seed = {seed: [r[variant] for (_, s), r in zip(jobs, results) if s == seed] for seed in range(args.seeds)}
        report[variant] = {}
        for measure in MEASURES:
            means = [np.mean([score[measure].mean() for score in scores]) for scores in by_seed.values()]
            report[variant][measure] = mean_and_error(means)
    print(f"{'':22}" + "".join(f"{name:>20}" for name in MEASURES))
    for variant, row in report.items():
        print(f"{variant:22}" + "".join(f"{row[m]['mean']:13.3f} ±{row[m]['error']:5.3f}" for m in MEASURES))
    if args.json:
        args.json.write_text(
            json.dumps(
                {
                    "subjects": plan.subjects,
                    "scenes": plan.scenes,
                    "seeds": args.seeds,
                    "images_per_scene": plan.images,
                    "table": report,
                },
                indent=1,
            )
            + "\n"
        )


if __name__ == "__main__":
    main()
