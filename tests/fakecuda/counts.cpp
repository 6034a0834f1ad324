#include "counts.h"

#include "settings.h"

#include <dlfcn.h>
#include <execinfo.h>

namespace fakecuda {
namespace {

// Addresses in the program itself, not in libraries, of the calls that led here; the innermost
// first. places.py turns them into names of functions.
std::string place() {
  constexpr int kMostFrames = 96, kMostShown = 24;
  void* frames[kMostFrames];
  const int depth = backtrace(frames, kMostFrames);
  std::string text;
  int shown = 0;
  for (int i = 0; i < depth && shown < kMostShown; i++) {
    Dl_info info;
    const bool is_known = dladdr(frames[i], &info) != 0 && info.dli_fname != nullptr;
    if (!is_known || std::strstr(info.dli_fname, ".so") != nullptr) {
      continue;
    }
    // The address is where the call returns to; one byte before belongs to the call.
    const auto offset = static_cast<char*>(frames[i]) - static_cast<char*>(info.dli_fbase) - 1;
    char address[32];
    std::snprintf(address, sizeof address, " %lx", static_cast<unsigned long>(offset));
    text += address;
    shown++;
  }
  return text;
}

void note(std::map<std::string, int64_t>& group, const std::string& name, Trace least) {
  const bool is_traced = settings().trace >= least;
  const std::string where = is_traced ? name + ":" + place() : std::string();
  std::lock_guard<std::mutex> held(counts().mutex);
  group[name] += 1;
  if (is_traced) {
    counts().places[where] += 1;
  }
}

}  // namespace

Counts& counts() {
  static auto* counts = new Counts();
  return *counts;
}

void launched(const std::string& name) {
  note(counts().launches, name, Trace::kAll);
}

void waited(const std::string& reason) {
  note(counts().waits, reason, Trace::kWaits);
}

void sent(int64_t bytes, bool is_pinned) {
  std::lock_guard<std::mutex> held(counts().mutex);
  counts().bytes_to_device += bytes;
  counts().copies_to_device += 1;
  counts().pageable_copies += is_pinned ? 0 : 1;
}

void received(int64_t bytes) {
  std::lock_guard<std::mutex> held(counts().mutex);
  counts().bytes_to_host += bytes;
  counts().copies_to_host += 1;
}

}  // namespace fakecuda
