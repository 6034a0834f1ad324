"""Measures the boxes of `tune --crop subject` and `--crop face` on drawn pictures, where the true place of the figure
is known.

    python boxes.py --work DIR [--small] [--pictures 2] [--binary target/release/oneactor]

Each picture is one drawn subject in a scene, given to `tune` as the target image; tune.json has the box that was found.
`--small` draws the figures as small as in pictures with two subjects, at the left, in the middle or at the right.
DIR/boxes.png shows every picture with its box. Drawing needs skia-python.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import scenes
import subjects
import world
from canvas import SIZE, Canvas
from evaluate import ROOT, call, mean_and_error


def draw(species, scene, rng, small):
    """A picture [64, 64, 3], and the mask of the pixels that the figure covers."""
    look = world.make_look(world.draw_identity(rng), rng)
    canvas = Canvas()
    scenes.draw(canvas, scene, rng)
    before = canvas.pixels().astype(int)
    if small:
        x, y, scale = (
            rng.choice((17, 32, 47)) + rng.uniform(-1.5, 1.5),
            40 + rng.uniform(-2, 2),
            rng.uniform(0.62, 0.74),
        )
    else:
        x, y, scale = 32 + rng.uniform(-5, 5), 37 + rng.uniform(-2.5, 2.5), rng.uniform(0.86, 1.02)
    with canvas.placed(x, y, float(rng.uniform(-5, 5)), scale, rng.random() < 0.5):
        subjects.draw(canvas, species, look, rng)
    return canvas.pixels(), np.abs(canvas.pixels() - before).max(-1) > 8


def box_of(args, folder, picture, crop):
    """Left, top, width, height, or None if the program found no box to crop; and what the box shows."""
    least = ["--max-steps", 1, "--batch-size", 1, "--num-auxiliary", 1]
    call(args, "tune", folder, "--target-image", picture, "--crop", crop, *least, "--overwrite")
    facts = json.loads((folder / "tune.json").read_text())
    if facts["crop_box"] == "none":
        return None, None
    return [int(side) for side in facts["crop_box"].split(",")], facts["crop_shows"]


def square_around(figure):
    """The smallest square box around the figure, moved inside the picture, as floats."""
    rows, columns = np.flatnonzero(figure.any(1)), np.flatnonzero(figure.any(0))
    left, right, top, bottom = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
    side = max(right - left, bottom - top)
    x = min(max((left + right - side) / 2, 0), SIZE - side)
    y = min(max((top + bottom - side) / 2, 0), SIZE - side)
    return x, y, side, side


def overlap(a, b):
    """Intersection over union."""
    wide = max(0, min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0]))
    tall = max(0, min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1]))
    return wide * tall / (a[2] * a[3] + b[2] * b[3] - wide * tall)


def tile(pixels, box):
    image = Image.fromarray(pixels).resize((4 * SIZE, 4 * SIZE), Image.NEAREST)
    if box:
        x, y, w, h = (4 * side for side in box)
        ImageDraw.Draw(image).rectangle((x, y, x + w - 1, y + h - 1), outline="red", width=3)
    return np.array(image)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--binary", default=str(ROOT / "target/release/oneactor"))
    parser.add_argument("--pictures", type=int, default=2)
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(17)
    rows, tiles, faces, without = [], [], 0, 0
    for species in world.SPECIES:
        folder = args.work / species
        if not (folder / "base.json").exists():
            what = ["-p", f"a photo of {world.article(species)}", "--subject", species, "--model", "toy"]
            call(args, "generate-base", *what, "--num-images", 2, "--steps", 2, "-o", folder)
        for _ in range(args.pictures):
            scene = "plain" if rng.random() < 0.3 else str(rng.choice(scenes.NAMES[1:]))
            pixels, figure = draw(species, scene, rng, args.small)
            picture = folder / "drawn.png"
            Image.fromarray(pixels).save(picture)
            box, _ = box_of(args, folder, picture, "subject")
            faces += box_of(args, folder, picture, "face")[1] == "face"
            tiles.append(tile(pixels, box))
            if box is None:
                without += 1
                continue
            x, y, w, h = box
            inside = figure[y : y + h, x : x + w].sum()
            rows.append(
                (inside / figure.sum(), overlap(box, square_around(figure)), w / SIZE, square_around(figure)[2] / SIZE)
            )
    count = len(tiles)
    print(f"{count} pictures, {without} without a crop, {faces} with a plausible face")
    for name, values in zip(
        ("figure inside the box", "box and smallest square: overlap", "side of the box", "side of the smallest square"),
        np.array(rows).T,
    ):
        found = mean_and_error(values)
        print(f"{name}: {found['mean']:.3f} ± {found['error']:.3f}, least {values.min():.3f}")
    sheet = [np.concatenate(tiles[i : i + 8], 1) for i in range(0, count - count % 8, 8)]
    Image.fromarray(np.concatenate(sheet)).save(args.work / "boxes.png")


if __name__ == "__main__":
    main()
