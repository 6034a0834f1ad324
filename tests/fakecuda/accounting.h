// Results without values, for FAKECUDA_ACCOUNT_ONLY: only their sizes matter.

#pragma once

#include "libtorch.h"

namespace fakecuda {

// The results of an operator. `given` are its arguments on the device, `without_values` the same as
// tensors of libtorch's "meta" device.
torch::jit::Stack account(const c10::OperatorHandle& op, const std::string& name, const torch::jit::Stack& given,
                          const torch::jit::Stack& without_values);

}  // namespace fakecuda
