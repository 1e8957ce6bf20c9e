// The only file that knows Python: arrays in, arrays out, no state in between.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "checks.h"
#include "draw.h"
#include "kernels.h"
#include "memory.h"
#include "parallel.h"
#include "scratch.h"
#include "tiles.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace splat {
namespace {

template <typename T>
using Made = nb::ndarray<nb::pytorch, T, nb::c_contig, nb::device::cpu>;

// Hands memory to a tensor, which frees it.
template <typename T, typename From>
Made<T> give(Buffer<From> memory, std::initializer_list<size_t> shape) {
  static_assert(sizeof(From) % sizeof(T) == 0, "a tensor of the same bytes");
  if (memory.get() == nullptr) memory = Buffer<From>(0);  // a capsule must hold something
  From* raw = memory.release();
  nb::capsule owner(raw, [](void* p) noexcept { return_memory(p); });
  return Made<T>(reinterpret_cast<T*>(raw), shape, owner);
}

// A tensor of undefined content, in memory that goes from one call to the next.
Made<float> empty(const std::vector<int64_t>& shape) {
  int64_t size = 1;
  std::vector<size_t> dimensions;
  for (int64_t n : shape) {
    size = product("shape", {size, in_range("shape", n, 0, kNumbersMax)}, kNumbersMax);
    dimensions.push_back(static_cast<size_t>(n));
  }
  require_memory(size, sizeof(float), "numbers of a tensor");
  float* raw = Buffer<float>(static_cast<size_t>(size)).release();
  nb::capsule owner(raw, [](void* p) noexcept { return_memory(p); });
  return Made<float>(raw, dimensions.size(), dimensions.data(), owner);
}

int threads_of(int64_t threads) {
  return static_cast<int>(in_range("threads", threads, 1, kThreadsMax));
}

struct View {
  int width, height;
  double near_plane, far_plane, eps2d;
  bool antialiased;
  double radius_clip;

  View(int64_t wide, int64_t high, double near, double far, double eps, bool anti, double clip)
      : width(static_cast<int>(in_range("width", wide, 1, kSideMax))),
        height(static_cast<int>(in_range("height", high, 1, kSideMax))),
        near_plane(near),
        far_plane(far),
        eps2d(eps),
        antialiased(anti),
        radius_clip(clip) {}
};

// Gaussians and cameras. Either quats and scales, or covars; no sh: no colours are wanted.
struct Parameters {
  int64_t n, count, sh_count = 0;
  bool squares = false;  // covars are given
  const float *means, *quats, *scales, *covars, *opacities, *sh, *viewmats, *Ks;

  Parameters(Given of_means, MaybeGiven of_quats, MaybeGiven of_scales, MaybeGiven of_covars,
             Given of_opacities, MaybeGiven of_sh, Given of_viewmats, Given of_Ks)
      : n(dimension("means", of_means, 0, 2)), count(dimension("viewmats", of_viewmats, 0, 3)) {
    product("means times viewmats", {n, count}, kSplatsMax);
    if (of_sh) {
      sh_count = dimension("sh", *of_sh, 1, 3);
      if (sh_count != 1 && sh_count != 4 && sh_count != 9 && sh_count != 16) {
        refuse("sh", "expected 1, 4, 9 or 16 coefficients, got " + std::to_string(sh_count) + ".");
      }
    }
    const bool axes = of_quats && of_scales && !of_covars;
    squares = !of_quats && !of_scales && of_covars;
    if (!axes && !squares) refuse("covars", "either quats and scales are wanted, or covars.");
    means = in<float>("means", of_means, {n, 3});
    quats = in<float>("quats", of_quats, {n, 4});
    scales = in<float>("scales", of_scales, {n, 3});
    covars = in<float>("covars", of_covars, {n, 6});
    opacities = in<float>("opacities", of_opacities, {n});
    sh = in<float>("sh", of_sh, {n, sh_count, 3});
    viewmats = in<float>("viewmats", of_viewmats, {count, 4, 4});
    Ks = in<float>("Ks", of_Ks, {count, 3, 3});
    arrays = {of_means, of_opacities, of_viewmats, of_Ks};
    for (const MaybeGiven& some : {of_quats, of_scales, of_covars, of_sh}) {
      if (some) arrays.push_back(*some);
    }
  }

