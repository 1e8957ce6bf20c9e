// What the kernels read and write. All arrays are dense, C-ordered and owned by the caller.
//
//   C cameras, N Gaussians, K coefficients of the spherical harmonics, T tiles per image,
//   V = visible (camera, Gaussian) couples, P = (visible, tile) couples that share a box,
//   Q = those of them that a pixel looked at: one row of gradients each.
#pragma once

#include <cstdint>

#include "constants.h"

#if defined(__GNUC__)
#define SPLAT_PREFETCH(address) __builtin_prefetch(address)
#else
#define SPLAT_PREFETCH(address) static_cast<void>(address)
#endif

namespace splat {

struct Camera {
  double R[3][3], t[3], center[3], fx, fy, cx, cy;
  double slope_low[2], slope_high[2];  // x/z and y/z of the frustum, widened

  Camera(const float* viewmat, const float* K, int width, int height);
};

struct Scene {
  int64_t n, camera_count;
  int sh_count;                         // 0: no colours are wanted
  const float *means, *opacities, *sh;  // [N,3] [N] [N,K,3]
  const float *quats, *scales;          // [N,4] [N,3], or in their place
  const float* covars;                  // [N,6]: xx xy xz yy yz zz
  const Camera* cameras;
  int width, height;
  double near_plane, far_plane, eps2d, radius_clip;
  bool antialiased;
};

// log2 alpha(d) = lo - (s1 dx + s2 dy)^2 - (s3 dy)^2, with d from the mean to the pixel: opacity
// and log2(e) / 2 are folded into the Cholesky factor of the inverse covariance.
struct Projection {
  float *means2d, *depths, *conics, *opacities;  // [C,N,2] [C,N] [C,N,3] [C,N]
  float* colors;                                 // [C,N,3], or null
  float* factors;                                // [C,N,4]: s1, s2, s3, lo
  int32_t* radii;                                // [C,N,2], 0 where culled
};

struct ProjectionGradients {
  const int32_t* radii;                                                 // [C,N,2]
  const float *means2d, *depths, *conics, *opacities, *colors;          // any may be null: zero
  float *v_means, *v_quats, *v_scales, *v_covars, *v_opacities, *v_sh;  // those of the scene
  double* viewing;  // [chunks, C, kViewing], zero on entry, or null: v_R, v_t, v_center
};

// Colours from directions alone.
struct Harmonics {
  const float *directions, *sh;  // [M,3] [M,stride,3]
  const bool* masks;             // [M] or null: all
  int count;                     // of the coefficients used
  int64_t stride;
};

// One visible Gaussian of one camera, in one cache line.
struct alignas(64) Record {
  float x, y, s1, s2, s3, lo;
  float red, green, blue, depth;      // depth, or a fourth channel
  float dx_per_dy, dy_per_dx;         // where the ellipse is widest, for the test of blocks
  uint16_t left, top, columns, rows;  // its box in tiles
  int64_t first;                      // its couples are [first, first + columns * rows) of P
};
static_assert(sizeof(Record) == 64, "a record is one cache line");

struct Tiles {
  int width, height, columns, rows;  // of one image: pixels, tiles
  const Record* records;             // [V]
  const int64_t* offsets;            // [C*T + 1] into entries
  const int32_t* entries;            // [P] records, nearest first in each tile
  uint16_t* masks;                   // [P] blocks that an entry may touch; set as far as visited
  int32_t* visited;                  // [C*T] entries looked at before every pixel was finished
  int32_t* touching;                 // [C*T] those of them whose mask is not 0
  const int64_t* slots;              // [P] row of each entry, or null: by record and tile
  const bool* masks_of_tiles;        // [C*T] or null; false: nothing is drawn there
  const float* background;           // [C,4] or null: black
  bool mean_depth;                   // else the fourth channel is one like the others
};

struct Images {
  float *rgb, *alpha, *depth;  // [C,H,W,3] [C,H,W] [C,H,W]
};

constexpr int kRow = 16;  // floats: sigma moments 0 x y xx xy yy, red green blue depth, |x| |y|

struct BlendGradients {
  const float *rgb, *alpha, *depth;        // the images
  const float *v_rgb, *v_alpha, *v_depth;  // any may be null: zero
  bool absolute;
  const int64_t* first_rows;  // [C*T] the first of each tile's rows
  float* rows;                // [Q, kRow]
  int32_t* row_of;            // [P], by record and tile; -1 on entry
  double* v_background;       // [C*T, 4], per tile
};

struct Kernels {
  const char* name;
  void (*project)(const Scene&, const Projection&, int64_t begin, int64_t end);
  void (*project_backward)(const Scene&, const ProjectionGradients&, int64_t begin, int64_t end);
  void (*harmonics)(const Harmonics&, float* colors, int64_t begin, int64_t end);
  void (*harmonics_backward)(const Harmonics&, const float* v_colors, float* v_sh,
                             float* v_directions, int64_t begin, int64_t end);
  void (*blend)(const Tiles&, const Images&, int64_t tile);
  void (*blend_backward)(const Tiles&, const BlendGradients&, int64_t tile);
  double (*multiply_and_add)(int64_t rounds);  // as many as it can; returns how many
};

constexpr int64_t kProjectChunk = 256;  // Gaussians per task
constexpr int kViewing = 15;            // 9 of the rotation, 3 of the translation, 3 of the centre

// The best set of instructions this processor has, or the one that SPLAT_ESD_ISA names. Throws
// std::runtime_error if that one is unknown, not compiled in, or not there.
const Kernels& kernels();

}  // namespace splat
