#include "tiles.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "memory.h"
#include "parallel.h"

namespace splat {
namespace {

constexpr const char* kCouples = "pairs of a splat and a tile that it touches";
constexpr int64_t kWorthSlicing = 16384;  // Gaussians below which threads cost more than they save

struct Grid {
  int columns, rows;
  float width, height, per_tile;  // in tiles; tiles in a pixel

  Grid(int tile_size, int across, int down)
      : columns(across),
        rows(down),
        width(static_cast<float>(across)),
        height(static_cast<float>(down)),
        per_tile(1.0f / static_cast<float>(tile_size)) {}

  int64_t tiles() const { return static_cast<int64_t>(columns) * rows; }
};

// The tiles that a Gaussian's box touches, in eight bytes.
struct Box {
  uint16_t left, top, columns, rows;
  int64_t count() const { return static_cast<int64_t>(columns) * rows; }
};

Box box_of(const Flat& splats, int64_t i, const Grid& grid) {
  const float x = splats.means2d[2 * i], y = splats.means2d[2 * i + 1];
  const float rx = static_cast<float>(splats.radii[2 * i]);
  const float ry = static_cast<float>(splats.radii[2 * i + 1]);
  const float edges[4] = {x - rx, y - ry, x + rx, y + ry};
  const float limits[4] = {grid.width, grid.height, grid.width, grid.height};
  int32_t tiles[4];
  for (int k = 0; k < 4; ++k) {
    const float tile = edges[k] * grid.per_tile;
    const float held = std::min(std::max(0.0f, tile), limits[k]);  // NaN becomes 0
    tiles[k] = static_cast<int32_t>(held);
    if (k >= 2) tiles[k] += held > static_cast<float>(tiles[k]);
  }
  return {static_cast<uint16_t>(tiles[0]), static_cast<uint16_t>(tiles[1]),
          static_cast<uint16_t>(tiles[2] - tiles[0]), static_cast<uint16_t>(tiles[3] - tiles[1])};
}

bool is_visible(const Flat& splats, int64_t i) {
  return splats.radii[2 * i] > 0 && splats.radii[2 * i + 1] > 0;
}

// In place: a record that is made elsewhere and copied stalls on its own stores.
void make_record(const float* mean2d, const float* factor, const Box& box, Record& r) {
  r.x = mean2d[0];
  r.y = mean2d[1];
  r.s1 = factor[0];
  r.s2 = factor[1];
  r.s3 = factor[2];
  r.lo = factor[3];
  const float yy = r.s2 * r.s2 + r.s3 * r.s3;
  r.dx_per_dy = r.s1 > 0 ? -r.s2 / r.s1 : 0.0f;
  r.dy_per_dx = yy > 0 ? -r.s1 * r.s2 / yy : 0.0f;
  r.left = box.left;
  r.top = box.top;
  r.columns = box.columns;
  r.rows = box.rows;
}

// One camera's Gaussians, cut into slices that threads share. The order of everything below is
// that of the Gaussians and of their depths, however many slices there are.
struct Slices {
  int64_t begin, end;
  int count;

  Slices(int64_t first, int64_t last, int threads)
      : begin(first), end(last), count(last - first < kWorthSlicing ? 1 : threads) {}

