// Kernels that make tensors.

#pragma once

#include "libtorch.h"

namespace fakecuda {

Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> type, std::optional<at::Layout>,
             std::optional<at::Device> device, std::optional<bool> is_pinned,
             std::optional<at::MemoryFormat> format);

}  // namespace fakecuda
