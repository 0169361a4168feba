// Optimizer moments in 16 and 8 bits, and harmonics in 16.
//
// Of means, quaternions, scales and opacities both moments are bfloat16. Those of one Gaussian's harmonics are
// bytes over a scale of their own, after Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization": a
// Gaussian without a gradient decays by its scale alone and loses nothing. A byte holds the root of the second
// moment, whose range is half as wide. Everything is rounded at random, up or down in proportion (Gupta et al. 2015,
// "Deep Learning with Limited Numerical Precision"), as a change of a thousandth a step would be lost otherwise.
#pragma once

#include <cstdint>
#include <cstring>

#include "splat/adam.h"

namespace splat {

SPLAT_HD uint32_t bits_of(float value) {
#if defined(__CUDA_ARCH__)
    return __float_as_uint(value);
#else
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    return bits;
#endif
}
SPLAT_HD float float_of(uint32_t bits) {
#if defined(__CUDA_ARCH__)
    return __uint_as_float(bits);
#else
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
#endif
}

// Random bits of element `index` of array `which` in a step (PCG-RXS-M-XS of O'Neill 2014, applied twice).
SPLAT_HD uint32_t random_bits(uint32_t step, uint32_t which, uint64_t index) {
    const auto mix = [](uint32_t x) {
        x = x * 747796405u + 2891336453u;
        x = ((x >> ((x >> 28) + 4)) ^ x) * 277803737u;
        return (x >> 22) ^ x;
    };
    return mix(mix(static_cast<uint32_t>(index) ^ step * 2654435769u) + static_cast<uint32_t>(index >> 32) + which);
}

// bfloat16: the upper half of a float, after adding up to one unit of it.
SPLAT_HD uint16_t to_bfloat16(float value, uint32_t random) {
    return static_cast<uint16_t>((bits_of(value) + (random & 0xffffu)) >> 16);
}
SPLAT_HD float from_bfloat16(uint16_t value) { return float_of(static_cast<uint32_t>(value) << 16); }

// IEEE half precision, rounded at random too. Multiplied by 2^-112 a float has a half's exponent, and a half below
// the normal range becomes a float below its own.
SPLAT_HD uint16_t to_half(float value, uint32_t random) {
    const uint32_t sign = bits_of(value) >> 16 & 0x8000u;
    if (value != value) return static_cast<uint16_t>(sign | 0x7e00u);
    const uint32_t size = (bits_of(abs(value) * 1.925929944387236e-34f) + (random & 0x1fffu)) >> 13;
    return static_cast<uint16_t>(sign | (size < 0x7bffu ? size : 0x7bffu));
}
SPLAT_HD float from_half(uint16_t value) {
    const uint32_t sign = static_cast<uint32_t>(value & 0x8000u) << 16;
    if ((value & 0x7c00u) == 0x7c00u) return float_of(sign | 0x7f800000u | (value & 0x3ffu) << 13);
    return float_of(sign | static_cast<uint32_t>(value & 0x7fffu) << 13) * 5.192296858534828e33f;
}

// A number x in [0, kCodeMost] in eight binades of kMantissa bits: x + 2^-7, whose exponent is -7 to 0. Zero is
// exact, and below 2^-7 the steps are equal.
inline constexpr float kCodeShift = 0.0078125f;
inline constexpr float kCodeMost = 1.9296875f;  // one of them, for each kMantissa here

template <int kMantissa>
SPLAT_HD uint32_t to_code(float x, uint32_t random) {
    const uint32_t below = (1u << (23 - kMantissa)) - 1;
    return ((bits_of(min(x, kCodeMost) + kCodeShift) + (random & below)) >> (23 - kMantissa)) - (120u << kMantissa);
}
template <int kMantissa>
SPLAT_HD float from_code(uint32_t code) {
    return float_of((code + (120u << kMantissa)) << (23 - kMantissa)) - kCodeShift;
}

// The first moment: a sign and seven bits.
inline constexpr int kFirstMantissa = 4;
// The root of the second moment: eight bits. A moment that is not zero is at least kSecondLeast, the quantum of
// the first, so that their quotient stays bounded.
inline constexpr int kSecondMantissa = 5;
inline constexpr uint32_t kSecondLeast = 2;

// Multiples of a block's scale; inverse is 1 / scale, or 0 for a scale of 0.
SPLAT_HD uint8_t to_first(float moment, float inverse, uint32_t random) {
    const uint32_t code = to_code<kFirstMantissa>(abs(moment) * inverse, random);
    return static_cast<uint8_t>(code | (moment < 0.0f ? 0x80u : 0u));
}
SPLAT_HD float from_first(uint8_t code, float scale) {
    const float size = from_code<kFirstMantissa>(code & 0x7fu) * scale;
    return code & 0x80u ? -size : size;
}
SPLAT_HD uint8_t to_second(float moment, float inverse, uint32_t random) {
    if (!(moment > 0.0f)) return 0;
    const uint32_t code = to_code<kSecondMantissa>(sqrt(moment) * inverse, random);
    return static_cast<uint8_t>(code < kSecondLeast ? kSecondLeast : code);
}
SPLAT_HD float from_second(uint8_t code, float scale) {
    const float root = from_code<kSecondMantissa>(code) * scale;
    return root * root;
}

// Scale of a block whose largest value (of |m|, or of the root of v) is `most`.
SPLAT_HD float block_scale(float most) { return most * (1.0f / kCodeMost); }
SPLAT_HD float inverse_scale(float scale) { return scale > 1e-37f ? 1.0f / scale : 0.0f; }

// Where the moments lie: float32, or as above.
struct Moments {
    void* first[5];   // means, quats, log_scales, logit_opacities: float or bfloat16; sh: float or bytes
    void* second[5];
    float* sh_scales;  // [N, 2] of the first and of the root of the second moment; null: all are float32
    bool half_sh;      // whether the harmonics themselves are halves; not where all moments are float32
};

}  // namespace splat
