"""The toy's IP-Adapter, judged as evaluate.py judges the method: does the subject keep the target's identity?

    python ip_adapter_table.py --split test --work DIR --subjects cat,robot --draw-args "--guidance-scale 4"

For every subject: base images, then the same prompts and seeds with the clearest base image as the image prompt, and
without an image prompt. Flags are those of evaluate.py; nothing is tuned. Needs no skia-python.
"""

import argparse
import json

import torch

import evaluate


def pictures(plan, subject, folder, number):
    """Rows of the pictures with the image prompt and of the plain ones."""
    out = folder / "ip-adapter"
    named = evaluate.scenes_of(plan, subject)
    how = ["--method", "ip-adapter", "--target", number, "--compare", *plan.sample_args]
    rows = evaluate.draw(plan, [folder], out, named, *how)
    rows = [{"scene": named[row["prompt"]], "seed": row["seed"], "path": row["path"]} for row in rows]
    is_plain = [row["path"].parent.name == "plain" for row in rows]
    return [[row for row, plain in zip(rows, is_plain) if plain == wanted] for wanted in (False, True)]


def measure(plan, subject, scorer):
    folder = plan.work / subject
    evaluate.draw_base(plan, folder, subject)
    number = scorer.clearest(folder) if plan.target == "clearest" else int(plan.target)
    target = scorer.answers([folder / "base" / f"{number:02}.png"])
    guided, plain = pictures(plan, subject, folder, number)
    return {"guided": scorer.score(subject, guided, target), "plain": scorer.score(subject, plain, target)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    evaluate.add_plan_arguments(parser)
    args = parser.parse_args()
    torch.set_num_threads(1)
    plan, scorer = evaluate.plan_from(args), evaluate.Scorer()
    results = [measure(plan, subject, scorer) for subject in plan.subjects]
    guided, plain = ([result[kind] for result in results] for kind in ("guided", "plain"))
    report = {
        "guided": evaluate.summary(guided),
        "plain": evaluate.summary(plain),
        "ratio": evaluate.ratio(guided, plain),
    }
    evaluate.print_report(report)
    for subject, result in zip(plan.subjects, results):
        own, of_plain = (result[kind]["identity_distance"].mean() for kind in ("guided", "plain"))
        print(f"{subject:10}{own:7.3f} with the image prompt, {of_plain:.3f} without")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
