#pragma once

#include "device.h"

namespace splat::gpu {

// Runs the kernel called `which` of selftest.cu on blocks of 96 values.
void selftest(const char* which, const float* values, float* out, int64_t blocks);

}  // namespace splat::gpu
