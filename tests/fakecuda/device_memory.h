// Memory of the simulated devices.
//
// A device pointer lies in a range of addresses that nothing may touch: a host that reads it ends
// with SIGSEGV, as with a GPU. The bytes themselves lie in a second range of the same size, where
// only the kernels look.

#pragma once

#include "libtorch.h"

namespace fakecuda {

// The allocator of all devices; it allocates on the current device.
c10::DeviceAllocator& device_memory();

// Where the bytes of a device pointer are. Null for null.
void* host_bytes(const void* device_pointer);

// The device that a pointer belongs to.
c10::DeviceIndex device_of(const void* device_pointer);

// What a device has held since the process began.
struct MemoryUse {
  int64_t peak_bytes;
  // The end of the highest block: what a simple first-fit layout needs, with its gaps.
  int64_t reach_bytes;
  // Bytes that were never freed.
  int64_t left_bytes;
  // Allocations that were refused.
  int64_t refusals;
};

// One entry for each device.
std::vector<MemoryUse> memory_use();

}  // namespace fakecuda
