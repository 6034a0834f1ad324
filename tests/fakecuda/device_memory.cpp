#include "device_memory.h"

#include "devices.h"
#include "settings.h"

#include <sys/mman.h>

namespace fakecuda {
namespace {

using c10::CachingDeviceAllocator::DeviceStats;

// The allocator of libtorch gives blocks in multiples of this.
constexpr size_t kUnit = 512;

size_t rounded(size_t bytes) {
  return (bytes + kUnit - 1) / kUnit * kUnit;
}

// The memory of one device: the first gap that is large enough becomes a block.
class Arena {
 public:
  explicit Arena(c10::DeviceIndex index) : index_(index) {
    device_ = map(PROT_NONE);
    host_ = settings().account_only ? nullptr : map(PROT_READ | PROT_WRITE);
    gaps_[0] = kSize;
  }

  void* allocate(size_t bytes) {
    std::lock_guard<std::mutex> held(mutex_);
    const size_t size = rounded(bytes);
    const size_t used = static_cast<size_t>(stats_.allocated_bytes[0].current);
    if (used + size > settings().memory) {
      refuse(bytes, used);
    }
    const auto gap = std::find_if(gaps_.begin(), gaps_.end(), [&](const auto& gap) { return gap.second >= size; });
    TORCH_CHECK(gap != gaps_.end(), "fakecuda: no addresses left for ", bytes, " bytes");
    const auto [at, length] = *gap;
    gaps_.erase(gap);
    if (length > size) {
      gaps_[at + size] = length - size;
    }
    blocks_[at] = size;
    reach_ = std::max(reach_, at + size);
    stats_.allocated_bytes[0].increase(size);
    stats_.allocation[0].increase(1);
    return device_ + at;
  }

  void free(void* pointer) {
    std::lock_guard<std::mutex> held(mutex_);
    const size_t at = static_cast<char*>(pointer) - device_;
    const auto block = blocks_.find(at);
    const size_t size = block->second;
    blocks_.erase(block);
    stats_.allocated_bytes[0].decrease(size);
    stats_.allocation[0].decrease(1);
    give_pages_back(at, size);
    add_gap(at, size);
  }

  c10::DeviceIndex index() const {
    return index_;
  }

  bool holds(const void* pointer) const {
    return pointer >= device_ && pointer < device_ + kSize;
  }

  void* host(const void* pointer) const {
    return host_ + (static_cast<const char*>(pointer) - device_);
  }

  DeviceStats stats() {
    std::lock_guard<std::mutex> held(mutex_);
    return stats_;
  }

  void reset_peak() {
    std::lock_guard<std::mutex> held(mutex_);
    peak_before_ = peak();
    stats_.allocated_bytes[0].reset_peak();
  }

  MemoryUse use() {
    std::lock_guard<std::mutex> held(mutex_);
    return {peak(), static_cast<int64_t>(reach_), stats_.allocated_bytes[0].current, stats_.num_ooms};
  }

 private:
  // Addresses of a device; memory is used only for the pages that kernels write.
  static constexpr size_t kSize = size_t{1} << 40;

  static char* map(int protection) {
    void* at = mmap(nullptr, kSize, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    TORCH_CHECK(at != MAP_FAILED, "fakecuda: no address space");
    return static_cast<char*>(at);
  }

  // The message of libtorch's own allocator.
  [[noreturn]] void refuse(size_t bytes, size_t used) {
    stats_.num_ooms += 1;
    const double gib = 1024.0 * 1024.0 * 1024.0;
    TORCH_CHECK_WITH(OutOfMemoryError, false, "CUDA out of memory. Tried to allocate ", bytes / gib, " GiB. GPU ",
                     static_cast<int>(index_), " has a total capacity of ", settings().memory / gib,
                     " GiB of which ", (settings().memory - used) / gib, " GiB is free.");
    std::abort();
  }

  void give_pages_back(size_t at, size_t size) const {
    constexpr size_t kPage = 4096, kWorthIt = size_t{1} << 20;
    if (host_ != nullptr && size >= kWorthIt) {
      const size_t begin = (at + kPage - 1) / kPage * kPage, end = (at + size) / kPage * kPage;
      madvise(host_ + begin, end - begin, MADV_DONTNEED);
    }
  }

  // Neighbouring gaps become one.
  void add_gap(size_t at, size_t size) {
    auto after = gaps_.lower_bound(at);
    if (after != gaps_.end() && at + size == after->first) {
      size += after->second;
      after = gaps_.erase(after);
    }
    if (after != gaps_.begin()) {
      const auto before = std::prev(after);
      if (before->first + before->second == at) {
        before->second += size;
        return;
      }
    }
    gaps_[at] = size;
  }

  int64_t peak() const {
    return std::max(peak_before_, stats_.allocated_bytes[0].peak);
  }

  c10::DeviceIndex index_;
  std::mutex mutex_;
  char* device_;
  char* host_;
  // Sizes by where they begin.
  std::map<size_t, size_t> gaps_, blocks_;
  DeviceStats stats_;
  size_t reach_ = 0;
  int64_t peak_before_ = 0;
};

std::vector<Arena*>& arenas() {
  static auto* arenas = [] {
    auto* made = new std::vector<Arena*>();
    for (size_t i = 0; i < settings().devices; i++) {
      made->push_back(new Arena(static_cast<c10::DeviceIndex>(i)));
    }
    return made;
  }();
  return *arenas;
}

Arena& arena(c10::DeviceIndex index) {
  check_index(index);
  return *arenas()[index];
}

Arena& arena_of(const void* pointer) {
  for (Arena* arena : arenas()) {
    if (arena->holds(pointer)) {
      return *arena;
    }
  }
  TORCH_CHECK(false, "CUDA error: invalid argument: not a device pointer");
}

void free_device(void* pointer) {
  arena_of(pointer).free(pointer);
}

struct DeviceMemory final : c10::DeviceAllocator {
  c10::DataPtr allocate(size_t bytes) override {
    const c10::Device device(kCuda, current_device());
    if (bytes == 0) {
      return {nullptr, device};
    }
    void* pointer = arena(device.index()).allocate(bytes);
    return {pointer, pointer, &free_device, device};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return &free_device;
  }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    if (!settings().account_only) {
      std::memcpy(host_bytes(to), host_bytes(from), bytes);
    }
  }
  bool initialized() override {
    return true;
  }
  void emptyCache(c10::MempoolId_t) override {}
  void recordStream(const c10::DataPtr&, c10::Stream) override {}
  DeviceStats getDeviceStats(c10::DeviceIndex index) override {
    return arena(index).stats();
  }
  void resetAccumulatedStats(c10::DeviceIndex) override {}
  void resetPeakStats(c10::DeviceIndex index) override {
    arena(index).reset_peak();
  }
};

}  // namespace

c10::DeviceAllocator& device_memory() {
  static auto* memory = new DeviceMemory();
  return *memory;
}

void* host_bytes(const void* device_pointer) {
  return device_pointer == nullptr ? nullptr : arena_of(device_pointer).host(device_pointer);
}

c10::DeviceIndex device_of(const void* device_pointer) {
  return arena_of(device_pointer).index();
}

std::vector<MemoryUse> memory_use() {
  std::vector<MemoryUse> all;
  for (Arena* arena : arenas()) {
    all.push_back(arena->use());
  }
  return all;
}

namespace {
const int registered = (c10::SetAllocator(kCuda, &device_memory()), 0);
}

}  // namespace fakecuda
