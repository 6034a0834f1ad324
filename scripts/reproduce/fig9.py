"""Figure 9: final latents in two dimensions (t-SNE): target, auxiliary samples, and new samples with and without
guidance.

    python scripts/reproduce/fig9.py                        on the toy: four targets, 24 samples of each kind

New samples are drawn from the target prompt itself, with other seeds than the base images. t-SNE keeps near points
near, but its distances are not a measure. Therefore fig9.json has the mean distance of the final latents from the
target's, in units of the mean distance of the samples without guidance.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from sklearn.manifold import TSNE

import plots
from program import OURS, PLAIN
from study import Study, Target, options, run

SEED = 20000
KINDS = {
    "auxiliary": ("#6b7075", "o"),
    "without guidance": ("#2383c4", "s"),
    "with guidance": ("#c4402f", "^"),
    "target": ("#111111", "*"),
}
Latents = dict[str, np.ndarray]


def prepare(study: Study, target: Target, samples: int) -> tuple[Target, Latents]:
    """Final latents by kind, one row for each picture."""
    folder = study.work / study.actor(target)
    base = load_file(folder / "base.safetensors")["latents"].astype(np.float64)
    number = study.target_number(target)
    found = {"target": base[[number]], "auxiliary": np.delete(base, number, axis=0)}
    for kind, method in (("without guidance", PLAIN), ("with guidance", OURS)):
        out = study.draw(
            target, method, target.folder / "latents" / method, [target.prompt], samples, SEED, "--save-latents"
        )
        paths = [study.work / out / Path(row["path"]).with_suffix(".safetensors") for row in study.program.rows(out)]
        found[kind] = np.stack([load_file(path)["latents"].astype(np.float64) for path in paths])
    return target, {kind: rows.reshape(len(rows), -1) for kind, rows in found.items()}


def distances(latents: Latents) -> dict[str, float]:
    """Mean distance of each kind from the target, with that of samples without guidance as 1."""
    far = {kind: float(np.linalg.norm(rows - latents["target"], axis=1).mean()) for kind, rows in latents.items()}
    return {kind: value / far["without guidance"] for kind, value in far.items() if kind != "target"}


def places(latents: Latents) -> Latents:
    """Two coordinates for each row."""
    rows = np.concatenate(list(latents.values()))
    perplexity = min(30.0, (len(rows) - 1) / 3)
    flat = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(rows.astype(np.float32))
    return dict(zip(latents, np.split(flat, np.cumsum([len(part) for part in latents.values()])[:-1])))


def draw(study: Study, found: list[tuple[Target, Latents]]) -> None:
    columns = min(len(found), 4)
    lines = -(-len(found) // columns)
    figure, axes = plots.plt.subplots(lines, columns, figsize=(3.1 * columns + 0.6, 3.0 * lines + 0.5), squeeze=False)
    numbers = {}
    for panel in axes.flat[len(found) :]:
        panel.set_visible(False)
    for panel, (target, latents) in zip(axes.flat, found):
        flat = places(latents)
        for kind, (colour, marker) in KINDS.items():
            size = 150 if kind == "target" else 18
            panel.scatter(
                *flat[kind].T,
                color=colour,
                marker=marker,
                s=size,
                alpha=1 if kind == "target" else 0.75,
                lw=0,
                label=kind,
            )
        panel.set(title=textwrap.shorten(target.prompt, 44, placeholder=" …"), xticks=[], yticks=[])
        panel.title.set_fontsize(9)
        numbers[target.folder.name] = {
            "distance": distances(latents),
            "places": {k: v.tolist() for k, v in flat.items()},
        }
        print(f"{target.folder.name}: {distances(latents)}", file=sys.stderr)
    figure.legend(
        *axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=2 * min(columns, 2), fontsize=8
    )
    plots.save(figure, study.work, "fig9")
    study.write_json("fig9", numbers)


def main(argv: Sequence[str] | None = None) -> None:
    parser = options(__doc__, limit=4)
    parser.add_argument("--samples", type=int, help="new samples of each kind (default: 24; with --quick 4)")
    args = parser.parse_args(argv)
    samples = args.samples or (4 if args.quick else 24)
    run(args, lambda study, target: prepare(study, target, samples), draw)


if __name__ == "__main__":
    main()
