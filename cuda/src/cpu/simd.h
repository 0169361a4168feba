// Sixteen floats at a time on any processor.
//
// F is 16 floats, I 16 int32, M a mask of 16 lanes. With AVX-512 they are registers and the operations
// are intrinsics; elsewhere they are a few of the widest native vectors through the vector extensions
// of GCC and Clang (AVX2: two of 8, SSE and NEON: four of 4). A kernel is written once over 16 lanes,
// so every build adds in the same order.
//
// Included by kernel files only (see isa.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "splat/hd.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#define SPLAT_INLINE inline __attribute__((always_inline))

namespace splat::cpu::SPLAT_ISA {
namespace {

constexpr int kLanes = 16;

#if defined(__AVX512F__)

struct I;

struct M {
    __mmask16 v;
    friend SPLAT_INLINE M operator&(M a, M b) { return {static_cast<__mmask16>(a.v & b.v)}; }
    friend SPLAT_INLINE M operator|(M a, M b) { return {static_cast<__mmask16>(a.v | b.v)}; }
    friend SPLAT_INLINE M operator!(M a) { return {static_cast<__mmask16>(~a.v)}; }
    friend SPLAT_INLINE bool any(M a) { return a.v != 0; }
    friend SPLAT_INLINE bool all(M a) { return a.v == 0xffff; }
    friend SPLAT_INLINE uint32_t bits(M a) { return a.v; }
    static SPLAT_INLINE M from_bits(uint32_t b) { return {static_cast<__mmask16>(b)}; }
};

struct F {
    __m512 v;
    F() = default;
    SPLAT_INLINE F(__m512 x) : v(x) {}
    SPLAT_INLINE F(float x) : v(_mm512_set1_ps(x)) {}
    static SPLAT_INLINE F load(const float* p) { return _mm512_loadu_ps(p); }
    // The first n lanes; the others are 0 / not written.
    static SPLAT_INLINE F load(const float* p, int n) {
        return n >= kLanes ? _mm512_loadu_ps(p) : _mm512_maskz_loadu_ps((1u << n) - 1, p);
    }
    SPLAT_INLINE void store(float* p) const { _mm512_storeu_ps(p, v); }
    SPLAT_INLINE void store(float* p, int n) const {
        n >= kLanes ? _mm512_storeu_ps(p, v) : _mm512_mask_storeu_ps(p, (1u << n) - 1, v);
    }
    static SPLAT_INLINE F load_u8(const uint8_t* p) {
        return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
    }
    friend SPLAT_INLINE F operator+(F a, F b) { return a.v + b.v; }
    friend SPLAT_INLINE F operator-(F a, F b) { return a.v - b.v; }
    friend SPLAT_INLINE F operator*(F a, F b) { return a.v * b.v; }
    friend SPLAT_INLINE F operator/(F a, F b) { return a.v / b.v; }
    friend SPLAT_INLINE F operator-(F a) { return -a.v; }
    friend SPLAT_INLINE M operator<(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
    friend SPLAT_INLINE M operator<=(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
    friend SPLAT_INLINE M operator>(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ)}; }
    friend SPLAT_INLINE M operator>=(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ)}; }
    friend SPLAT_INLINE F fma(F a, F b, F c) { return _mm512_fmadd_ps(a.v, b.v, c.v); }
    friend SPLAT_INLINE F fnma(F a, F b, F c) { return _mm512_fnmadd_ps(a.v, b.v, c.v); }  // c - a b
    friend SPLAT_INLINE F min(F a, F b) { return _mm512_min_ps(a.v, b.v); }
    friend SPLAT_INLINE F max(F a, F b) { return _mm512_max_ps(a.v, b.v); }
    friend SPLAT_INLINE F sqrt(F a) { return _mm512_sqrt_ps(a.v); }
    friend SPLAT_INLINE F abs(F a) { return _mm512_abs_ps(a.v); }
    friend SPLAT_INLINE F select(M m, F a, F b) { return _mm512_mask_blend_ps(m.v, b.v, a.v); }
    friend SPLAT_INLINE F masked(M m, F a) { return _mm512_maskz_mov_ps(m.v, a.v); }  // 0 elsewhere
    friend SPLAT_INLINE F round(F a) {
        return _mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    }
};