  int64_t at(int slice) const { return begin + (end - begin) * slice / count; }
};

template <typename Task>
void over_slices(int threads, const std::vector<Slices>& cameras, Task task) {
  std::vector<std::pair<int64_t, int>> all;
  for (size_t c = 0; c < cameras.size(); ++c) {
    for (int s = 0; s < cameras[c].count; ++s) all.emplace_back(c, s);
  }
  parallel_for(threads, static_cast<int64_t>(all.size()),
               [&](int64_t i) { task(all[i].first, all[i].second); });
}

// What one camera sees, in the order of the Gaussians; and the same by depth.
struct Seen {
  Buffer<uint64_t> keys, other;  // (depth, which)
  Buffer<Box> boxes, by_depth;
  std::vector<int64_t> visible, couples;       // before each slice, and in all
  std::vector<std::vector<int32_t>> per_tile;  // of each slice, [rows+1, columns+1]
};

void count_slice(const Flat& splats, const Grid& grid, const Slices& slices, int slice,
                 Seen& seen) {
  int64_t visible = 0, couples = 0;
  for (int64_t i = slices.at(slice); i < slices.at(slice + 1); ++i) {
    if (!is_visible(splats, i)) continue;
    ++visible;
    couples += box_of(splats, i, grid).count();
  }
  seen.visible[slice + 1] = visible;
  seen.couples[slice + 1] = couples;
}

template <typename Visit>
void each_tile(const Box& box, int columns, int top, int bottom, Visit visit) {
  const int from = std::max<int>(box.top, top), to = std::min<int>(box.top + box.rows, bottom);
  for (int y = from; y < to; ++y) {
    for (int x = box.left; x < box.left + box.columns; ++x) visit(y * columns + x);
  }
}

// Tells `visit` of each visible Gaussian of a slice: which it is, how many were seen before it, its
// box, and its first couple.
template <typename Visit>
void collect_slice(const Flat& splats, const Grid& grid, const Slices& slices, int slice,
                   Seen& seen, Visit visit) {
  // Four corners in place of a loop over the box: a sum along both axes makes them counts.
  std::vector<int32_t>& corners = seen.per_tile[slice];
  const int64_t stride = grid.columns + 1;
  corners.assign(stride * (grid.rows + 1), 0);
  int64_t v = seen.visible[slice], couple = seen.couples[slice];
  for (int64_t i = slices.at(slice); i < slices.at(slice + 1); ++i) {
    if (!is_visible(splats, i)) continue;
    const Box box = box_of(splats, i, grid);
    int32_t* top = corners.data() + box.top * stride + box.left;
    int32_t* bottom = top + box.rows * stride;
    ++top[0];
    --top[box.columns];
    --bottom[0];
    ++bottom[box.columns];
    uint32_t depth;
    std::memcpy(&depth, splats.depths + i, sizeof depth);
    seen.keys[v] = static_cast<uint64_t>(depth) << 32 | static_cast<uint64_t>(v);
    seen.boxes[v] = box;
    visit(i, v, box, couple);
    couple += box.count();
    ++v;
  }
  for (int y = 0; y < grid.rows; ++y) {
    int32_t* row = corners.data() + y * stride;
    for (int x = 1; x < grid.columns; ++x) row[x] += row[x - 1];
    for (int x = 0; x < grid.columns && y > 0; ++x) row[x] += row[x - stride];
  }
}

// Sorts (depth, which) by depth; equal depths keep their order. Depths are positive, so their bit
// patterns sort as they do; only the bits in which they differ are looked at.
void sort_by_depth(Seen& seen, int slices, int threads) {
  const int64_t n = static_cast<int64_t>(seen.keys.size());
  uint32_t least = ~0u, most = 0;
  for (uint64_t key : seen.keys) {
    least = std::min(least, static_cast<uint32_t>(key >> 32));
    most = std::max(most, static_cast<uint32_t>(key >> 32));
  }
  int bits = 0;
  while (n > 1 && bits < 32 && ((most - least) >> bits) != 0) ++bits;
  const int passes = (bits + 12) / 13, digit_bits = passes ? (bits + passes - 1) / passes : 0;
  const uint32_t digits = 1u << digit_bits;
  std::vector<uint32_t> counts(static_cast<size_t>(digits) * slices);
  for (int pass = 0; pass < passes; ++pass) {
    const auto digit = [&](uint64_t key) {
      return ((static_cast<uint32_t>(key >> 32) - least) >> (pass * digit_bits)) & (digits - 1);
    };
    parallel_for(threads, slices, [&](int64_t s) {
      uint32_t* at = counts.data() + s * digits;
      std::fill(at, at + digits, 0);
      for (int64_t i = n * s / slices; i < n * (s + 1) / slices; ++i) ++at[digit(seen.keys[i])];
    });
    uint32_t total = 0;
    for (uint32_t d = 0; d < digits; ++d) {
      for (int s = 0; s < slices; ++s) total += std::exchange(counts[s * digits + d], total);
    }
    parallel_for(threads, slices, [&](int64_t s) {
      uint32_t* at = counts.data() + s * digits;
      for (int64_t i = n * s / slices; i < n * (s + 1) / slices; ++i) {
        seen.other[at[digit(seen.keys[i])]++] = seen.keys[i];
      }
    });
    seen.keys.swap(seen.other);
  }
}

// Deals one camera's Gaussians to the tiles of a band, nearest first: `deal(tile, which)`.
template <typename Deal>
void deal_band(const Seen& seen, const Grid& grid, int top, int bottom, Deal deal) {
  for (size_t k = 0; k < seen.keys.size(); ++k) {
    const uint32_t v = static_cast<uint32_t>(seen.keys[k]);
    each_tile(seen.by_depth[k], grid.columns, top, bottom, [&](int tile) { deal(tile, v); });
  }
}

// Everything but the records: what each camera sees, in order, and where each tile's entries begin.
struct Dealing {
  std::vector<Slices> slices;
  std::vector<Seen> seen;
  std::vector<int64_t> first, first_couple;  // [C+1]

