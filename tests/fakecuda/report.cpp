// The report at the end of the process, as JSON: see README.md.

#include "counts.h"
#include "device_memory.h"
#include "settings.h"

#include <sys/syscall.h>
#include <unistd.h>

namespace fakecuda {
namespace {

std::string json(const std::map<std::string, int64_t>& numbers) {
  std::string text;
  for (const auto& [name, value] : numbers) {
    text += (text.empty() ? "\"" : ", \"") + name + "\": " + std::to_string(value);
  }
  return "{" + text + "}";
}

int64_t sum(const std::map<std::string, int64_t>& numbers) {
  int64_t sum = 0;
  for (const auto& [_, value] : numbers) {
    sum += value;
  }
  return sum;
}

std::string memory() {
  std::string text;
  for (const MemoryUse& use : memory_use()) {
    text += (text.empty() ? "" : ", ") + json({{"peak_bytes", use.peak_bytes},
                                               {"reach_bytes", use.reach_bytes},
                                               {"left_bytes", use.left_bytes},
                                               {"refusals", use.refusals}});
  }
  return "[" + text + "]";
}

void report() {
  if (settings().report == nullptr) {
    return;
  }
  FILE* file = std::fopen(settings().report, "w");
  if (file == nullptr) {
    std::fprintf(stderr, "FAKECUDA_REPORT: cannot write %s\n", settings().report);
    return;
  }
  auto& c = counts();
  std::lock_guard<std::mutex> held(c.mutex);
  const std::map<std::string, int64_t> totals{
      {"launches", sum(c.launches)},
      {"waits", sum(c.waits)},
      {"bytes_to_device", c.bytes_to_device},
      {"copies_to_device", c.copies_to_device},
      {"pageable_copies", c.pageable_copies},
      {"bytes_to_host", c.bytes_to_host},
      {"copies_to_host", c.copies_to_host},
      {"peak_pinned_bytes", static_cast<int64_t>(c.peak_pinned_bytes)},
  };
  std::fprintf(file, "{\"totals\": %s,\n\"memory\": %s,\n\"waits\": %s,\n\"launches\": %s,\n\"places\": %s}\n",
               json(totals).c_str(), memory().c_str(), json(c.waits).c_str(), json(c.launches).c_str(),
               json(c.places).c_str());
  std::fclose(file);
}

const int at_exit = (std::atexit(report), 0);

}  // namespace
}  // namespace fakecuda

// `oneactor` ends by `_exit`, which runs no handlers of `atexit`. This library is searched before
// the C library, so the program finds this function.
extern "C" __attribute__((visibility("default"), noreturn)) void _exit(int status) {
  fakecuda::report();
  for (;;) {
    syscall(SYS_exit_group, status);
  }
}
