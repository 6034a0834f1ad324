"""How different the subjects of two pictures look: the identity distance.

The judge reads two pictures of the same species. The distance is a weighted mean over the factors that the species
shows. Each factor's difference is divided by its mean over pairs of random identities. So the distance of two random
identities is 1.0 on average, and that of two pictures of the same identity is close to 0 (not 0: the judge makes
errors, and pose, scene and VAE disturb it; `floor_and_ceiling` measures both ends).
"""

import numpy as np
import torch

import scenes
import training
import world

WEIGHTS = {
    "main": 3.0,
    "second": 2.0,
    "pattern": 2.0,
    "width": 1.0,
    "head": 1.0,
    "ear": 1.0,
    "eye": 1.0,
    "skin": 1.0,
    "hair": 1.0,
}
PROBABILITIES, COLORS, VALUES = ("pattern", "skin", "hair"), ("main", "second"), ("width", "head", "ear", "eye")


def lab(rgb):
    """CIE Lab of sRGB colours in 0..255, last axis 3."""
    linear = np.asarray(rgb, np.float64) / 255
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def differences(a, b):
    """Raw difference of each factor between two sets of the judge's answers (same length, or one against many)."""
    result = {name: np.linalg.norm(lab(a[name + "_color"]) - lab(b[name + "_color"]), axis=-1) for name in COLORS}
    result.update({name: 0.5 * np.abs(a[name] - b[name]).sum(-1) for name in PROBABILITIES})
    result.update({name: np.abs(a[name] - b[name]) for name in VALUES})
    return result


def distances(a, b, species, scales):
    """Identity distances [N] of two sets of answers for one species, and the normalised part of each factor."""
    raw = differences(a, b)
    shown = world.visible_factors(species)
    parts = {name: raw[name] / scales[species][name] for name in shown}
    weight = sum(WEIGHTS[name] for name in shown)
    return sum(WEIGHTS[name] * parts[name] for name in shown) / weight, parts


def _random_look(rng):
    classes = world.draw_identity(rng)
    return classes, world.make_look(classes, rng)


def _pictures(species, looks, rng, scene_names=None):
    names = scene_names or scenes.NAMES
    images = []
    for classes, look in looks:
        picture = world.Picture([world.Subject(species, classes, look)], str(rng.choice(names)))
        images.append(world.render(picture, rng))
    return np.stack(images)


def through_vae(vae, images):
    """Byte pictures [N, 64, 64, 3] after encoding and decoding by the VAE."""
    with torch.no_grad():
        z = vae.encode(training.to_pixels(images)).latent_dist.mean
        return training.to_bytes(vae.decode(z).sample)


def measure_scales(judge, pairs=150):
    """Mean difference between random identities, by species and factor."""
    scales = {}
    for index, species in enumerate(world.SPECIES):
        rng = np.random.default_rng(900_000 + index)
        looks = [_random_look(rng) for _ in range(2 * pairs)]
        answers = judge.read(_pictures(species, looks, rng))
        half = [{name: value[k::2] for name, value in answers.items()} for k in (0, 1)]
        raw = differences(*half)
        scales[species] = {name: float(raw[name].mean()) for name in world.visible_factors(species)}
    return scales


def floor_and_ceiling(judge, scales, vae=None, pairs=40):
    """Mean identity distance of the same identity (in another pose and scene) and of random identities."""
    results = {"same drawn": [], "random drawn": [], "same through the VAE": [], "random through the VAE": []}
    parts = {}
    for index, species in enumerate(world.SPECIES):
        rng = np.random.default_rng(910_000 + index)
        looks = [_random_look(rng) for _ in range(pairs)]
        first, second = _pictures(species, looks, rng), _pictures(species, looks, rng)
        for kind in ("drawn", "through the VAE"):
            if kind != "drawn":
                if vae is None:
                    continue
                first, second = through_vae(vae, first), through_vae(vae, second)
            a, b = judge.read(first), judge.read(second)
            other = {name: np.roll(value, 1, 0) for name, value in b.items()}
            same, same_parts = distances(a, b, species, scales)
            results["same " + kind] += list(same)
            results["random " + kind] += list(distances(a, other, species, scales)[0])
            if kind != "drawn":
                for name, value in same_parts.items():
                    parts.setdefault(name, []).extend(value)
    report = {name: round(float(np.mean(values)), 3) for name, values in results.items() if values}
    report["same through the VAE, per factor"] = {name: round(float(np.mean(v)), 3) for name, v in parts.items()}
    return report
