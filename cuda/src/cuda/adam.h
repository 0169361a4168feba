// Dense Adam over one flat array on the device.
#pragma once

#include <cstdint>

#include "device.h"
#include "splat/adam.h"

namespace splat::gpu {

// The first `head` of every `row` values have a step size of their own, as the base colour has among harmonics.
struct RowRates {
    AdamRates rates;
    float head_step_size;
    int row, head;
};

// value, m and v (first and second moment) are updated in place over `count` elements.
void adam_step(const RowRates& rates, float* value, const float* gradient, float* m, float* v, int64_t count,
               Stream stream);

}  // namespace splat::gpu
