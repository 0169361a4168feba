// Entropy coding of symbols by what is known beside them: adaptive models of each binary digit under several contexts,
// whose opinions are mixed (logistic mixing, Mahoney 2005, "Adaptive weighing of context models for lossless data
// compression"), and a binary arithmetic coder. Integer arithmetic alone, so that every machine gets the same.
#pragma once

#include <cstdint>
#include <vector>

namespace splat::cpu {

constexpr int kMixingNear = 3;  // symbols coded before that each is expected to resemble
constexpr int kMixingSide = 2;  // other numbers that are known of it

// What is known of `count` symbols below `size`, which is at most 2^20.
struct Known {
    const int32_t* near;  // [count, kMixingNear] places of earlier symbols, the most alike first; -1: none
    const int32_t* side;  // [count, kMixingSide] any numbers
    int64_t count;
    int32_t size;
};

// Whether all of `near` lies before each symbol.
bool mixing_fits(const Known& known);

// Similar symbols should be neighbours in number: the contexts hold the first digits of the symbols near.
std::vector<uint8_t> mixing_encode(const int32_t* symbols, const Known& known);

// Fills symbols [count]; false where the bytes cannot come from mixing_encode. Any bytes are safe.
bool mixing_decode(const uint8_t* data, int64_t length, const Known& known, int32_t* symbols);

// near [count, kMixingNear]: of each cell [count, 3] the nearest among the 128 before it, the later among equals first.
// Coordinates lie in [0, 2^30).
void nearest_before(const int32_t* cells, int64_t count, int32_t* near);

}  // namespace splat::cpu
