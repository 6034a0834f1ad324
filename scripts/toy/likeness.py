"""How many steps a tuning needs: after several numbers of steps, the identity distance of its pictures over that of
plain ones.

    python likeness.py --work DIR --draw-args "--guidance-scale 4" --steps 100,200,300 \
        --try 'slow=--learning-rate 3e-4' --try 'fast=--learning-rate 1e-3'

One tuning for each subject and setting stops at each of the numbers of steps, draws pictures, and continues. Seconds
are processor time of the tuning alone, so that other work on the machine changes them little. Needs the same packages
as evaluate.py.
"""

import argparse
import json
import resource
import shutil

import numpy as np
import torch

from evaluate import Scorer, add_plan_arguments, call, draw_base, mean_and_error, plan_from, sample


def processor_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def curve(plan, scorer, subject, name, flags, steps):
    """For each number of steps: seconds of tuning so far, and the mean scores of the pictures drawn then."""
    base, folder = plan.work / "base" / subject, plan.work / name / subject
    if not folder.exists():
        shutil.copytree(base, folder)
    target = scorer.clearest(base) if plan.target == "clearest" else plan.target
    seconds, rows = 0, []
    for most in steps:
        result = folder / f"{most}.json"
        if not result.exists():
            before = processor_seconds()
            call(plan, "tune", folder, "--target", target, "--max-steps", most, *flags)
            seconds += processor_seconds() - before
            ended = json.loads((folder / "tune.json").read_text())["result"]
            pictures = sample(plan, subject, folder, folder / f"guided-{most}", *plan.sample_args)
            scores = scorer.score(subject, pictures, scorer.target(folder))
            row = dict(
                seconds=seconds,
                converged=ended["converged"],
                validation=ended["best_validation"],
                **{key: float(value.mean()) for key, value in scores.items()},
            )
            result.write_text(json.dumps(row))
        rows.append(json.loads(result.read_text()))
        seconds = rows[-1]["seconds"]
        if rows[-1]["converged"]:
            rows += [rows[-1]] * (len(steps) - len(rows))
            break
    return rows


def plain_distance(plan, scorer, subject, name):
    """Identity distance of the pictures without an actor from the target, which all settings share."""
    folder = plan.work / name / subject
    pictures = sample(plan, subject, folder, plan.work / "base" / subject / "plain", "--no-actor")
    return scorer.score(subject, pictures, scorer.target(folder))["identity_distance"].mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_plan_arguments(parser)
    parser.add_argument("--steps", default="100,200,300,400", help="where to stop and draw, ascending")
    parser.add_argument(
        "--try",
        dest="tries",
        action="append",
        required=True,
        metavar="NAME=FLAGS",
        help="a setting of tune; several may be given",
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    plan, scorer = plan_from(args), Scorer()
    steps = [int(word) for word in args.steps.split(",")]
    for subject in plan.subjects:
        draw_base(plan, plan.work / "base" / subject, subject)
    print(f"{'setting':12}{'steps':>6}{'seconds':>9}{'of plain':>16}{'main colour':>16}  per subject", flush=True)
    for name, _, flags in (each.partition("=") for each in args.tries):
        curves = [
            curve(plan, scorer, subject, name, plan.tune_args + flags.split(), steps) for subject in plan.subjects
        ]
        plain = [plain_distance(plan, scorer, subject, name) for subject in plan.subjects]
        for most, rows in zip(steps, zip(*curves)):
            ratios = np.array([row["identity_distance"] for row in rows]) / plain
            colours = np.array([row["main_colour"] for row in rows])
            found = [mean_and_error(values) for values in (ratios, colours)]
            cells = "".join(f"{value['mean']:8.3f} ±{value['error']:6.3f}" for value in found)
            print(
                f"{name:12}{most:6}{np.mean([row['seconds'] for row in rows]):9.1f}{cells}  "
                + " ".join(f"{ratio:.2f}" for ratio in ratios),
                flush=True,
            )


if __name__ == "__main__":
    main()
