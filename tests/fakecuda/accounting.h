// Results without values, for FAKECUDA_ACCOUNT_ONLY: only their sizes matter.

#pragma once

#include "host_side.h"

namespace fakecuda {

// The results of an operator. `given` are its arguments on the device, `without_values` the same as
// tensors of libtorch's "meta" device, and `side` holds the pairs of both. Where the kernels of the
// meta device are not used, `side` is emptied and tensors on the device already have their new size.
torch::jit::Stack account(const c10::OperatorHandle& op, const std::string& name, const torch::jit::Stack& given,
                          const torch::jit::Stack& without_values, HostSide& side);

}  // namespace fakecuda