struct I {
    __m512i v;
    I() = default;
    SPLAT_INLINE I(__m512i x) : v(x) {}
    SPLAT_INLINE I(int32_t x) : v(_mm512_set1_epi32(x)) {}
    static SPLAT_INLINE I load(const int32_t* p) { return _mm512_loadu_si512(p); }
    SPLAT_INLINE void store(int32_t* p) const { _mm512_storeu_si512(p, v); }
    friend SPLAT_INLINE I operator+(I a, I b) { return _mm512_add_epi32(a.v, b.v); }
    friend SPLAT_INLINE I operator-(I a, I b) { return _mm512_sub_epi32(a.v, b.v); }
    friend SPLAT_INLINE I operator*(I a, I b) { return _mm512_mullo_epi32(a.v, b.v); }
    friend SPLAT_INLINE I operator&(I a, I b) { return _mm512_and_si512(a.v, b.v); }
    friend SPLAT_INLINE I operator|(I a, I b) { return _mm512_or_si512(a.v, b.v); }
    friend SPLAT_INLINE M operator<(I a, I b) { return {_mm512_cmplt_epi32_mask(a.v, b.v)}; }
    friend SPLAT_INLINE M operator>(I a, I b) { return {_mm512_cmpgt_epi32_mask(a.v, b.v)}; }
    friend SPLAT_INLINE M operator==(I a, I b) { return {_mm512_cmpeq_epi32_mask(a.v, b.v)}; }
    friend SPLAT_INLINE I select(M m, I a, I b) { return _mm512_mask_blend_epi32(m.v, b.v, a.v); }
    template <int n>
    SPLAT_INLINE I shift_left() const { return _mm512_slli_epi32(v, n); }
    template <int n>
    SPLAT_INLINE I shift_right() const { return _mm512_srai_epi32(v, n); }
};

SPLAT_INLINE F to_float(I a) { return _mm512_cvtepi32_ps(a.v); }
SPLAT_INLINE I truncate(F a) { return _mm512_cvttps_epi32(a.v); }
SPLAT_INLINE F as_float(I a) { return _mm512_castsi512_ps(a.v); }
SPLAT_INLINE I as_int(F a) { return _mm512_castps_si512(a.v); }
SPLAT_INLINE F gather(const float* base, I index) { return _mm512_i32gather_ps(index.v, base, 4); }

// 1 / a to about 1e-7 relative, for a in the normal range.
SPLAT_INLINE F reciprocal(F a) {
    const F r = _mm512_rcp14_ps(a.v);
    return fma(r, fnma(a, r, F(1.0f)), r);
}

#else  // vector extensions

#if defined(__AVX2__)
constexpr int kNative = 8;
#else
constexpr int kNative = 4;
#endif
constexpr int kParts = kLanes / kNative;

typedef float NativeF __attribute__((vector_size(4 * kNative)));
typedef int32_t NativeI __attribute__((vector_size(4 * kNative)));
typedef float NativeFU __attribute__((vector_size(4 * kNative), aligned(4), may_alias));
typedef int32_t NativeIU __attribute__((vector_size(4 * kNative), aligned(4), may_alias));
typedef uint8_t NativeBytes __attribute__((vector_size(kNative), aligned(1), may_alias));

#define SPLAT_PARTS for (int i = 0; i < kParts; ++i)

struct M {
    NativeI v[kParts];  // 0 or -1
    friend SPLAT_INLINE M operator&(M a, M b) { M r; SPLAT_PARTS r.v[i] = a.v[i] & b.v[i]; return r; }
    friend SPLAT_INLINE M operator|(M a, M b) { M r; SPLAT_PARTS r.v[i] = a.v[i] | b.v[i]; return r; }
    friend SPLAT_INLINE M operator!(M a) { M r; SPLAT_PARTS r.v[i] = ~a.v[i]; return r; }
    friend SPLAT_INLINE uint32_t bits(M a) {
        uint32_t r = 0;
#if defined(__AVX2__)
        SPLAT_PARTS r |= static_cast<uint32_t>(__builtin_ia32_movmskps256((NativeF)a.v[i])) << (8 * i);
#elif defined(__SSE2__)
        SPLAT_PARTS r |= static_cast<uint32_t>(__builtin_ia32_movmskps((NativeF)a.v[i])) << (4 * i);
#else
        SPLAT_PARTS for (int k = 0; k < kNative; ++k) r |= (a.v[i][k] & 1u) << (i * kNative + k);
#endif
        return r;
    }
    friend SPLAT_INLINE bool any(M a) { return bits(a) != 0; }
    friend SPLAT_INLINE bool all(M a) { return bits(a) == 0xffff; }
    static SPLAT_INLINE M from_bits(uint32_t b) {
        M r;
        SPLAT_PARTS for (int k = 0; k < kNative; ++k) r.v[i][k] = -static_cast<int32_t>(b >> (i * kNative + k) & 1);
        return r;
    }
};

