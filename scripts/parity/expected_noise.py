"""Initial noise as torch draws it for single pictures: `noise.safetensors`, with keys SEED.CxHxW.

The sizes have fewer than 16 values, a number of values that is no multiple of 16, and one that is: torch draws each of
the three in another way. In a batch, torch draws a picture that ends within 16 values differently from the picture
alone. Only the lowest 32 bits of a seed count.
"""

import torch
from diffusers.utils.torch_utils import randn_tensor

from expected_models import save

SIZES = [(4, 1, 1), (4, 1, 3), (4, 3, 5), (4, 9, 13), (16, 3, 3), (3, 5, 5), (4, 8, 8)]
SEEDS = [0, 1, 2**32 - 1, 2**32, 2**40 + 7]


def write(path):
    tensors = {}
    for size in SIZES:
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in SEEDS]
        for seed, noise in zip(SEEDS, randn_tensor((len(SEEDS), *size), generator=generators)):
            alone = torch.randn((1, *size), generator=torch.Generator("cpu").manual_seed(seed))
            assert torch.equal(noise[None], alone)
            tensors[f"{seed}.{'x'.join(map(str, size))}"] = alone
        assert torch.equal(tensors[f"0.{'x'.join(map(str, size))}"], tensors[f"{2**32}.{'x'.join(map(str, size))}"])
    together = torch.randn((2, 4, 3, 5), generator=torch.Generator("cpu").manual_seed(0))
    assert not torch.equal(together[:1], tensors["0.4x3x5"])
    save(path, tensors)
