// What the environment says about the simulated devices.

#pragma once

#include "libtorch.h"

namespace fakecuda {

enum class Trace { kNothing, kWaits, kAll };

struct Settings {
  // FAKECUDA_MEMORY: bytes of each device. More are refused as "CUDA out of memory".
  size_t memory;
  // FAKECUDA_PINNED: bytes of the host that can be pinned.
  size_t pinned;
  // FAKECUDA_DEVICES: number of devices. With 0, libtorch finds no GPU.
  size_t devices;
  // FAKECUDA_SM: compute capability times ten. From 90 on, cuDNN's attention is preferred.
  size_t capability;
  // FAKECUDA_ACCOUNT_ONLY=1: count memory and launches, compute nothing.
  bool account_only;
  // FAKECUDA_TRACE=waits or all: record which addresses of the program led to a wait or a launch.
  Trace trace;
  // FAKECUDA_REPORT: the file that is written when the process ends. Null: none.
  const char* report;
};

const Settings& settings();

}  // namespace fakecuda
