// The only file that knows Python: arrays in, arrays out, no state in between.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <stdexcept>
#include <tuple>
#include <vector>

#include "kernels.h"
#include "parallel.h"
#include "tiles.h"

namespace nb = nanobind;

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
const T* data(const Maybe<T>& array) {
  return array ? array->data() : nullptr;
}

// Hands memory to a tensor, which frees it.
template <typename T>
Made<T> give(std::unique_ptr<T[]> memory, std::initializer_list<size_t> shape) {
  T* raw = memory.release();
  nb::capsule owner(raw, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return Made<T>(raw, shape, owner);
}

struct View {
  int width, height;
  double near_plane, far_plane, eps2d;
  bool antialiased;
};

struct Parameters {
  In<float> means, quats, scales, opacities, sh, viewmats, Ks;
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
  scene.sh_count = static_cast<int>(p.sh.shape(1));
  if (scene.n * std::max<int64_t>(scene.camera_count, 1) > INT32_MAX) {
    throw std::invalid_argument("more than 2^31 Gaussians times cameras.");
  }
  scene.means = p.means.data();
  scene.quats = p.quats.data();
  scene.scales = p.scales.data();
  scene.opacities = p.opacities.data();
  scene.sh = p.sh.data();
  scene.cameras = cameras.data();
  scene.width = view.width;
  scene.height = view.height;
  scene.near_plane = view.near_plane;
  scene.far_plane = view.far_plane;
  scene.eps2d = view.eps2d;
  scene.antialiased = view.antialiased;
  return scene;
}

template <typename Task>
void in_chunks(int64_t n, int threads, Task task) {
  parallel_for(threads, (n + kProjectChunk - 1) / kProjectChunk, [&](int64_t chunk) {
    task(chunk * kProjectChunk, std::min(n, (chunk + 1) * kProjectChunk));
  });
}

void project(const Parameters& p, const View& view, Out<float> means2d, Out<float> depths,
             Out<float> conics, Out<float> opacities, Out<float> colors, Out<float> factors,
             Out<int32_t> radii, int threads) {
  const std::vector<Camera> cameras = cameras_of(p, view);
  const Scene scene = scene_of(p, view, cameras);
  const Projection out{means2d.data(), depths.data(), conics.data(), opacities.data(),
                       colors.data(),  factors.data(), radii.data()};
  const Kernels& k = kernels();
  nb::gil_scoped_release release;
  in_chunks(scene.n, threads,
            [&](int64_t begin, int64_t end) { k.project(scene, out, begin, end); });
}

void project_backward(const Parameters& p, const View& view, In<int32_t> radii,
                      Maybe<float> means2d, Maybe<float> depths, Maybe<float> conics,
                      Maybe<float> opacities, Maybe<float> colors, Out<float> v_means,
                      Out<float> v_quats, Out<float> v_scales, Out<float> v_opacities,
                      Out<float> v_sh, int threads) {
  const std::vector<Camera> cameras = cameras_of(p, view);
  const Scene scene = scene_of(p, view, cameras);
  const ProjectionGradients g{radii.data(),     data(means2d),   data(depths),
                              data(conics),     data(opacities), data(colors),
                              v_means.data(),   v_quats.data(),  v_scales.data(),
                              v_opacities.data(), v_sh.data()};
  const Kernels& k = kernels();
  nb::gil_scoped_release release;
  in_chunks(scene.n, threads,
            [&](int64_t begin, int64_t end) { k.project_backward(scene, g, begin, end); });
}

// records, ids, offsets, entries, masks, visited, touching
using Plan = std::tuple<Made<float>, Made<int32_t>, Made<int64_t>, Made<int32_t>, Made<int16_t>,
                        Made<int32_t>, Made<int32_t>>;

Tiles tiles_of(int width, int height, const Record* records, const int64_t* offsets,
               const int32_t* entries, uint16_t* masks, int32_t* visited, int32_t* touching,
               const float* background) {
  return {width,
          height,
          (width + kTile - 1) / kTile,
          (height + kTile - 1) / kTile,
          records,
          offsets,
          entries,
          masks,
          visited,
          touching,
          background};
}

Plan blend(In<float> means2d, In<float> depths, In<float> opacities, In<float> colors,
           In<float> factors, In<int32_t> radii, Maybe<float> background, Out<float> rgb,
           Out<float> alpha, Out<float> depth, int threads) {
  const int64_t cameras = static_cast<int64_t>(means2d.shape(0));
  const int64_t n = static_cast<int64_t>(means2d.shape(1));
  const int height = static_cast<int>(rgb.shape(1)), width = static_cast<int>(rgb.shape(2));
  Projection splats{};
  splats.means2d = const_cast<float*>(means2d.data());
  splats.depths = const_cast<float*>(depths.data());
  splats.opacities = const_cast<float*>(opacities.data());
  splats.colors = const_cast<float*>(colors.data());
  splats.factors = const_cast<float*>(factors.data());
  splats.radii = const_cast<int32_t*>(radii.data());
  const Kernels& k = kernels();
  Binning b;
  std::unique_ptr<uint16_t[]> masks;
  std::unique_ptr<int32_t[]> visited, touching;
  int64_t tiles = 0;
  {
    nb::gil_scoped_release release;
    b = bin(splats, n, cameras, width, height, threads);
    masks.reset(new uint16_t[b.couples]);
    tiles = cameras * ((width + kTile - 1) / kTile) * ((height + kTile - 1) / kTile);
    visited.reset(new int32_t[tiles]);
    touching.reset(new int32_t[tiles]);
    const Tiles t =
        tiles_of(width, height, b.records.get(), b.offsets.get(), b.entries.get(), masks.get(),
                 visited.get(), touching.get(), data(background));
    const Images out{rgb.data(), alpha.data(), depth.data()};
    parallel_for(threads, tiles, [&](int64_t tile) { k.blend(t, out, tile); });
  }
  const size_t v = static_cast<size_t>(b.visible), p = static_cast<size_t>(b.couples);
  const size_t count = static_cast<size_t>(tiles);
  std::unique_ptr<int16_t[]> signed_masks(reinterpret_cast<int16_t*>(masks.release()));
  Record* records = b.records.release();
  nb::capsule owner(records, [](void* q) noexcept { delete[] static_cast<Record*>(q); });
  return {Made<float>(records, {v, sizeof(Record) / sizeof(float)}, owner),
          give(std::move(b.ids), {v}),
          give(std::move(b.offsets), {count + 1}),
          give(std::move(b.entries), {p}),
          give(std::move(signed_masks), {p}),
          give(std::move(visited), {count}),
          give(std::move(touching), {count})};
}

void blend_backward(In<float> records, In<int32_t> ids, In<int64_t> offsets, In<int32_t> entries,
                    In<int16_t> masks, In<int32_t> visited, In<int32_t> touching,
                    In<float> conics, In<float> opacities, In<float> rgb, In<float> alpha,
                    In<float> depth, Maybe<float> v_rgb, Maybe<float> v_alpha,
                    Maybe<float> v_depth, Out<float> v_means2d,
                    Out<float> v_depths, Out<float> v_conics, Out<float> v_opacities,
                    Out<float> v_colors, Out<float> v_background,
                    std::optional<Out<float>> absolute, int threads) {
  const int height = static_cast<int>(rgb.shape(1)), width = static_cast<int>(rgb.shape(2));
  const int64_t tiles = static_cast<int64_t>(visited.shape(0));
  const int64_t cameras = static_cast<int64_t>(rgb.shape(0));
  const int64_t couples = static_cast<int64_t>(entries.shape(0));
  const Record* all = reinterpret_cast<const Record*>(records.data());
  const Tiles t = tiles_of(
      width, height, all, offsets.data(), entries.data(),
      reinterpret_cast<uint16_t*>(const_cast<int16_t*>(masks.data())),
      const_cast<int32_t*>(visited.data()), const_cast<int32_t*>(touching.data()), nullptr);
  const SplatGradients out{v_means2d.data(), v_depths.data(), v_conics.data(), v_opacities.data(),
                           v_colors.data(),  absolute ? absolute->data() : nullptr};
  const Kernels& k = kernels();
  nb::gil_scoped_release release;
  std::vector<int64_t> first_rows(tiles + 1, 0), row_of(couples, -1);
  for (int64_t i = 0; i < tiles; ++i) first_rows[i + 1] = first_rows[i] + t.touching[i];
  std::unique_ptr<float[]> rows(new float[first_rows[tiles] * kRow]);
  std::unique_ptr<double[]> grounds(new double[3 * tiles]);
  const BlendGradients g{rgb.data(),    alpha.data(),  depth.data(),         data(v_rgb),
                         data(v_alpha), data(v_depth), absolute.has_value(), first_rows.data(),
                         rows.get(),    row_of.data(), grounds.get()};
  parallel_for(threads, tiles, [&](int64_t tile) { k.blend_backward(t, g, tile); });
  gather(all, ids.data(), static_cast<int64_t>(ids.shape(0)), rows.get(), row_of.data(),
         conics.data(), opacities.data(), out, threads);
  for (int64_t c = 0; c < cameras; ++c) {
    const int64_t per_image = tiles / cameras;
    double sum[3] = {};
    for (int64_t i = 3 * c * per_image; i < 3 * (c + 1) * per_image; ++i) {
      sum[i % 3] += grounds[i];
    }
    for (int j = 0; j < 3; ++j) v_background.data()[3 * c + j] = static_cast<float>(sum[j]);
  }
}

}  // namespace
}  // namespace splat

NB_MODULE(_kernels, m) {
  using namespace splat;
  m.doc() = "The CPU rasteriser of splat-esd; splat_esd.rasterize.cpu is its only door.";
  nb::class_<Parameters>(m, "Parameters")
      .def(nb::init<In<float>, In<float>, In<float>, In<float>, In<float>, In<float>, In<float>>());
  nb::class_<View>(m, "View")
      .def(nb::init<int, int, double, double, double, bool>());
  m.def("instruction_set", [] { return kernels().name; });
  m.def("project", &project);
  m.def("project_backward", &project_backward);
  m.def("blend", &blend);
  m.def("blend_backward", &blend_backward);
}