struct F {
    NativeF v[kParts];
    F() = default;
    SPLAT_INLINE F(float x) { SPLAT_PARTS v[i] = x - NativeF{}; }
    static SPLAT_INLINE F load(const float* p) {
        F r;
        SPLAT_PARTS r.v[i] = *reinterpret_cast<const NativeFU*>(p + i * kNative);
        return r;
    }
    // The first n lanes; the others are 0 / not written.
    static SPLAT_INLINE F load(const float* p, int n) {
        if (n >= kLanes) return load(p);
        float buffer[kLanes] = {};
        for (int k = 0; k < n; ++k) buffer[k] = p[k];
        return load(buffer);
    }
    SPLAT_INLINE void store(float* p) const { SPLAT_PARTS *reinterpret_cast<NativeFU*>(p + i * kNative) = v[i]; }
    SPLAT_INLINE void store(float* p, int n) const {
        if (n >= kLanes) return store(p);
        float buffer[kLanes];
        store(buffer);
        for (int k = 0; k < n; ++k) p[k] = buffer[k];
    }
    static SPLAT_INLINE F load_u8(const uint8_t* p) {
        F r;
        SPLAT_PARTS r.v[i] = __builtin_convertvector(*reinterpret_cast<const NativeBytes*>(p + i * kNative), NativeF);
        return r;
    }
#define SPLAT_BINARY(op) \
    friend SPLAT_INLINE F operator op(F a, F b) { F r; SPLAT_PARTS r.v[i] = a.v[i] op b.v[i]; return r; }
    SPLAT_BINARY(+) SPLAT_BINARY(-) SPLAT_BINARY(*) SPLAT_BINARY(/)
#undef SPLAT_BINARY
#define SPLAT_COMPARE(op) \
    friend SPLAT_INLINE M operator op(F a, F b) { M r; SPLAT_PARTS r.v[i] = (NativeI)(a.v[i] op b.v[i]); return r; }
    SPLAT_COMPARE(<) SPLAT_COMPARE(<=) SPLAT_COMPARE(>) SPLAT_COMPARE(>=)
#undef SPLAT_COMPARE
    friend SPLAT_INLINE F operator-(F a) { F r; SPLAT_PARTS r.v[i] = -a.v[i]; return r; }
    friend SPLAT_INLINE F fma(F a, F b, F c) { F r; SPLAT_PARTS r.v[i] = a.v[i] * b.v[i] + c.v[i]; return r; }
    friend SPLAT_INLINE F fnma(F a, F b, F c) { F r; SPLAT_PARTS r.v[i] = c.v[i] - a.v[i] * b.v[i]; return r; }
    friend SPLAT_INLINE F min(F a, F b) { F r; SPLAT_PARTS r.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i]; return r; }
    friend SPLAT_INLINE F max(F a, F b) { F r; SPLAT_PARTS r.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i]; return r; }
    friend SPLAT_INLINE F sqrt(F a) {
        F r;
#if defined(__AVX2__)
        SPLAT_PARTS r.v[i] = __builtin_ia32_sqrtps256(a.v[i]);
#elif defined(__SSE2__)
        SPLAT_PARTS r.v[i] = __builtin_ia32_sqrtps(a.v[i]);
#else
        SPLAT_PARTS for (int k = 0; k < kNative; ++k) r.v[i][k] = __builtin_sqrtf(a.v[i][k]);
#endif
        return r;
    }
    friend SPLAT_INLINE F abs(F a) {
        F r;
        SPLAT_PARTS r.v[i] = (NativeF)((NativeI)a.v[i] & 0x7fffffff);
        return r;
    }
    friend SPLAT_INLINE F select(M m, F a, F b) {
        F r;
        SPLAT_PARTS r.v[i] = (NativeF)(((NativeI)a.v[i] & m.v[i]) | ((NativeI)b.v[i] & ~m.v[i]));
        return r;
    }
    friend SPLAT_INLINE F masked(M m, F a) {
        F r;
        SPLAT_PARTS r.v[i] = (NativeF)((NativeI)a.v[i] & m.v[i]);
        return r;
    }
    // To the nearest integer, for |a| < 2^22.
    friend SPLAT_INLINE F round(F a) {
        F r;
        SPLAT_PARTS {
            const NativeF shifted = a.v[i] + 12582912.0f;  // the sum has no fraction bits; no fast-math here
            r.v[i] = shifted - 12582912.0f;
        }
        return r;
    }
};

