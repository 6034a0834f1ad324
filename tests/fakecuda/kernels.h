// The kernels of operators: those of the CPU, called through libtorch's dispatcher.

#pragma once

#include "libtorch.h"

namespace fakecuda {

// Calls the kernel of the arguments' device. With `in_float`, fp16 and bf16 become f32 before the
// call, and f32 results become `half`.
torch::jit::Stack call(const c10::OperatorHandle& op, const torch::jit::Stack& arguments, bool in_float,
                       at::ScalarType half);

}  // namespace fakecuda
