// The only file that knows Python: arrays in, arrays out, no state in between.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <tuple>
#include <vector>

#include "draw.h"
#include "kernels.h"
#include "parallel.h"
#include "scratch.h"
#include "tiles.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace splat {
namespace {

template <typename T>
using In = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
template <typename T>
using Out = nb::ndarray<T, nb::c_contig, nb::device::cpu>;
template <typename T>
using Made = nb::ndarray<nb::pytorch, T, nb::c_contig, nb::device::cpu>;
template <typename T>
using Maybe = std::optional<In<T>>;

template <typename T>
using MaybeOut = std::optional<Out<T>>;

template <typename T>
const T* data(const Maybe<T>& array) {
  return array ? array->data() : nullptr;
}

template <typename T>
T* data(const MaybeOut<T>& array) {
  return array ? array->data() : nullptr;
}

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
Made<float> empty(const std::vector<size_t>& shape) {
  size_t size = 1;
  for (size_t n : shape) size *= n;
  float* raw = Buffer<float>(size).release();
  nb::capsule owner(raw, [](void* p) noexcept { return_memory(p); });
  return Made<float>(raw, shape.size(), shape.data(), owner);
}

struct View {
  int width, height;
  double near_plane, far_plane, eps2d;
  bool antialiased;
  double radius_clip;
};

// Gaussians and cameras. Either quats and scales, or covars; no sh: no colours are wanted.
struct Parameters {
  In<float> means;
  Maybe<float> quats, scales, covars;
  In<float> opacities;
  Maybe<float> sh;
  In<float> viewmats, Ks;
};

std::vector<Camera> cameras_of(const Parameters& p, const View& view) {
  std::vector<Camera> cameras;
  for (size_t c = 0; c < p.viewmats.shape(0); ++c) {
    cameras.emplace_back(p.viewmats.data() + 16 * c, p.Ks.data() + 9 * c, view.width, view.height);
  }
  return cameras;
}

Scene scene_of(const Parameters& p, const View& view, const std::vector<Camera>& cameras) {
  Scene scene{};
  scene.n = static_cast<int64_t>(p.means.shape(0));
  scene.camera_count = static_cast<int64_t>(cameras.size());
  scene.sh_count = p.sh ? static_cast<int>(p.sh->shape(1)) : 0;
  if (scene.n * std::max<int64_t>(scene.camera_count, 1) > INT32_MAX) {
    throw std::invalid_argument("more than 2^31 Gaussians times cameras.");
  }
  scene.means = p.means.data();
  scene.quats = data(p.quats);
  scene.scales = data(p.scales);
  scene.covars = data(p.covars);
  scene.opacities = p.opacities.data();
  scene.sh = data(p.sh);
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

void project(const Parameters& p, const View& view, Out<float> means2d, Out<float> depths,
             Out<float> conics, Out<float> opacities, MaybeOut<float> colors, Out<float> factors,
             Out<int32_t> radii, int threads) {
  const std::vector<Camera> cameras = cameras_of(p, view);
  const Scene scene = scene_of(p, view, cameras);
  const Projection out{means2d.data(), depths.data(),  conics.data(), opacities.data(),
                       data(colors),   factors.data(), radii.data()};
  const Kernels& k = kernels();
  nb::gil_scoped_release release;
  in_chunks(scene.n, threads,
            [&](int64_t begin, int64_t end) { k.project(scene, out, begin, end); });
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

void project_backward(const Parameters& p, const View& view, In<int32_t> radii,
                      Maybe<float> means2d, Maybe<float> depths, Maybe<float> conics,
                      Maybe<float> opacities, Maybe<float> colors, Out<float> v_means,
                      MaybeOut<float> v_quats, MaybeOut<float> v_scales, MaybeOut<float> v_covars,
                      Out<float> v_opacities, MaybeOut<float> v_sh, MaybeOut<float> v_viewmats,
                      int threads) {
  const std::vector<Camera> cameras = cameras_of(p, view);
  const Scene scene = scene_of(p, view, cameras);
  std::vector<double> viewing;
  if (v_viewmats) viewing.assign(chunks_of(scene.n) * cameras.size() * kViewing, 0.0);
  const ProjectionGradients g{radii.data(),
                              data(means2d),
                              data(depths),
                              data(conics),
                              data(opacities),
                              data(colors),
                              v_means.data(),
                              data(v_quats),
                              data(v_scales),
                              data(v_covars),
                              v_opacities.data(),
                              data(v_sh),
                              v_viewmats ? viewing.data() : nullptr};
  const Kernels& k = kernels();
  nb::gil_scoped_release release;
  in_chunks(scene.n, threads,
            [&](int64_t begin, int64_t end) { k.project_backward(scene, g, begin, end); });
  if (v_viewmats) add_viewing(viewing, cameras, v_viewmats->data());
}

Harmonics harmonics_of(int degree, const In<float>& directions, const In<float>& sh,
                       const Maybe<bool>& masks) {
  return {directions.data(), sh.data(), data(masks), (degree + 1) * (degree + 1),
          static_cast<int64_t>(sh.shape(1))};
}

void spherical_harmonics(int degree, In<float> directions, In<float> sh, Maybe<bool> masks,
                         Out<float> colors, int threads) {
  const Harmonics h = harmonics_of(degree, directions, sh, masks);
  const Kernels& k = kernels();
  nb::gil_scoped_release release;
  in_chunks(static_cast<int64_t>(directions.shape(0)), threads,
            [&](int64_t begin, int64_t end) { k.harmonics(h, colors.data(), begin, end); });
}

void spherical_harmonics_backward(int degree, In<float> directions, In<float> sh, Maybe<bool> masks,
                                  In<float> v_colors, Out<float> v_sh, MaybeOut<float> v_directions,
                                  int threads) {
  const Harmonics h = harmonics_of(degree, directions, sh, masks);
  const Kernels& k = kernels();
  nb::gil_scoped_release release;
  in_chunks(static_cast<int64_t>(directions.shape(0)), threads, [&](int64_t begin, int64_t end) {
    k.harmonics_backward(h, v_colors.data(), v_sh.data(), data(v_directions), begin, end);
  });
}

// What the backward pass needs of the forward pass:
// records, ids, offsets, entries, slots, masks, visited, touching
using Plan = std::tuple<Made<float>, Made<int32_t>, Made<int64_t>, Made<int32_t>, Made<int64_t>,
                        Made<int16_t>, Made<int32_t>, Made<int32_t>>;

// The same, on its way to Python.
struct Draft {
  int64_t visible = 0, couples = 0, tiles = 0;
  Buffer<Record> records;
  Buffer<int32_t> ids, entries, visited, touching;
  Buffer<int64_t> offsets, slots;
  Buffer<uint16_t> masks;

  void make_room(int64_t of_tiles) {
    tiles = of_tiles;
    masks = Buffer<uint16_t>(couples);
    visited = Buffer<int32_t>(tiles);
    touching = Buffer<int32_t>(tiles);
  }

  Tiles on(int width, int height) const {
    Tiles t{};
    t.width = width;
    t.height = height;
    t.columns = (width + kTile - 1) / kTile;
    t.rows = (height + kTile - 1) / kTile;
    t.records = records.get();
    t.offsets = offsets.get();
    t.entries = entries.get();
    t.masks = masks.get();
    t.visited = visited.get();
    t.touching = touching.get();
    t.slots = slots.get();
    return t;
  }

  Plan finish() {
    const size_t v = static_cast<size_t>(visible), p = static_cast<size_t>(couples);
    const size_t n = static_cast<size_t>(tiles), named = ids.size(), slotted = slots.size();
    return {give<float>(std::move(records), {v + 1, sizeof(Record) / sizeof(float)}),
            give<int32_t>(std::move(ids), {named}),
            give<int64_t>(std::move(offsets), {n + 1}),
            give<int32_t>(std::move(entries), {p}),
            give<int64_t>(std::move(slots), {slotted}),
            give<int16_t>(std::move(masks), {p}),
            give<int32_t>(std::move(visited), {n}),
            give<int32_t>(std::move(touching), {n})};
  }
};

int64_t tiles_of(int64_t cameras, int64_t width, int64_t height) {
  return cameras * ((width + kTile - 1) / kTile) * ((height + kTile - 1) / kTile);
}

// Bins and draws. The Gaussians of camera c are [first[c], first[c+1]) of M; with `depth`, which
// wants three channels, their mean depth too.
Plan blend(In<float> means2d, In<float> depths, In<float> colors, In<float> factors,
           In<int32_t> radii, In<int64_t> first, Maybe<float> background, Out<float> picture,
           Out<float> alpha, MaybeOut<float> depth, int threads) {
  const int64_t cameras = static_cast<int64_t>(picture.shape(0));
  const int height = static_cast<int>(picture.shape(1));
  const int width = static_cast<int>(picture.shape(2));
  const int channels = static_cast<int>(picture.shape(3));
  const Flat flat{cameras, first.data(), means2d.data(), depths.data(), radii.data()};
  const Palette palette{colors.data(), channels, depth.has_value(), depths.data(),
                        data(background)};
  Draft draft;
  {
    nb::gil_scoped_release release;
    Binning b =
        bin(flat, factors.data(), {palette.colors, channels, 0, depth.has_value(), palette.depths},
            width, height, threads);
    draft.visible = b.visible;
    draft.couples = b.couples;
    draft.records = std::move(b.records);
    draft.ids = std::move(b.ids);
    draft.offsets = std::move(b.offsets);
    draft.entries = std::move(b.entries);
    draft.make_room(tiles_of(cameras, width, height));
    draw(draft.on(width, height), draft.records.get(), draft.ids.get(), draft.visible, cameras,
         palette, {picture.data(), alpha.data(), data(depth)}, threads);
  }
  return draft.finish();
}

std::tuple<Made<int32_t>, Made<int64_t>, Made<int32_t>> intersect_tiles(
    In<float> means2d, In<int32_t> radii, In<float> depths, In<int64_t> first, int tile_size,
    int columns, int rows, int threads) {
  const int64_t cameras = static_cast<int64_t>(first.shape(0)) - 1;
  const Flat flat{cameras, first.data(), means2d.data(), depths.data(), radii.data()};
  Intersections found;
  {
    nb::gil_scoped_release release;
    found = intersect(flat, tile_size, columns, rows, threads);
  }
  const size_t p = static_cast<size_t>(found.couples);
  return {give<int32_t>(std::move(found.tiles_per_gauss), {means2d.shape(0)}),
          give<int64_t>(std::move(found.isect_ids), {p}),
          give<int32_t>(std::move(found.flatten_ids), {p})};
}

// Draws what the caller has binned: entries of tile i are flatten_ids[offsets[i], offsets[i+1]).
Plan rasterize(In<float> means2d, In<float> conics, In<float> colors, In<float> opacities,
               Maybe<float> background, Maybe<bool> masks, In<int64_t> offsets,
               In<int32_t> flatten_ids, Out<float> picture, Out<float> alpha, int threads) {
  const int64_t cameras = static_cast<int64_t>(picture.shape(0));
  const int height = static_cast<int>(picture.shape(1));
  const int width = static_cast<int>(picture.shape(2));
  const Palette palette{colors.data(), static_cast<int>(picture.shape(3)), false, nullptr,
                        data(background)};
  Draft draft;
  {
    nb::gil_scoped_release release;
    draft.visible = static_cast<int64_t>(means2d.shape(0));
    draft.couples = static_cast<int64_t>(flatten_ids.shape(0));
    draft.records = records_of(means2d.data(), conics.data(), opacities.data(), draft.visible,
                               {palette.colors, palette.channels, 0, false, nullptr});
    draft.entries = Buffer<int32_t>(draft.couples);
    std::copy_n(flatten_ids.data(), draft.couples, draft.entries.get());
    draft.slots = slots_of(draft.entries.get(), draft.couples, draft.records.get(), draft.visible);
    draft.make_room(tiles_of(cameras, width, height));
    draft.offsets = Buffer<int64_t>(draft.tiles + 1);
    std::copy_n(offsets.data(), draft.tiles + 1, draft.offsets.get());
    Tiles t = draft.on(width, height);
    t.masks_of_tiles = data(masks);
    draw(t, draft.records.get(), nullptr, draft.visible, cameras, palette,
         {picture.data(), alpha.data(), nullptr}, threads);
  }
  return draft.finish();
}

// Back from pictures to Gaussians on image planes, after either of the two above. All v_ arrays
// that go out are zero on entry.
void blend_backward(In<float> records, In<int32_t> ids, In<int64_t> offsets, In<int32_t> entries,
                    In<int64_t> slots, In<int16_t> masks, In<int32_t> visited, In<int32_t> touching,
                    In<float> conics, In<float> colors, In<float> opacities, In<float> picture,
                    In<float> alpha, Maybe<float> depth, Maybe<float> v_picture,
                    Maybe<float> v_alpha, Maybe<float> v_depth, Out<float> v_means2d,
                    Out<float> v_conics, Out<float> v_colors, Out<float> v_opacities,
                    MaybeOut<float> v_depths, MaybeOut<float> v_background,
                    MaybeOut<float> absolute, int threads) {
  Tiles t{};
  t.height = static_cast<int>(picture.shape(1));
  t.width = static_cast<int>(picture.shape(2));
  t.columns = (t.width + kTile - 1) / kTile;
  t.rows = (t.height + kTile - 1) / kTile;
  t.records = reinterpret_cast<const Record*>(records.data());
  t.offsets = offsets.data();
  t.entries = entries.data();
  t.masks = reinterpret_cast<uint16_t*>(const_cast<int16_t*>(masks.data()));
  t.visited = const_cast<int32_t*>(visited.data());
  t.touching = const_cast<int32_t*>(touching.data());
  t.slots = slots.shape(0) ? slots.data() : nullptr;
  // The records hold the depths of the forward pass.
  const Palette palette{colors.data(), static_cast<int>(picture.shape(3)), depth.has_value(),
                        nullptr, nullptr};
  const PictureGradients pictures{picture.data(),  alpha.data(),  data(depth),
                                  data(v_picture), data(v_alpha), data(v_depth)};
  const FlatGradients out{v_means2d.data(), v_conics.data(), v_opacities.data(), v_colors.data(),
                          data(v_depths),   data(absolute),  data(v_background)};
  nb::gil_scoped_release release;
  draw_backward(t, t.records, ids.shape(0) ? ids.data() : nullptr,
                static_cast<int64_t>(records.shape(0)) - 1, static_cast<int64_t>(picture.shape(0)),
                static_cast<int64_t>(entries.shape(0)), palette, pictures, conics.data(),
                opacities.data(), out, threads);
}

// Floating-point operations in a second, on one thread: two for each multiply-and-add.
double fma_rate(double seconds) {
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
      .def(nb::init<In<float>, Maybe<float>, Maybe<float>, Maybe<float>, In<float>, Maybe<float>,
                    In<float>, In<float>>(),
           "means"_a, "quats"_a.none(), "scales"_a.none(), "covars"_a.none(), "opacities"_a,
           "sh"_a.none(), "viewmats"_a, "Ks"_a);
  nb::class_<View>(m, "View").def(nb::init<int, int, double, double, double, bool, double>());
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