struct I {
    NativeI v[kParts];
    I() = default;
    SPLAT_INLINE I(int32_t x) { SPLAT_PARTS v[i] = x - NativeI{}; }
    static SPLAT_INLINE I load(const int32_t* p) {
        I r;
        SPLAT_PARTS r.v[i] = *reinterpret_cast<const NativeIU*>(p + i * kNative);
        return r;
    }
    SPLAT_INLINE void store(int32_t* p) const { SPLAT_PARTS *reinterpret_cast<NativeIU*>(p + i * kNative) = v[i]; }
#define SPLAT_BINARY(op) \
    friend SPLAT_INLINE I operator op(I a, I b) { I r; SPLAT_PARTS r.v[i] = a.v[i] op b.v[i]; return r; }
    SPLAT_BINARY(+) SPLAT_BINARY(-) SPLAT_BINARY(*) SPLAT_BINARY(&) SPLAT_BINARY(|)
#undef SPLAT_BINARY
#define SPLAT_COMPARE(op) \
    friend SPLAT_INLINE M operator op(I a, I b) { M r; SPLAT_PARTS r.v[i] = (NativeI)(a.v[i] op b.v[i]); return r; }
    SPLAT_COMPARE(<) SPLAT_COMPARE(>) SPLAT_COMPARE(==)
#undef SPLAT_COMPARE
    friend SPLAT_INLINE I select(M m, I a, I b) {
        I r;
        SPLAT_PARTS r.v[i] = (a.v[i] & m.v[i]) | (b.v[i] & ~m.v[i]);
        return r;
    }
    template <int n>
    SPLAT_INLINE I shift_left() const { I r; SPLAT_PARTS r.v[i] = v[i] << n; return r; }
    template <int n>
    SPLAT_INLINE I shift_right() const { I r; SPLAT_PARTS r.v[i] = v[i] >> n; return r; }
};

SPLAT_INLINE F to_float(I a) { F r; SPLAT_PARTS r.v[i] = __builtin_convertvector(a.v[i], NativeF); return r; }
SPLAT_INLINE I truncate(F a) { I r; SPLAT_PARTS r.v[i] = __builtin_convertvector(a.v[i], NativeI); return r; }
SPLAT_INLINE F as_float(I a) { F r; SPLAT_PARTS r.v[i] = (NativeF)a.v[i]; return r; }
SPLAT_INLINE I as_int(F a) { I r; SPLAT_PARTS r.v[i] = (NativeI)a.v[i]; return r; }
SPLAT_INLINE F gather(const float* base, I index) {
    F r;
    SPLAT_PARTS for (int k = 0; k < kNative; ++k) r.v[i][k] = base[index.v[i][k]];
    return r;
}
SPLAT_INLINE F reciprocal(F a) { return F(1.0f) / a; }

#undef SPLAT_PARTS
#endif

// Rows become columns: lane j of x[i] and lane i of x[j] change places.
#if defined(__AVX512F__)
SPLAT_INLINE void transpose(F (&x)[kLanes]) {
    __m512 t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(x[i].v, x[i + 1].v);
        t[i + 1] = _mm512_unpackhi_ps(x[i].v, x[i + 1].v);
    }
    __m512 s[16];
    for (int i = 0; i < 16; i += 4)
        for (int k = 0; k < 2; ++k) {
            const __m512d a = _mm512_castps_pd(t[i + k]), b = _mm512_castps_pd(t[i + k + 2]);
            s[i + 2 * k] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            s[i + 2 * k + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    // s[4 i + k]: column k + 4 l of rows 4 i .. 4 i + 3 in its 128-bit lane l.
    for (int k = 0; k < 4; ++k) {
        const __m512 a = _mm512_shuffle_f32x4(s[k], s[4 + k], 0x88), b = _mm512_shuffle_f32x4(s[8 + k], s[12 + k], 0x88);
        const __m512 c = _mm512_shuffle_f32x4(s[k], s[4 + k], 0xdd), d = _mm512_shuffle_f32x4(s[8 + k], s[12 + k], 0xdd);
        x[k] = _mm512_shuffle_f32x4(a, b, 0x88);
        x[k + 8] = _mm512_shuffle_f32x4(a, b, 0xdd);
        x[k + 4] = _mm512_shuffle_f32x4(c, d, 0x88);
        x[k + 12] = _mm512_shuffle_f32x4(c, d, 0xdd);
    }
}
#else
[[maybe_unused]] __attribute__((noinline)) void transpose(F (&x)[kLanes]) {
    alignas(64) float from[kLanes][kLanes];
    alignas(64) float to[kLanes][kLanes];
    for (int i = 0; i < kLanes; ++i) x[i].store(from[i]);
    for (int i = 0; i < kLanes; ++i)
        for (int j = 0; j < kLanes; ++j) to[j][i] = from[i][j];
    for (int i = 0; i < kLanes; ++i) x[i] = F::load(to[i]);
}
#endif

// Appends base + k to `list` for every set bit k of `mask`; returns how many. Room for 16 is needed.
SPLAT_INLINE int append_set_bits(uint16_t* list, uint32_t mask, int base) {
#if defined(__AVX512F__)
    const __m512i index = _mm512_add_epi32(
        _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), _mm512_set1_epi32(base));
    const __m512i packed = _mm512_maskz_compress_epi32(static_cast<__mmask16>(mask), index);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(list), _mm512_cvtepi32_epi16(packed));
    return __builtin_popcount(mask);
