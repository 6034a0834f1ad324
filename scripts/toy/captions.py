"""How a picture is described to the model in training: the words of its caption, and the token states that the model
gets.

In real text, the context of a noun describes its look, so the state of the noun carries the look. Captions alone give
the toy this property: for most pictures the state of the noun comes from a caption that names the identity in front of
the noun, and all other token states come from the caption without adjectives.
"""

from dataclasses import dataclass

import numpy as np
import torch

import world


@dataclass
class Mix:
    """Shares of the ways to describe a picture; the rest gets the caption without adjectives."""

    empty: float = 0.10  # no caption
    noun: float = 0.62  # identity in the noun's state only
    named: float = 0.12  # adjectives as ordinary words


class Describer:
    def __init__(self, tokenizer, mix, rng):
        self.mix, self.rng = mix, rng
        self.start, self.end, self.length = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.model_max_length)
        vocabulary = tokenizer.get_vocab()
        self.word = {word: vocabulary[word + "</w>"] for word in world.all_words() + world.SPECIES + ["a"]}
        self.prefixes = [
            tokenizer(template.format(""), add_special_tokens=False)["input_ids"] for template in world.TEMPLATES
        ] + [[]] * 6

    def named_factors(self):
        """The factors that a caption names: all, about half, or one or two."""
        draw = self.rng.random()
        if draw < 0.5:
            return set(world.FACTOR_NAMES)
        if draw < 0.82:
            return {name for name in world.FACTOR_NAMES if self.rng.random() < 0.5}
        return set(self.rng.choice(world.FACTOR_NAMES, int(self.rng.integers(1, 3)), replace=False))

    def adjective_ids(self, species, classes):
        names = dict(zip(world.FACTOR_NAMES, classes))
        words = world.adjectives(world.SPECIES[species], names, self.named_factors())
        if self.rng.random() < 0.15:
            self.rng.shuffle(words)
        return [self.word[word] for word in words]

    def phrase_ids(self, species, classes):
        """'a photo of a wide striped red cat', and the same without adjectives. Both end with the noun, because a
        causal encoder reads only what comes before."""
        prefix = self.prefixes[int(self.rng.integers(len(self.prefixes)))]
        article = [self.word["a"]] if prefix or self.rng.random() < 0.7 else []
        begin, noun = [self.start, *prefix, *article], [self.word[world.SPECIES[species]]]
        return begin + self.adjective_ids(species, classes) + noun, begin + noun

    def batch(self, data, rows):
        """Token ids [B, S] of the identity phrases and of their bare phrases, and the (row, position) of each noun."""
        captions, phrases, places = [], [], []
        for row, i in enumerate(rows):
            ids = list(data["ids"][i])
            draw = self.rng.random()
            if draw < self.mix.empty:
                ids = [self.start] + [self.end] * (self.length - 1)
            elif draw < self.mix.empty + self.mix.noun:
                for subject in np.flatnonzero(data["nouns"][i]):
                    phrases.append(self.phrase_ids(data["species"][i, subject], data["classes"][i, subject]))
                    places.append((row, int(data["nouns"][i, subject])))
            elif draw < self.mix.empty + self.mix.noun + self.mix.named:
                ids = self.with_adjectives(ids, data, i)
            captions.append(ids)
        return torch.tensor(np.array(captions), dtype=torch.long), phrases, places

    def with_adjectives(self, ids, data, i):
        for subject in np.flatnonzero(data["nouns"][i])[::-1]:
            at = int(data["nouns"][i, subject])
            longer = ids[:at] + self.adjective_ids(data["species"][i, subject], data["classes"][i, subject]) + ids[at:]
            if longer.index(self.end) < self.length:
                ids = longer[: self.length]
        return ids

    def second(self, ids):
        """The same captions for the second tokenizer, which pads with token 0 instead of the end mark."""
        after_end = (ids == self.end).long().cumsum(1) > 1
        return ids.masked_fill(after_end, 0)


def pad(phrases):
    length = max(map(len, phrases))
    return torch.tensor([ids + [0] * (length - len(ids)) for ids in phrases])
