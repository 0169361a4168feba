// The rasterizer of the GPU. Arrays are validated in splat.raster.cuda.
#include <nanobind/stl/array.h>
#include <nanobind/stl/function.h>

#include <array>
#include <functional>

#include "gpu.h"
#include "raster.h"

namespace splat::bind {
namespace {

using gpu::Raster;
// means, quats, log_scales, logit_opacities, sh.
using Five = std::array<Address, 5>;

struct Scene {
    Five arrays;
    int64_t count;
    int coefficients, degree;
    bool antialiased;

    operator SceneArrays() const {
        return {pointer<float>(arrays[0]), pointer<float>(arrays[1]), pointer<float>(arrays[2]),
                pointer<float>(arrays[3]), pointer<float>(arrays[4]), count, coefficients, degree, antialiased};
    }
};

void forward(Raster& raster, const Scene& scene, const std::array<float, 16>& pose, float fx, float fy, float cx,
             float cy, int width, int height, Address background, Address features, int channels,
             Address image, Address alpha, Address depth, Address median_depth, Address ids,
             Address feature_image, Address radii, Address contribution, bool exact, int device, uintptr_t stream) {
    const View view = make_view(pose.data(), fx, fy, cx, cy, width, height);
    const gpu::ForwardOutputs out{pointer<float>(image),        pointer<float>(alpha),
                                  pointer<float>(depth),        pointer<float>(median_depth),
                                  pointer<int32_t>(ids),        pointer<float>(feature_image),
                                  pointer<int32_t>(radii),      pointer<float>(contribution)};
    nb::gil_scoped_release release;
    const gpu::DeviceGuard guard(device);
    raster.forward(view, scene, pointer<float>(background), pointer<float>(features), channels, out,
                   exact, stream_of(stream));
}

void blend_backward(Raster& raster, Address v_image, Address v_alpha, Address v_depth, Address v_median_depth,
                    Address v_features, Address background, Address depth, Address features,
                    Address v_splat_features, Address means2d, Address absolute, int device, uintptr_t stream) {
    nb::gil_scoped_release release;
    const gpu::DeviceGuard guard(device);
    raster.blend_backward({pointer<float>(v_image), pointer<float>(v_alpha), pointer<float>(v_depth),
                           pointer<float>(v_median_depth), pointer<float>(v_features)},
                          pointer<float>(background), pointer<float>(depth), pointer<float>(features), pointer<float>(v_splat_features),
                          pointer<float>(means2d), pointer<float>(absolute), stream_of(stream));
}

void project_backward(Raster& raster, const Scene& scene, const Five& gradients, Address v_pose, int device,
                      uintptr_t stream) {
    float* arrays[5];
    for (int i = 0; i < 5; ++i) arrays[i] = pointer<float>(gradients[i]);
    nb::gil_scoped_release release;
    const gpu::DeviceGuard guard(device);
    raster.project_backward(scene, arrays, pointer<float>(v_pose), stream_of(stream));
}

// scene: what was rendered, where the gradients are taken; parameters: what they are applied to.
// rates: means, quats, log_scales, logit_opacities, sh0, shN.
void fused_step(Raster& raster, const Scene& scene, const Five& parameters, const Five& first, const Five& second,
                const std::array<double, 6>& rates, int64_t step, double beta1, double beta2, double eps,
                double opacity_penalty, double scale_penalty, int device, uintptr_t stream) {
    FusedStep s{};
    for (int i = 0; i < 5; ++i) {
        s.values[i] = pointer<float>(parameters[i]);
        s.first[i] = pointer<float>(first[i]);
        s.second[i] = pointer<float>(second[i]);
    }
    const auto adam = [&](int i) { return make_adam_rates(rates[i], step, beta1, beta2, eps); };
    for (int i = 0; i < 4; ++i) s.rates[i] = adam(i);
    s.sh0 = adam(4);
    s.sh_rest = adam(5);
    if (scene.count > 0) {
        s.opacity_penalty = static_cast<float>(opacity_penalty / static_cast<double>(scene.count));
        s.scale_penalty = static_cast<float>(scale_penalty / (3.0 * static_cast<double>(scene.count)));
    }
    nb::gil_scoped_release release;
    const gpu::DeviceGuard guard(device);
    raster.fused_step(scene, s, stream_of(stream));
}

}  // namespace

void gpu_raster(nb::module_& m) {
    using namespace nb::literals;
    nb::class_<Scene>(m, "Scene", "Addresses of means, quats, log_scales, logit_opacities and sh, with their sizes.")
        .def(
            "__init__",
            [](Scene* self, const Five& arrays, int64_t count, int coefficients, int degree, bool antialiased) {
                new (self) Scene{arrays, count, coefficients, degree, antialiased};
            },
            "arrays"_a, "count"_a, "coefficients"_a, "degree"_a, "antialiased"_a);
    nb::class_<Raster>(m, "Raster", "State of one render from forward to backward; reused by the next.")
        .def(
            "__init__",
            [](Raster* self, std::function<Address(int, size_t)> allocate) {
                new (self) Raster([allocate = std::move(allocate)](int slot, size_t bytes) {
                    return pointer<void>(allocate(slot, bytes));
                });
            },
            "allocate"_a, "allocate(slot, bytes) gives device memory, good until the slot is asked for again.")
        .def("forward", &forward, "scene"_a, "pose"_a, "fx"_a, "fy"_a, "cx"_a, "cy"_a, "width"_a, "height"_a,
             "background"_a, "features"_a, "channels"_a, "image"_a, "alpha"_a, "depth"_a, "median_depth"_a,
             "ids"_a, "feature_image"_a, "radii"_a, "contribution"_a, "exact"_a, "device"_a, "stream"_a)
        .def("blend_backward", &blend_backward, "v_image"_a, "v_alpha"_a, "v_depth"_a, "v_median_depth"_a,
             "v_features"_a, "background"_a, "depth"_a, "features"_a, "v_splat_features"_a, "means2d"_a, "absolute"_a, "device"_a,
             "stream"_a)
        .def("project_backward", &project_backward, "scene"_a, "gradients"_a, "v_pose"_a, "device"_a, "stream"_a)
        .def("fused_step", &fused_step, "scene"_a, "parameters"_a, "first"_a, "second"_a, "rates"_a, "step"_a, "beta1"_a, "beta2"_a,
             "eps"_a, "opacity_penalty"_a, "scale_penalty"_a, "device"_a, "stream"_a)
        .def_prop_ro("instances", &Raster::instances, "(Gaussian, tile) pairs of the last render heard of.")
        .def_prop_ro("capacity", &Raster::capacity, "Instances that there is room for.")
        .def_prop_ro("overflows", &Raster::overflows, "Renders heard of that lacked room; their fused steps did nothing.");
}

}  // namespace splat::bind
