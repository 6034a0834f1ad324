// The headers of libtorch and of the standard library that the files here use. build.sh compiles
// this file once (a precompiled header), because libtorch's headers take most of the build time.
// `#pragma once` does not work in a precompiled header.

#ifndef FAKECUDA_LIBTORCH_H
#define FAKECUDA_LIBTORCH_H

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/SDPBackend.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/native/ConvUtils.h>
#include <ATen/native/transformers/attention.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_as_complex_native.h>
#include <ATen/ops/view_as_real_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace fakecuda {

using at::Tensor;
using c10::IValue;

constexpr c10::DeviceType kCuda = c10::DeviceType::CUDA;

}  // namespace fakecuda

#endif  // FAKECUDA_LIBTORCH_H
