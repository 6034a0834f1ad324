"""Tables 1 and 2: every measure for every method, on whole pictures, and on foreground and background separately.

    python scripts/reproduce/tables.py                      on the toy
    python scripts/reproduce/tables.py --model stabilityai/stable-diffusion-xl-base-1.0 --model-args "--variant fp16"
    --masks sam

A cell is mean ± sample standard deviation over the pictures of all targets. If a measure has no value against the
target, the cell has the mean likeness to the method's other pictures of that target (`…_pairwise`). Distances have a
small d after their name: smaller means more alike.

The masks of `--masks middle` are an oval where a figure of the toy stands, the same in every picture. They replace a
segmentation to show the arithmetic, and separate foreground and background only roughly.

LPIPS and DreamSim are measured if a folder with their weights is given, for instance --evaluate-args "--lpips-model
models/lpips".
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from PIL import Image, ImageDraw

from study import Study, Target, options, pictures_of, run

DISTANCES = ("lpips", "dreamsim")
Scores = dict[str, list[float]]


def metrics(study: Study) -> list[str]:
    """All possible measures. For the toy, those of its own CLIP, because the program embeds no other networks; else
    those of all networks that have a repository of their own. LPIPS and DreamSim are added if a folder with their
    weights is given."""
    if study.is_toy:
        return [name for name in study.program.measures() if name.startswith("clip")]
    return [
        name for name in study.program.measures() if name not in DISTANCES or f"--{name}-model" in study.evaluate_args
    ]


def middle_masks(study: Study, target: Target, pictures: Path) -> list[object]:
    """Flags for an oval mask of every picture, and of the target."""
    folder = target.folder / "masks" / pictures.name
    for row in study.program.rows(pictures):
        write_oval(study.work / pictures / row["path"], study.work / folder / row["path"])
    of_target = target.folder / "masks" / "target.png"
    write_oval(study.work / study.target_picture(target), study.work / of_target)
    return ["--masks", folder, "--target-mask", of_target]


def write_oval(picture: Path, path: Path) -> None:
    """A mask for a picture: white where a single figure of the toy stands (x = 32, y = 37 of 64 pixels)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(picture) as opened:
        width, height = opened.size
    mask = Image.new("L", (width, height))
    corners = (0.22 * width, 0.1 * height, 0.78 * width, 0.97 * height)
    ImageDraw.Draw(mask).ellipse(corners, fill=255)
    mask.save(path)


def prepare(study: Study, target: Target) -> dict[str, Scores]:
    """The values of every column over the pictures, by method."""
    found = {}
    for method in study.methods:
        pictures = study.pictures(target, method)
        masks: list[object] = []
        if study.masks == "middle":
            masks = middle_masks(study, target, pictures)
        elif study.masks not in (None, "none"):
            masks = ["--masks", study.masks]
        rows = pictures_of(study.scores(target, pictures, f"tables-{method}", metrics(study), *masks))
        columns = shown_columns(study, list(rows[0]["scores"]))
        found[method] = {
            name: [row["scores"][name] for row in rows if row["scores"][name] is not None] for name in columns
        }
    return found


def shown_columns(study: Study, names: Sequence[str]) -> list[str]:
    """Columns in the order of the program's measures; a pairwise column only if there is no value against the
    target."""
    shown = [
        name for name in names if name.removesuffix("_pairwise") == name or name.removesuffix("_pairwise") not in names
    ]
    measures = metrics(study)
    measure_of = lambda name: max((m for m in measures if name.startswith(m)), key=len)
    return sorted(shown, key=lambda name: (measures.index(measure_of(name)), "background" in name))


def joined(found: list[dict[str, Scores]], method: str) -> Scores:
    """The values of all targets, one after the other."""
    return {name: [value for target in found for value in target[method][name]] for name in found[0][method]}


def is_of_part(column: str) -> bool:
    return "foreground" in column or "background" in column


def heading(column: str) -> str:
    return f"{column} (d)" if column.startswith(DISTANCES) else column


def cell(values: Sequence[float]) -> str:
    if not values:
        return "–"
    return f"{mean(values):.4f} ± {stdev(values):.4f}" if len(values) > 1 else f"{values[0]:.4f}"


def markdown(scores: dict[str, Scores], columns: Sequence[str]) -> str:
    lines = ["| method | " + " | ".join(map(heading, columns)) + " |", "| --- |" + " --- |" * len(columns)]
    lines += [
        f"| {method} | " + " | ".join(cell(of_method[name]) for name in columns) + " |"
        for method, of_method in scores.items()
    ]
    return "\n".join(lines) + "\n"


def draw(study: Study, found: list[dict[str, Scores]]) -> None:
    scores = {method: joined(found, method) for method in study.methods}
    every = list(next(iter(scores.values())))
    text = (
        f"{study.size(found)}; mean ± sample standard deviation over pictures.\n\n**Table 1**: whole pictures\n\n"
        + markdown(scores, [name for name in every if not is_of_part(name)])
    )
    if parts := [name for name in every if is_of_part(name)]:
        text += f"\n**Table 2**: foreground and background, masks: {study.masks}\n\n" + markdown(scores, parts)
    path = study.work / "tables.md"
    path.write_text(text)
    print(path)
    with (study.work / "tables.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["method", "column", "mean", "sd", "pictures"])
        for method, of_method in scores.items():
            for name, values in of_method.items():
                sd = stdev(values) if len(values) > 1 else ""
                table.writerow([method, name, mean(values) if values else "", sd, len(values)])
    print(study.work / "tables.csv")


def main(argv: Sequence[str] | None = None) -> None:
    run(options(__doc__).parse_args(argv), prepare, draw)


if __name__ == "__main__":
    main()
