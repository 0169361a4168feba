// Losses, optimizer and density control on the GPU; see gpu.h for how arrays and streams come.
#include "adam.h"
#include "density.h"
#include "gpu.h"
#include "photometric.h"

namespace splat::bind {
namespace {

using namespace nb::literals;

void adam_step(Address value, Address gradient, Address m, Address v, int64_t count, int row, int head,
               double head_lr, double lr, int64_t step, double beta1, double beta2, double eps, int device,
               uintptr_t stream) {
    const gpu::DeviceGuard guard(device);
    gpu::adam_step({make_adam_rates(lr, step, beta1, beta2, eps),
                    make_adam_rates(head_lr, step, beta1, beta2, eps).step_size, row, head},
                   pointer<float>(value), pointer<const float>(gradient), pointer<float>(m), pointer<float>(v), count,
                   stream_of(stream));
}

gpu::Photometric photometric_job(Address image, Address target, Address mask, int height, int width,
                                 float ssim_weight, Address derivatives, Address inverse) {
    return {pointer<const float>(image), pointer<const uint8_t>(target), pointer<const uint8_t>(mask),
            height, width, ssim_weight, pointer<float>(derivatives), nullptr, nullptr, pointer<float>(inverse)};
}

void photometric_value(Address image, Address target, Address mask, int height, int width, float ssim_weight,
                       Address derivatives, Address sums, Address loss, Address inverse, int device,
                       uintptr_t stream) {
    const gpu::DeviceGuard guard(device);
    auto job = photometric_job(image, target, mask, height, width, ssim_weight, derivatives, inverse);
    job.sums = pointer<double>(sums), job.loss = pointer<float>(loss);
    gpu::photometric_value(job, stream_of(stream));
}

void photometric_gradient(Address image, Address target, Address mask, int height, int width, float ssim_weight,
                          Address derivatives, Address inverse, Address factor, Address gradient, int device,
                          uintptr_t stream) {
    const gpu::DeviceGuard guard(device);
    gpu::photometric_gradient(
        photometric_job(image, target, mask, height, width, ssim_weight, derivatives, inverse),
        pointer<const float>(factor), pointer<float>(gradient), stream_of(stream));
}

void mcmc_noise(Address means, Address quats, Address log_scales, Address logit_opacities, Address eta, Address gain,
                int64_t count, Address record, int device, uintptr_t stream) {
    const gpu::DeviceGuard guard(device);
    gpu::mcmc_noise(pointer<float>(means), pointer<const float>(quats), pointer<const float>(log_scales),
                    pointer<const float>(logit_opacities), pointer<const float>(eta), pointer<const float>(gain), count,
                    pointer<const gpu::Record>(record), stream_of(stream));
}

void mcmc_relocation(Address opacities, Address counts, Address new_opacities, Address scale_factors, int64_t count,
                     int device, uintptr_t stream) {
    const gpu::DeviceGuard guard(device);
    gpu::mcmc_relocation(pointer<const float>(opacities), pointer<const int32_t>(counts),
                         pointer<float>(new_opacities), pointer<float>(scale_factors), count, stream_of(stream));
}

void accumulate_gradients(Address gradient_sum, Address view_count, Address gradient, Address radii,
                          float half_width, float half_height, int64_t count, Address record, int device,
                          uintptr_t stream) {
    const gpu::DeviceGuard guard(device);
    gpu::accumulate_gradients(pointer<float>(gradient_sum), pointer<float>(view_count),
                              pointer<const float>(gradient), pointer<const int32_t>(radii), half_width,
                              half_height, count, pointer<const gpu::Record>(record), stream_of(stream));
}

}  // namespace

void gpu_training(nb::module_& m) {
    m.def("adam_step", &adam_step, "value"_a, "gradient"_a, "m"_a, "v"_a, "count"_a, "row"_a, "head"_a,
          "head_lr"_a, "lr"_a, "step"_a, "beta1"_a, "beta2"_a, "eps"_a, "device"_a, "stream"_a,
          "One step of Adam in place over flat float32 arrays of `count`; step counts from 1. The first `head` of every "
          "`row` values move at head_lr.");
    m.def("photometric_sums", &gpu::photometric_sums, "height"_a, "width"_a,
          "Number of float64 that photometric_value needs in `sums`.");
    m.def("photometric_value", &photometric_value, "image"_a, "target"_a, "mask"_a, "height"_a, "width"_a,
          "ssim_weight"_a, "derivatives"_a, "sums"_a, "loss"_a, "inverse"_a, "device"_a, "stream"_a,
          "The loss [1] of image [H, W, 3] float32 against target [H, W, 3] uint8 with mask [H, W] uint8 or 0; "
          "derivatives [3, H, W, 3] float32 (or 0) and inverse [1] are for photometric_gradient.");
    m.def("photometric_gradient", &photometric_gradient, "image"_a, "target"_a, "mask"_a, "height"_a, "width"_a,
          "ssim_weight"_a, "derivatives"_a, "inverse"_a, "factor"_a, "gradient"_a, "device"_a, "stream"_a,
          "gradient [H, W, 3] = factor [1] times that of the loss.");
    m.def("mcmc_noise", &mcmc_noise, "means"_a, "quats"_a, "log_scales"_a, "logit_opacities"_a, "eta"_a, "gain"_a,
          "count"_a, "record"_a, "device"_a, "stream"_a, "means += gain [1] sigmoid(100 (0.005 - opacity)) covariance eta, in place.");
    m.def("mcmc_relocation", &mcmc_relocation, "opacities"_a, "counts"_a, "new_opacities"_a, "scale_factors"_a,
          "count"_a, "device"_a, "stream"_a,
          "What each of counts[i] copies of a Gaussian of opacities[i] must be to look like the one.");
    m.def("accumulate_gradients", &accumulate_gradients, "gradient_sum"_a, "view_count"_a, "gradient"_a, "radii"_a,
          "half_width"_a, "half_height"_a, "count"_a, "record"_a, "device"_a, "stream"_a,
          "Adds the lengths of gradient [N, 2] and the number of views, 1 where radii [N] > 0, in place.");
}

}  // namespace splat::bind
