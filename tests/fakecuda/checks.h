// libtorch's rules for the devices and dtypes of an operator's arguments.

#pragma once

#include "libtorch.h"
#include "operators.h"

namespace fakecuda {

// Refuses arguments of operator `name` that a GPU's kernel refuses, and counts indices that are on
// the host, which libtorch copies to the device.
void check_arguments(const std::string& name, const Operator& rules, const c10::FunctionSchema& schema,
                     const torch::jit::Stack& arguments);

// All defined tensors must be on one device and have one dtype.
void check_alike(const char* name, std::initializer_list<Tensor> tensors);

}  // namespace fakecuda
