#include "tiles.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "parallel.h"

namespace splat {
namespace {

constexpr int kDigitBits = 11;
constexpr int kDigits = 1 << kDigitBits;

int64_t count_visible(const int32_t* radii, int64_t n) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) count += radii[2 * i] > 0;
  return count;
}

// The tile that a pixel is in, or the first one past it, inside the image.
uint16_t floor_tile(float pixel, int limit) {
  const float tile = std::clamp(pixel * (1.0f / kTile), 0.0f, static_cast<float>(limit));
  return static_cast<uint16_t>(tile);
}

uint16_t ceil_tile(float pixel, int limit) {
  const float tile = std::clamp(pixel * (1.0f / kTile), 0.0f, static_cast<float>(limit));
  const uint16_t down = static_cast<uint16_t>(tile);
  return static_cast<uint16_t>(down + (tile > down));
}

Record make_record(const Projection& splats, int64_t i, int columns, int rows) {
  Record r;
  r.x = splats.means2d[2 * i];
  r.y = splats.means2d[2 * i + 1];
  const float* factor = splats.factors + 4 * i;
  r.s1 = factor[0];
  r.s2 = factor[1];
  r.s3 = factor[2];
  r.lo = factor[3];
  r.red = splats.colors[3 * i];
  r.green = splats.colors[3 * i + 1];
  r.blue = splats.colors[3 * i + 2];
  r.depth = splats.depths[i];
  const float yy = r.s2 * r.s2 + r.s3 * r.s3;
  r.dx_per_dy = r.s1 > 0 ? -r.s2 / r.s1 : 0.0f;
  r.dy_per_dx = yy > 0 ? -r.s1 * r.s2 / yy : 0.0f;
  const float rx = static_cast<float>(splats.radii[2 * i]);
  const float ry = static_cast<float>(splats.radii[2 * i + 1]);
  r.left = floor_tile(r.x - rx, columns);
  r.top = floor_tile(r.y - ry, rows);
  r.columns = static_cast<uint16_t>(ceil_tile(r.x + rx, columns) - r.left);
  r.rows = static_cast<uint16_t>(ceil_tile(r.y + ry, rows) - r.top);
  return r;
}

// Sorts (depth, record) by depth; equal depths keep their order. Depths are positive, so their bit
// patterns sort as they do.
void sort_by_depth(std::vector<uint64_t>& keys) {
  std::vector<uint64_t> other(keys.size());
  std::vector<uint32_t> counts(3 * kDigits, 0);
  for (uint64_t key : keys) {
    for (int pass = 0; pass < 3; ++pass) {
      ++counts[pass * kDigits + ((key >> (32 + pass * kDigitBits)) & (kDigits - 1))];
    }
  }
  for (int pass = 0; pass < 3; ++pass) {
    uint32_t* at = counts.data() + pass * kDigits;
    uint32_t total = 0;
    for (int digit = 0; digit < kDigits; ++digit) {
      total += std::exchange(at[digit], total);
    }
    for (uint64_t key : keys) {
      other[at[(key >> (32 + pass * kDigitBits)) & (kDigits - 1)]++] = key;
    }
    keys.swap(other);
  }
}

// The box of a record, in eight bytes: in the order of depth, records are far apart in memory.
struct Box {
  uint16_t left, top, columns, rows;
};

template <typename Visit>
void each_tile(const Box& box, int columns, Visit visit) {
  for (int y = box.top; y < box.top + box.rows; ++y) {
    for (int x = box.left; x < box.left + box.columns; ++x) visit(y * columns + x);
  }
}

// What one camera sees, before its couples are counted among those of all cameras.
struct Seen {
  std::vector<uint64_t> keys;  // (depth, record), nearest first once sorted
  std::vector<Box> boxes;
  int64_t couples = 0;
};

Seen collect(const Projection& splats, int64_t begin, int64_t end, int columns, int rows,
             Record* records, int32_t* ids, int64_t* counts) {
  Seen seen;
  for (int64_t i = begin; i < end; ++i) {
    if (splats.radii[2 * i] == 0) continue;
    Record r = make_record(splats, i, columns, rows);
    r.first = seen.couples;
    seen.couples += r.columns * r.rows;
    const Box box{r.left, r.top, r.columns, r.rows};
    each_tile(box, columns, [&](int tile) { ++counts[tile]; });
    const uint64_t v = seen.boxes.size();
    uint32_t depth;
    std::memcpy(&depth, &r.depth, sizeof depth);
    seen.keys.push_back(static_cast<uint64_t>(depth) << 32 | v);
    seen.boxes.push_back(box);
    ids[v] = static_cast<int32_t>(i);
    records[v] = r;
  }
  sort_by_depth(seen.keys);
  return seen;
}

}  // namespace

