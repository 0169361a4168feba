#include "adam.h"

#include "simd.h"

namespace splat::cpu::SPLAT_ISA {
namespace {

void step(const AdamRates& rates, float* value, const float* gradient, float* m, float* v, int64_t count) {
    for (int64_t i = 0; i < count; i += kLanes) {
        const int n = count - i < kLanes ? static_cast<int>(count - i) : kLanes;
        F x = F::load(value + i, n), m1 = F::load(m + i, n), v1 = F::load(v + i, n);
        adam_update(rates, F(rates.step_size), F::load(gradient + i, n), x, m1, v1);
        x.store(value + i, n);
        m1.store(m + i, n);
        v1.store(v + i, n);
    }
}

}  // namespace

extern const AdamKernels adam{&step};

}  // namespace splat::cpu::SPLAT_ISA
