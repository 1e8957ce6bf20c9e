#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels.h"

namespace splat {

// Which Gaussians each tile draws, nearest first, for all cameras.
struct Binning {
  int64_t visible = 0, couples = 0;
  std::unique_ptr<Record[]> records;    // [V], by camera, then by Gaussian
  std::unique_ptr<int32_t[]> ids;       // [V] into [C*N]
  std::unique_ptr<int64_t[]> offsets;   // [C*T + 1]
  std::unique_ptr<int32_t[]> entries;   // [P]
};

Binning bin(const Projection& splats, int64_t n, int64_t cameras, int width, int height,
            int threads);

// Where the gradients of the visible Gaussians go: [C,N,...], zero on entry.
struct SplatGradients {
  float *means2d, *depths, *conics, *opacities, *colors;
  float* absolute;  // [C,N,2] or null
};

// Adds up each visible Gaussian's rows, tile by tile in a fixed order: the sum is the same for any
// number of threads.
void gather(const Record* records, const int32_t* ids, int64_t visible, const float* rows,
            const int64_t* row_of, const float* conics, const float* opacities,
            const SplatGradients& out, int threads);

}  // namespace splat
