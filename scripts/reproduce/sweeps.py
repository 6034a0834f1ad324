"""Sweeps over one value of the guidance (`oneactor sweep`): a labelled grid, and curves of CLIP-I and CLIP-T."""

from __future__ import annotations

import re
import sys
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import plots
from study import SCENE_SEED, Study, Target, mean_and_error, pictures_of, run

METRICS = ["clip_i", "clip_t"]
SCENES = 3


@dataclass(frozen=True)
class Sweep:
    key: str
    """The key as in results; with hyphens it is the flag."""
    label: str
    values: list[str]
    quick: list[str]


@dataclass(frozen=True)
class Swept:
    """The results of a sweep of one target."""

    target: Target
    rows: dict[str, list[dict]]
    """Scored pictures by value."""


def sweep_target(study: Study, target: Target, sweep: Sweep) -> Swept:
    folder = study.actor(target)
    values = sweep.quick if study.is_quick else sweep.values
    rows: dict[str, list[dict]] = {value: [] for value in values}
    for number, scene in enumerate(study.scenes[:SCENES]):
        name = f"{sweep.key}-{number}"
        study.say(target, f"sweep of {name}")
        out = folder / "sweeps" / name
        study.program.run(
            "sweep",
            folder,
            "-p",
            scene,
            f"--{sweep.key.replace('_', '-')}",
            ",".join(values),
            "--num-images",
            study.num_images,
            "--seed",
            SCENE_SEED,
            "-o",
            out,
            "--quiet",
            *study.model_args,
            *study.draw_args,
        )
        for row in pictures_of(study.scores(target, out, f"sweep-{name}", METRICS)):
            value = value_of(row["path"])
            # A folder keeps pictures of values that are no longer used.
            if value in rows:
                rows[value].append(row)
    return Swept(target, rows)


def value_of(path: str) -> str:
    """The value in the name of a picture, KEY=VALUE_0000-SEED.png; the key has hyphens."""
    found = re.fullmatch(r"[a-z0-9-]+=(.*)_\d{4}-\d+\.png", Path(path).name)
    if not found:
        raise SystemExit(f"{path}: expected a name such as eta-2=1_0000-5000.png")
    return found[1]


def grid(study: Study, swept: list[Swept], sweep: Sweep) -> plots.Figure:
    """A row for each target: its first scene and seed."""
    pictures = [[study.work / rows[0]["path"] for rows in one.rows.values()] for one in swept]
    prompts = [next(iter(one.rows.values()))[0]["prompt"] for one in swept]
    return plots.picture_grid(pictures, prompts, list(swept[0].rows), sweep.label)


def curves(swept: list[Swept]) -> dict[str, dict[str, dict[str, float | None]]]:
    """Mean and standard error over targets, by value and measure."""
    of_target = lambda one, value, metric: mean(row["scores"][metric] for row in one.rows[value])
    return {
        value: {metric: mean_and_error([of_target(one, value, metric) for one in swept]) for metric in METRICS}
        for value in swept[0].rows
    }


def draw(study: Study, found: list[list[Swept]], sweeps: list[Sweep], name: str) -> None:
    figure, axes = plots.plt.subplots(1, len(sweeps), figsize=(3.9 * len(sweeps) + 0.4, 3.2), squeeze=False)
    numbers = {}
    for number, (panel, sweep) in enumerate(zip(axes[0], sweeps)):
        swept = [of_target[number] for of_target in found]
        numbers[sweep.key] = points = curves(swept)
        for metric, colour in zip(METRICS, ("#c4402f", "#2383c4")):
            values = [points[value][metric] for value in points]
            panel.errorbar(
                list(points),
                [v["mean"] for v in values],
                yerr=plots.errors(values),
                color=colour,
                marker="o",
                ms=4,
                lw=1.3,
                capsize=3,
                label=metric.upper().replace("_", "-"),
            )
        panel.set(xlabel=sweep.label)
        ending = f"-{sweep.key}" if len(sweeps) > 1 else ""
        plots.save(grid(study, swept, sweep), study.work, f"{name}-grid{ending}")
        for value, of_value in points.items():
            print(
                f"{sweep.key} {value}: CLIP-I {of_value['clip_i']['mean']:.4f}, "
                f"CLIP-T {of_value['clip_t']['mean']:.4f}",
                file=sys.stderr,
            )
    axes[0][0].legend(fontsize=8)
    plots.save(figure, study.work, name)
    study.write_json(name, numbers)


def run_sweeps(args: Namespace, sweeps: list[Sweep], name: str) -> None:
    run(
        args,
        lambda study, target: [sweep_target(study, target, sweep) for sweep in sweeps],
        lambda study, found: draw(study, found, sweeps, name),
    )