  Dealing(const Flat& splats, const Grid& grid, int threads)
      : seen(splats.cameras), first(splats.cameras + 1, 0), first_couple(splats.cameras + 1, 0) {
    for (int64_t c = 0; c < splats.cameras; ++c) {
      // As many cameras as threads need no slices.
      slices.emplace_back(splats.first[c], splats.first[c + 1],
                          splats.cameras < threads ? threads : 1);
      seen[c].visible.assign(slices[c].count + 1, 0);
      seen[c].couples.assign(slices[c].count + 1, 0);
      seen[c].per_tile.resize(slices[c].count);
    }
    over_slices(threads, slices,
                [&](int64_t c, int s) { count_slice(splats, grid, slices[c], s, seen[c]); });
    for (int64_t c = 0; c < splats.cameras; ++c) {
      for (int s = 0; s < slices[c].count; ++s) {
        seen[c].visible[s + 1] += seen[c].visible[s];
        seen[c].couples[s + 1] += seen[c].couples[s];
      }
      first[c + 1] = first[c] + seen[c].visible.back();
      first_couple[c + 1] = first_couple[c] + seen[c].couples.back();
      const size_t visible = static_cast<size_t>(seen[c].visible.back());
      for (auto* keys : {&seen[c].keys, &seen[c].other}) *keys = Buffer<uint64_t>(visible);
      for (auto* boxes : {&seen[c].boxes, &seen[c].by_depth}) *boxes = Buffer<Box>(visible);
    }
  }

  // Sorts, and counts the entries of all tiles: [C*T + 1].
  void sort(const Grid& grid, int threads, int64_t* offsets) {
    if (seen.size() < static_cast<size_t>(threads)) {
      for (size_t c = 0; c < seen.size(); ++c) sort_by_depth(seen[c], slices[c].count, threads);
    } else {
      parallel_for(threads, static_cast<int64_t>(seen.size()),
                   [&](int64_t c) { sort_by_depth(seen[c], 1, 1); });
    }
    over_slices(threads, slices, [&](int64_t c, int s) {
      Seen& now = seen[c];
      const int64_t n = static_cast<int64_t>(now.keys.size()), count = slices[c].count;
      for (int64_t k = n * s / count; k < n * (s + 1) / count; ++k) {
        now.by_depth[k] = now.boxes[static_cast<uint32_t>(now.keys[k])];
      }
    });
    int64_t* next = offsets;
    *next = 0;
    for (const Seen& now : seen) {
      for (int64_t tile = 0; tile < grid.tiles(); ++tile, ++next) {
        const int64_t at = tile + tile / grid.columns;  // its rows are one longer
        next[1] = next[0];
        for (const std::vector<int32_t>& counts : now.per_tile) next[1] += counts[at];
      }
    }
  }

