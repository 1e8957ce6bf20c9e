// Front-to-back blending and its gradient, one 16 x 16 tile at a time, one 4 x 4 block per vector.
//
// Compiled once per instruction set; README.md has the equations.

#include <cstring>

#include "kernels.h"
#include "simd.h"

namespace splat {
namespace SPLAT_ISA {
namespace {

constexpr int kChunk = 256;          // entries whose records are copied together
constexpr int kAhead = 8;            // entries fetched from memory before they are needed
constexpr float kMaskSlack = 1e-2f;  // bits; more than the bound's rounding error

// The pixel centres of a block, and which of them lie in the image.
struct Block {
  Lanes x, y;
  int columns, rows;  // inside the image; 0 for a block outside
};

// Where a tile lies.
struct Place {
  int64_t camera;
  int column, row;
  int left, top;

  Place(const Tiles& t, int64_t tile) {
    const int64_t per_image = static_cast<int64_t>(t.columns) * t.rows;
    const int within = static_cast<int>(tile % per_image);
    camera = tile / per_image;
    column = within % t.columns;
    row = within / t.columns;
    left = column * kTile;
    top = row * kTile;
  }

  int64_t first_pixel(const Tiles& t, int b) const {
    return (camera * t.height + top + (b / 4) * kBlock) * t.width + left + (b % 4) * kBlock;
  }
};

int inside(int start, int limit) {
  const int left = limit - start;
  return left < 0 ? 0 : (left > kBlock ? kBlock : left);
}

Block block_of(const Tiles& t, const Place& at, int b) {
  const int left = at.left + (b % 4) * kBlock, top = at.top + (b / 4) * kBlock;
  alignas(64) float x[kLanes], y[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    x[i] = static_cast<float>(left + i % 4) + 0.5f;
    y[i] = static_cast<float>(top + i / 4) + 0.5f;
  }
  return {load(x), load(y), inside(left, t.width), inside(top, t.height)};
}

// 1 where a pixel of the block is in the image, else 0.
Lanes in_image(const Block& block) {
  alignas(64) float in[kLanes];
  for (int i = 0; i < kLanes; ++i) in[i] = i % 4 < block.columns && i / 4 < block.rows;
  return load(in);
}

// The blocks of a tile that a Gaussian may reach, as bits: where the largest alpha over the
// block's pixel centres is not below the limit. The ellipse's value is convex, so outside of its
// centre the least lies on one of the two edges that face it.
struct BlockTest {
  Lanes left, right, top, bottom;

  explicit BlockTest(const Place& at) {
    alignas(64) float x[kLanes], y[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      x[i] = static_cast<float>(at.left + (i % 4) * kBlock) + 0.5f;
      y[i] = static_cast<float>(at.top + (i / 4) * kBlock) + 0.5f;
    }
    left = load(x);
    top = load(y);
    right = left + splat(kBlock - 1);
    bottom = top + splat(kBlock - 1);
  }

  uint32_t operator()(const Record& r) const {
    const Lanes x = splat(r.x), y = splat(r.y), zero = splat(0.0f);
    const Lanes x0 = left - x, x1 = right - x, y0 = top - y, y1 = bottom - y;
    const Lanes near_x = min(max(zero, x0), x1), near_y = min(max(zero, y0), y1);
    const Lanes best_y = min(max(splat(r.dy_per_dx) * near_x, y0), y1);
    const Lanes best_x = min(max(splat(r.dx_per_dy) * near_y, x0), x1);
    const Lanes least = min(distance(r, near_x, best_y), distance(r, best_x, near_y));
    return bits(splat(r.lo - kLog2AlphaMin + kMaskSlack) >= least);
  }

  static Lanes distance(const Record& r, Lanes dx, Lanes dy) {
    const Lanes u = fma(splat(r.s1), dx, splat(r.s2) * dy), v = splat(r.s3) * dy;
    return fma(u, u, v * v);
  }
};

// How one Gaussian covers sixteen pixels. Both passes come through here, so that each decision to
// skip, to clamp or to stop falls the same way twice.
//
// `after` goes on falling in a finished pixel: once below the limit it stays there, and no flag has
// to say so. That leaves one multiplication between one Gaussian and the next.
struct Cover {
  Lanes dx, dy, raw, alpha, after;  // alpha is 0 where too faint
  Mask kept;                        // the pixel is not finished

