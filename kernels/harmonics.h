// Real spherical harmonics to the third degree, in gsplat's order and signs, and their gradients.
#pragma once

#include <cmath>

#include "lanes.h"

namespace splat {
namespace SPLAT_ISA {
namespace {

constexpr double kSH0 = 0.28209479177387814;
constexpr double kSH1 = 0.4886025119029199;
constexpr double kSH2[5] = {1.0925484305920792, -1.0925484305920792, 0.31539156525252005,
                            -1.0925484305920792, 0.5462742152960396};
constexpr double kSH3[7] = {-0.5900435899266435, 2.890611442640554,   -0.4570457994644658,
                            0.3731763325901154,  -0.4570457994644658, 1.445305721320277,
                            -0.5900435899266435};

struct Basis {
  Lane x, y, z, length;  // the unit direction, and how long it was
  Lane value[16];
};

inline void evaluate_basis(const Lane (&direction)[3], int count, Basis& basis) {
  EACH(i) {
    const double x = direction[0][i], y = direction[1][i], z = direction[2][i];
    const double length = std::sqrt(x * x + y * y + z * z);
    basis.length[i] = length > 1e-12 ? length : 1e-12;
    basis.x[i] = x / basis.length[i];
    basis.y[i] = y / basis.length[i];
    basis.z[i] = z / basis.length[i];
  }
  Lane* v = basis.value;
  EACH(i) v[0][i] = kSH0;
  if (count < 4) return;
  EACH(i) {
    v[1][i] = -kSH1 * basis.y[i];
    v[2][i] = kSH1 * basis.z[i];
    v[3][i] = -kSH1 * basis.x[i];
  }
  if (count < 9) return;
  EACH(i) {
    const double x = basis.x[i], y = basis.y[i], z = basis.z[i];
    v[4][i] = kSH2[0] * x * y;
    v[5][i] = kSH2[1] * y * z;
    v[6][i] = kSH2[2] * (3 * z * z - 1);
    v[7][i] = kSH2[3] * x * z;
    v[8][i] = kSH2[4] * (x * x - y * y);
  }
  if (count < 16) return;
  EACH(i) {
    const double x = basis.x[i], y = basis.y[i], z = basis.z[i];
    v[9][i] = kSH3[0] * y * (3 * x * x - y * y);
    v[10][i] = kSH3[1] * x * y * z;
    v[11][i] = kSH3[2] * y * (5 * z * z - 1);
    v[12][i] = kSH3[3] * z * (5 * z * z - 3);
    v[13][i] = kSH3[4] * x * (5 * z * z - 1);
    v[14][i] = kSH3[5] * z * (x * x - y * y);
    v[15][i] = kSH3[6] * x * (x * x - 3 * y * y);
  }
}

// color = offset + sum_k Y_k sh_k
inline void evaluate_colors(const Lane* sh, int count, const Basis& basis, double offset,
                            Lane (&color)[3]) {
  for (int k = 0; k < 3; ++k) {
    EACH(i) color[k][i] = offset;
    for (int j = 0; j < count; ++j) {
      EACH(i) color[k][i] += basis.value[j][i] * sh[3 * j + k][i];
    }
  }
}

// From dL/dY to dL/d(direction), of any length.
inline void direction_backward(int count, const Basis& basis, const Lane (&g)[16],
                               Lane (&v_direction)[3]) {
  EACH(i) {
    const double x = basis.x[i], y = basis.y[i], z = basis.z[i];
    double dx = -kSH1 * g[3][i], dy = -kSH1 * g[1][i], dz = kSH1 * g[2][i];
    if (count >= 9) {
      dx += kSH2[0] * y * g[4][i] + kSH2[3] * z * g[7][i] + 2 * kSH2[4] * x * g[8][i];
      dy += kSH2[0] * x * g[4][i] + kSH2[1] * z * g[5][i] - 2 * kSH2[4] * y * g[8][i];
      dz += kSH2[1] * y * g[5][i] + 6 * kSH2[2] * z * g[6][i] + kSH2[3] * x * g[7][i];
    }
    if (count >= 16) {
      dx += kSH3[0] * 6 * x * y * g[9][i] + kSH3[1] * y * z * g[10][i] +
            kSH3[4] * (5 * z * z - 1) * g[13][i] + kSH3[5] * 2 * x * z * g[14][i] +
            kSH3[6] * 3 * (x * x - y * y) * g[15][i];
      dy += kSH3[0] * 3 * (x * x - y * y) * g[9][i] + kSH3[1] * x * z * g[10][i] +
            kSH3[2] * (5 * z * z - 1) * g[11][i] - kSH3[5] * 2 * y * z * g[14][i] -
            kSH3[6] * 6 * x * y * g[15][i];
      dz += kSH3[1] * x * y * g[10][i] + kSH3[2] * 10 * y * z * g[11][i] +
            kSH3[3] * (15 * z * z - 3) * g[12][i] + kSH3[4] * 10 * x * z * g[13][i] +
            kSH3[5] * (x * x - y * y) * g[14][i];
    }
    const double radial = dx * x + dy * y + dz * z;
    v_direction[0][i] = (dx - radial * x) / basis.length[i];
    v_direction[1][i] = (dy - radial * y) / basis.length[i];
    v_direction[2][i] = (dz - radial * z) / basis.length[i];
  }
}

// Adds to dL/dsh; returns dL/d(direction).
inline void colors_backward(const Lane* sh, int count, const Basis& basis, const Lane (&v_color)[3],
                            Lane* v_sh, Lane (&v_direction)[3]) {
  Lane v_basis[16];
  for (int j = 0; j < count; ++j) {
    EACH(i) v_basis[j][i] = 0;
    for (int k = 0; k < 3; ++k) {
      EACH(i) {
        v_basis[j][i] += sh[3 * j + k][i] * v_color[k][i];
        v_sh[3 * j + k][i] += basis.value[j][i] * v_color[k][i];
      }
    }
  }
  if (count > 1) return direction_backward(count, basis, v_basis, v_direction);
  for (Lane& lane : v_direction) EACH(i) lane[i] = 0;
}

}  // namespace
}  // namespace SPLAT_ISA
}  // namespace splat
