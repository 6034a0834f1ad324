"""The look of the figures, and how they are written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from program import OURS, PLAIN

# Text stays text in an SVG, and the same numbers give the same file.
plt.rcParams.update(
    {
        "svg.fonttype": "none",
        "svg.hashsalt": "oneactor",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "axes.axisbelow": True,
        "figure.constrained_layout.use": True,
    }
)

LOOKS = {
    PLAIN: ("#6b7075", "o"),
    OURS: ("#c4402f", "*"),
    "textual-inversion": ("#2383c4", "s"),
    "dreambooth-lora": ("#0a9d76", "^"),
    "ip-adapter": ("#c08a00", "D"),
    "consistory": ("#7d62d0", "v"),
}


def look(method: str) -> tuple[str, str]:
    """Colour and marker of a method."""
    return LOOKS.get(method, ("#222222", "P"))


def errors(values: Sequence[dict[str, float | None]]) -> list[float | None] | None:
    """Values for error bars; 0 if a single target has no error."""
    found = [value["error"] for value in values]
    return None if None in found else found


def save(figure: Figure, work: Path, name: str) -> None:
    for ending in ("png", "svg"):
        path = work / f"{name}.{ending}"
        figure.savefig(path, dpi=160, metadata={"Date": None} if ending == "svg" else None)
        print(path)
    plt.close(figure)


def picture_grid(pictures: Sequence[Sequence[Path]], rows: Sequence[str], columns: Sequence[str], title: str) -> Figure:
    """Pictures with a label left of each row and above each column."""
    side = 1.15
    size = (side * len(columns) + 1.4, side * len(rows) + 0.7)
    figure, axes = plt.subplots(len(rows), len(columns), figsize=size, squeeze=False)
    figure.suptitle(title, fontsize=9)
    for r, line in enumerate(pictures):
        for c, path in enumerate(line):
            show(axes[r][c], path)
            if r == 0:
                axes[r][c].set_title(columns[c], fontsize=8)
            if c == 0:
                axes[r][c].set_ylabel(rows[r], fontsize=7, rotation=0, ha="right", va="center", wrap=True)
    return figure


def show(axes: Axes, path: Path) -> None:
    """A picture without axes, at most 256 pixels wide."""
    with Image.open(path) as picture:
        picture.thumbnail((256, 256), Image.Resampling.LANCZOS)
        axes.imshow(picture.convert("RGB"), interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