 private:
  std::vector<Given> arrays;  // what the pointers point into
};

std::vector<Camera> cameras_of(const Parameters& p, const View& view) {
  std::vector<Camera> cameras;
  for (int64_t c = 0; c < p.count; ++c) {
    cameras.emplace_back(p.viewmats + 16 * c, p.Ks + 9 * c, view.width, view.height);
  }
  return cameras;
}

Scene scene_of(const Parameters& p, const View& view, const std::vector<Camera>& cameras) {
  Scene scene{};
  scene.n = p.n;
  scene.camera_count = p.count;
  scene.sh_count = static_cast<int>(p.sh_count);
  scene.means = p.means;
  scene.quats = p.quats;
  scene.scales = p.scales;
  scene.covars = p.covars;
  scene.opacities = p.opacities;
  scene.sh = p.sh;
  scene.cameras = cameras.data();
  scene.width = view.width;
  scene.height = view.height;
  scene.near_plane = view.near_plane;
  scene.far_plane = view.far_plane;
  scene.eps2d = view.eps2d;
  scene.radius_clip = view.radius_clip;
  scene.antialiased = view.antialiased;
  return scene;
}

int64_t chunks_of(int64_t n) { return (n + kProjectChunk - 1) / kProjectChunk; }

template <typename Task>
void in_chunks(int64_t n, int threads, Task task) {
  parallel_for(threads, chunks_of(n), [&](int64_t chunk) {
    task(chunk * kProjectChunk, std::min(n, (chunk + 1) * kProjectChunk));
  });
}

void project(const Parameters& p, const View& view, Room means2d, Room depths, Room conics,
             Room opacities, MaybeRoom colors, Room factors, Room radii, int64_t threads) {
  const std::vector<Camera> cameras = cameras_of(p, view);
  const Scene scene = scene_of(p, view, cameras);
  const int64_t m = p.n * p.count;
  if (colors.has_value() != (p.sh_count > 0)) refuse("colors", "wanted with sh, and only then.");
  const Projection to{
      out<float>("means2d", means2d, {m, 2}), out<float>("depths", depths, {m}),
      out<float>("conics", conics, {m, 3}),   out<float>("opacities", opacities, {m}),
      out<float>("colors", colors, {m, 3}),   out<float>("factors", factors, {m, 4}),
      out<int32_t>("radii", radii, {m, 2})};
  const int team = threads_of(threads);
  const Kernels& k = kernels();
  nb::gil_scoped_release release;
  in_chunks(scene.n, team, [&](int64_t begin, int64_t end) { k.project(scene, to, begin, end); });
}

// p = R m + t,  and the centre c is the last column of the inverse:  dc = -V^-1 dV (c, 1).
void add_viewing(const std::vector<double>& sums, const std::vector<Camera>& cameras,
                 float* v_viewmats) {
  const size_t count = cameras.size(), chunks = count ? sums.size() / (count * kViewing) : 0;
  for (size_t c = 0; c < count; ++c) {
    double sum[kViewing] = {};
    for (size_t chunk = 0; chunk < chunks; ++chunk) {
      for (int k = 0; k < kViewing; ++k) sum[k] += sums[(chunk * count + c) * kViewing + k];
    }
    for (int i = 0; i < 3; ++i) {
      const double* R = cameras[c].R[i];
      const double by_center = -(R[0] * sum[12] + R[1] * sum[13] + R[2] * sum[14]);
      float* row = v_viewmats + 16 * c + 4 * i;
      for (int j = 0; j < 3; ++j) {
        row[j] = static_cast<float>(sum[3 * i + j] + by_center * cameras[c].center[j]);
      }
      row[3] = static_cast<float>(sum[9 + i] + by_center);
    }
    const double* center = cameras[c].center;
    const double last = -(center[0] * sum[12] + center[1] * sum[13] + center[2] * sum[14]);
    for (int j = 0; j < 4; ++j) {
      v_viewmats[16 * c + 12 + j] = static_cast<float>(last * (j < 3 ? center[j] : 1.0));
    }
  }
}

void project_backward(const Parameters& p, const View& view, Given radii, MaybeGiven means2d,
                      MaybeGiven depths, MaybeGiven conics, MaybeGiven opacities, MaybeGiven colors,
                      Room v_means, MaybeRoom v_quats, MaybeRoom v_scales, MaybeRoom v_covars,
                      Room v_opacities, MaybeRoom v_sh, MaybeRoom v_viewmats, int64_t threads) {
  const std::vector<Camera> cameras = cameras_of(p, view);
  const Scene scene = scene_of(p, view, cameras);
  const int64_t m = p.n * p.count;
  const bool axes = !p.squares, colored = p.sh_count > 0;
  if (v_quats.has_value() != axes || v_scales.has_value() != axes || v_covars.has_value() == axes ||
      v_sh.has_value() != colored) {
    refuse("v_quats, v_scales, v_covars, v_sh", "wanted for what was projected, and only for it.");
  }
  if (colors && !colored) refuse("colors", "wanted with sh only.");
  const int64_t viewing_size =
      product("means times viewmats", {chunks_of(p.n), p.count, kViewing}, kNumbersMax);
  if (v_viewmats) require_memory(viewing_size, sizeof(double), "sums over views");
  std::vector<double> viewing(v_viewmats ? viewing_size : 0, 0.0);
  const ProjectionGradients g{in<int32_t>("radii", radii, {m, 2}),
                              in<float>("means2d", means2d, {m, 2}),
                              in<float>("depths", depths, {m}),
                              in<float>("conics", conics, {m, 3}),
                              in<float>("opacities", opacities, {m}),
                              in<float>("colors", colors, {m, 3}),
                              out<float>("v_means", v_means, {p.n, 3}),
                              out<float>("v_quats", v_quats, {p.n, 4}),
                              out<float>("v_scales", v_scales, {p.n, 3}),
                              out<float>("v_covars", v_covars, {p.n, 6}),
                              out<float>("v_opacities", v_opacities, {p.n}),
                              out<float>("v_sh", v_sh, {p.n, p.sh_count, 3}),
                              v_viewmats ? viewing.data() : nullptr};
  float* to_viewmats = out<float>("v_viewmats", v_viewmats, {p.count, 4, 4});
  const int team = threads_of(threads);
  const Kernels& k = kernels();
  nb::gil_scoped_release release;
  in_chunks(scene.n, team,
            [&](int64_t begin, int64_t end) { k.project_backward(scene, g, begin, end); });
  if (to_viewmats) add_viewing(viewing, cameras, to_viewmats);
}

// `m` directions; degrees 0 to 3.
Harmonics harmonics_of(int64_t degree, int64_t m, const Given& directions, const Given& sh,
                       const MaybeGiven& masks) {
  const int64_t count = in_range("degree", degree, 0, 3) + 1;
  const int64_t stride = in_range("sh.shape[1]", dimension("sh", sh, 1, 3), count * count, 1 << 20);
  return {in<float>("directions", directions, {m, 3}), in<float>("sh", sh, {m, stride, 3}),
          in<bool>("masks", masks, {m}), static_cast<int>(count * count), stride};
}

void spherical_harmonics(int64_t degree, Given directions, Given sh, MaybeGiven masks, Room colors,
                         int64_t threads) {
  const int64_t m = dimension("directions", directions, 0, 2);
  const Harmonics h = harmonics_of(degree, m, directions, sh, masks);
  float* to = out<float>("colors", colors, {m, 3});
  const int team = threads_of(threads);
  const Kernels& k = kernels();
  nb::gil_scoped_release release;
  in_chunks(m, team, [&](int64_t begin, int64_t end) { k.harmonics(h, to, begin, end); });
}

void spherical_harmonics_backward(int64_t degree, Given directions, Given sh, MaybeGiven masks,
                                  Given v_colors, Room v_sh, MaybeRoom v_directions,
                                  int64_t threads) {
  const int64_t m = dimension("directions", directions, 0, 2);
  const Harmonics h = harmonics_of(degree, m, directions, sh, masks);
  const float* from = in<float>("v_colors", v_colors, {m, 3});
  float* to_sh = out<float>("v_sh", v_sh, {m, h.stride, 3});
  float* to_directions = out<float>("v_directions", v_directions, {m, 3});
  const int team = threads_of(threads);
  const Kernels& k = kernels();
  nb::gil_scoped_release release;
  in_chunks(m, team, [&](int64_t begin, int64_t end) {
    k.harmonics_backward(h, from, to_sh, to_directions, begin, end);
  });
}

// A picture's size, checked against everything that is counted from it.
struct Canvas {
  int64_t cameras, channels, pixels, tiles;
  int width, height;

