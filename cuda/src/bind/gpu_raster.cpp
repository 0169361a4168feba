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
    bool antialiased, half_sh;

    operator SceneArrays() const {
        return {pointer<float>(arrays[0]), pointer<float>(arrays[1]), pointer<float>(arrays[2]),
                pointer<float>(arrays[3]), pointer<float>(arrays[4]), count, coefficients, degree, antialiased, half_sh};
    }
};

// A guard with the record that its caller keeps on the device, zeros at first.
struct Guard : gpu::Guard {
    explicit Guard(Address record) : gpu::Guard(pointer<gpu::Record>(record)) {}
};

void set_view(Raster& raster, const View& view, int device, uintptr_t stream) {
    const gpu::DeviceGuard guard(device);
    raster.set_view(view, stream_of(stream));
}

void set_rates(Raster& raster, const FusedRates& rates, const PoseRates& pose, int device, uintptr_t stream) {
    const gpu::DeviceGuard guard(device);
    raster.set_rates(rates, pose, stream_of(stream));
}

void refine_view(Raster& raster, Address rows, int device, uintptr_t stream) {
    const gpu::DeviceGuard guard(device);
    raster.refine_view(pointer<const float>(rows), stream_of(stream));
}

void forward(Raster& raster, const Scene& scene, int width, int height, Address background, Address features,
             int channels, bool by_splats, Address image, Address alpha, Address depth, Address median_depth, Address ids,
             Address feature_image, Address radii, Address contribution, Guard* steps, int device, uintptr_t stream) {
    const gpu::ForwardOutputs out{pointer<float>(image),        pointer<float>(alpha),
                                  pointer<float>(depth),        pointer<float>(median_depth),
                                  pointer<int32_t>(ids),        pointer<float>(feature_image),
                                  pointer<int32_t>(radii),      pointer<float>(contribution)};
    nb::gil_scoped_release release;
    const gpu::DeviceGuard guard(device);
    raster.forward(width, height, scene, pointer<float>(background), pointer<float>(features), channels, by_splats, out, steps,
                   stream_of(stream));
}

void blend_backward(Raster& raster, Address v_image, Address v_alpha, Address v_depth, Address v_median_depth,
                    Address v_features, Address background, Address image, Address depth, Address features,
                    Address v_splat_features, Address means2d, Address absolute, int device, uintptr_t stream) {
    nb::gil_scoped_release release;
    const gpu::DeviceGuard guard(device);
    raster.blend_backward({pointer<float>(v_image), pointer<float>(v_alpha), pointer<float>(v_depth),
                           pointer<float>(v_median_depth), pointer<float>(v_features)},
                          pointer<float>(background), pointer<float>(image), pointer<float>(depth), pointer<float>(features),
                          pointer<float>(v_splat_features), pointer<float>(means2d), pointer<float>(absolute), stream_of(stream));
}

void project_backward(Raster& raster, const Scene& scene, const Five& gradients, Address v_pose, int device,
                      uintptr_t stream) {
    float* arrays[5];
    for (int i = 0; i < 5; ++i) arrays[i] = pointer<float>(gradients[i]);
    nb::gil_scoped_release release;
    const gpu::DeviceGuard guard(device);
    raster.project_backward(scene, arrays, pointer<float>(v_pose), stream_of(stream));
}

// scene: what was rendered, where the gradients are taken; parameters: what they are applied to. poses: rows and
// their two moments.
void fused_step(Raster& raster, const Scene& scene, const Five& parameters, const Five& first, const Five& second,
                Address sh_scales, const std::array<Address, 3>& poses, int device, uintptr_t stream) {
    float* values[5];
    Moments moments{};
    for (int i = 0; i < 5; ++i) {
        values[i] = pointer<float>(parameters[i]);
        moments.first[i] = pointer<void>(first[i]);
        moments.second[i] = pointer<void>(second[i]);
    }
    moments.sh_scales = pointer<float>(sh_scales);
    moments.half_sh = scene.half_sh;
    nb::gil_scoped_release release;
    const gpu::DeviceGuard guard(device);
    raster.fused_step(scene, values, moments,
                      {pointer<float>(poses[0]), pointer<float>(poses[1]), pointer<float>(poses[2])},
                      stream_of(stream));
}

void send(Guard& steps, int device, uintptr_t stream) {
    const gpu::DeviceGuard guard(device);
    steps.send(stream_of(stream));
}

void settle(Guard& steps, int device, uintptr_t stream) {
    nb::gil_scoped_release release;
    const gpu::DeviceGuard guard(device);
    steps.settle(stream_of(stream));
}

void resume(Guard& steps, int device, uintptr_t stream) {
    const gpu::DeviceGuard guard(device);
    steps.resume(stream_of(stream));
}

}  // namespace

