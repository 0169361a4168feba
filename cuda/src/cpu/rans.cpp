#include "rans.h"

#include <algorithm>

namespace splat::cpu {
namespace {

constexpr uint64_t kLow = uint64_t{1} << 31;  // the state lies in [kLow, kLow << 32)
constexpr uint32_t kTotal = 1u << kRansBits;
// The decoder finds a symbol by the first bits of its place, then by bisection.
constexpr int kTableBits = 12;

uint32_t load32(const uint8_t* from) {
    return from[0] | uint32_t{from[1]} << 8 | uint32_t{from[2]} << 16 | uint32_t{from[3]} << 24;
}

}  // namespace

std::vector<uint8_t> rans_encode(const int32_t* symbols, int64_t count, const uint32_t* starts) {
    if (count == 0) return {};
    std::vector<uint32_t> words;  // last to first
    uint64_t state = kLow;
    // Backwards, so that the decoder gives symbols in order.
    for (int64_t i = count; i-- > 0;) {
        const uint32_t start = starts[symbols[i]], frequency = starts[symbols[i] + 1] - start;
        if (state >= ((kLow >> kRansBits) << 32) * frequency) {
            words.push_back(static_cast<uint32_t>(state));
            state >>= 32;
        }
        state = (state / frequency << kRansBits) + state % frequency + start;
    }
    words.push_back(static_cast<uint32_t>(state));
    words.push_back(static_cast<uint32_t>(state >> 32));
    std::vector<uint8_t> bytes;
    bytes.reserve(words.size() * 4);
    for (auto word = words.rbegin(); word != words.rend(); ++word)
        for (int shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<uint8_t>(*word >> shift));
    return bytes;
}

bool rans_decode(const uint8_t* data, int64_t length, const uint32_t* starts, int32_t* symbols,
                 int64_t count) {
    if (count == 0) return length == 0;
    if (length < 8 || length % 4) return false;
    uint64_t state = uint64_t{load32(data)} << 32 | load32(data + 4);
    if (state < kLow || state >= kLow << 32) return false;
    int64_t at = 8;

    // first[t]: the symbol that holds place t << (kRansBits - kTableBits).
    std::vector<int32_t> first((1 << kTableBits) + 1);
    int32_t symbol = 0;
    for (uint32_t t = 0; t <= 1u << kTableBits; ++t) {
        const uint32_t place = std::min(t << (kRansBits - kTableBits), kTotal - 1);
        while (starts[symbol + 1] <= place) ++symbol;
        first[t] = symbol;
    }
    for (int64_t i = 0; i < count; ++i) {
        const uint32_t place = static_cast<uint32_t>(state) & (kTotal - 1);
        const uint32_t t = place >> (kRansBits - kTableBits);
        const uint32_t* from = starts + first[t] + 1;
        const int64_t s = std::upper_bound(from, starts + first[t + 1] + 1, place) - starts - 1;
        symbols[i] = static_cast<int32_t>(s);
        state = (state >> kRansBits) * (starts[s + 1] - starts[s]) + place - starts[s];
        if (state < kLow) {
            if (at + 4 > length) return false;
            state = state << 32 | load32(data + at);
            at += 4;
        }
    }
    return state == kLow && at == length;
}

}  // namespace splat::cpu
