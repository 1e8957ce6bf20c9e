#include "memory.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <limits>

#if !defined(_WIN32)
#include <sys/resource.h>
#include <unistd.h>
#endif

namespace splat {
namespace {

constexpr double kSmall = 64 << 20;  // bytes; to look takes longer than it is worth
constexpr double kUnknown = std::numeric_limits<double>::infinity();

// The first number of a file such as /sys/fs/cgroup/memory.max, or infinity.
double number_in(const char* path) {
  std::ifstream file(path);
  double number = kUnknown;
  return file >> number ? number : kUnknown;
}

double machine_has() {
  std::ifstream file("/proc/meminfo");
  for (std::string name, unit; file >> name;) {
    double kib = 0;
    if (file >> kib && name == "MemAvailable:") return kib * 1024;
    std::getline(file, unit);
  }
#if !defined(_WIN32)
  return static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
#else
  return kUnknown;
#endif
}

double group_has() {
  const double most = number_in("/sys/fs/cgroup/memory.max");
  std::ifstream file("/sys/fs/cgroup/memory.stat");  // its first line; the cache gives way
  std::string name;
  double used = 0;
  return file >> name >> used && name == "anon" ? most - used : most;
}

double limit_has() {
#if !defined(_WIN32)
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
    const double pages = number_in("/proc/self/statm");
    const double used = pages == kUnknown ? 0 : pages * static_cast<double>(sysconf(_SC_PAGESIZE));
    return static_cast<double>(limit.rlim_cur) - used;
  }
#endif
  return kUnknown;
}

}  // namespace

void require_memory(int64_t count, int64_t bytes, const char* what) {
  const double wanted = static_cast<double>(count) * static_cast<double>(bytes);
  if (wanted < kSmall) return;
  const double there = std::max(0.0, std::min({machine_has(), group_has(), limit_has()}));
  if (wanted <= there) return;
  char sentence[256];
  std::snprintf(sentence, sizeof sentence,
                "%lld %s need %.1f GiB, and %.1f GiB are free; draw fewer, smaller or less.",
                static_cast<long long>(count), what, wanted / (1 << 30), there / (1 << 30));
  throw NotEnoughMemory(sentence);
}

}  // namespace splat
