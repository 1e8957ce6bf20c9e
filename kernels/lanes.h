// Sixteen Gaussians at a time, in double. Each EACH is a loop over the sixteen that the compiler
// vectorises; only files that are compiled once per instruction set may include this.
#pragma once

#include <cstdint>

#include "constants.h"

#if defined(__clang__)
#define EACH(i) _Pragma("clang loop vectorize(assume_safety)") for (int i = 0; i < kLanes; ++i)
#elif defined(__GNUC__)
#define EACH(i) _Pragma("GCC ivdep") for (int i = 0; i < kLanes; ++i)
#else
#define EACH(i) for (int i = 0; i < kLanes; ++i)
#endif

namespace splat {
namespace SPLAT_ISA {
namespace {

using Lane = double[kLanes];

// Which sixteen: fewer at the end of an array, where the last one fills the rest.
struct Sixteen {
  int64_t first;
  int count;

  Sixteen(int64_t begin, int64_t end)
      : first(begin), count(static_cast<int>(end - begin < kLanes ? end - begin : kLanes)) {}

  int64_t at(int i) const { return first + (i < count ? i : count - 1); }
};

// Reads so many floats of each Gaussian out of rows of `stride`.
template <int width>
void load(const float* from, int64_t stride, const Sixteen& at, Lane* to) {
  for (int i = 0; i < kLanes; ++i) {
    const float* p = from + at.at(i) * stride;
    for (int k = 0; k < width; ++k) to[k][i] = p[k];
  }
}

inline void store(const Lane* from, int width, int64_t stride, const Sixteen& at, float* to) {
  for (int i = 0; i < at.count; ++i) {
    float* p = to + (at.first + i) * stride;
    for (int k = 0; k < width; ++k) p[k] = static_cast<float>(from[k][i]);
  }
}

// Coefficients of the harmonics: as many rows of three as are wanted.
inline void load_coefficients(const float* from, int64_t stride, int count, const Sixteen& at,
                              Lane* to) {
  switch (count) {
    case 1:
      return load<3>(from, stride, at, to);
    case 4:
      return load<12>(from, stride, at, to);
    case 9:
      return load<27>(from, stride, at, to);
    default:
      return load<48>(from, stride, at, to);
  }
}

inline double total(const Lane& values) {
  double sum = 0;
  for (double value : values) sum += value;
  return sum;
}

inline bool any(const Lane& flags) { return total(flags) > 0; }
inline bool all(const Lane& flags) { return total(flags) == kLanes; }

}  // namespace
}  // namespace SPLAT_ISA
}  // namespace splat
