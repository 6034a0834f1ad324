"""Figure 11: the effect of the parts of the method. `oneactor ablate` tunes without L_aver, and without L_aux and
L_aver, and draws.

    python scripts/reproduce/fig11.py                       on the toy: four targets, four scenes

fig11-grid has the first scenes of the first target; fig11 has CLIP-I and CLIP-T of all pictures, with the standard
error over targets.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import plots
from study import SCENE_SEED, Study, Target, mean_and_error, options, pictures_of, run

METRICS = ["clip_i", "clip_t"]
SCENES = 4
VARIANTS = {
    "plain": "plain",
    "without-aux-aver": "without L_aux, L_aver",
    "without-aver": "without L_aver",
    "full": "full",
}
Rows = dict[str, list[dict]]


def prepare(study: Study, target: Target) -> tuple[Target, Rows]:
    """The scored pictures of each variant."""
    folder = study.actor(target)
    study.say(target, "ablation")
    scenes = [word for scene in study.scenes[:SCENES] for word in ("-p", scene)]
    study.program.run(
        "ablate",
        folder,
        *scenes,
        "--num-images",
        study.num_images,
        "--seed",
        SCENE_SEED,
        "--quiet",
        *study.model_args,
        *study.draw_args,
    )
    rows = pictures_of(study.scores(target, folder / "ablation", "fig11", METRICS))
    return target, {name: [row for row in rows if variant_of(row["path"]) == name] for name in VARIANTS}


def variant_of(path: str) -> str:
    """The part before the number in the name of a picture."""
    return re.sub(r"_\d{4}-\d+\.png$", "", Path(path).name)


def draw(study: Study, found: list[tuple[Target, Rows]]) -> None:
    numbers = {
        name: {
            metric: mean_and_error([mean(row["scores"][metric] for row in rows[name]) for _, rows in found])
            for metric in METRICS
        }
        for name in VARIANTS
    }
    figure, axes = plots.plt.subplots(1, 2, figsize=(7.2, 3.2))
    for panel, metric in zip(axes, METRICS):
        bars = [numbers[name][metric] for name in VARIANTS]
        labels = [label.replace(" ", "\n", 1) for label in VARIANTS.values()]
        panel.bar(
            labels,
            [bar["mean"] for bar in bars],
            yerr=plots.errors(bars),
            capsize=3,
            color=["#6b7075", "#e3b7b0", "#d6867b", "#c4402f"],
        )
        panel.set_title(metric.upper().replace("_", "-"), fontsize=10)
        panel.tick_params(axis="x", labelsize=7)
        panel.grid(axis="x", visible=False)
    plots.save(figure, study.work, "fig11")
    target, rows = found[0]
    first = {name: rows[name][:: study.num_images] for name in VARIANTS}
    pictures = [[study.work / first[name][i]["path"] for name in VARIANTS] for i in range(len(first["full"]))]
    prompts = [row["prompt"] for row in first["full"]]
    plots.save(plots.picture_grid(pictures, prompts, list(VARIANTS.values()), target.prompt), study.work, "fig11-grid")
    study.write_json("fig11", numbers)
    for name, values in numbers.items():
        print(f"{name}: CLIP-I {values['clip_i']['mean']:.4f}, CLIP-T {values['clip_t']['mean']:.4f}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> None:
    run(options(__doc__, limit=4).parse_args(argv), prepare, draw)


if __name__ == "__main__":
    main()
