// Dense Adam over one flat array.
#pragma once

#include <cstdint>

#include "isa.h"
#include "splat/adam.h"

namespace splat::cpu {

struct AdamKernels {
    // In place over items [0, count).
    void (*step)(const AdamRates& rates, float* value, const float* gradient, float* m, float* v, int64_t count);
};
SPLAT_DECLARE_KERNELS(AdamKernels, adam)

}  // namespace splat::cpu
