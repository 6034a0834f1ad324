"""How the time of a pass is divided among families of kernels. PyTorch's profiler gives the names of the kernels; the
names show the family.

On a GPU these are its kernels and copies; on a CPU, in a dry run, they are PyTorch's operators.
"""

import re
from dataclasses import dataclass, field, replace

from torch.autograd import DeviceType

# The first matching pattern decides, because attention and convolutions also consist of products, and cuDNN changes
# layouts.
FAMILIES = {
    "attention": "flash|fmha|sdpa|attention|softmax",
    "copies and layouts": (
        "nchwtonhwc|nhwctonchw|transpose|copy|memcpy|memset|aten::(cat|clone|contiguous|fill_|to|_to_copy)$"
    ),
    "norms": "norm|rowwisemoments|fusedparams|welford",
    "convolutions": "conv(?!ert)|fprop|dgrad|wgrad|winograd|cudnn",
    "matrix products": "gemm|gemv|splitk|nvjet|cutlass|cublas|aten::(addmm|mm|bmm|baddbmm|linear|matmul)$",
    "pointwise": "elementwise|upsample|aten::(add|sub|mul|div|silu|gelu|sin|cos|exp)_?$",
}
OTHER = "other"
LONGEST = 20


def family(name):
    return next((known for known, pattern in FAMILIES.items() if re.search(pattern, name, re.IGNORECASE)), OTHER)


def found(profiler, on_gpu):
    """Milliseconds and calls of each family, and of the longest kernels by name."""
    device = DeviceType.CUDA if on_gpu else DeviceType.CPU
    time = lambda event: (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e3
    events = [event for event in profiler.key_averages() if event.device_type == device]
    families = {name: [0.0, 0] for name in (*FAMILIES, OTHER)}
    for event in events:
        total = families[family(event.key)]
        total[0] += time(event)
        total[1] += event.count
    if not sum(total[0] for total in families.values()):
        raise RuntimeError("the profiler recorded no kernel")
    longest = sorted(events, key=time, reverse=True)[:LONGEST]
    return {"families": families, "longest": [[event.key, time(event), event.count] for event in longest]}


@dataclass
class Profile:
    """The families of one piece of work, each with [milliseconds, calls]; the longest kernels are only in the JSON."""

    work: str
    families: dict
    longest: list = field(default_factory=list)

    def without_figures(self):
        return replace(self, families=dict.fromkeys(self.families), longest=[])

    def markdown(self):
        measured = [total[0] for total in self.families.values() if total]
        text = f"### {self.work}\n\n| kernels | share | ms | calls |\n| --- | --- | --- | --- |\n"
        for name, total in self.families.items():
            cells = (
                ["", "", ""] if total is None else [f"{total[0] / sum(measured):.1%}", f"{total[0]:.2f}", str(total[1])]
            )
            text += f"| {' | '.join([name, *cells])} |\n"
        return text + (f"| all | | {sum(measured):.2f} | |\n" if measured else "")