void gpu_raster(nb::module_& m) {
    using namespace nb::literals;
    nb::class_<Scene>(m, "Scene", "Addresses of means, quats, log_scales, logit_opacities and sh, with their sizes.")
        .def(
            "__init__",
            [](Scene* self, const Five& arrays, int64_t count, int coefficients, int degree, bool antialiased,
               bool half_sh) { new (self) Scene{arrays, count, coefficients, degree, antialiased, half_sh}; },
            "arrays"_a, "count"_a, "coefficients"_a, "degree"_a, "antialiased"_a, "half_sh"_a,
            "half_sh: sh are halves, and what they are stepped to.");
    nb::class_<View>(m, "View", "A camera: world-to-camera [16] row-major, intrinsics in pixels, size.")
        .def(
            "__init__",
            [](View* self, const std::array<float, 16>& pose, float fx, float fy, float cx, float cy, int width,
               int height) { new (self) View(make_view(pose.data(), fx, fy, cx, cy, width, height)); },
            "pose"_a, "fx"_a, "fy"_a, "cx"_a, "cy"_a, "width"_a, "height"_a);
    nb::class_<FusedRates>(m, "Rates", "What Adam needs in one step besides gradients and moments; zeros by default.")
        .def("__init__", [](FusedRates* self) { new (self) FusedRates{}; })
        .def(
            "__init__",
            [](FusedRates* self, const std::array<double, 6>& rates, int64_t step, double beta1, double beta2,
               double eps, double opacity_penalty, double scale_penalty, int64_t count) {
                new (self) FusedRates(make_fused_rates(rates.data(), step, beta1, beta2, eps, opacity_penalty,
                                                       scale_penalty, count));
            },
            "rates"_a, "step"_a, "beta1"_a, "beta2"_a, "eps"_a, "opacity_penalty"_a, "scale_penalty"_a, "count"_a,
            "rates of means, quats, log_scales, logit_opacities, sh0, shN; step counts from 1.");
    nb::class_<PoseRates>(m, "PoseRates", "What fitting a camera's pose needs in one step; zeros by default.")
        .def("__init__", [](PoseRates* self) { new (self) PoseRates{}; })
        .def(
            "__init__",
            [](PoseRates* self, int view, float extent, double rate, int64_t step, double beta1, double beta2,
               double eps) {
                new (self) PoseRates{view, extent, make_adam_rates(rate, step, beta1, beta2, eps)};
            },
            "view"_a, "extent"_a, "rate"_a, "step"_a, "beta1"_a, "beta2"_a, "eps"_a,
            "view: row of the poses; extent: unit of their translations; step counts that view's from 1.");
    nb::class_<Guard>(m, "Guard", "Lets the host run ahead of the device (src/cuda/guard.h).")
        .def(nb::init<Address>(), "record"_a)
        .def("send", &send, "device"_a, "stream"_a, "After the replay of a graph with guarded renders.")
        .def_rw("capturing", &Guard::capturing, "Whether renders are being captured in a graph.")
        .def("listen", [](Guard& g) { g.listen(); }, "Hears what has arrived, without waiting.")
        .def("settle", &settle, "device"_a, "stream"_a, "Waits for the device and hears all.")
        .def("resume", &resume, "device"_a, "stream"_a, "After a refusal: the steps that follow count again.")
        .def_prop_ro("taken", [](const Guard& g) { return g.heard().taken; }, "Guarded renders that had room.")
        .def_prop_ro("refused", [](const Guard& g) { return g.heard().refused != 0; },
                     "Whether the one after those had none.")
        .def_prop_ro("instances", [](const Guard& g) { return g.heard().instances; },
                     "Most (splat, tile) pairs of any of them.")
        .def_prop_ro("visible", [](const Guard& g) { return g.heard().visible; }, "Most splats of any of them.");
    m.def("checkpoint_bytes", &gpu::checkpoint_bytes, "instances"_a, "width"_a, "height"_a,
          "Memory that the backward pass by splats takes beyond the other.");
    m.attr("RECORD_BYTES") = sizeof(gpu::Record);
    nb::class_<Raster>(m, "Raster", "State of one render from forward to backward; reused by the next.")
        .def(
            "__init__",
            [](Raster* self, std::function<Address(int, size_t)> allocate) {
                new (self) Raster([allocate = std::move(allocate)](int slot, size_t bytes) {
                    return pointer<void>(allocate(slot, bytes));
                });
            },
            "allocate"_a,
            "allocate(slot, bytes) gives device memory, good until the slot is asked for again; none gives it back.")
        .def("set_view", &set_view, "view"_a, "device"_a, "stream"_a, "What forward draws, to the device.")
        .def("set_rates", &set_rates, "rates"_a, "pose"_a, "device"_a, "stream"_a,
             "What fused_step and refine_view go by, to the device.")
        .def("refine_view", &refine_view, "rows"_a, "device"_a, "stream"_a,
             "Moves the view by its row of rows [views, 6].")
        .def("forward", &forward, "scene"_a, "width"_a, "height"_a, "background"_a, "features"_a, "channels"_a,
             "by_splats"_a, "image"_a, "alpha"_a, "depth"_a, "median_depth"_a, "ids"_a, "feature_image"_a, "radii"_a,
             "contribution"_a, "steps"_a.none(), "device"_a, "stream"_a)
        .def("blend_backward", &blend_backward, "v_image"_a, "v_alpha"_a, "v_depth"_a, "v_median_depth"_a,
             "v_features"_a, "background"_a, "image"_a, "depth"_a, "features"_a, "v_splat_features"_a, "means2d"_a, "absolute"_a,
             "device"_a, "stream"_a)
        .def("project_backward", &project_backward, "scene"_a, "gradients"_a, "v_pose"_a, "device"_a, "stream"_a)
        .def("fused_step", &fused_step, "scene"_a, "parameters"_a, "first"_a, "second"_a, "sh_scales"_a,
             "poses"_a, "device"_a, "stream"_a)
        .def_prop_ro("splat_capacity", &Raster::splat_capacity, "Splats that there is room for.")
        .def_prop_ro("capacity", &Raster::capacity, "(splat, tile) pairs that there is room for.");
}

}  // namespace splat::bind
