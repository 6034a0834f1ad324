"""Prints the operators that a CUDA build of libtorch has kernels for, as initialisers of C++.

The source is the table of operators that the torch wheel contains for its code generator. A row of the output is
{name, {the operator checks devices itself, there is also a composite kernel}}, see operators.h.

Usage: cuda_operators.py native_functions.yaml
"""

import re
import sys
from dataclasses import dataclass


@dataclass
class Operator:
    has_cuda_kernel: bool = False
    # Has no kernels of its own, but those of this operator.
    delegate: str = ""
    checks_devices: bool = False
    is_composite: bool = False


def read(path):
    """The operators of the table by name. Only the lines that matter here are parsed, without a YAML parser."""
    operators, operator, in_dispatch = {}, Operator(), False
    with open(path, encoding="utf-8") as file:
        for line in file:
            start = re.match(r"- func: *([\w.]+)\(", line)
            if start:
                operator = operators[start[1]] = Operator()
                in_dispatch = False
                continue
            text = line.split("#")[0].rstrip()
            key, _, value = (part.strip() for part in text.partition(":"))
            if text.startswith("    ") and in_dispatch:
                devices = [device.strip() for device in key.split(",")]
                operator.has_cuda_kernel |= "CUDA" in devices
                operator.is_composite |= any(device.startswith("Composite") for device in devices)
            elif text.startswith("  ") and key:
                in_dispatch = key == "dispatch"
                # torch's generator makes these for CPU and CUDA without a line of `dispatch`.
                operator.has_cuda_kernel |= key == "ufunc_inner_loop"
                operator.checks_devices |= key == "device_check" and value == "NoCheck"
                if key == "structured_delegate":
                    operator.delegate = value
    return operators


def main():
    operators = read(sys.argv[1])
    for name, operator in sorted(operators.items()):
        if operators.get(operator.delegate, operator).has_cuda_kernel:
            flags = f"{str(operator.checks_devices).lower()}, {str(operator.is_composite).lower()}"
            print(f'{{"aten::{name}", {{{flags}}}}},')


if __name__ == "__main__":
    main()
