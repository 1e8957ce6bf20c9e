#pragma once

#include <cstdint>

#include "kernels.h"
#include "scratch.h"

namespace splat {

// Gaussians on image planes, camera by camera.
struct Flat {
  int64_t cameras;
  const int64_t* first;  // [C+1]: those of a camera are [first[c], first[c+1])
  const float *means2d, *depths;
  const int32_t* radii;  // 0 where culled
};

// What records hold beside the ellipse: up to four channels of each Gaussian's many, or three and
// the depth.
struct Paint {
  const float* colors;  // [M,channels]
  int channels, channel;
  bool mean_depth;      // else the fourth is a channel too, 0 past the last
  const float* depths;  // [M]
};

void paint(Record& record, const Paint& paint, int64_t i);

// Which Gaussians each tile draws, nearest first, for all cameras.
struct Binning {
  int64_t visible = 0, couples = 0;
  Buffer<Record> records;   // [V+1], by camera, then by Gaussian; then one that ends
  Buffer<int32_t> ids;      // [V] into [M]
  Buffer<int64_t> offsets;  // [C*T + 1]
  Buffer<int32_t> entries;  // [P]
};

Binning bin(const Flat& splats, const float* factors, const Paint& colors, int width, int height,
            int threads);

// The same as gsplat tells it: keys of image, tile and depth, and Gaussians in that order.
struct Intersections {
  int64_t couples = 0;
  Buffer<int32_t> tiles_per_gauss;  // [M]
  Buffer<int64_t> isect_ids;        // [P]
  Buffer<int32_t> flatten_ids;      // [P]
};

Intersections intersect(const Flat& splats, int64_t m, int tile_size, int columns, int rows,
                        int threads);

// Records of all Gaussians as they are given, whoever draws them: [M+1]. The ellipse is factored
// out of its conic.
Buffer<Record> records_of(const float* means2d, const float* conics, const float* opacities,
                          int64_t count, const Paint& colors);

// Gives each entry its place among those of its Gaussian, and each record its first: [P].
Buffer<int64_t> slots_of(const int32_t* entries, int64_t couples, Record* records, int64_t count);

// Where the gradients of the visible Gaussians go; zero on entry.
struct SplatGradients {
  float *means2d, *conics, *opacities;  // [M,2] [M,3] [M]
  float* colors;                        // [M,channels]
  int channels, channel;
  bool mean_depth;  // else the fourth is a channel too
  float* depths;    // [M]
  float* absolute;  // [M,2] or null
};

// Adds up each visible Gaussian's rows, tile by tile in a fixed order: the sum is the same for any
// number of threads. `ids` may be null: record v is Gaussian v.
void gather(const Record* records, const int32_t* ids, int64_t visible, const float* rows,
            const int32_t* row_of, const float* conics, const float* opacities,
            const SplatGradients& out, int threads);

}  // namespace splat
