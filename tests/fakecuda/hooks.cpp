// What libtorch asks a CUDA build about itself.

#include "counts.h"
#include "device_memory.h"
#include "devices.h"
#include "pinned_memory.h"
#include "settings.h"

namespace at {

// libtorch looks for a class of this name.
struct CUDAHooks final : CUDAHooksInterface {
  explicit CUDAHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override {
    return true;
  }
  bool isAvailable() const override {
    return hasCUDA();
  }
  const Generator& getDefaultGenerator(DeviceIndex index) const override {
    static auto* generators = [] {
      auto* made = new std::vector<Generator>();
      for (size_t i = 0; i < fakecuda::settings().devices; i++) {
        made->push_back(fakecuda::new_generator(static_cast<DeviceIndex>(i)));
      }
      return made;
    }();
    return generators->at(index < 0 ? fakecuda::current_device() : index);
  }
  Generator getNewGenerator(DeviceIndex index) const override {
    return fakecuda::new_generator(index);
  }
  Device getDeviceFromPtr(void* data) const override {
    return {fakecuda::kCuda, fakecuda::device_of(data)};
  }
  bool isPinnedPtr(const void* data) const override {
    return fakecuda::is_pinned(data);
  }
  bool hasCUDA() const override {
    return fakecuda::settings().devices > 0;
  }
  bool hasCUDART() const override {
    return true;
  }
  bool hasCuDNN() const override {
    return true;
  }
  bool hasCuBLASLt() const override {
    return true;
  }
  bool hasPrimaryContext(DeviceIndex) const override {
    return true;
  }
  DeviceIndex deviceCount() const override {
    return static_cast<DeviceIndex>(fakecuda::settings().devices);
  }
  int getNumGPUs() const override {
    return deviceCount();
  }
  void setCurrentDevice(DeviceIndex index) const override {
    fakecuda::set_device(index);
  }
  DeviceIndex getCurrentDevice() const override {
    return fakecuda::current_device();
  }
  DeviceIndex current_device() const override {
    return fakecuda::current_device();
  }
  Allocator* getPinnedMemoryAllocator() const override {
    return &fakecuda::pinned_memory();
  }
  Allocator* getCUDADeviceAllocator() const override {
    return &fakecuda::device_memory();
  }
  bool compiledWithCuDNN() const override {
    return true;
  }
  bool supportsDilatedConvolutionWithCuDNN() const override {
    return true;
  }
  bool supportsDepthwiseConvolutionWithCuDNN() const override {
    return true;
  }
  bool supportsBFloat16ConvolutionWithCuDNNv8() const override {
    return true;
  }
  // No epsilon is this large, so libtorch's own batch norm is used instead of cuDNN's.
  double batchnormMinEpsilonCuDNN() const override {
    return 1e9;
  }
  long versionCuDNN() const override {
    return 91900;
  }
  long versionRuntimeCuDNN() const override {
    return 91900;
  }
  long versionCUDART() const override {
    return 13000;
  }
  std::string showConfig() const override {
    return "simulated";
  }
  void deviceSynchronize(DeviceIndex) const override {
    fakecuda::waited("synchronize device");
  }
};

REGISTER_CUDA_HOOKS(CUDAHooks)

}  // namespace at

// `oneactor doctor` looks for this name.
extern "C" __attribute__((visibility("default"))) const char oneactor_simulated_cuda = 1;