  template <typename Array>
  explicit Canvas(const Array& picture)
      : cameras(dimension("picture", picture, 0, 4)),
        channels(in_range("channels", dimension("picture", picture, 3, 4), 1, INT32_MAX)),
        width(static_cast<int>(in_range("width", picture.shape(2), 1, kSideMax))),
        height(static_cast<int>(in_range("height", picture.shape(1), 1, kSideMax))) {
    pixels = product("cameras, height, width", {cameras, height, width}, kNumbersMax);
    const int64_t columns = (width + kTile - 1) / kTile, rows = (height + kTile - 1) / kTile;
    tiles = product("cameras, rows, columns of tiles", {cameras, rows, columns}, kTilesMax);
  }

  bool operator==(const Canvas& other) const {
    return cameras == other.cameras && channels == other.channels && width == other.width &&
           height == other.height;
  }
};

// What the backward pass needs of the forward pass. Python holds it and cannot look inside, so
// what the kernels wrote into it is still true when they read it.
struct Plan {
  Canvas canvas;
  int64_t m;        // Gaussians on image planes
  bool mean_depth;  // three channels and the depth
  int64_t visible = 0, couples = 0;
  Buffer<Record> records;
  Buffer<int32_t> ids, entries, visited, touching;
  Buffer<int64_t> offsets, slots;
  Buffer<uint16_t> masks;

