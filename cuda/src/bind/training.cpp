// Losses and optimizers.
#include <cmath>

#include "adam.h"
#include "bind.h"
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

}  // namespace

void training(nb::module_& m) {
    using namespace nb::literals;
    m.def("adam_step", &adam_step, nb::arg("value").noconvert(), nb::arg("gradient").noconvert(),
          nb::arg("m").noconvert(), nb::arg("v").noconvert(), "lr"_a, "step"_a, "beta1"_a, "beta2"_a, "eps"_a,
          "threads"_a, nb::call_guard<nb::gil_scoped_release>(),
          "One step of Adam in place over flat float32 arrays of equal length; step counts from 1.");
}

}  // namespace splat::bind
