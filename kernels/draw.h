#pragma once

#include <cstdint>

#include "kernels.h"

namespace splat {

// What a picture is painted with: any number of channels, and perhaps the mean depth beside three.
struct Palette {
  const float* colors;  // [M,channels]
  int channels;
  bool mean_depth;
  const float* depths;      // [M]
  const float* background;  // [C,channels] or null: black
};

struct Pictures {
  float *colors, *alpha, *depth;  // [C,H,W,channels] [C,H,W] [C,H,W]; depth if the palette has it
};

// Draws all tiles of all cameras, up to four channels at a time.
void draw(Tiles tiles, Record* records, const int32_t* ids, int64_t visible, int64_t cameras,
          const Palette& palette, const Pictures& out, int threads);

struct PictureGradients {
  const float *colors, *alpha, *depth;        // the pictures
  const float *v_colors, *v_alpha, *v_depth;  // any may be null: zero
};

struct FlatGradients {
  float *means2d, *conics, *opacities, *colors;  // zero on entry
  float* depths;                                 // [M] if the palette has them
  float* absolute;                               // [M,2] or null
  float* background;                             // [C,channels] or null
};

void draw_backward(Tiles tiles, const Record* records, const int32_t* ids, int64_t visible,
                   int64_t cameras, int64_t couples, const Palette& palette,
                   const PictureGradients& pictures, const float* conics, const float* opacities,
                   const FlatGradients& out, int threads);

}  // namespace splat
