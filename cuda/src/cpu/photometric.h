// The photometric loss and its gradient in one pass over the image.
#pragma once

#include <cstdint>

#include "isa.h"
#include "splat/loss.h"

namespace splat::cpu {

// One rendering against one photograph.
struct Photometric {
    const float* image;     // [height, width, 3]
    const uint8_t* target;  // [height, width, 3]
    const uint8_t* mask;    // [height, width], 0 = ignore the pixel; or null
    float* gradient;        // [height, width, 3] out; or null for the value alone
    int height, width;
    // Weights in the gradient of sum |x - y| and of sum (1 - SSIM).
    float l1_weight, ssim_weight;
};

// Part of an image: rows [top, bottom) of columns [left, right). The sums of row r over those columns go to
// l1[r] and dissimilarity[r] (1 - SSIM), over kept pixels and channels.
struct Band {
    int top, bottom, left, right;
    double *l1, *dissimilarity;
};

struct PhotometricKernels {
    // Floats of scratch memory (aligned to 64 bytes) that a band of so many columns needs.
    int64_t (*scratch)(int columns);
    // What it writes for a row does not depend on how the image is cut into rows of bands.
    void (*band)(const Photometric& job, const Band& band, float* scratch);
};
SPLAT_DECLARE_KERNELS(PhotometricKernels, photometric)

struct Loss {
    double l1, dissimilarity;  // sums over kept pixels and channels
    int64_t kept;              // pixels
};

// The whole image: fills job.gradient (if not null) with the gradient of
// ((1 - w) L1 + w (1 - SSIM)) / (3 kept); with no pixel kept everything is 0.
Loss photometric_loss(Photometric job, float ssim_weight, int threads);

}  // namespace splat::cpu
