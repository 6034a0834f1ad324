#include "devices.h"

#include "counts.h"
#include "settings.h"

namespace fakecuda {
namespace {

thread_local c10::DeviceIndex current = 0;

// A generator that keeps its seed. Kernels draw from the CPU's generator.
struct FakeGenerator final : c10::GeneratorImpl {
  explicit FakeGenerator(c10::DeviceIndex index)
      : GeneratorImpl(c10::Device(kCuda, index), c10::DispatchKeySet(c10::DispatchKey::CUDA)) {}
  void set_current_seed(uint64_t seed) override {
    seed_ = seed;
  }
  void set_offset(uint64_t offset) override {
    offset_ = offset;
  }
  uint64_t get_offset() const override {
    return offset_;
  }
  uint64_t current_seed() const override {
    return seed_;
  }
  uint64_t seed() override {
    return seed_ = c10::detail::getNonDeterministicRandom();
  }
  void set_state(const c10::TensorImpl&) override {}
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    Tensor state = at::empty({16}, at::kByte);
    std::memcpy(state.data_ptr(), &seed_, 8);
    std::memcpy(static_cast<char*>(state.data_ptr()) + 8, &offset_, 8);
    return state.getIntrusivePtr();
  }

 private:
  FakeGenerator* clone_impl() const override {
    auto* copy = new FakeGenerator(device().index());
    copy->seed_ = seed_;
    copy->offset_ = offset_;
    return copy;
  }
  uint64_t seed_ = c10::default_rng_seed_val;
  uint64_t offset_ = 0;
};

// Kernels are finished when their call returns, so there is one stream and events have passed.
struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override {
    return kCuda;
  }
  c10::Device exchangeDevice(c10::Device device) const override {
    const auto old = getDevice();
    setDevice(device);
    return old;
  }
  c10::Device getDevice() const override {
    return {kCuda, current};
  }
  void setDevice(c10::Device device) const override {
    set_device(device.index());
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    current = device.index();
  }
  c10::Stream getStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::DEFAULT, device.has_index() ? device : getDevice());
  }
  c10::Stream getDefaultStream(c10::Device device) const override {
    return getStream(device);
  }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override {
    return getStream(device);
  }
  c10::Stream getNewStream(c10::Device device, int) const override {
    return getStream(device);
  }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    return getStream(stream.device());
  }
  void record(void** event, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {
    *event = const_cast<Guard*>(this);
  }
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override {
    return true;
  }
  c10::DeviceIndex deviceCount() const noexcept override {
    return static_cast<c10::DeviceIndex>(settings().devices);
  }
  bool queryStream(const c10::Stream&) const override {
    return true;
  }
  void synchronizeStream(const c10::Stream&) const override {
    waited("synchronize stream");
  }
  void synchronizeEvent(void*) const override {
    waited("synchronize event");
  }
  void synchronizeDevice(const c10::DeviceIndex) const override {
    waited("synchronize device");
  }
};

C10_REGISTER_GUARD_IMPL(CUDA, Guard)

}  // namespace

c10::DeviceIndex current_device() {
  return current;
}

void set_device(c10::DeviceIndex index) {
  check_index(index);
  current = index;
}

void check_index(c10::DeviceIndex index) {
  TORCH_CHECK(index >= 0 && static_cast<size_t>(index) < settings().devices, "CUDA error: invalid device ordinal");
}

at::Generator new_generator(c10::DeviceIndex index) {
  return at::make_generator<FakeGenerator>(index < 0 ? current : index);
}

}  // namespace fakecuda
