// Colours from directions alone, for gsplat's operator of that name. Compiled once per instruction
// set.

#include "harmonics.h"

#include "kernels.h"

namespace splat {
namespace SPLAT_ISA {

void harmonics(const Harmonics& h, float* colors, int64_t begin, int64_t end) {
  for (int64_t first = begin; first < end; first += kLanes) {
    const Sixteen at(first, end);
    Lane direction[3], sh[48], color[3];
    Basis basis;
    load<3>(h.directions, 3, at, direction);
    load_coefficients(h.sh, 3 * h.stride, h.count, at, sh);
    evaluate_basis(direction, h.count, basis);
    evaluate_colors(sh, h.count, basis, 0.0, color);
    for (int i = 0; i < at.count; ++i) {
      const bool wanted = h.masks == nullptr || h.masks[first + i];
      for (int k = 0; k < 3; ++k) {
        colors[3 * (first + i) + k] = wanted ? static_cast<float>(color[k][i]) : 0.0f;
      }
    }
  }
}

void harmonics_backward(const Harmonics& h, const float* v_colors, float* v_sh, float* v_directions,
                        int64_t begin, int64_t end) {
  for (int64_t first = begin; first < end; first += kLanes) {
    const Sixteen at(first, end);
    Lane direction[3], sh[48], v_color[3], v_direction[3];
    Lane sums[48] = {};
    Basis basis;
    load<3>(h.directions, 3, at, direction);
    load_coefficients(h.sh, 3 * h.stride, h.count, at, sh);
    load<3>(v_colors, 3, at, v_color);
    for (int i = 0; i < kLanes; ++i) {
      const bool wanted = h.masks == nullptr || h.masks[at.at(i)];
      for (Lane& lane : v_color) lane[i] = wanted ? lane[i] : 0.0;
    }
    evaluate_basis(direction, h.count, basis);
    colors_backward(sh, h.count, basis, v_color, sums, v_direction);
    store(sums, 3 * h.count, 3 * h.stride, at, v_sh);
    if (v_directions) store(v_direction, 3, 3, at, v_directions);
  }
}

}  // namespace SPLAT_ISA
}  // namespace splat
