#include <cstdlib>
#include <stdexcept>
#include <string>

#include "kernels.h"

namespace splat {

namespace portable {
extern const Kernels table;
}
#if defined(SPLAT_X86)
namespace avx2 {
extern const Kernels table;
}
namespace avx512 {
extern const Kernels table;
}
#endif

namespace {

struct Choice {
  const Kernels* table;
  bool runs;
};

const Kernels& choose() {
#if defined(SPLAT_X86)
  __builtin_cpu_init();
  const Choice choices[] = {
      {&avx512::table, __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                           __builtin_cpu_supports("avx512bw") &&
                           __builtin_cpu_supports("avx512vl")},
      {&avx2::table, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")},
      {&portable::table, true},
  };
#else
  const Choice choices[] = {{&portable::table, true}};
#endif
  const char* wanted = std::getenv("SPLAT_ESD_ISA");
  std::string names;
  for (const Choice& choice : choices) {
    if (!choice.runs) continue;
    if (wanted == nullptr || *wanted == '\0' || wanted == std::string(choice.table->name)) {
      return *choice.table;
    }
    names += (names.empty() ? "" : ", ") + std::string(choice.table->name);
  }
  throw std::runtime_error("SPLAT_ESD_ISA: this machine can run " + names + ", got '" + wanted +
                           "'.");
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace splat