  Cover(const Record& r, const Block& block, Lanes transmittance) {
    dx = block.x - splat(r.x);
    dy = block.y - splat(r.y);
    const Lanes u = fma(splat(r.s1), dx, splat(r.s2) * dy), v = splat(r.s3) * dy;
    const Lanes log_alpha = fnma(v, v, fnma(u, u, splat(r.lo)));
    raw = exp2(log_alpha);
    alpha = keep(log_alpha >= splat(kLog2AlphaMin), min(raw, splat(kAlphaMax)));
    after = fnma(transmittance, alpha, transmittance);
    kept = after > splat(kTransmittanceMin);
  }
};

struct Pixels {
  Lanes transmittance;  // as far as all entries go; 0 outside the image
  Lanes left_over;      // as far as the pixel was not finished
  Lanes red, green, blue, depth, weight;
};

void blend_block(const Record* records, const uint16_t* list, int count, const Block& block,
                 Pixels& pixels) {
  Pixels p = pixels;
  for (int j = 0; j < count; ++j) {
    const Record& r = records[list[j]];
    const Lanes before = p.transmittance;
    const Cover cover(r, block, before);
    p.transmittance = cover.after;
    if (!any(cover.kept)) break;
    const Lanes weight = keep(cover.kept, before * cover.alpha);
    p.red = fma(weight, splat(r.red), p.red);
    p.green = fma(weight, splat(r.green), p.green);
    p.blue = fma(weight, splat(r.blue), p.blue);
    p.depth = fma(weight, splat(r.depth), p.depth);
    p.weight = p.weight + weight;
    p.left_over = select(cover.kept, cover.after, p.left_over);
  }
  pixels = p;
}

// Copies one row of a block, to or from an image of so many floats a pixel.
template <int channels>
SPLAT_INLINE void copy_row(float* to, const float* from, int columns) {
  if (columns == kBlock) {
    std::memcpy(to, from, kBlock * channels * sizeof(float));  // of known size: no call
  } else {
    for (int i = 0; i < columns * channels; ++i) to[i] = from[i];
  }
}

template <int channels>
void store_rows(const float* values, const Block& block, float* image, int64_t stride) {
  for (int y = 0; y < block.rows; ++y) {
    copy_row<channels>(image + y * stride * channels, values + y * kBlock * channels,
                       block.columns);
  }
}

void store_block(const Tiles& t, const Place& at, int b, const Block& block, const Pixels& p,
                 const Images& out) {
  Lanes colors[3] = {p.red, p.green, p.blue}, fourth = p.depth;
  if (t.background) {
    const float* ground = t.background + 4 * at.camera;
    for (int k = 0; k < 3; ++k) colors[k] = fma(p.left_over, splat(ground[k]), colors[k]);
    fourth = fma(p.left_over, splat(ground[3]), fourth);
  }
  alignas(64) float rgb[3 * kLanes], hidden_rows[kLanes], fourth_rows[kLanes];
  merge_channels(colors, rgb);
  // The sum is exact for faint pixels, where 1 - T has lost its digits, and T for opaque ones.
  const Lanes hidden = select(p.left_over > splat(0.5f), p.weight, splat(1.0f) - p.left_over);
  store(hidden_rows, hidden);
  if (t.mean_depth) fourth = keep(hidden > splat(0.0f), fourth * reciprocal(hidden));
  store(fourth_rows, fourth);
  const int64_t first = at.first_pixel(t, b);
  store_rows<3>(rgb, block, out.rgb + 3 * first, t.width);
  store_rows<1>(hidden_rows, block, out.alpha + first, t.width);
  store_rows<1>(fourth_rows, block, out.depth + first, t.width);
}

void blend(const Tiles& t, const Images& out, int64_t tile) {
  const Place at(t, tile);
  const BlockTest reached(at);
  Block blocks[kLanes];
  Pixels pixels[kLanes];
  uint32_t live = 0;
  for (int b = 0; b < kLanes; ++b) {
    const Lanes zero = splat(0.0f);
    blocks[b] = block_of(t, at, b);
    pixels[b] = {in_image(blocks[b]), splat(1.0f), zero, zero, zero, zero, zero};
    live |= static_cast<uint32_t>(blocks[b].columns * blocks[b].rows > 0) << b;
  }
  Record records[kChunk];
  uint16_t masks[kChunk + kLanes], list[kChunk + kLanes];
  const bool drawn = t.masks_of_tiles == nullptr || t.masks_of_tiles[tile];
  const int64_t begin = t.offsets[tile], end = drawn ? t.offsets[tile + 1] : begin;
  int64_t entry = begin;
  int touching = 0;
  while (entry < end && live) {
    const int count = static_cast<int>(end - entry < kChunk ? end - entry : kChunk);
    uint32_t touched = 0;
    for (int j = 0; j < count; ++j) {
      if (j + kAhead < count) SPLAT_PREFETCH(t.records + t.entries[entry + j + kAhead]);
      records[j] = t.records[t.entries[entry + j]];
      masks[j] = static_cast<uint16_t>(reached(records[j]) & live);
      touched |= masks[j];
      touching += masks[j] != 0;
    }
    std::memcpy(t.masks + entry, masks, count * sizeof *masks);
    std::memset(masks + count, 0, kLanes * sizeof *masks);
    for (; touched; touched &= touched - 1) {
      const int b = lowest(touched);
      blend_block(records, list, compact(masks, count, b, list), blocks[b], pixels[b]);
      if (!any(pixels[b].transmittance > splat(kTransmittanceMin))) live &= ~(1u << b);
    }
    entry += count;
  }
  t.visited[tile] = static_cast<int32_t>(entry - begin);
  t.touching[tile] = touching;
  for (int b = 0; b < kLanes; ++b) store_block(t, at, b, blocks[b], pixels[b], out);
}

// What the loss says about sixteen pixels, and how far the light has come.
struct Adjoint {
  Lanes transmittance;  // 0 once finished
  Lanes rest;           // what the loss owes to the entries still to come and the background
  Lanes red, green, blue, alpha;
  Lanes depth, mean;  // dL/d(depth) / alpha, and the depth itself; or dL/d(fourth) and 0
};

// Sixteen pixels of an image; zeros outside of it, and for no image at all.
template <int channels>
void read_rows(const float* image, const Block& block, int64_t first, int64_t stride,
               float (&rows)[kLanes * channels]) {
  if (image == nullptr || block.rows < kBlock || block.columns < kBlock) {
    for (float& value : rows) value = 0.0f;
  }
  if (image == nullptr) return;
  for (int y = 0; y < block.rows; ++y) {
    copy_row<channels>(rows + y * kBlock * channels, image + (first + y * stride) * channels,
                       block.columns);
  }
}

void read_block(const float* image, const Block& block, int64_t first, int64_t stride,
                Lanes (&to)[3]) {
  alignas(64) float rows[3 * kLanes];
  read_rows<3>(image, block, first, stride, rows);
  split_channels(rows, to);
}

Lanes read_block(const float* image, const Block& block, int64_t first, int64_t stride) {
  alignas(64) float rows[kLanes];
  read_rows<1>(image, block, first, stride, rows);
  return load(rows);
}

Adjoint adjoint_of(const Tiles& t, const BlendGradients& g, const Place& at, int b,
                   const Block& block, Lanes (&v_background)[4]) {
  Lanes rgb[3], v_rgb[3];
  const int64_t first = at.first_pixel(t, b), stride = t.width;
  read_block(g.rgb, block, first, stride, rgb);
  read_block(g.v_rgb, block, first, stride, v_rgb);
  const Lanes alpha = read_block(g.alpha, block, first, stride);
  const Lanes depth = read_block(g.depth, block, first, stride);
  const Lanes v_depth = read_block(g.v_depth, block, first, stride);
  Adjoint a;
  a.transmittance = in_image(block);
  a.red = v_rgb[0];
  a.green = v_rgb[1];
  a.blue = v_rgb[2];
  a.alpha = read_block(g.v_alpha, block, first, stride);
  a.rest = fma(v_rgb[0], rgb[0], a.alpha * alpha);
  a.rest = fma(v_rgb[1], rgb[1], a.rest);
  a.rest = fma(v_rgb[2], rgb[2], a.rest);
  const Lanes left_over = splat(1.0f) - alpha;
  for (int k = 0; k < 3; ++k) v_background[k] = fma(left_over, v_rgb[k], v_background[k]);
  if (t.mean_depth) {
    // It has no part in the sum: what lies before it and behind it cancels.
    a.depth = keep(alpha > splat(0.0f), v_depth * reciprocal(alpha));
    a.mean = depth;
  } else {
    a.depth = v_depth;
    a.mean = splat(0.0f);
    a.rest = fma(v_depth, depth, a.rest);
    v_background[3] = fma(left_over, v_depth, v_background[3]);
  }
  return a;
}

// Adds what one Gaussian earns in sixteen pixels; says whether any of them is left unfinished.
template <bool WithDepth, bool Absolute>
SPLAT_INLINE bool add_gradient(const Record& r, const float* conic, const Block& block, Adjoint& a,
                               Lanes (&sum)[12]) {
  const Cover cover(r, block, a.transmittance);
  Lanes gain = fma(a.red, splat(r.red), a.alpha);
  gain = fma(a.blue, splat(r.blue), fma(a.green, splat(r.green), gain));
  if (WithDepth) gain = fma(a.depth, splat(r.depth) - a.mean, gain);
  const Lanes weight = keep(cover.kept, a.transmittance * cover.alpha);
  a.rest = fnma(weight, gain, a.rest);
  // dL/dalpha = T gain - rest / (1 - alpha);  dL/dsigma = -alpha dL/dalpha
  const Lanes behind = a.rest * reciprocal(splat(1.0f) - cover.alpha) * cover.alpha;
  const Mask bends = cover.kept & (splat(kAlphaMax) >= cover.raw);
  const Lanes s = keep(bends, fnma(weight, gain, behind));
  const Lanes sx = s * cover.dx, sy = s * cover.dy;
  sum[0] = sum[0] + s;
  sum[1] = sum[1] + sx;
  sum[2] = sum[2] + sy;
  sum[3] = fma(sx, cover.dx, sum[3]);
  sum[4] = fma(sx, cover.dy, sum[4]);
  sum[5] = fma(sy, cover.dy, sum[5]);
  sum[6] = fma(weight, a.red, sum[6]);
  sum[7] = fma(weight, a.green, sum[7]);
  sum[8] = fma(weight, a.blue, sum[8]);
  if (WithDepth) sum[9] = fma(weight, a.depth, sum[9]);
  if (Absolute) {
    sum[10] = sum[10] + abs(fma(splat(conic[0]), sx, splat(conic[1]) * sy));
    sum[11] = sum[11] + abs(fma(splat(conic[1]), sx, splat(conic[2]) * sy));
  }
  a.transmittance = cover.after;
  return any(cover.kept);
}

// The inverse covariance, which the record holds as its factor.
void conic_of(const Record& r, float (&conic)[3]) {
  constexpr float scale = static_cast<float>(2.0 / kLog2E);
  conic[0] = scale * r.s1 * r.s1;
  conic[1] = scale * r.s1 * r.s2;
  conic[2] = scale * (r.s2 * r.s2 + r.s3 * r.s3);
}

template <bool WithDepth, bool Absolute>
void backward(const Tiles& t, const BlendGradients& g, int64_t tile) {
  const Place at(t, tile);
  Block blocks[kLanes];
  Adjoint adjoints[kLanes];
  Lanes v_background[4] = {splat(0.0f), splat(0.0f), splat(0.0f), splat(0.0f)};
  uint32_t live = 0;
  for (int b = 0; b < kLanes; ++b) {
    blocks[b] = block_of(t, at, b);
    adjoints[b] = adjoint_of(t, g, at, b, blocks[b], v_background);
    live |= static_cast<uint32_t>(blocks[b].columns * blocks[b].rows > 0) << b;
  }
  alignas(64) float lanes[kLanes];
  for (int k = 0; k < 4; ++k) {
    double total = 0;
    store(lanes, v_background[k]);
    for (int i = 0; i < kLanes; ++i) total += lanes[i];
    g.v_background[4 * tile + k] = total;
  }
  int64_t row = g.first_rows[tile];
  const int64_t begin = t.offsets[tile], end = begin + t.visited[tile];
  for (int64_t entry = begin; entry < end && live; ++entry) {
    if (entry + kAhead < end) SPLAT_PREFETCH(t.records + t.entries[entry + kAhead]);
    uint32_t mask = t.masks[entry] & live;
    if (mask == 0) continue;
    const Record& r = t.records[t.entries[entry]];
    float conic[3];
    if (Absolute) conic_of(r, conic);
    Lanes sum[12];
    for (Lanes& lane : sum) lane = splat(0.0f);
    for (; mask; mask &= mask - 1) {
      const int b = lowest(mask);
      if (!add_gradient<WithDepth, Absolute>(r, conic, blocks[b], adjoints[b], sum)) {
        live &= ~(1u << b);
      }
    }
    store(g.rows + kRow * row, sums(sum));
    const int down = at.row - r.top, across = at.column - r.left;
    const int64_t in_box = r.first + down * static_cast<int64_t>(r.columns) + across;
    g.row_of[t.slots ? t.slots[entry] : in_box] = static_cast<int32_t>(row++);
  }
}

void blend_backward(const Tiles& t, const BlendGradients& g, int64_t tile) {
  if (g.v_depth) {
    g.absolute ? backward<true, true>(t, g, tile) : backward<true, false>(t, g, tile);
  } else {
    g.absolute ? backward<false, true>(t, g, tile) : backward<false, false>(t, g, tile);
  }
}

}  // namespace

void project(const Scene&, const Projection&, int64_t, int64_t);
void project_backward(const Scene&, const ProjectionGradients&, int64_t, int64_t);
void harmonics(const Harmonics&, float*, int64_t, int64_t);
void harmonics_backward(const Harmonics&, const float*, float*, float*, int64_t, int64_t);
double multiply_and_add(int64_t);

#define SPLAT_NAME_OF(isa) #isa
#define SPLAT_NAME(isa) SPLAT_NAME_OF(isa)
extern const Kernels table;
const Kernels table = {SPLAT_NAME(SPLAT_ISA), project, project_backward, harmonics,
                       harmonics_backward,    blend,   blend_backward,   multiply_and_add};

}  // namespace SPLAT_ISA
}  // namespace splat
