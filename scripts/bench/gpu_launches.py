"""Launches of one step, and waits of the host, on the simulated GPU; and diffusers' launches of the same U-Net pass.

A command is run with two numbers of steps; the difference belongs to the steps between. Launches do not depend on a
GPU's speed, so the figures are exact: one operator of libtorch counts as one launch, views and allocations as none.
diffusers' operators are counted alike, on its eager U-Net of SDXL without values ("meta" tensors). Writes
gpu_launches.md into the folder. At full size the simulation computes nothing, see gpu_memory.py.

Requirements: scripts/bench/requirements.txt; cargo build --release --locked --bins --examples; tests/fakecuda/build.sh
Usage: gpu_launches.py [--size full|mini|thin|tiny] [--side 1024] [--out target/bench]
"""

import json

import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

import random_sdxl
from gpu_memory import TWO, options, simulated_jobs
from memory import with_flags

# Operators that launch no kernel.
VIEWS = set(
    "view _unsafe_view reshape _reshape_alias transpose t permute expand slice select split split_with_sizes chunk "
    "unsqueeze squeeze detach alias as_strided unbind narrow empty empty_like".split()
)
FEW, MANY = 2, 4


class Launches(TorchDispatchMode):
    """Counts operators."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.overloadpacket.__name__ not in VIEWS
        return function(*args, **(kwargs or {}))


def of_diffusers(side):
    """Launches of one pass of diffusers' U-Net of SDXL, with two rows in fp16."""
    from diffusers import UNet2DConditionModel

    fused = functional.scaled_dot_product_attention
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(random_sdxl.UNET).half().eval()
        sample = torch.empty(2, 4, side // 8, side // 8).half()
        text, pooled, sizes = torch.empty(2, 77, 2048).half(), torch.empty(2, 1280).half(), torch.empty(2, 6).half()
        timesteps = torch.empty(2)
    launches, fused_launches = Launches(), []

    def attention(query, *others, **options):
        # One fused kernel on a GPU; on "meta" it would be several operators.
        fused_launches.append(query.shape)
        return torch.empty_like(query)

    functional.scaled_dot_product_attention = attention
    try:
        with torch.no_grad(), launches:
            unet(sample, timesteps, text, added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes})
    finally:
        functional.scaled_dot_product_attention = fused
    return launches.count + len(fused_launches)


def per_step(machine, command, flags):
    """Launches and waits of one step of a command; `flags` are those for a number of steps."""
    reports = []
    for steps in (FEW, MANY):
        machine.run(with_flags(command, flags(steps)))
        reports.append(json.loads((machine.folder / "report.json").read_text())["totals"])
    few, many = reports
    return [(many[key] - few[key]) / (MANY - FEW) for key in ("launches", "waits")]


def main():
    args = options(__doc__).parse_args()
    machine, jobs = simulated_jobs(args, FEW)
    drawing = ["no actor", "one actor", "two actors with masks"]
    cases = [
        jobs.sample(drawing[0], words=()),
        jobs.sample(drawing[1]),
        jobs.sample(drawing[2], words=("robot", "cat"), prompt=TWO),
        jobs.tune("5 rows at once", "--micro-batch", 5),
    ]
    rows = []
    for case in cases:
        is_tuning = case.name.startswith("tune")
        is_guided = "--guided-steps" in case.command

        def flags(steps, is_tuning=is_tuning, is_guided=is_guided):
            if is_tuning:
                return ["--max-steps", steps]
            return ["--num-images", 1, "--steps", steps, *(["--guided-steps", f"1-{steps}"] if is_guided else [])]

        rows.append([case.name, *per_step(machine, case.command, flags)])
    if args.size == "full":
        rows.append(["a pass of diffusers' U-Net, eager", of_diffusers(args.side), ""])
    text = "| step of | launches | waits |\n| --- | --- | --- |\n"
    text += "".join(f"| {name} | {launches:g} | {waits} |\n" for name, launches, waits in rows)
    (args.out / "gpu_launches.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
