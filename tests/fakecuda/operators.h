// What is known about libtorch's operators on a GPU.

#pragma once

#include "libtorch.h"

namespace fakecuda {

struct Operator {
  // The operator compares the devices of its arguments itself and accepts CPU tensors of one value.
  // All other operators refuse every tensor that is not on the device.
  bool checks_devices;
  // There is also a composite kernel, which the dispatcher would use if none were registered.
  bool is_composite;
};

// All operators that a CUDA build has kernels for, by name ("aten::mm.out").
const std::unordered_map<std::string, Operator>& operators();

// Kernels that wait for the device: the size of the result depends on values, or the host needs the
// result.
bool always_waits(const std::string& name);

// Products of matrices: a GPU sums them in f32, needs equal dtypes, and cannot multiply integers.
bool is_product(const std::string& name);

// Operators that take lists of indices, which may be on the host.
bool takes_indices(const std::string& name);

}  // namespace fakecuda