  // Calls `put(camera, tile, place, which)` once for each couple.
  template <typename Put>
  void deal(const Grid& grid, int threads, const int64_t* offsets, Put put) const {
    over_slices(threads, slices, [&](int64_t c, int band) {
      const int64_t* begin = offsets + c * grid.tiles();
      std::vector<int64_t> next(begin, begin + grid.tiles());
      const int top = grid.rows * band / slices[c].count;
      const int bottom = grid.rows * (band + 1) / slices[c].count;
      deal_band(seen[c], grid, top, bottom,
                [&](int tile, uint32_t v) { put(c, tile, next[tile]++, v); });
    });
  }
};

}  // namespace

void paint(Record& r, const Paint& paint, int64_t i) {
  const int left = paint.channels - paint.channel;
  const float* from = paint.colors + i * paint.channels + paint.channel;
  r.red = from[0];
  r.green = left > 1 ? from[1] : 0.0f;
  r.blue = left > 2 ? from[2] : 0.0f;
  r.depth = paint.mean_depth ? paint.depths[i] : (left > 3 ? from[3] : 0.0f);
}

Binning bin(const Flat& splats, const float* factors, const Paint& colors, int width, int height,
            int threads) {
  const Grid grid(kTile, (width + kTile - 1) / kTile, (height + kTile - 1) / kTile);
  Dealing dealing(splats, grid, threads);
  Binning out;
  out.visible = dealing.first.back();
  out.couples = dealing.first_couple.back();
  require_memory(out.couples, sizeof(int32_t) + sizeof(uint16_t), kCouples);
  out.records = Buffer<Record>(out.visible + 1);
  out.ids = Buffer<int32_t>(out.visible);
  out.offsets = Buffer<int64_t>(splats.cameras * grid.tiles() + 1);
  out.entries = Buffer<int32_t>(out.couples);
  over_slices(threads, dealing.slices, [&](int64_t c, int s) {
    Record* records = out.records.get() + dealing.first[c];
    int32_t* ids = out.ids.get() + dealing.first[c];
    collect_slice(splats, grid, dealing.slices[c], s, dealing.seen[c],
                  [&](int64_t i, int64_t v, const Box& box, int64_t couple) {
                    ids[v] = static_cast<int32_t>(i);
                    Record& r = records[v];
                    make_record(splats.means2d + 2 * i, factors + 4 * i, box, r);
                    paint(r, colors, i);
                    r.first = dealing.first_couple[c] + couple;
                  });
  });
  out.records[out.visible].first = out.couples;
  dealing.sort(grid, threads, out.offsets.get());
  dealing.deal(grid, threads, out.offsets.get(), [&](int64_t c, int, int64_t place, uint32_t v) {
    out.entries[place] = static_cast<int32_t>(dealing.first[c] + v);
  });
  return out;
}

Intersections intersect(const Flat& splats, int64_t m, int tile_size, int columns, int rows,
                        int threads) {
  const Grid grid(tile_size, columns, rows);
  int tile_bits = 0;
  while ((grid.tiles() >> tile_bits) != 0) ++tile_bits;
  Dealing dealing(splats, grid, threads);
  Intersections out;
  out.couples = dealing.first_couple.back();
  require_memory(out.couples, sizeof(int64_t) + sizeof(int32_t), kCouples);
  out.tiles_per_gauss = Buffer<int32_t>(m);
  std::fill(out.tiles_per_gauss.begin(), out.tiles_per_gauss.end(), 0);
  out.isect_ids = Buffer<int64_t>(out.couples);
  out.flatten_ids = Buffer<int32_t>(out.couples);
  Buffer<int32_t> ids(dealing.first.back());
  over_slices(threads, dealing.slices, [&](int64_t c, int s) {
    collect_slice(splats, grid, dealing.slices[c], s, dealing.seen[c],
                  [&](int64_t i, int64_t v, const Box& box, int64_t) {
                    ids[dealing.first[c] + v] = static_cast<int32_t>(i);
                    out.tiles_per_gauss[i] = static_cast<int32_t>(box.count());
                  });
  });
  std::vector<int64_t> offsets(splats.cameras * grid.tiles() + 1);
  dealing.sort(grid, threads, offsets.data());
  dealing.deal(grid, threads, offsets.data(), [&](int64_t c, int tile, int64_t place, uint32_t v) {
    const int32_t i = ids[dealing.first[c] + v];
    uint32_t depth;
    std::memcpy(&depth, splats.depths + i, sizeof depth);
    out.isect_ids[place] = (c << (32 + tile_bits)) | (static_cast<int64_t>(tile) << 32) | depth;
    out.flatten_ids[place] = i;
  });
  return out;
}

Buffer<Record> records_of(const float* means2d, const float* conics, const float* opacities,
                          int64_t count, const Paint& colors) {
  Buffer<Record> records(count + 1);
  for (int64_t i = 0; i < count; ++i) {
    const double a = conics[3 * i], b = conics[3 * i + 1], c = conics[3 * i + 2];
    const double half = 0.5 * kLog2E, s1 = std::sqrt(half * std::max(a, 0.0));
    const double opacity = opacities[i];
    const float factor[4] = {
        static_cast<float>(s1),
        static_cast<float>(s1 > 0 ? half * b / s1 : 0.0),
        static_cast<float>(std::sqrt(half * std::max(a > 0 ? c - b * b / a : c, 0.0))),
        static_cast<float>(opacity > 0 ? std::log2(opacity) : -1e30),
    };
    make_record(means2d + 2 * i, factor, {}, records[i]);
    paint(records[i], colors, i);
  }
  return records;
}

Buffer<int64_t> slots_of(const int32_t* entries, int64_t couples, Record* records, int64_t count) {
  for (int64_t i = 0; i <= count; ++i) records[i].first = 0;
  for (int64_t e = 0; e < couples; ++e) ++records[entries[e] + 1].first;
  for (int64_t i = 0; i < count; ++i) records[i + 1].first += records[i].first;
  Buffer<int64_t> next(count);
  for (int64_t i = 0; i < count; ++i) next[i] = records[i].first;
  Buffer<int64_t> slots(couples);
  for (int64_t e = 0; e < couples; ++e) slots[e] = next[entries[e]]++;
  return slots;
}

void gather(const Record* records, const int32_t* ids, int64_t visible, const float* rows,
            const int32_t* row_of, const float* conics, const float* opacities,
            const SplatGradients& out, int threads) {
  constexpr int64_t kChunk = 512, kAhead = 48;
  const int64_t couples = records[visible].first;
  parallel_for(threads, (visible + kChunk - 1) / kChunk, [&](int64_t chunk) {
    for (int64_t v = chunk * kChunk; v < std::min(visible, (chunk + 1) * kChunk); ++v) {
      float sum[kRow] = {};
      bool seen = false;
      for (int64_t couple = records[v].first; couple < records[v + 1].first; ++couple) {
        if (couple + kAhead < couples) {
          SPLAT_PREFETCH(rows + std::max<int64_t>(row_of[couple + kAhead], 0) * kRow);
        }
        const int64_t row = row_of[couple];
        if (row < 0) continue;
        seen = true;
        for (int k = 0; k < kRow; ++k) sum[k] += rows[row * kRow + k];
      }
      if (!seen) continue;
      const int64_t i = ids ? ids[v] : v;
      const float* conic = conics + 3 * i;
      out.means2d[2 * i] -= conic[0] * sum[1] + conic[1] * sum[2];
      out.means2d[2 * i + 1] -= conic[1] * sum[1] + conic[2] * sum[2];
      out.conics[3 * i] += 0.5f * sum[3];
      out.conics[3 * i + 1] += sum[4];
      out.conics[3 * i + 2] += 0.5f * sum[5];
      out.opacities[i] -= sum[0] / opacities[i];
      const int wanted = std::min(out.channels - out.channel, out.mean_depth ? 3 : 4);
      float* colors = out.colors + i * out.channels + out.channel;
      for (int k = 0; k < wanted; ++k) colors[k] = sum[6 + k];
      if (out.mean_depth) out.depths[i] = sum[9];
      if (out.absolute == nullptr) continue;
      out.absolute[2 * i] += sum[10];
      out.absolute[2 * i + 1] += sum[11];
    }
  });
}

}  // namespace splat
