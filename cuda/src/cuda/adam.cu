// The kernel is bound by memory: four floats a thread, where the arrays allow vector accesses.
#include "adam.h"

namespace splat::gpu {
namespace {

constexpr int kThreads = 256;
constexpr int kVector = 4;

struct alignas(16) Four {
    float at[kVector];
};

SPLAT_DEVICE float step_size(const RowRates& rates, int64_t i) {
    return rates.head > 0 && i % rates.row < rates.head ? rates.head_step_size : rates.rates.step_size;
}

template <bool kAligned>
__global__ void __launch_bounds__(kThreads) adam_kernel(RowRates rates, float* value, const float* gradient,
                                                        float* m, float* v, int64_t count) {
    const int64_t first = kVector * thread_index();
    if (kAligned && first + kVector <= count) {
        Four& x = *reinterpret_cast<Four*>(value + first);
        Four& first_moment = *reinterpret_cast<Four*>(m + first);
        Four& second_moment = *reinterpret_cast<Four*>(v + first);
        const Four g = *reinterpret_cast<const Four*>(gradient + first);
        Four a = x, b = first_moment, c = second_moment;
#pragma unroll
        for (int k = 0; k < kVector; ++k) 
            adam_update(rates.rates, step_size(rates, first + k), g.at[k], a.at[k], b.at[k], c.at[k]);
        x = a, first_moment = b, second_moment = c;
        return;
    }
#pragma unroll 1
    for (int64_t i = first; i < count && i < first + kVector; ++i)
        adam_update(rates.rates, step_size(rates, i), gradient[i], value[i], m[i], v[i]);
}

bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % sizeof(Four) == 0; }

}  // namespace

void adam_step(const RowRates& rates, float* value, const float* gradient, float* m, float* v, int64_t count,
               Stream stream) {
    const bool all = aligned(value) && aligned(gradient) && aligned(m) && aligned(v);
    launch("adam_step", all ? adam_kernel<true> : adam_kernel<false>, divide_up(count, kVector * kThreads), kThreads,
           stream, rates, value, gradient, m, v, count);
}

}  // namespace splat::gpu
