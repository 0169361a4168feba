// What every backend's stages pass to one another.
#pragma once

#include <cstdint>

#include "splat/adam.h"
#include "splat/constants.h"

namespace splat {

struct SceneArrays {
    const float* means;            // [N, 3]
    const float* quats;            // [N, 4]
    const float* log_scales;       // [N, 3]
    const float* logit_opacities;  // [N]
    const float* sh;               // [N, K, 3]; or, on a GPU, of half precision
    int64_t count;                 // N
    int coefficients;              // K
    int degree;                    // of the harmonics that are used
    bool antialiased;
    bool half_sh = false;
};

// Rows of gradients per Gaussian, or per (Gaussian, tile) before they are added up.
enum Row {
    kG, kGu, kGv, kGuu, kGuv, kGvv,  // ImageGradient
    kRed, kGreen, kBlue,
    kDepth,
    kAbsX, kAbsY,                    // sums of |dLoss / d(centre)|
    kRow = 16,
};

struct Grid {
    int width, height, across, down;  // pixels; tiles
};

inline Grid make_grid(int width, int height) {
    return {width, height, (width + kTile - 1) / kTile, (height + kTile - 1) / kTile};
}

// Adam inside the projection's backward pass: what changes from step to step.
struct FusedRates {
    AdamRates rates[4];            // means, quats, log_scales, logit_opacities
    AdamRates sh0, sh_rest;
    float opacity_penalty;         // d loss / d sigmoid(logit), each
    float scale_penalty;           // d loss / d exp(log_scale), each
    uint32_t step;                 // from 1; seeds stochastic rounding
};

// rates: means, quats, log_scales, logit_opacities, sh0, shN. The penalties are weights of means over the scene.
inline FusedRates make_fused_rates(const double rates[6], int64_t step, double beta1, double beta2, double eps,
                                   double opacity_penalty, double scale_penalty, int64_t count) {
    const auto adam = [&](int i) { return make_adam_rates(rates[i], step, beta1, beta2, eps); };
    FusedRates s{{adam(0), adam(1), adam(2), adam(3)}, adam(4), adam(5), 0, 0, static_cast<uint32_t>(step)};
    if (count > 0) {
        s.opacity_penalty = static_cast<float>(opacity_penalty / static_cast<double>(count));
        s.scale_penalty = static_cast<float>(scale_penalty / (3.0 * static_cast<double>(count)));
    }
    return s;
}

// The same with the arrays that it changes. The gradients are taken at the scene that was rendered; the values that
// they are applied to are the same arrays, or others of the same shapes.
struct FusedStep : FusedRates {
    float* values[5];              // means, quats, log_scales, logit_opacities, sh
    float* first[5];
    float* second[5];
};

}  // namespace splat