  void make_room() {
    masks = Buffer<uint16_t>(couples);
    visited = Buffer<int32_t>(canvas.tiles);
    touching = Buffer<int32_t>(canvas.tiles);
  }

  Tiles tiles() const {
    Tiles t{};
    t.width = canvas.width;
    t.height = canvas.height;
    t.columns = (t.width + kTile - 1) / kTile;
    t.rows = (t.height + kTile - 1) / kTile;
    t.records = records.get();
    t.offsets = offsets.get();
    t.entries = entries.get();
    t.masks = masks.get();
    t.visited = visited.get();
    t.touching = touching.get();
    t.slots = slots.get();
    return t;
  }
};

// Bins and draws. The Gaussians of camera c are [first[c], first[c+1]) of M; with `depth`, which
// wants three channels, their mean depth too.
std::unique_ptr<Plan> blend(Given means2d, Given depths, Given colors, Given factors, Given radii,
                            Given first, MaybeGiven background, Room picture, Room alpha,
                            MaybeRoom depth, int64_t threads) {
  const Canvas canvas(picture);
  const int64_t m = in_range("depths", size_of(depths), 0, kSplatsMax), d = canvas.channels;
  if (depth && d != 3) refuse("depth", "wanted with three channels only.");
  const int team = threads_of(threads);
  const int64_t* begins = in<int64_t>("first", first, {canvas.cameras + 1});
  check_ascending("first", begins, canvas.cameras, m);
  const Flat flat{canvas.cameras, begins, in<float>("means2d", means2d, {m, 2}),
                  in<float>("depths", depths, {m}), in<int32_t>("radii", radii, {m, 2})};
  const Palette palette{in<float>("colors", colors, {m, d}), static_cast<int>(d), depth.has_value(),
                        flat.depths, in<float>("background", background, {canvas.cameras, d})};
  const float* ellipses = in<float>("factors", factors, {m, 4});
  const Pictures to{
      out<float>("picture", picture, {canvas.cameras, canvas.height, canvas.width, d}),
      out<float>("alpha", alpha, {canvas.pixels, 1}),
      out<float>("depth", depth, {canvas.pixels, 1})};
  auto plan = std::make_unique<Plan>(Plan{canvas, m, depth.has_value()});
  {
    nb::gil_scoped_release release;
    Binning b = bin(flat, ellipses,
                    {palette.colors, palette.channels, 0, palette.mean_depth, palette.depths},
                    canvas.width, canvas.height, team);
    plan->visible = b.visible;
    plan->couples = b.couples;
    plan->records = std::move(b.records);
    plan->ids = std::move(b.ids);
    plan->offsets = std::move(b.offsets);
    plan->entries = std::move(b.entries);
    plan->make_room();
    draw(plan->tiles(), plan->records.get(), plan->ids.get(), plan->visible, canvas.cameras,
         palette, to, team);
  }
  return plan;
}

std::tuple<Made<int32_t>, Made<int64_t>, Made<int32_t>> intersect_tiles(
    Given means2d, Given radii, Given depths, Given first, int64_t tile_size, int64_t columns,
    int64_t rows, int64_t threads) {
  const int64_t m = in_range("depths", size_of(depths), 0, kSplatsMax);
  const int64_t cameras = in_range("first", dimension("first", first, 0, 1), 1, kSplatsMax) - 1;
  in_range("tile_size", tile_size, 1, kSideMax);
  in_range("columns", columns, 1, UINT16_MAX);
  in_range("rows", rows, 1, UINT16_MAX);
  product("cameras, rows, columns of tiles", {cameras, rows, columns}, kTilesMax);
  const int team = threads_of(threads);
  const int64_t* begins = in<int64_t>("first", first, {cameras + 1});
  check_ascending("first", begins, cameras, m);
  const Flat flat{cameras, begins, in<float>("means2d", means2d, {m, 2}),
                  in<float>("depths", depths, {m}), in<int32_t>("radii", radii, {m, 2})};
  Intersections found;
  {
    nb::gil_scoped_release release;
    found = intersect(flat, m, static_cast<int>(tile_size), static_cast<int>(columns),
                      static_cast<int>(rows), team);
  }
  const size_t p = static_cast<size_t>(found.couples);
  return {give<int32_t>(std::move(found.tiles_per_gauss), {static_cast<size_t>(m)}),
          give<int64_t>(std::move(found.isect_ids), {p}),
          give<int32_t>(std::move(found.flatten_ids), {p})};
}

// Draws what the caller has binned: entries of tile i are flatten_ids[offsets[i], offsets[i+1]).
std::unique_ptr<Plan> rasterize(Given means2d, Given conics, Given colors, Given opacities,
                                MaybeGiven background, MaybeGiven masks, Given offsets,
                                Given flatten_ids, Room picture, Room alpha, int64_t threads) {
  const Canvas canvas(picture);
  const int64_t m = in_range("opacities", size_of(opacities), 0, kSplatsMax), d = canvas.channels;
  const int64_t couples = in_range("flatten_ids", size_of(flatten_ids), 0, kNumbersMax);
  const int team = threads_of(threads);
  const Palette palette{in<float>("colors", colors, {m, d}), static_cast<int>(d), false, nullptr,
                        in<float>("background", background, {canvas.cameras, d})};
  const float* centers = in<float>("means2d", means2d, {m, 2});
  const float* inverses = in<float>("conics", conics, {m, 3});
  const float* strengths = in<float>("opacities", opacities, {m});
  const bool* drawn = in<bool>("masks", masks, {canvas.tiles});
  const int64_t* begins = in<int64_t>("offsets", offsets, {canvas.tiles + 1});
  check_ascending("offsets", begins, canvas.tiles, couples);
  const int32_t* order = in<int32_t>("flatten_ids", flatten_ids, {couples});
  check_ids("flatten_ids", order, couples, m);
  const Pictures to{
      out<float>("picture", picture, {canvas.cameras, canvas.height, canvas.width, d}),
      out<float>("alpha", alpha, {canvas.pixels, 1}), nullptr};
  auto plan = std::make_unique<Plan>(Plan{canvas, m, false, m, couples});
  {
    nb::gil_scoped_release release;
    require_memory(couples, sizeof(int64_t) + sizeof(int32_t) + sizeof(uint16_t), "flatten_ids");
    plan->records = records_of(centers, inverses, strengths, m,
                               {palette.colors, palette.channels, 0, false, nullptr});
    plan->entries = Buffer<int32_t>(couples);
    std::copy_n(order, couples, plan->entries.get());
    plan->slots = slots_of(plan->entries.get(), couples, plan->records.get(), m);
    plan->make_room();
    plan->offsets = Buffer<int64_t>(canvas.tiles + 1);
    std::copy_n(begins, canvas.tiles + 1, plan->offsets.get());
    Tiles t = plan->tiles();
    t.masks_of_tiles = drawn;
    draw(t, plan->records.get(), nullptr, m, canvas.cameras, palette, to, team);
  }
  return plan;
}

// Back from pictures to Gaussians on image planes, after either of the two above. All v_ arrays
// that go out are zero on entry.
void blend_backward(const Plan& plan, Given conics, Given colors, Given opacities, Given picture,
                    Given alpha, MaybeGiven depth, MaybeGiven v_picture, MaybeGiven v_alpha,
                    MaybeGiven v_depth, Room v_means2d, Room v_conics, Room v_colors,
                    Room v_opacities, MaybeRoom v_depths, MaybeRoom v_background,
                    MaybeRoom absolute, int64_t threads) {
  const Canvas canvas(picture);
  if (!(canvas == plan.canvas)) refuse("picture", "is of another size than what was drawn.");
  if (depth.has_value() != plan.mean_depth || v_depths.has_value() != plan.mean_depth) {
    refuse("depth, v_depths", "wanted if the depth was drawn, and only then.");
  }
  if (v_depth && !depth) refuse("v_depth", "wanted with depth only.");
  const int64_t m = plan.m, d = canvas.channels, pixels = canvas.pixels;
  const Shape whole = {canvas.cameras, canvas.height, canvas.width, d};
  // The records hold the depths of the forward pass.
  const Palette palette{in<float>("colors", colors, {m, d}), static_cast<int>(d), plan.mean_depth,
                        nullptr, nullptr};
  const PictureGradients pictures{
      in<float>("picture", picture, whole),       in<float>("alpha", alpha, {pixels, 1}),
      in<float>("depth", depth, {pixels, 1}),     in<float>("v_picture", v_picture, whole),
      in<float>("v_alpha", v_alpha, {pixels, 1}), in<float>("v_depth", v_depth, {pixels, 1})};
  const float* inverses = in<float>("conics", conics, {m, 3});
  const float* strengths = in<float>("opacities", opacities, {m});
  const FlatGradients to{out<float>("v_means2d", v_means2d, {m, 2}),
                         out<float>("v_conics", v_conics, {m, 3}),
                         out<float>("v_opacities", v_opacities, {m}),
                         out<float>("v_colors", v_colors, {m, d}),
                         out<float>("v_depths", v_depths, {m}),
                         out<float>("absolute", absolute, {m, 2}),
                         out<float>("v_background", v_background, {canvas.cameras, d})};
  const int team = threads_of(threads);
  nb::gil_scoped_release release;
  draw_backward(plan.tiles(), plan.records.get(), plan.ids.get(), plan.visible, canvas.cameras,
                plan.couples, palette, pictures, inverses, strengths, to, team);
}

// Floating-point operations in a second, on one thread: two for each multiply-and-add.
double fma_rate(double seconds) {
  if (!(seconds > 0 && seconds <= 10)) refuse("seconds", "must lie in (0, 10].");
  using Clock = std::chrono::steady_clock;
  const Kernels& k = kernels();
  nb::gil_scoped_release release;
  const auto begin = Clock::now();
  double operations = 0, spent = 0;
  for (; spent < seconds; spent = std::chrono::duration<double>(Clock::now() - begin).count()) {
    operations += 2 * k.multiply_and_add(100000);
  }
  return operations / spent;
}

}  // namespace
}  // namespace splat

