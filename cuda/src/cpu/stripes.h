// Image rows in stripes: a layout in which a horizontal filter reads whole aligned vectors.
//
// A row of n floats is cut into 16 stripes of `length` = ceil(n / 16) floats; vector j holds element j of
// every stripe. The neighbours at distance d of the elements in vector j are then the vectors j - d and
// j + d, whatever the number of channels. At the ends of the stripes they lie in the next lane: halo
// vectors before and after the row hold copies moved by one lane, with zeros beyond the row's ends.
//
// Included by kernel files only (see isa.h).
#pragma once

#include "simd.h"

namespace splat::cpu::SPLAT_ISA {
namespace {

#if defined(__AVX512F__)

SPLAT_INLINE F lanes_up(F a) {
    return as_float(I(_mm512_alignr_epi32(as_int(a).v, _mm512_setzero_si512(), 15)));
}
SPLAT_INLINE F lanes_down(F a) {
    return as_float(I(_mm512_alignr_epi32(_mm512_setzero_si512(), as_int(a).v, 1)));
}

#else

SPLAT_INLINE F lanes_up(F a) {
    float x[kLanes + 1] = {};
    a.store(x + 1);
    return F::load(x);
}
SPLAT_INLINE F lanes_down(F a) {
    float x[kLanes + 1] = {};
    a.store(x);
    return F::load(x + 1);
}

#endif

// Where the block of 16 vectors after the one at j begins; the last one may overlap its predecessor.
SPLAT_INLINE int next_block(int j, int length) {
    return j + 2 * kLanes <= length || j + kLanes == length ? j + kLanes : length - kLanes;
}

// `row` and `striped` hold 16 * length floats; length is at least 16.
SPLAT_INLINE void to_stripes(const float* row, int length, float* striped) {
    for (int j = 0; j < length; j = next_block(j, length)) {
        F block[kLanes];
        for (int lane = 0; lane < kLanes; ++lane) block[lane] = F::load(row + lane * length + j);
        transpose(block);
        for (int i = 0; i < kLanes; ++i) block[i].store(striped + (j + i) * kLanes);
    }
}

SPLAT_INLINE void from_stripes(const float* striped, int length, float* row) {
    for (int j = 0; j < length; j = next_block(j, length)) {
        F block[kLanes];
        for (int i = 0; i < kLanes; ++i) block[i] = F::load(striped + (j + i) * kLanes);
        transpose(block);
        for (int lane = 0; lane < kLanes; ++lane) block[lane].store(row + lane * length + j);
    }
}

// Fills `halo` vectors on both sides of a striped row; halo <= length.
SPLAT_INLINE void fill_halo(float* striped, int length, int halo) {
    for (int h = 1; h <= halo; ++h) {
        lanes_up(F::load(striped + (length - h) * kLanes)).store(striped - h * kLanes);
        lanes_down(F::load(striped + (h - 1) * kLanes)).store(striped + (length + h - 1) * kLanes);
    }
}

}  // namespace
}  // namespace splat::cpu::SPLAT_ISA
