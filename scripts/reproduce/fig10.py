"""Figure 10: time for 1 to 1000 pictures of one subject, by method: tuning once, then the time of each picture.

    python scripts/reproduce/fig10.py                       on the toy

The seconds are those that the program has recorded: of tuning in tune.json (or METHOD.json), of pictures in
manifest.jsonl. A line uses the mean tuning over targets and the median picture. The paper's method appears twice: with
the exclusion term, and with `--eta-2 0`, which saves a third of a guided step. The lines do not include the base
images, which all methods but the plain model need; fig10.json has them. Seconds mean little if the machine does other
work at the same time.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median

import plots
from program import OURS
from study import SCENE_SEED, Study, Target, options, run

NO_EXCLUSION = f"{OURS}, eta_2 = 0"
COUNTS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
Times = dict[str, dict[str, list[float]]]


def seconds(study: Study, pictures: Path) -> list[float]:
    """Seconds of each picture; a picture whose row was written again later has none."""
    return [row["seconds"] for row in study.program.rows(pictures) if row["seconds"] is not None]


def prepare(study: Study, target: Target) -> Times:
    """Seconds of tuning and of pictures, by method."""
    found = {}
    for method in study.methods:
        pictures = seconds(study, study.pictures(target, method))
        found[method] = {"tuning": [study.tuning_seconds(target, method)], "pictures": pictures}
    if OURS in study.methods:
        out = target.folder / "pictures" / f"{OURS}-eta-2-0"
        study.draw(target, OURS, out, study.scenes, study.num_images, SCENE_SEED, "--eta-2", "0")
        found[NO_EXCLUSION] = {**found[OURS], "pictures": seconds(study, out)}
    base = json.loads((study.work / target.folder / "base.json").read_text())
    found["base images"] = {"tuning": [base["seconds"]], "pictures": []}
    return found


def joined(found: list[Times], method: str, kind: str) -> list[float]:
    return [value for target in found for value in target[method][kind]]


def draw(study: Study, found: list[Times]) -> None:
    numbers = {"base images": {"seconds": mean(joined(found, "base images", "tuning"))}}
    figure, axes = plots.plt.subplots(figsize=(6, 4.2))
    for method in [name for name in found[0] if name != "base images"]:
        pictures = joined(found, method, "pictures")
        if not pictures:
            raise SystemExit(
                f"{method}: no picture in manifest.jsonl has its seconds; "
                f"remove the folder pictures/{method} to draw again"
            )
        tuning, each = mean(joined(found, method, "tuning")), median(pictures)
        numbers[method] = {"tuning": tuning, "picture": each, "pictures": len(pictures)}
        colour, marker = plots.look(OURS if method == NO_EXCLUSION else method)
        axes.plot(
            COUNTS,
            [(tuning + n * each) / 60 for n in COUNTS],
            "--" if method == NO_EXCLUSION else "-",
            color=colour,
            marker=marker,
            ms=4,
            lw=1.3,
            label=f"{method}: {tuning:.0f} s + {each:.2f} s a picture",
        )
        print(f"{method}: tuning {tuning:.1f} s, {each:.3f} s a picture", file=sys.stderr)
    axes.set(xscale="log", yscale="log", xlabel="pictures of one subject", ylabel="minutes")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.legend(fontsize=8)
    plots.save(figure, study.work, "fig10")
    study.write_json("fig10", numbers)


def main(argv: Sequence[str] | None = None) -> None:
    run(options(__doc__).parse_args(argv), prepare, draw)


if __name__ == "__main__":
    main()
