#include "kernels.h"

namespace splat {

Camera::Camera(const float* viewmat, const float* K, int width, int height)
    : fx(K[0]), fy(K[4]), cx(K[2]), cy(K[5]) {
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) R[i][j] = viewmat[4 * i + j];
    t[i] = viewmat[4 * i + 3];
  }
  for (int j = 0; j < 3; ++j) center[j] = -(R[0][j] * t[0] + R[1][j] * t[1] + R[2][j] * t[2]);
  const double margin_x = kFrustumMargin * 0.5 * width / fx;
  const double margin_y = kFrustumMargin * 0.5 * height / fy;
  slope_low[0] = -cx / fx - margin_x;
  slope_low[1] = -cy / fy - margin_y;
  slope_high[0] = (width - cx) / fx + margin_x;
  slope_high[1] = (height - cy) / fy + margin_y;
}

}  // namespace splat