NB_MODULE(_kernels, m) {
  using namespace splat;
  m.doc() =
      "The CPU rasteriser of splat-esd; splat_esd.rasterize.cpu and splat_esd.gsplat_cpu are its "
      "doors.";
  nb::class_<Parameters>(m, "Parameters")
      .def(nb::init<Given, MaybeGiven, MaybeGiven, MaybeGiven, Given, MaybeGiven, Given, Given>(),
           "means"_a, "quats"_a.none(), "scales"_a.none(), "covars"_a.none(), "opacities"_a,
           "sh"_a.none(), "viewmats"_a, "Ks"_a);
  nb::class_<View>(m, "View").def(
      nb::init<int64_t, int64_t, double, double, double, bool, double>());
  nb::class_<Plan>(m, "Plan");
  m.def("instruction_set", [] { return kernels().name; });
  m.def("fma_rate", &fma_rate);
  m.def("empty", &empty);
  m.def("project", &project);
  m.def("project_backward", &project_backward);
  m.def("spherical_harmonics", &spherical_harmonics);
  m.def("spherical_harmonics_backward", &spherical_harmonics_backward);
  m.def("blend", &blend);
  m.def("intersect", &intersect_tiles);
  m.def("rasterize", &rasterize);
  m.def("blend_backward", &blend_backward);
}
