// The rasterizer. Arrays are validated in splat.raster.native.
#include "raster.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <stdexcept>
#include <vector>

#include "bind.h"
#include "isa.h"

namespace splat::bind {
namespace {

using cpu::Raster;
using Optional = std::optional<Array<float>>;
using OptionalConst = std::optional<Array<const float>>;

float* pointer(Optional& array) { return array ? array->data() : nullptr; }
const float* pointer(OptionalConst& array) { return array ? array->data() : nullptr; }

// means, quats, log_scales, logit_opacities, sh.
using Parameters = std::vector<Array<float>>;

SceneArrays scene_of(const Parameters& p, int degree, bool antialiased) {
    if (p.size() != 5) throw std::invalid_argument("expected the five parameter arrays");
    return {p[0].data(), p[1].data(), p[2].data(), p[3].data(), p[4].data(), static_cast<int64_t>(p[0].shape(0)),
            static_cast<int>(p[4].shape(1)), degree, antialiased};
}

void forward(Raster& raster, const Parameters& parameters, int degree, bool antialiased, Array<const float> pose,
             float fx, float fy, float cx, float cy, int width, int height, OptionalConst background,
             OptionalConst features, Array<float> image, Array<float> alpha, Optional depth, Optional median_depth,
             std::optional<Array<int32_t>> ids, Optional feature_image, std::optional<Array<int32_t>> radii,
             Optional contribution, int threads) {
    const View view = make_view(pose.data(), fx, fy, cx, cy, width, height);
    const cpu::ForwardOutputs out{image.data(),  alpha.data(), pointer(depth), pointer(median_depth),
                                  ids ? ids->data() : nullptr, pointer(feature_image),
                                  radii ? radii->data() : nullptr, pointer(contribution)};
    const int channels = features ? static_cast<int>(features->shape(1)) : 0;
    const SceneArrays scene = scene_of(parameters, degree, antialiased);
    const float* bg = pointer(background);
    const float* f = pointer(features);
    nb::gil_scoped_release release;
    raster.forward(view, scene, bg, f, channels, out, threads);
}

void blend_backward(Raster& raster, OptionalConst v_image, OptionalConst v_alpha, OptionalConst v_depth,
                    OptionalConst v_median_depth, OptionalConst v_features, OptionalConst depth,
                    OptionalConst features, Optional v_splat_features, Optional means2d, Optional absolute,
                    int threads) {
    const cpu::OutputGradients v{pointer(v_image), pointer(v_alpha), pointer(v_depth), pointer(v_median_depth),
                                 pointer(v_features)};
    const float *d = pointer(depth), *f = pointer(features);
    float *vf = pointer(v_splat_features), *m = pointer(means2d), *abs = pointer(absolute);
    nb::gil_scoped_release release;
    raster.blend_backward(v, d, f, vf, m, abs, threads);
}

void project_backward(Raster& raster, const Parameters& parameters, int degree, bool antialiased,
                      Parameters gradients, Optional v_pose, int threads) {
    const SceneArrays scene = scene_of(parameters, degree, antialiased);
    float* arrays[5];
    for (int i = 0; i < 5; ++i) arrays[i] = gradients.at(i).data();
    float* pose = pointer(v_pose);
    nb::gil_scoped_release release;
    raster.project_backward(scene, arrays, pose, threads);
}

// shown: what was rendered, where the gradients are taken; parameters: what they are applied to.
// rates: means, quats, log_scales, logit_opacities, sh0, shN.
void fused_step(Raster& raster, const Parameters& shown, Parameters parameters, int degree, bool antialiased,
                Parameters first, Parameters second, std::vector<double> rates, int64_t step, double beta1,
                double beta2, double eps, double opacity_penalty, double scale_penalty, int threads) {
    const SceneArrays scene = scene_of(shown, degree, antialiased);
    if (rates.size() != 6) throw std::invalid_argument("expected six rates");
    FusedStep s{make_fused_rates(rates.data(), step, beta1, beta2, eps, opacity_penalty, scale_penalty, scene.count),
                {}, {}, {}};
    for (int i = 0; i < 5; ++i) {
        s.values[i] = parameters.at(i).data();
        s.first[i] = first.at(i).data();
        s.second[i] = second.at(i).data();
    }
    nb::gil_scoped_release release;
    raster.fused_step(scene, s, threads);
}

}  // namespace

void raster(nb::module_& m) {
    using namespace nb::literals;
    m.def("isa", [] { return cpu::isa_name(cpu::active_isa()); }, "Instruction set of the kernels that run here.");

    const auto array = [](const char* name) { return nb::arg(name).noconvert(); };
    const auto maybe = [](const char* name) { return nb::arg(name).noconvert().none(); };
    nb::class_<Raster>(m, "Raster", "Memory of one render from forward to backward; reused by the next.")
        .def(nb::init<>())
        .def("forward", &forward, array("parameters"), "degree"_a, "antialiased"_a, array("pose"), "fx"_a, "fy"_a,
             "cx"_a, "cy"_a, "width"_a, "height"_a, maybe("background"), maybe("features"), array("image"),
             array("alpha"), maybe("depth"), maybe("median_depth"), maybe("ids"), maybe("feature_image"),
             maybe("radii"), maybe("contribution"), "threads"_a)
        .def("blend_backward", &blend_backward, maybe("v_image"), maybe("v_alpha"), maybe("v_depth"),
             maybe("v_median_depth"), maybe("v_features"), maybe("depth"), maybe("features"),
             maybe("v_splat_features"), maybe("means2d"), maybe("absolute"), "threads"_a)
        .def("project_backward", &project_backward, array("parameters"), "degree"_a, "antialiased"_a,
             array("gradients"), maybe("v_pose"), "threads"_a)
        .def("fused_step", &fused_step, array("shown"), array("parameters"), "degree"_a, "antialiased"_a,
             array("first"), array("second"), "rates"_a, "step"_a, "beta1"_a, "beta2"_a, "eps"_a, "opacity_penalty"_a,
             "scale_penalty"_a, "threads"_a)
        .def_prop_ro(
            "times",
            [](const Raster& raster) {
                const cpu::StageTimes& t = raster.times();
                nb::dict d;
                d["project"] = t.project;
                d["bin"] = t.bin;
                d["blend"] = t.blend;
                d["blend_backward"] = t.blend_backward;
                d["reduce"] = t.reduce;
                d["project_backward"] = t.project_backward;
                d["fused_step"] = t.fused_step;
                return d;
            },
            "Milliseconds of the stages in the last calls.")
        .def_prop_ro("instances", &Raster::instances, "(Gaussian, tile) pairs of the last render.")
        .def_prop_ro("visible", &Raster::visible, "Gaussians drawn in the last render.");
}

}  // namespace splat::bind
