// The numbers that define the picture; splat_esd/rasterize/reference.py holds the same ones.
#pragma once

namespace splat {

constexpr float kAlphaMax = 0.999f;        // keeps 1 - alpha away from 0
constexpr double kAlphaMin = 1.0 / 255.0;  // fainter is not seen
constexpr float kLog2AlphaMin = -7.99435344f;
constexpr float kTransmittanceMin = 1e-4f;  // darker is finished
constexpr double kExtentMax = 3.33;         // deviations at which an opacity of 1 is not seen
constexpr double kFrustumMargin = 0.3;      // of half the image
constexpr double kRadiusMax = 1 << 30;      // what fits an integer
constexpr double kLog2E = 1.4426950408889634;
constexpr double kLn2 = 0.6931471805599453;

constexpr int kTile = 16;   // pixels along a side
constexpr int kBlock = 4;   // pixels along a side; a block is one vector
constexpr int kLanes = 16;  // pixels in a block, and blocks in a tile

}  // namespace splat
