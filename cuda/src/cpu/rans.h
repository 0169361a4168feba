// Entropy coding of symbols of known frequencies: range asymmetric numeral systems (Duda 2013), a 64-bit state
// that takes and gives 32 bits at a time.
#pragma once

#include <cstdint>
#include <vector>

namespace splat::cpu {

// Frequencies sum to 2^kRansBits.
constexpr int kRansBits = 24;

// starts [size + 1]: sums of the frequencies before each symbol; the frequency of every symbol that occurs is
// positive. Nothing for no symbols.
std::vector<uint8_t> rans_encode(const int32_t* symbols, int64_t count, const uint32_t* starts);

// Fills symbols [count]; false where the bytes cannot come from rans_encode. Any bytes are safe, starts are not.
bool rans_decode(const uint8_t* data, int64_t length, const uint32_t* starts, int32_t* symbols,
                 int64_t count);

}  // namespace splat::cpu
