// The photometric loss and its gradient on the device, against a photograph of bytes.
#pragma once

#include <cstdint>

#include "device.h"
#include "splat/loss.h"

namespace splat::gpu {

// One rendering against one photograph, and what the two passes share.
struct Photometric {
    const float* image;     // [height, width, 3]
    const uint8_t* target;  // [height, width, 3]
    const uint8_t* mask;    // [height, width], 0 = ignore the pixel; or null
    int height, width;
    float ssim_weight;
    // [3, height, width, 3]: d(sum of SSIM) / d(window means of x, x^2 + y^2, x y) around every kept pixel.
    // Null where only the value is wanted.
    float* derivatives;
    double* sums;    // [photometric_sums], scratch of the first pass
    float* loss;     // [1]
    float* inverse;  // [1]: 1 / (3 kept); 0 with no pixel kept
};

int64_t photometric_sums(int height, int width);

// Fills derivatives (if not null), loss and inverse.
void photometric_value(const Photometric& job, Stream stream);

// gradient [height, width, 3] = *factor times that of the loss, from what photometric_value left.
void photometric_gradient(const Photometric& job, const float* factor, float* gradient, Stream stream);

}  // namespace splat::gpu
