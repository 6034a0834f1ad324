// The simulated devices: which one is current, and libtorch's guard and random generators.

#pragma once

#include "libtorch.h"

namespace fakecuda {

// The device of this thread that new tensors lie on.
c10::DeviceIndex current_device();

void set_device(c10::DeviceIndex index);

// Refuses the number of a device that does not exist, in CUDA's words.
void check_index(c10::DeviceIndex index);

at::Generator new_generator(c10::DeviceIndex index);

}  // namespace fakecuda