#else
    int n = 0;
    for (; mask; mask &= mask - 1) list[n++] = static_cast<uint16_t>(base + __builtin_ctz(mask));
    return n;
#endif
}

// 0, 1, ..., 15.
SPLAT_INLINE I lane_index() {
    alignas(64) static constexpr int32_t values[kLanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return I::load(values);
}

SPLAT_INLINE M first_lanes(int n) { return M::from_bits(n >= kLanes ? 0xffffu : (1u << n) - 1); }

// Sum of the lanes, as a tree: the same order everywhere.
SPLAT_INLINE float sum(F a) {
    alignas(64) float x[kLanes];
    a.store(x);
    for (int width = 8; width > 0; width /= 2)
        for (int k = 0; k < width; ++k) x[k] += x[k + width];
    return x[0];
}

// 2^a for a in [-126, 126] (clamped), relative error about 1e-7.
SPLAT_INLINE F exp2(F a) {
    a = min(F(126.0f), max(F(-126.0f), a));
    const F whole = round(a);
    const F f = a - whole;
    F p = F(1.535336188319500e-4f);
    p = fma(p, f, F(1.339887440266574e-3f));
    p = fma(p, f, F(9.618437357674640e-3f));
    p = fma(p, f, F(5.550332471162809e-2f));
    p = fma(p, f, F(2.402264791363012e-1f));
    p = fma(p, f, F(6.931472028550421e-1f));
    p = fma(p, f, F(1.0f));
    return p * as_float((truncate(whole) + I(127)).shift_left<23>());
}

// e^a, NaN where a is; 2^a with the product in two parts, so that the error does not grow with a.
SPLAT_INLINE F exp(F a) {
    a = min(F(87.3f), max(F(-87.3f), a));
    const F whole = round(a * F(1.44269504f));
    F f = fnma(whole, F(0.693359375f), a);
    f = fnma(whole, F(-2.12194440e-4f), f);
    F p = F(1.9875691500e-4f);
    p = fma(p, f, F(1.3981999507e-3f));
    p = fma(p, f, F(8.3334519073e-3f));
    p = fma(p, f, F(4.1665795894e-2f));
    p = fma(p, f, F(1.6666665459e-1f));
    p = fma(p, f, F(5.0000001201e-1f));
    p = fma(p * f, f, f + F(1.0f));
    return p * as_float((truncate(whole) + I(127)).shift_left<23>());
}

// log2 of a positive normal number, relative error about 1e-7.
SPLAT_INLINE F log2(F a) {
    const I raw = as_int(a);
    // Mantissa in [sqrt(1/2), sqrt(2)).
    const I exponent = (raw - I(0x3f3504f3)).shift_right<23>();
    const F mantissa = as_float(raw - exponent.shift_left<23>());
    const F f = mantissa - F(1.0f);
    F p = F(7.0376836292e-2f);
    p = fma(p, f, F(-1.1514610310e-1f));
    p = fma(p, f, F(1.1676998740e-1f));
    p = fma(p, f, F(-1.2420140846e-1f));
    p = fma(p, f, F(1.4249322787e-1f));
    p = fma(p, f, F(-1.6668057665e-1f));
    p = fma(p, f, F(2.0000714765e-1f));
    p = fma(p, f, F(-2.4999993993e-1f));
    p = fma(p, f, F(3.3333331174e-1f));
    const F square = f * f;
    const F natural = f + fma(p * f, square, F(-0.5f) * square);
    return fma(natural, F(1.44269504f), to_float(exponent));
}

}  // namespace
}  // namespace splat::cpu::SPLAT_ISA
