// Counts of what the host asks of the devices: kernels, copies, and waits.

#pragma once

#include "libtorch.h"

namespace fakecuda {

struct Counts {
  std::mutex mutex;
  // Launched kernels by the name of their operator.
  std::map<std::string, int64_t> launches;
  // Waits of the host by reason.
  std::map<std::string, int64_t> waits;
  // With FAKECUDA_TRACE: what happened and the program's addresses that led to it.
  std::map<std::string, int64_t> places;
  int64_t bytes_to_device = 0;
  int64_t copies_to_device = 0;
  // Copies to the device from memory that is not pinned.
  int64_t pageable_copies = 0;
  int64_t bytes_to_host = 0;
  int64_t copies_to_host = 0;
  size_t pinned_bytes = 0;
  size_t peak_pinned_bytes = 0;
};

Counts& counts();

// A kernel was launched.
void launched(const std::string& name);

// The host waited until the device had finished.
void waited(const std::string& reason);

// The host sent this many bytes to the device.
void sent(int64_t bytes, bool is_pinned);

// The host received this many bytes from the device.
void received(int64_t bytes);

}  // namespace fakecuda
