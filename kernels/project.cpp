// Projection, spherical harmonics and their gradients, sixteen Gaussians at a time, in double.
//
// Double, because a mean half a float's step off moves the picture by 1e-5, and because it costs
// little beside the blending. Each EACH is a loop over the sixteen that the compiler vectorises.
// Compiled once per instruction set; README.md has the equations.

#include <cmath>
#include <cstring>

#include "harmonics.h"
#include "kernels.h"

namespace splat {
namespace SPLAT_ISA {
namespace {

// Sixteen Gaussians in the world. Those that are not finite become zeros and are not usable.
struct Splats {
  Sixteen at;
  Lane usable, mean[3], unit[4], length, scale[3], opacity, sh[48];
  Lane R[3][3];  // the rotation
  Lane M[3][3];  // covariance = M M^T: the rotation's columns times the scales

  explicit Splats(const Sixteen& which) : at(which) {}
};

// Zeros for those of which any number is not finite.
void drop_unusable(Lane* values, int width, const Lane& usable) {
  for (int k = 0; k < width; ++k) {
    EACH(i) values[k][i] = usable[i] > 0 ? values[k][i] : 0.0;
  }
}

void find_unusable(const Lane* values, int width, Lane& usable) {
  for (int k = 0; k < width; ++k) {
    EACH(i) usable[i] = values[k][i] - values[k][i] == 0.0 ? usable[i] : 0.0;
  }
}

void rotate_and_scale(Splats& s) {
  EACH(i) {
    double w = s.unit[0][i], x = s.unit[1][i], y = s.unit[2][i], z = s.unit[3][i];
    const double length = std::sqrt(w * w + x * x + y * y + z * z);
    s.length[i] = length > 1e-12 ? length : 1e-12;
    const double inverse = 1 / s.length[i];
    w *= inverse, x *= inverse, y *= inverse, z *= inverse;
    s.unit[0][i] = w, s.unit[1][i] = x, s.unit[2][i] = y, s.unit[3][i] = z;
    s.R[0][0][i] = 1 - 2 * (y * y + z * z);
    s.R[0][1][i] = 2 * (x * y - w * z);
    s.R[0][2][i] = 2 * (x * z + w * y);
    s.R[1][0][i] = 2 * (x * y + w * z);
    s.R[1][1][i] = 1 - 2 * (x * x + z * z);
    s.R[1][2][i] = 2 * (y * z - w * x);
    s.R[2][0][i] = 2 * (x * z - w * y);
    s.R[2][1][i] = 2 * (y * z + w * x);
    s.R[2][2][i] = 1 - 2 * (x * x + y * y);
  }
  for (int r = 0; r < 3; ++r) {
    for (int k = 0; k < 3; ++k) EACH(i) s.M[r][k][i] = s.R[r][k][i] * s.scale[k][i];
  }
}

// Cholesky's factor of a covariance, which may be flat: a vanishing column stays zero.
void factorize(const Lane (&c)[6], Lane (&M)[3][3]) {
  EACH(i) {
    const double xx = c[0][i], xy = c[1][i], xz = c[2][i], yy = c[3][i], yz = c[4][i];
    const double a = std::sqrt(xx > 0 ? xx : 0.0), by_a = a > 0 ? 1 / a : 0.0;
    const double b = xy * by_a, d = xz * by_a;
    const double ee = yy - b * b, e = std::sqrt(ee > 1e-14 * yy ? ee : 0.0);
    const double f = (yz - b * d) * (e > 0 ? 1 / e : 0.0);
    const double gg = c[5][i] - d * d - f * f;
    M[0][0][i] = a, M[0][1][i] = 0, M[0][2][i] = 0;
    M[1][0][i] = b, M[1][1][i] = e, M[1][2][i] = 0;
    M[2][0][i] = d, M[2][1][i] = f, M[2][2][i] = std::sqrt(gg > 0 ? gg : 0.0);
  }
}

// Reads numbers of the sixteen, and finds out whom they make unusable.
template <int width>
void read(const float* from, const Sixteen& at, Lane* to, Lane& usable) {
  load<width>(from, width, at, to);
  find_unusable(to, width, usable);
}

void load_splats(const Scene& scene, Splats& s) {
  Lane covariance[6];
  const int sh = 3 * scene.sh_count;
  EACH(i) s.usable[i] = 1.0;
  read<3>(scene.means, s.at, s.mean, s.usable);
  read<1>(scene.opacities, s.at, &s.opacity, s.usable);
  if (sh) load_coefficients(scene.sh, sh, scene.sh_count, s.at, s.sh);
  find_unusable(s.sh, sh, s.usable);
  if (scene.covars) {
    read<6>(scene.covars, s.at, covariance, s.usable);
  } else {
    read<4>(scene.quats, s.at, s.unit, s.usable);
    read<3>(scene.scales, s.at, s.scale, s.usable);
  }
  const bool spoilt = !all(s.usable);
  if (spoilt) {
    drop_unusable(s.mean, 3, s.usable);
    drop_unusable(&s.opacity, 1, s.usable);
    drop_unusable(s.sh, sh, s.usable);
  }
  if (scene.covars) {
    if (spoilt) drop_unusable(covariance, 6, s.usable);
    return factorize(covariance, s.M);
  }
  if (spoilt) drop_unusable(s.unit, 4, s.usable);
  if (spoilt) drop_unusable(s.scale, 3, s.usable);
  rotate_and_scale(s);
}

// The same sixteen on one image plane:  cov2d = X X^T + eps2d I, X the 2 x 3 matrix (wide; tall).
struct Footprint {
  Lane visible, x, y, z;           // camera axes; 1 1 1 where not visible
  Lane held_x, held_y;             // x/z and y/z, held inside the widened frustum
  Lane free_x, free_y;             // 1 where they were inside anyway
  Lane wide[3], tall[3], deep[3];  // deep: the third row of the axes in the camera
  Lane xx, xy, yy, det;            // of cov2d; det is 1 where it is not positive
  Lane sharpness;                  // sqrt(det (cov2d - eps2d I) / det cov2d), or 1
};

void place_means(const Camera& camera, const Splats& s, Footprint& f) {
  const auto& R = camera.R;
  EACH(i) {
    const double a = s.mean[0][i], b = s.mean[1][i], c = s.mean[2][i];
    f.x[i] = R[0][0] * a + R[0][1] * b + R[0][2] * c + camera.t[0];
    f.y[i] = R[1][0] * a + R[1][1] * b + R[1][2] * c + camera.t[1];
    f.z[i] = R[2][0] * a + R[2][1] * b + R[2][2] * c + camera.t[2];
  }
}

// Numbers of what is not visible are made harmless: 0 times infinity would spoil the gradients.
void project_axes(const Scene& scene, const Camera& camera, const Splats& s, Footprint& f) {
  const auto& R = camera.R;
  EACH(i) {
    f.x[i] = f.visible[i] > 0 ? f.x[i] : 1.0;
    f.y[i] = f.visible[i] > 0 ? f.y[i] : 1.0;
    f.z[i] = f.visible[i] > 0 ? f.z[i] : 1.0;
    const double slope_x = f.x[i] / f.z[i], slope_y = f.y[i] / f.z[i];
    double hx = slope_x > camera.slope_low[0] ? slope_x : camera.slope_low[0];
    double hy = slope_y > camera.slope_low[1] ? slope_y : camera.slope_low[1];
    hx = hx < camera.slope_high[0] ? hx : camera.slope_high[0];
    hy = hy < camera.slope_high[1] ? hy : camera.slope_high[1];
    f.held_x[i] = hx;
    f.held_y[i] = hy;
    f.free_x[i] = hx == slope_x ? 1.0 : 0.0;
    f.free_y[i] = hy == slope_y ? 1.0 : 0.0;
  }
  for (int k = 0; k < 3; ++k) {
    EACH(i) {
      const double a = s.M[0][k][i], b = s.M[1][k][i], c = s.M[2][k][i];
      const double across = R[0][0] * a + R[0][1] * b + R[0][2] * c;
      const double down = R[1][0] * a + R[1][1] * b + R[1][2] * c;
      f.deep[k][i] = R[2][0] * a + R[2][1] * b + R[2][2] * c;
      f.wide[k][i] = camera.fx / f.z[i] * (across - f.held_x[i] * f.deep[k][i]);
      f.tall[k][i] = camera.fy / f.z[i] * (down - f.held_y[i] * f.deep[k][i]);
    }
  }
  EACH(i) {
    const double *w0 = f.wide[0], *w1 = f.wide[1], *w2 = f.wide[2];
    const double *t0 = f.tall[0], *t1 = f.tall[1], *t2 = f.tall[2];
    f.xx[i] = w0[i] * w0[i] + w1[i] * w1[i] + w2[i] * w2[i];
    f.xy[i] = w0[i] * t0[i] + w1[i] * t1[i] + w2[i] * t2[i];
    f.yy[i] = t0[i] * t0[i] + t1[i] * t1[i] + t2[i] * t2[i];
  }
  EACH(i) {
    const double sharp = f.xx[i] * f.yy[i] - f.xy[i] * f.xy[i];
    f.xx[i] += scene.eps2d;
    f.yy[i] += scene.eps2d;
    const double det = f.xx[i] * f.yy[i] - f.xy[i] * f.xy[i];
    const bool good = (det > 0) & (det - det == 0.0);
    f.visible[i] = good ? f.visible[i] : 0.0;
    f.det[i] = good ? det : 1.0;
    // Whatever this floor lifts is still fainter than kAlphaMin.
    const double floor = 0.25 * kAlphaMin * kAlphaMin, ratio = sharp / f.det[i];
    const double squared = ratio > floor ? ratio : floor;
    f.sharpness[i] = std::sqrt(scene.antialiased ? squared : 1.0);
  }
}

// log2 to 1e-11, for positive normal numbers: the exponent from the bits, the rest a series.
double log2_of(double a) {
  uint64_t pattern;
  std::memcpy(&pattern, &a, sizeof pattern);
  const uint64_t exponent_bits = pattern >> 52 | 0x4330000000000000u;  // 2^52 + exponent
  const uint64_t mantissa_bits = (pattern & 0xFFFFFFFFFFFFFu) | 0x3FF0000000000000u;
  double exponent, m;
  std::memcpy(&exponent, &exponent_bits, sizeof exponent);
  std::memcpy(&m, &mantissa_bits, sizeof m);
  exponent -= 4503599627370496.0 + 1023.0;
  const double half = m > 1.4142135623730951 ? 1.0 : 0.0;
  m *= 1.0 - 0.5 * half;
  const double t = (m - 1) / (m + 1), q = t * t;
  const double series =
      1 + q * (1 / 3.0 + q * (1 / 5.0 + q * (1 / 7.0 + q * (1 / 9.0 + q * (1 / 11.0)))));
  return exponent + half + 2 * kLog2E * t * series;
}

void look(const Camera& camera, const Splats& s, int count, Basis& basis) {
  Lane direction[3];
  for (int k = 0; k < 3; ++k) EACH(i) direction[k][i] = s.mean[k][i] - camera.center[k];
  evaluate_basis(direction, count, basis);
}

// What a camera's image needs of the sixteen, before rounding.
struct Drawn {
  Lane u, v, depth, conic[3], opacity, factor[4], radius[2], color[3];
};

void draw(const Scene& scene, const Camera& camera, const Splats& s, Footprint& f, Drawn& d) {
  EACH(i) {
    d.u[i] = camera.fx * f.x[i] / f.z[i] + camera.cx;
    d.v[i] = camera.fy * f.y[i] / f.z[i] + camera.cy;
    d.depth[i] = f.z[i];
    d.conic[0][i] = f.yy[i] / f.det[i];
    d.conic[1][i] = -f.xy[i] / f.det[i];
    d.conic[2][i] = f.xx[i] / f.det[i];
    d.opacity[i] = s.opacity[i] * f.sharpness[i];
  }
  EACH(i) {
    const double s1 = std::sqrt(0.5 * kLog2E * d.conic[0][i]);
    d.factor[0][i] = s1;
    d.factor[1][i] = 0.5 * kLog2E * d.conic[1][i] / s1;
    d.factor[2][i] = std::sqrt(0.5 * kLog2E / f.yy[i]);
    const double seen = d.opacity[i] > kAlphaMin ? d.opacity[i] : kAlphaMin;
    d.factor[3][i] = log2_of(seen);
  }
  const double width = scene.width, height = scene.height, clip = scene.radius_clip;
  EACH(i) {
    const double bits = d.factor[3][i] - kLog2AlphaMin;
    const double reach = std::sqrt(bits > 0 ? 2 * kLn2 * bits : 0.0);
    const double extent = reach < kExtentMax ? reach : kExtentMax;
    double rx = std::ceil(extent * std::sqrt(f.xx[i]));
    double ry = std::ceil(extent * std::sqrt(f.yy[i]));
    rx = rx < kRadiusMax ? rx : kRadiusMax;
    ry = ry < kRadiusMax ? ry : kRadiusMax;
    const bool inside = (d.u[i] + rx > 0) & (d.u[i] - rx < width) & (d.v[i] + ry > 0) &
                        (d.v[i] - ry < height) & (rx > 0) & (ry > 0) & ((rx > clip) | (ry > clip)) &
                        (d.opacity[i] >= kAlphaMin);
    f.visible[i] = inside ? f.visible[i] : 0.0;
    d.radius[0][i] = rx;
    d.radius[1][i] = ry;
  }
}

void store_drawn(const Splats& s, const Footprint& f, const Drawn& d, int64_t base,
                 const Projection& out) {
  for (int i = 0; i < s.at.count; ++i) {
    const int64_t at = base + s.at.first + i;
    const bool seen = f.visible[i] > 0;
    out.means2d[2 * at] = seen ? static_cast<float>(d.u[i]) : 0.0f;
    out.means2d[2 * at + 1] = seen ? static_cast<float>(d.v[i]) : 0.0f;
    out.depths[at] = seen ? static_cast<float>(d.depth[i]) : 0.0f;
    out.opacities[at] = seen ? static_cast<float>(d.opacity[i]) : 0.0f;
    for (int k = 0; k < 2; ++k) {
      out.radii[2 * at + k] = seen ? static_cast<int32_t>(d.radius[k][i]) : 0;
    }
    for (int k = 0; k < 3; ++k) {
      out.conics[3 * at + k] = seen ? static_cast<float>(d.conic[k][i]) : 0.0f;
    }
    for (int k = 0; k < 3 && out.colors; ++k) {
      const double color = d.color[k][i] > 0 ? d.color[k][i] : 0.0;
      out.colors[3 * at + k] = seen ? static_cast<float>(color) : 0.0f;
    }
    for (int k = 0; k < 4; ++k) {
      out.factors[4 * at + k] = seen ? static_cast<float>(d.factor[k][i]) : 0.0f;
    }
  }
}

// What arrives from the image, zero where nothing does.
struct Incoming {
  Lane u, v, depth, conic[3], opacity, color[3];
};

void load_incoming(const ProjectionGradients& g, const Splats& s, int64_t base, Footprint& f,
                   Incoming& in) {
  const auto read = [&](const float* from, int width, Lane* to) {
    for (int i = 0; i < kLanes; ++i) {
      const bool seen = from != nullptr && f.visible[i] > 0;
      for (int k = 0; k < width; ++k) {
        to[k][i] = seen ? from[(base + s.at.at(i)) * width + k] : 0.0;
      }
    }
  };
  for (int i = 0; i < kLanes; ++i) {
    f.visible[i] = i < s.at.count && g.radii[2 * (base + s.at.at(i))] > 0 ? 1.0 : 0.0;
  }
  Lane mean[2];
  read(g.means2d, 2, mean);
  EACH(i) {
    in.u[i] = mean[0][i];
    in.v[i] = mean[1][i];
  }
  read(g.depths, 1, &in.depth);
  read(g.conics, 3, in.conic);
  read(g.opacities, 1, &in.opacity);
  read(g.colors, 3, in.color);
}

// What leaves for the parameters, summed over cameras.
struct Outgoing {
  Lane mean[3], M[3][3], covariance[6], opacity, sh[48];
};

// What leaves for one camera, before it is summed over Gaussians.
struct Viewing {
  Lane R[3][3], t[3], center[3];
};

// cov2d = A Sigma A^T, and so dL/dSigma = A^T dL/dcov2d A; each number off the diagonal stands
// twice in Sigma.
void covariance_backward(const Camera& camera, const Footprint& f, const Lane& v_xx,
                         const Lane& v_xy, const Lane& v_yy, Outgoing& out) {
  constexpr int kRowOf[6] = {0, 0, 0, 1, 1, 2}, kColumnOf[6] = {0, 1, 2, 1, 2, 2};
  const auto& R = camera.R;
  for (int k = 0; k < 6; ++k) {
    const int p = kRowOf[k], q = kColumnOf[k];
    const double times = p == q ? 1 : 2;
    EACH(i) {
      const double fx = camera.fx / f.z[i], fy = camera.fy / f.z[i];
      const double wide_p = fx * (R[0][p] - f.held_x[i] * R[2][p]);
      const double wide_q = fx * (R[0][q] - f.held_x[i] * R[2][q]);
      const double tall_p = fy * (R[1][p] - f.held_y[i] * R[2][p]);
      const double tall_q = fy * (R[1][q] - f.held_y[i] * R[2][q]);
      out.covariance[k][i] += times * (v_xx[i] * wide_p * wide_q + v_yy[i] * tall_p * tall_q +
                                       0.5 * v_xy[i] * (wide_p * tall_q + wide_q * tall_p));
    }
  }
}

// d cov2d = -conic (d conic) conic, the antialiasing factor, then back through X.
void footprint_backward(const Scene& scene, const Camera& camera, const Splats& s,
                        const Footprint& f, const Incoming& in, Outgoing& out, Viewing* view) {
  Lane v_xx, v_xy, v_yy;
  EACH(i) {
    const double a = f.yy[i] / f.det[i], b = -f.xy[i] / f.det[i], c = f.xx[i] / f.det[i];
    const double ga = in.conic[0][i], gb = 0.5 * in.conic[1][i], gc = in.conic[2][i];
    const double p = ga * a + gb * b, q = ga * b + gb * c, r = gb * a + gc * b;
    const double t = gb * b + gc * c;
    v_xx[i] = -(a * p + b * r);
    v_xy[i] = -2 * (a * q + b * t);
    v_yy[i] = -(b * q + c * t);
    out.opacity[i] += in.opacity[i] * f.sharpness[i];
  }
  if (scene.antialiased) {
    EACH(i) {
      // d sharpness = sharpness / 2 (d sharp / sharp - d det / det), sharp = sharpness^2 det
      const double x = f.xx[i] - scene.eps2d, y = f.yy[i] - scene.eps2d;
      const double half = 0.5 * in.opacity[i] * s.opacity[i] * f.sharpness[i];
      const double by_sharp = half / (f.sharpness[i] * f.sharpness[i] * f.det[i]);
      const double by_det = half / f.det[i];
      v_xx[i] += by_sharp * y - by_det * f.yy[i];
      v_yy[i] += by_sharp * x - by_det * f.xx[i];
      v_xy[i] -= 2 * f.xy[i] * (by_sharp - by_det);
    }
  }
  Lane v_x, v_y, v_z, v_held_x, v_held_y;
  EACH(i) {
    const double inverse = 1 / f.z[i];
    v_x[i] = in.u[i] * camera.fx * inverse;
    v_y[i] = in.v[i] * camera.fy * inverse;
    v_z[i] = in.depth[i] - (v_x[i] * f.x[i] + v_y[i] * f.y[i]) * inverse;
    v_held_x[i] = 0;
    v_held_y[i] = 0;
  }
  const auto& R = camera.R;
  for (int k = 0; k < 3; ++k) {
    EACH(i) {
      const double v_wide = 2 * v_xx[i] * f.wide[k][i] + v_xy[i] * f.tall[k][i];
      const double v_tall = 2 * v_yy[i] * f.tall[k][i] + v_xy[i] * f.wide[k][i];
      const double across = camera.fx / f.z[i] * v_wide, down = camera.fy / f.z[i] * v_tall;
      const double deep = -(across * f.held_x[i] + down * f.held_y[i]);
      v_held_x[i] -= across * f.deep[k][i];
      v_held_y[i] -= down * f.deep[k][i];
      v_z[i] -= (v_wide * f.wide[k][i] + v_tall * f.tall[k][i]) / f.z[i];
      out.M[0][k][i] += R[0][0] * across + R[1][0] * down + R[2][0] * deep;
      out.M[1][k][i] += R[0][1] * across + R[1][1] * down + R[2][1] * deep;
      out.M[2][k][i] += R[0][2] * across + R[1][2] * down + R[2][2] * deep;
    }
    if (view == nullptr) continue;
    for (int r = 0; r < 3; ++r) {
      EACH(i) {
        const double v_wide = 2 * v_xx[i] * f.wide[k][i] + v_xy[i] * f.tall[k][i];
        const double v_tall = 2 * v_yy[i] * f.tall[k][i] + v_xy[i] * f.wide[k][i];
        const double across = camera.fx / f.z[i] * v_wide, down = camera.fy / f.z[i] * v_tall;
        view->R[0][r][i] += across * s.M[r][k][i];
        view->R[1][r][i] += down * s.M[r][k][i];
        view->R[2][r][i] -= (across * f.held_x[i] + down * f.held_y[i]) * s.M[r][k][i];
      }
    }
  }
  if (scene.covars) covariance_backward(camera, f, v_xx, v_xy, v_yy, out);
  EACH(i) {
    const double by_x = v_held_x[i] * f.free_x[i] / f.z[i];
    const double by_y = v_held_y[i] * f.free_y[i] / f.z[i];
    const double x = v_x[i] + by_x, y = v_y[i] + by_y;
    const double z = v_z[i] - (by_x * f.x[i] + by_y * f.y[i]) / f.z[i];
    out.mean[0][i] += R[0][0] * x + R[1][0] * y + R[2][0] * z;
    out.mean[1][i] += R[0][1] * x + R[1][1] * y + R[2][1] * z;
    out.mean[2][i] += R[0][2] * x + R[1][2] * y + R[2][2] * z;
    v_x[i] = x;
    v_y[i] = y;
    v_z[i] = z;
  }
  if (view == nullptr) return;
  for (int k = 0; k < 3; ++k) {
    const Lane& v = k == 0 ? v_x : (k == 1 ? v_y : v_z);
    for (int r = 0; r < 3; ++r) EACH(i) view->R[k][r][i] += v[i] * s.mean[r][i];
    EACH(i) view->t[k][i] += v[i];
  }
}

void colors_backward(const Camera& camera, const Splats& s, int count, const Incoming& in,
                     Outgoing& out, Viewing* view) {
  Basis basis;
  Lane color[3], v_color[3], v_direction[3];
  look(camera, s, count, basis);
  evaluate_colors(s.sh, count, basis, 0.5, color);
  for (int k = 0; k < 3; ++k) {
    EACH(i) v_color[k][i] = color[k][i] >= 0 ? in.color[k][i] : 0.0;
  }
  colors_backward(s.sh, count, basis, v_color, out.sh, v_direction);
  for (int k = 0; k < 3; ++k) {
    EACH(i) out.mean[k][i] += v_direction[k][i];
    if (view) EACH(i) view->center[k][i] -= v_direction[k][i];
  }
}

void quats_backward(const Splats& s, const Lane (&v)[3][3], Lane (&v_quat)[4]) {
  EACH(i) {
    const double w = s.unit[0][i], x = s.unit[1][i], y = s.unit[2][i], z = s.unit[3][i];
    const double gw = 2 * (x * (v[2][1][i] - v[1][2][i]) + y * (v[0][2][i] - v[2][0][i]) +
                           z * (v[1][0][i] - v[0][1][i]));
    const double gx = 2 * (y * (v[0][1][i] + v[1][0][i]) + z * (v[0][2][i] + v[2][0][i]) +
                           w * (v[2][1][i] - v[1][2][i]) - 2 * x * (v[1][1][i] + v[2][2][i]));
    const double gy = 2 * (x * (v[0][1][i] + v[1][0][i]) + z * (v[1][2][i] + v[2][1][i]) +
                           w * (v[0][2][i] - v[2][0][i]) - 2 * y * (v[0][0][i] + v[2][2][i]));
    const double gz = 2 * (x * (v[0][2][i] + v[2][0][i]) + y * (v[1][2][i] + v[2][1][i]) +
                           w * (v[1][0][i] - v[0][1][i]) - 2 * z * (v[0][0][i] + v[1][1][i]));
    const double radial = w * gw + x * gx + y * gy + z * gz;
    v_quat[0][i] = (gw - radial * w) / s.length[i];
    v_quat[1][i] = (gx - radial * x) / s.length[i];
    v_quat[2][i] = (gy - radial * y) / s.length[i];
    v_quat[3][i] = (gz - radial * z) / s.length[i];
  }
}

void store_outgoing(const Scene& scene, const Splats& s, const Outgoing& out,
                    const ProjectionGradients& g) {
  store(out.mean, 3, 3, s.at, g.v_means);
  store(&out.opacity, 1, 1, s.at, g.v_opacities);
  if (g.v_sh) store(out.sh, 3 * scene.sh_count, 3 * scene.sh_count, s.at, g.v_sh);
  if (scene.covars) return store(out.covariance, 6, 6, s.at, g.v_covars);
  Lane v_rotation[3][3], v_scale[3], v_quat[4];
  for (int k = 0; k < 3; ++k) {
    EACH(i) {
      v_scale[k][i] = out.M[0][k][i] * s.R[0][k][i] + out.M[1][k][i] * s.R[1][k][i] +
                      out.M[2][k][i] * s.R[2][k][i];
      for (int r = 0; r < 3; ++r) v_rotation[r][k][i] = out.M[r][k][i] * s.scale[k][i];
    }
  }
  quats_backward(s, v_rotation, v_quat);
  store(v_quat, 4, 4, s.at, g.v_quats);
  store(v_scale, 3, 3, s.at, g.v_scales);
}

// Adds to the fifteen sums of a camera: R, t, centre.
void add_viewing(const Viewing& view, double* sums) {
  for (int k = 0; k < 3; ++k) {
    for (int r = 0; r < 3; ++r) sums[3 * k + r] += total(view.R[k][r]);
    sums[9 + k] += total(view.t[k]);
    sums[12 + k] += total(view.center[k]);
  }
}

}  // namespace

void project(const Scene& scene, const Projection& out, int64_t begin, int64_t end) {
  for (int64_t first = begin; first < end; first += kLanes) {
    Splats s(Sixteen(first, end));
    load_splats(scene, s);
    for (int64_t c = 0; c < scene.camera_count; ++c) {
      const Camera& camera = scene.cameras[c];
      Footprint f;
      Drawn d{};
      place_means(camera, s, f);
      EACH(i) {
        const bool between = (f.z[i] > scene.near_plane) & (f.z[i] < scene.far_plane);
        f.visible[i] = between ? s.usable[i] : 0.0;
      }
      if (any(f.visible)) {
        project_axes(scene, camera, s, f);
        draw(scene, camera, s, f, d);
      }
      if (scene.sh_count && any(f.visible)) {
        Basis basis;
        look(camera, s, scene.sh_count, basis);
        evaluate_colors(s.sh, scene.sh_count, basis, 0.5, d.color);
      }
      store_drawn(s, f, d, c * scene.n, out);
    }
  }
}

void project_backward(const Scene& scene, const ProjectionGradients& g, int64_t begin,
                      int64_t end) {
  Incoming in;
  for (int64_t first = begin; first < end; first += kLanes) {
    Splats s(Sixteen(first, end));
    load_splats(scene, s);
    Outgoing out{};
    for (int64_t c = 0; c < scene.camera_count; ++c) {
      const Camera& camera = scene.cameras[c];
      Footprint f;
      load_incoming(g, s, c * scene.n, f, in);
      if (!any(f.visible)) continue;
      Viewing view;
      Viewing* const wanted = g.viewing ? &view : nullptr;
      if (wanted) view = Viewing{};
      place_means(camera, s, f);
      project_axes(scene, camera, s, f);
      footprint_backward(scene, camera, s, f, in, out, wanted);
      if (scene.sh_count) colors_backward(camera, s, scene.sh_count, in, out, wanted);
      if (wanted) {
        add_viewing(view, g.viewing + (begin / kProjectChunk * scene.camera_count + c) * kViewing);
      }
    }
    store_outgoing(scene, s, out, g);
  }
}

}  // namespace SPLAT_ISA
}  // namespace splat
