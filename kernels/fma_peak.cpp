// How fast this processor multiplies and adds: what a blended pair is measured against. Compiled
// once per instruction set.

#include <cstring>

#include "kernels.h"
#include "simd.h"

namespace splat {
namespace SPLAT_ISA {

// Sixteen sums that do not wait for one another: more than the units have stages.
double multiply_and_add(int64_t rounds) {
  constexpr int kSums = 16;
  Lanes sums[kSums];
  for (int k = 0; k < kSums; ++k) sums[k] = splat(1.0f + 0.01f * static_cast<float>(k));
  const Lanes a = splat(0.999f), b = splat(1e-3f);
  for (int64_t i = 0; i < rounds; ++i) {
    for (Lanes& sum : sums) sum = fma(sum, a, b);
  }
  alignas(64) float values[kLanes];
  for (int k = 1; k < kSums; ++k) sums[0] = sums[0] + sums[k];
  store(values, sums[0]);
  // Always true, but the compiler must do the work to know it.
  return values[0] > 0 ? static_cast<double>(rounds) * kSums * kLanes : 0.0;
}

}  // namespace SPLAT_ISA
}  // namespace splat
