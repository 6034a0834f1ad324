"""How well the small CLIP's scores agree with the drawn pictures: `python clip_agreement.py FOLDER`.

The pictures are drawn with new seeds, not those of the training. CLIP-I is compared with the identity distance that the
judge reads (0: the same look, 1: as different as two random identities), and with whether the identity is the same.
CLIP-T is compared with the number of correct parts in a caption, of subject and scene. The correlations are Spearman's;
those about looks are within one species.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from transformers import CLIPModel, CLIPTokenizer

import identity
import judge
import scenes
import training
import world

PAIRS = 60  # identities a species, two pictures each
SCENES = scenes.NAMES[1:]


def ranks(values):
    order = np.argsort(values, kind="stable")
    result = np.empty(len(values))
    result[order] = np.arange(len(values))
    for value in np.unique(values):
        result[values == value] = result[values == value].mean()
    return result


def spearman(a, b):
    return float(np.corrcoef(ranks(np.asarray(a, float)), ranks(np.asarray(b, float)))[0, 1])


def above(first, second):
    """Share of all pairs in which a value of `first` is larger than one of `second`: the area under the ROC curve."""
    return float((np.asarray(first)[:, None] > np.asarray(second)[None]).mean())


class Clip:
    def __init__(self, folder):
        self.model = CLIPModel.from_pretrained(folder, torch_dtype=torch.float32).eval()
        self.tokenizer = CLIPTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def pictures(self, images):
        pooled = self.model.vision_model(pixel_values=training.to_pixels(images)).pooler_output
        return self._unit(self.model.visual_projection(pooled))

    @torch.no_grad()
    def texts(self, texts):
        ids = self.tokenizer(texts, padding="max_length", max_length=32, truncation=True, return_tensors="pt").input_ids
        return self._unit(self.model.text_projection(self.model.text_model(input_ids=ids).pooler_output))

    @staticmethod
    def _unit(values):
        return torch.nn.functional.normalize(values, dim=-1).numpy()


def draw(species, scene_names, rng, looks):
    pictures = [world.Picture([world.Subject(species, *look)], scene) for look, scene in zip(looks, scene_names)]
    return np.stack([world.render(picture, rng) for picture in pictures])


def looks_of(rng, count):
    classes = [world.draw_identity(rng) for _ in range(count)]
    return [(each, world.make_look(each, rng)) for each in classes]


def likeness(clip, reader, scales):
    """CLIP-I of pairs in two scenes: correlation with the identity distance, and same identities compared with
    others."""
    rows = {"distance": [], "same_above_other": [], "same": [], "other": []}
    for index, species in enumerate(world.SPECIES):
        rng = np.random.default_rng(920_000 + index)
        looks = looks_of(rng, PAIRS)
        sides = [draw(species, rng.choice(SCENES, PAIRS), rng, looks) for _ in range(2)]
        embeds = [clip.pictures(images) for images in sides]
        answers = [reader.read(images) for images in sides]
        same, other, distances = (embeds[0] * embeds[1]).sum(1), [], []
        cosines = list(same)
        distances += list(identity.distances(*answers, species, scales)[0])
        for shift in (1, 2, 3):
            rolled = {name: np.roll(value, shift, 0) for name, value in answers[1].items()}
            other += list((embeds[0] * np.roll(embeds[1], shift, 0)).sum(1))
            distances += list(identity.distances(answers[0], rolled, species, scales)[0])
        cosines += other
        rows["distance"].append(spearman(cosines, distances))
        rows["same_above_other"].append(above(same, other))
        rows["same"].append(float(np.mean(same)))
        rows["other"].append(float(np.mean(other)))
    return {name: round(float(np.mean(values)), 3) for name, values in rows.items()}


def naming(clip):
    """CLIP-T of right and wrong captions, and how often the nearest caption has the right subject and scene."""
    rng = np.random.default_rng(930_000)
    subjects = [f"a photo of {world.article(name)}" for name in world.SPECIES]
    places = [scenes.PHRASES[name][0] for name in SCENES]
    texts = clip.texts([f"{subject}, {place}" for subject in subjects for place in places])
    cosines, right, hits = [], [], []
    for subject, species in enumerate(world.SPECIES):
        names = rng.choice(len(SCENES), 4 * len(SCENES))
        images = draw(species, [SCENES[i] for i in names], rng, looks_of(rng, len(names)))
        table = clip.pictures(images) @ texts.T
        nearest = table.argmax(1)
        hits.append([(nearest // len(places) == subject).mean(), (nearest % len(places) == names).mean()])
        count = np.zeros(table.shape)
        count.reshape(len(images), len(subjects), len(places))[:, subject] += 1
        for row, scene in enumerate(names):
            count[row].reshape(len(subjects), len(places))[:, scene] += 1
        # Equal numbers of captions with two, one and no right part, so that wrong captions do not dominate.
        for parts in (2, 1, 0):
            rows = rng.permutation(np.argwhere(count == parts))[: len(images)]
            cosines += list(table[rows[:, 0], rows[:, 1]])
            right += [parts] * len(rows)
    subject, scene = np.mean(hits, 0)
    means = {
        f"clip_t with {n} right": round(float(np.mean([c for c, r in zip(cosines, right) if r == n])), 3)
        for n in (2, 1, 0)
    }
    return dict(
        right_parts=round(spearman(cosines, right), 3),
        subject=round(float(subject), 3),
        scene=round(float(scene), 3),
        **means,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    clip, (reader, facts) = Clip(args.folder), judge.load()
    report = {"clip_i": likeness(clip, reader, facts["identity_scales"]), "clip_t": naming(clip)}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
