#include "draw.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "memory.h"
#include "parallel.h"
#include "scratch.h"
#include "tiles.h"

namespace splat {
namespace {

constexpr int64_t kPixels = 4096;  // per task

int64_t tiles_in(const Tiles& t, int64_t cameras) { return cameras * t.columns * t.rows; }

template <typename Task>
void over_pixels(int threads, int64_t pixels, Task task) {
  parallel_for(threads, (pixels + kPixels - 1) / kPixels, [&](int64_t chunk) {
    for (int64_t p = chunk * kPixels; p < std::min(pixels, (chunk + 1) * kPixels); ++p) task(p);
  });
}

// The channels of one round: four, or three and the mean depth.
struct Round {
  int channel, count;

  Round(const Palette& palette, int first)
      : channel(first), count(std::min(palette.channels - first, palette.mean_depth ? 3 : 4)) {}
};

// Pictures of many channels, three and one at a time.
class Pages {
 public:
  explicit Pages(int64_t pixels) : pixels_(pixels), three_(3 * pixels), fourth_(pixels) {}

  float* three() { return three_.get(); }
  float* fourth() { return fourth_.get(); }

  void read(const float* image, int channels, const Round& round, int threads) {
    over_pixels(threads, pixels_, [&](int64_t p) {
      const float* from = image + p * channels + round.channel;
      for (int k = 0; k < 3; ++k) three_[3 * p + k] = k < round.count ? from[k] : 0.0f;
      fourth_[p] = round.count > 3 ? from[3] : 0.0f;
    });
  }

  void write(float* image, int channels, const Round& round, int threads) const {
    over_pixels(threads, pixels_, [&](int64_t p) {
      float* to = image + p * channels + round.channel;
      for (int k = 0; k < std::min(round.count, 3); ++k) to[k] = three_[3 * p + k];
      if (round.count > 3) to[3] = fourth_[p];
    });
  }

 private:
  int64_t pixels_;
  Buffer<float> three_, fourth_;
};

std::vector<float> ground_of(const Palette& palette, const Round& round, int64_t cameras) {
  std::vector<float> ground(4 * cameras, 0.0f);
  for (int64_t c = 0; c < cameras && palette.background; ++c) {
    for (int k = 0; k < round.count; ++k) {
      ground[4 * c + k] = palette.background[c * palette.channels + round.channel + k];
    }
  }
  return ground;
}

void repaint(Record* records, const int32_t* ids, int64_t visible, const Palette& palette,
             const Round& round, int threads) {
  const Paint next{palette.colors, palette.channels, round.channel, palette.mean_depth,
                   palette.depths};
  constexpr int64_t kRecords = 4096;
  parallel_for(threads, (visible + kRecords - 1) / kRecords, [&](int64_t chunk) {
    const int64_t end = std::min(visible, (chunk + 1) * kRecords);
    for (int64_t v = chunk * kRecords; v < end; ++v) paint(records[v], next, ids ? ids[v] : v);
  });
}

void add_ground(const double* tiles, int64_t per_image, const Palette& palette, const Round& round,
                int64_t cameras, float* out) {
  for (int64_t c = 0; c < cameras; ++c) {
    for (int k = 0; k < round.count; ++k) {
      double sum = 0;
      for (int64_t i = c * per_image; i < (c + 1) * per_image; ++i) sum += tiles[4 * i + k];
      out[c * palette.channels + round.channel + k] = static_cast<float>(sum);
    }
  }
}

}  // namespace

void draw(Tiles t, Record* records, const int32_t* ids, int64_t visible, int64_t cameras,
          const Palette& palette, const Pictures& out, int threads) {
  const Kernels& k = kernels();
  const int64_t pixels = cameras * t.height * t.width;
  const bool direct = palette.mean_depth;
  t.mean_depth = direct;
  std::unique_ptr<Pages> pages(direct ? nullptr : new Pages(pixels));
  const Images images{direct ? out.colors : pages->three(), out.alpha,
                      direct ? out.depth : pages->fourth()};
  for (int channel = 0; channel < palette.channels; channel += 4) {
    const Round round(palette, channel);
    const std::vector<float> ground = ground_of(palette, round, cameras);
    t.background = palette.background ? ground.data() : nullptr;
    if (channel > 0) repaint(records, ids, visible, palette, round, threads);
    parallel_for(threads, tiles_in(t, cameras), [&](int64_t tile) { k.blend(t, images, tile); });
    if (!direct) pages->write(out.colors, palette.channels, round, threads);
  }
}

void draw_backward(Tiles t, const Record* records, const int32_t* ids, int64_t visible,
                   int64_t cameras, int64_t couples, const Palette& palette,
                   const PictureGradients& p, const float* conics, const float* opacities,
                   const FlatGradients& out, int threads) {
  const Kernels& k = kernels();
  const int64_t tiles = tiles_in(t, cameras), pixels = cameras * t.height * t.width;
  const bool direct = palette.mean_depth;
  t.mean_depth = direct;
  std::vector<int64_t> first_rows(tiles + 1, 0);
  Buffer<int32_t> row_of(couples);
  std::fill(row_of.begin(), row_of.end(), -1);
  for (int64_t i = 0; i < tiles; ++i) first_rows[i + 1] = first_rows[i] + t.touching[i];
  if (first_rows[tiles] > INT32_MAX) {
    throw NotEnoughMemory("more than 2^31 rows of gradients; draw fewer or smaller splats.");
  }
  require_memory(first_rows[tiles], kRow * sizeof(float), "rows of gradients");
  Buffer<float> rows(first_rows[tiles] * kRow);
  Buffer<double> grounds(4 * tiles);
  std::unique_ptr<Pages> picture(direct ? nullptr : new Pages(pixels));
  std::unique_ptr<Pages> v_picture(direct || !p.v_colors ? nullptr : new Pages(pixels));
  Buffer<Record> copies;
  if (palette.channels > 4) {
    copies = Buffer<Record>(visible + 1);
    std::copy(records, records + visible + 1, copies.get());
    t.records = copies.get();
  }
  for (int channel = 0; channel < palette.channels; channel += 4) {
    const Round round(palette, channel);
    BlendGradients g{p.colors,
                     p.alpha,
                     p.depth,
                     p.v_colors,
                     channel == 0 ? p.v_alpha : nullptr,
                     p.v_depth,
                     out.absolute != nullptr,
                     first_rows.data(),
                     rows.get(),
                     row_of.get(),
                     grounds.get()};
    if (!direct) {
      picture->read(p.colors, palette.channels, round, threads);
      g.rgb = picture->three();
      g.depth = picture->fourth();
      if (v_picture) {
        v_picture->read(p.v_colors, palette.channels, round, threads);
        g.v_rgb = v_picture->three();
        g.v_depth = round.count > 3 ? v_picture->fourth() : nullptr;
      }
      if (copies.get()) repaint(copies.get(), ids, visible, palette, round, threads);
    }
    parallel_for(threads, tiles, [&](int64_t tile) { k.blend_backward(t, g, tile); });
    const SplatGradients sums{out.means2d, out.conics, out.opacities, out.colors,  palette.channels,
                              channel,     direct,     out.depths,    out.absolute};
    gather(t.records, ids, visible, rows.get(), row_of.get(), conics, opacities, sums, threads);
    if (out.background) {
      add_ground(grounds.get(), tiles / std::max<int64_t>(cameras, 1), palette, round, cameras,
                 out.background);
    }
  }
}

}  // namespace splat