Binning bin(const Projection& splats, int64_t n, int64_t cameras, int width, int height,
            int threads) {
  const int columns = (width + kTile - 1) / kTile, rows = (height + kTile - 1) / kTile;
  const int64_t tiles = static_cast<int64_t>(columns) * rows;
  std::vector<int64_t> first(cameras + 1, 0), first_couple(cameras + 1, 0);
  parallel_for(threads, cameras, [&](int64_t c) {
    first[c + 1] = count_visible(splats.radii + 2 * c * n, n);
  });
  for (int64_t c = 0; c < cameras; ++c) first[c + 1] += first[c];

  Binning out;
  out.visible = first[cameras];
  out.records.reset(new Record[out.visible]);
  out.ids.reset(new int32_t[out.visible]);
  out.offsets = std::make_unique<int64_t[]>(cameras * tiles + 1);
  std::vector<Seen> seen(cameras);
  parallel_for(threads, cameras, [&](int64_t c) {
    seen[c] = collect(splats, c * n, (c + 1) * n, columns, rows, out.records.get() + first[c],
                      out.ids.get() + first[c], out.offsets.get() + c * tiles + 1);
  });
  for (int64_t c = 0; c < cameras; ++c) first_couple[c + 1] = first_couple[c] + seen[c].couples;
  for (int64_t t = 0; t < cameras * tiles; ++t) out.offsets[t + 1] += out.offsets[t];
  out.couples = first_couple[cameras];
  out.entries.reset(new int32_t[out.couples]);
  parallel_for(threads, cameras, [&](int64_t c) {
    const int64_t* begin = out.offsets.get() + c * tiles;
    std::vector<int64_t> next(begin, begin + tiles);
    for (uint64_t key : seen[c].keys) {
      const uint32_t v = static_cast<uint32_t>(key);
      const int32_t record = static_cast<int32_t>(first[c] + v);
      each_tile(seen[c].boxes[v], columns,
                [&](int tile) { out.entries[next[tile]++] = record; });
    }
    for (int64_t v = first[c]; v < first[c + 1]; ++v) out.records[v].first += first_couple[c];
  });
  return out;
}

void gather(const Record* records, const int32_t* ids, int64_t visible, const float* rows,
            const int64_t* row_of, const float* conics, const float* opacities,
            const SplatGradients& out, int threads) {
  constexpr int64_t kChunk = 512, kAhead = 16;
  if (visible == 0) return;
  const Record& last = records[visible - 1];
  const int64_t couples = last.first + last.columns * last.rows;
  parallel_for(threads, (visible + kChunk - 1) / kChunk, [&](int64_t chunk) {
    for (int64_t v = chunk * kChunk; v < std::min(visible, (chunk + 1) * kChunk); ++v) {
      const Record& r = records[v];
      float sum[kRow] = {};
      for (int64_t couple = r.first; couple < r.first + r.columns * r.rows; ++couple) {
        if (couple + kAhead < couples) {
          SPLAT_PREFETCH(rows + std::max<int64_t>(row_of[couple + kAhead], 0) * kRow);
        }
        const int64_t row = row_of[couple];
        if (row < 0) continue;
        for (int k = 0; k < kRow; ++k) sum[k] += rows[row * kRow + k];
      }
      const int64_t i = ids[v];
      const float* conic = conics + 3 * i;
      out.means2d[2 * i] = -(conic[0] * sum[1] + conic[1] * sum[2]);
      out.means2d[2 * i + 1] = -(conic[1] * sum[1] + conic[2] * sum[2]);
      out.conics[3 * i] = 0.5f * sum[3];
      out.conics[3 * i + 1] = sum[4];
      out.conics[3 * i + 2] = 0.5f * sum[5];
      out.opacities[i] = -sum[0] / opacities[i];
      for (int k = 0; k < 3; ++k) out.colors[3 * i + k] = sum[6 + k];
      out.depths[i] = sum[9];
      if (out.absolute == nullptr) continue;
      out.absolute[2 * i] = sum[10];
      out.absolute[2 * i + 1] = sum[11];
    }
  });
}

}  // namespace splat
