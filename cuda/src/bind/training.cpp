// Losses, optimizers, density control.
#include <cmath>
#include <optional>
#include <tuple>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>

#include "adam.h"
#include "bind.h"
#include "mcmc.h"
#include "photometric.h"
#include "thread_pool.h"

namespace splat::bind {
namespace {

constexpr int64_t kGrain = 1 << 14;

void adam_step(Array<float> value, Array<const float> gradient, Array<float> m, Array<float> v, double lr, int64_t step,
               double beta1, double beta2, double eps, int threads) {
    const AdamRates rates = make_adam_rates(lr, step, beta1, beta2, eps);
    const auto& kernels = cpu::adam_kernels();
    cpu::parallel_ranges(threads, static_cast<int64_t>(value.size()), kGrain, [&](int64_t begin, int64_t end) {
        kernels.step(rates, value.data() + begin, gradient.data() + begin, m.data() + begin, v.data() + begin,
                     end - begin);
    });
}

std::tuple<double, double, int64_t> photometric(Array<const float> image, Array<const uint8_t> target,
                                                std::optional<Array<const uint8_t>> mask,
                                                std::optional<Array<float>> gradient, float ssim_weight, int threads) {
    const cpu::Photometric job{image.data(),
                               target.data(),
                               mask ? mask->data() : nullptr,
                               gradient ? gradient->data() : nullptr,
                               static_cast<int>(image.shape(0)),
                               static_cast<int>(image.shape(1)),
                               0.0f,
                               0.0f};
    const cpu::Loss loss = cpu::photometric_loss(job, ssim_weight, threads);
    return {loss.l1, loss.dissimilarity, loss.kept};
}

void mcmc_noise(Array<float> means, Array<const float> quats, Array<const float> log_scales,
                Array<const float> logit_opacities, Array<const float> eta, float gain, int threads) {
    const auto& kernels = cpu::mcmc_kernels();
    cpu::parallel_ranges(threads, static_cast<int64_t>(logit_opacities.size()), kGrain, [&](int64_t i, int64_t end) {
        kernels.noise(means.data() + 3 * i, quats.data() + 4 * i, log_scales.data() + 3 * i,
                      logit_opacities.data() + i, eta.data() + 3 * i, gain, end - i);
    });
}

void mcmc_relocation(Array<const float> opacities, Array<const int32_t> counts, Array<float> new_opacities,
                     Array<float> scale_factors, int threads) {
    cpu::parallel_ranges(threads, static_cast<int64_t>(opacities.size()), kGrain / 16, [&](int64_t i, int64_t end) {
        for (; i < end; ++i) {
            const Relocated to = mcmc_relocate(opacities.data()[i], counts.data()[i]);
            new_opacities.data()[i] = static_cast<float>(to.opacity);
            scale_factors.data()[i] = static_cast<float>(to.scale);
        }
    });
}

}  // namespace

void training(nb::module_& m) {
    using namespace nb::literals;
    m.def("adam_step", &adam_step, nb::arg("value").noconvert(), nb::arg("gradient").noconvert(),
          nb::arg("m").noconvert(), nb::arg("v").noconvert(), "lr"_a, "step"_a, "beta1"_a, "beta2"_a, "eps"_a,
          "threads"_a, nb::call_guard<nb::gil_scoped_release>(),
          "One step of Adam in place over flat float32 arrays of equal length; step counts from 1.");
    m.def("photometric", &photometric, nb::arg("image").noconvert(), nb::arg("target").noconvert(),
          nb::arg("mask").noconvert().none(), nb::arg("gradient").noconvert().none(), "ssim_weight"_a, "threads"_a,
          nb::call_guard<nb::gil_scoped_release>(),
          "Sums of |x - y| and of 1 - SSIM over kept pixels and channels, and the number of kept pixels; image "
          "[H, W, 3] float32, target [H, W, 3] uint8, mask [H, W] uint8 or None. Fills gradient ([H, W, 3] float32, "
          "unless None) with that of their weighted mean.");
    m.def("mcmc_noise", &mcmc_noise, nb::arg("means").noconvert(), nb::arg("quats").noconvert(),
          nb::arg("log_scales").noconvert(), nb::arg("logit_opacities").noconvert(), nb::arg("eta").noconvert(),
          "gain"_a, "threads"_a, nb::call_guard<nb::gil_scoped_release>(),
          "means += gain sigmoid(100 (0.005 - opacity)) covariance eta, in place.");
    m.def("mcmc_relocation", &mcmc_relocation, nb::arg("opacities").noconvert(), nb::arg("counts").noconvert(),
          nb::arg("new_opacities").noconvert(), nb::arg("scale_factors").noconvert(), "threads"_a,
          nb::call_guard<nb::gil_scoped_release>(),
          "What each of counts[i] copies of a Gaussian of opacities[i] must be to look like the one.");

    nb::module_ c = nb::cast<nb::module_>(m.attr("constants"));
    c.attr("SSIM_WINDOW") = kSsimWindow;
    c.attr("SSIM_SIGMA") = kSsimSigma;
    c.attr("SSIM_C1") = kSsimC1;
    c.attr("SSIM_C2") = kSsimC2;
    c.attr("NOISE_SHARPNESS") = kNoiseSharpness;
    c.attr("NOISE_OPACITY") = kNoiseOpacity;
    c.attr("RELOCATION_MAX") = kRelocationMax;
}

}  // namespace splat::bind
