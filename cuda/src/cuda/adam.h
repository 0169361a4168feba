// Dense Adam over one flat array on the device.
#pragma once

#include <cstdint>

#include "device.h"
#include "splat/adam.h"

namespace splat::gpu {

// value, m and v (first and second moment) are updated in place over `count` elements.
void adam_step(const AdamRates& rates, float* value, const float* gradient, float* m, float* v, int64_t count,
               Stream stream);

}  // namespace splat::gpu
