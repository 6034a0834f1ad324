// Pinned memory of the host, which a device can read directly.

#pragma once

#include "libtorch.h"

namespace fakecuda {

c10::Allocator& pinned_memory();

bool is_pinned(const void* pointer);

}  // namespace fakecuda
