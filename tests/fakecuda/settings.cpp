#include "settings.h"

namespace fakecuda {
namespace {

[[noreturn]] void refuse(const char* name, const char* found, const char* expected) {
  std::fprintf(stderr, "%s: found \"%s\", expected %s\n", name, found, expected);
  std::_Exit(2);
}

size_t number(const char* name, size_t otherwise) {
  const char* text = std::getenv(name);
  if (text == nullptr) {
    return otherwise;
  }
  char* end = nullptr;
  const size_t value = std::strtoull(text, &end, 10);
  if (*text < '0' || *text > '9' || *end != '\0') {
    refuse(name, text, "a whole number");
  }
  return value;
}

Trace trace() {
  const char* text = std::getenv("FAKECUDA_TRACE");
  if (text == nullptr) {
    return Trace::kNothing;
  }
  if (std::strcmp(text, "waits") == 0) {
    return Trace::kWaits;
  }
  if (std::strcmp(text, "all") == 0) {
    return Trace::kAll;
  }
  refuse("FAKECUDA_TRACE", text, "waits or all");
}

}  // namespace

const Settings& settings() {
  static const auto* settings = new Settings{
      number("FAKECUDA_MEMORY", size_t{80} << 30),
      number("FAKECUDA_PINNED", size_t{1} << 40),
      number("FAKECUDA_DEVICES", 1),
      number("FAKECUDA_SM", 80),
      number("FAKECUDA_ACCOUNT_ONLY", 0) != 0,
      trace(),
      std::getenv("FAKECUDA_REPORT"),
  };
  return *settings;
}

}  // namespace fakecuda
