"""Figure 8: likeness of pictures to the target (CLIP-I) against likeness to their prompts (CLIP-T), for all methods.

    python scripts/reproduce/fig8.py                        on the toy
    python scripts/reproduce/fig8.py --model stabilityai/stable-diffusion-xl-base-1.0 --model-args "--variant fp16"

A small mark is a target, a large one the mean of a method's pictures of all targets. The dashed line joins the methods
for which no other method is better in both measures. `--published FILE.csv` adds points from elsewhere: a table with
the columns method,clip_t,clip_i.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import plots
from study import Study, Target, options, pictures_of, run

METRICS = ["clip_i", "clip_t"]
Point = dict[str, float]


def prepare(study: Study, target: Target) -> dict[str, list[Point]]:
    """The scores of each picture, by method."""
    found = {}
    for method in study.methods:
        pictures = study.pictures(target, method)
        rows = study.scores(target, pictures, f"fig8-{method}", METRICS)
        found[method] = [{name: row["scores"][name] for name in METRICS} for row in pictures_of(rows)]
    return found


def centre(points: Sequence[Point]) -> Point:
    return {name: mean(point[name] for point in points) for name in METRICS}


def front(points: dict[str, Point]) -> list[str]:
    """The methods for which no other method is better in both measures, from the left."""

    def is_bettered(name: str) -> bool:
        return any(
            all(other[m] >= points[name][m] for m in METRICS) and other != points[name] for other in points.values()
        )

    return sorted((name for name in points if not is_bettered(name)), key=lambda name: points[name]["clip_t"])


def read_published(path: Path) -> dict[str, Point]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"method", *METRICS} <= set(rows[0]):
        raise SystemExit(f"--published {path}: expected the columns method,clip_t,clip_i")
    return {row["method"]: {name: float(row[name]) for name in METRICS} for row in rows}


def draw(study: Study, found: list[dict[str, list[Point]]], published: dict[str, Point]) -> None:
    of_targets = {method: [centre(target[method]) for target in found] for method in study.methods}
    means = {method: centre([point for target in found for point in target[method]]) for method in study.methods}
    figure, axes = plots.plt.subplots(figsize=(6, 4.2))
    for method, points in of_targets.items():
        colour, marker = plots.look(method)
        axes.scatter(
            [p["clip_t"] for p in points],
            [p["clip_i"] for p in points],
            s=14,
            alpha=0.45,
            color=colour,
            marker=marker,
            lw=0,
        )
        axes.scatter(
            means[method]["clip_t"],
            means[method]["clip_i"],
            s=170 if marker == "*" else 90,
            color=colour,
            marker=marker,
            edgecolor="black",
            lw=0.8,
            label=method,
            zorder=3,
        )
    for name, point in published.items():
        axes.scatter(point["clip_t"], point["clip_i"], s=60, facecolor="none", edgecolor="black", marker="o", zorder=3)
        axes.annotate(
            f"{name}, published", (point["clip_t"], point["clip_i"]), (6, 4), textcoords="offset points", fontsize=7
        )
    best = front(means)
    axes.plot(
        [means[name]["clip_t"] for name in best],
        [means[name]["clip_i"] for name in best],
        "--",
        color="black",
        lw=0.9,
        zorder=2,
    )
    axes.set(xlabel="CLIP-T: likeness to the prompt", ylabel="CLIP-I: likeness to the target", title=study.size(found))
    axes.ticklabel_format(useOffset=False)
    axes.legend(fontsize=8)
    plots.save(figure, study.work, "fig8")
    study.write_json("fig8", {"means": means, "targets": of_targets, "front": best, "published": published})
    for method, point in means.items():
        print(f"{method}: CLIP-T {point['clip_t']:.4f}, CLIP-I {point['clip_i']:.4f}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> None:
    parser = options(__doc__)
    parser.add_argument(
        "--published", type=Path, help="points from elsewhere: a CSV with the columns method,clip_t,clip_i"
    )
    args = parser.parse_args(argv)
    published = read_published(args.published) if args.published else {}
    run(args, prepare, lambda study, found: draw(study, found, published))


if __name__ == "__main__":
    main()
