// Adam (Kingma and Ba 2015, algorithm 1) with the bias corrections folded as torch.optim.Adam does.
#pragma once

#include "splat/hd.h"

namespace splat {

struct AdamRates {
    float step_size;  // lr / (1 - beta1^t)
    float beta1, beta2, eps;
    float inv_sqrt_correction2;  // 1 / sqrt(1 - beta2^t)
    float one_minus_beta1, one_minus_beta2;
};

// The bias corrections in double, as torch computes them. `step` counts from 1.
inline AdamRates make_adam_rates(double lr, long long step, double beta1, double beta2, double eps) {
    const double correction1 = 1.0 - std::pow(beta1, static_cast<double>(step));
    const double correction2 = 1.0 - std::pow(beta2, static_cast<double>(step));
    return {static_cast<float>(lr / correction1), static_cast<float>(beta1), static_cast<float>(beta2),
            static_cast<float>(eps), static_cast<float>(1.0 / std::sqrt(correction2)),
            static_cast<float>(1.0 - beta1), static_cast<float>(1.0 - beta2)};
}

// One parameter; `value`, `m` and `v` (first and second moment) are updated in place.
template <class Real>
SPLAT_HD void adam_update(const AdamRates& rates, Real step_size, Real gradient, Real& value, Real& m, Real& v) {
    m = fma(gradient - m, Real(rates.one_minus_beta1), m);
    v = fma(Real(rates.beta2), v, Real(rates.one_minus_beta2) * gradient * gradient);
    const Real denominator = fma(sqrt(v), Real(rates.inv_sqrt_correction2), Real(rates.eps));
    value = value - step_size * m / denominator;
}

}  // namespace splat
