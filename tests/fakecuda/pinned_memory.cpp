#include "pinned_memory.h"

#include "counts.h"
#include "settings.h"

namespace fakecuda {
namespace {

struct Blocks {
  std::mutex mutex;
  // Sizes by where they begin.
  std::map<const char*, size_t> sizes;
};

Blocks& blocks() {
  static auto* blocks = new Blocks();
  return *blocks;
}

// libtorch rounds pinned blocks up to a power of two.
size_t rounded(size_t bytes) {
  size_t size = 4096;
  while (size < bytes) {
    size *= 2;
  }
  return size;
}

void free_pinned(void* pointer) {
  std::lock_guard<std::mutex> held(blocks().mutex);
  const auto found = blocks().sizes.find(static_cast<char*>(pointer));
  counts().pinned_bytes -= found->second;
  blocks().sizes.erase(found);
  std::free(pointer);
}

struct PinnedMemory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes == 0) {
      return {nullptr, c10::Device(c10::DeviceType::CPU)};
    }
    std::lock_guard<std::mutex> held(blocks().mutex);
    const size_t size = rounded(bytes);
    const bool has_room = counts().pinned_bytes + size <= settings().pinned;
    void* pointer = has_room ? std::aligned_alloc(4096, size) : nullptr;
    TORCH_CHECK_WITH(OutOfMemoryError, pointer != nullptr, "CUDA error: out of memory");
    blocks().sizes[static_cast<char*>(pointer)] = size;
    counts().pinned_bytes += size;
    counts().peak_pinned_bytes = std::max(counts().peak_pinned_bytes, counts().pinned_bytes);
    return {pointer, pointer, &free_pinned, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return &free_pinned;
  }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }
};

}  // namespace

c10::Allocator& pinned_memory() {
  static auto* memory = new PinnedMemory();
  return *memory;
}

bool is_pinned(const void* pointer) {
  std::lock_guard<std::mutex> held(blocks().mutex);
  const auto at = static_cast<const char*>(pointer);
  auto block = blocks().sizes.upper_bound(at);
  if (block == blocks().sizes.begin()) {
    return false;
  }
  --block;
  return at < block->first + block->second;
}

}  // namespace fakecuda
