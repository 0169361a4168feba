#include "mixing.h"

#include <algorithm>
#include <array>
#include <utility>

#include "arithmetic.h"

namespace splat::cpu {
namespace {

constexpr int kModels = 7;  // contexts of a digit
constexpr int kMostDigits = 20;
constexpr int kWindow = 128;
constexpr int kRate = 12;              // of the weights
constexpr int kFirstWeight = 22938;    // 0.35 of 2^16
constexpr int kSlowest = 255;          // digits after which a model adapts no slower
constexpr int kTableBits = 18, kLeastTableBits = 12;
// Adaptive models of binary digits and their mixture.
class Mixture {
public:
    Mixture(int64_t symbols, int digits) : weights_(kMostDigits * kModels, kFirstWeight) {
        bits_ = kLeastTableBits;
        while (bits_ < kTableBits && (int64_t{1} << bits_) < symbols * digits) ++bits_;
        models_.assign(size_t{kModels} << bits_, kHalf);
    }

    // Probability of 16 bits that the digit is 1; `node`: the digits before it in this symbol, after a leading 1.
    int32_t expect(const std::array<uint32_t, kModels>& contexts, uint32_t node, int depth) {
        weight_ = &weights_[depth * kModels];
        int64_t sum = 0;
        for (int i = 0; i < kModels; ++i) {
            const uint32_t hash = (contexts[i] * 0x9E3779B1u + node) * 0x85EBCA6Bu;
            model_[i] = &models_[(size_t{static_cast<uint32_t>(i)} << bits_) + (hash >> (32 - bits_))];
            logit_[i] = kLogits[*model_[i] >> 20];
            sum += int64_t{weight_[i]} * logit_[i];
        }
        return expected_ = probability(sum >> 16);
    }

    void learn(bool digit) {
        const int32_t error = (((digit ? 1 << 16 : 0) - expected_) * kRate) >> 4;
        for (int i = 0; i < kModels; ++i) {
            weight_[i] += (logit_[i] * error + 0x8000) >> 16;
            // 22 bits of probability, 10 of how often it was met: the first digits count most.
            const int32_t met = *model_[i] & 1023, was = static_cast<int32_t>(*model_[i] >> 10);
            const int32_t now = was + ((digit ? (1 << 22) - 1 : 0) - was) * 2 / (2 * met + 3);
            *model_[i] = static_cast<uint32_t>(now) << 10 | static_cast<uint32_t>(std::min(met + 1, kSlowest));
        }
    }

private:
    static constexpr uint32_t kHalf = 1u << 31;
    int bits_;
    std::vector<uint32_t> models_;
    std::vector<int32_t> weights_;
    int32_t* weight_ = nullptr;
    std::array<uint32_t*, kModels> model_{};
    std::array<int32_t, kModels> logit_{};
    int32_t expected_ = 0;
};

// The first `kept` of the digits of the symbol at a place, and 0 where there is none.
uint32_t first_digits(const int32_t* symbols, int32_t place, int digits, int kept) {
    return place < 0 ? 0 : 1 + static_cast<uint32_t>(symbols[place] >> std::max(digits - kept, 0));
}

// Codes the symbol at `i`; `symbol` is what it is for an encoder, and of no account for a decoder. What it is.
template <class Coder>
int32_t code(Coder& coder, Mixture& mixture, const int32_t* symbols, const Known& known, int64_t i, int digits,
             int32_t symbol) {
    const int32_t *near = known.near + i * kMixingNear, *side = known.side + i * kMixingSide;
    const auto like = [&](int which, int kept) { return first_digits(symbols, near[which], digits, kept); };
    const uint32_t coarse = like(0, 3);
    const std::array<uint32_t, kModels> contexts = {
        0,          like(0, 5), like(1, 5), like(2, 5), coarse * 16 + like(1, 3), static_cast<uint32_t>(side[0]),
        static_cast<uint32_t>(side[1]) * 16 + coarse};
    uint32_t node = 1;
    int64_t found = 0;
    for (int depth = 0; depth < digits; ++depth) {
        const int place = digits - 1 - depth;
        bool digit = false;
        // Where all larger symbols are beyond the last one the digit is known.
        if (found + (int64_t{1} << place) < known.size) {
            digit = coder.code(symbol >> place & 1, mixture.expect(contexts, node, depth));
            mixture.learn(digit);
        }
        node = node << 1 | static_cast<uint32_t>(digit);
        found |= int64_t{digit} << place;
    }
    return static_cast<int32_t>(found);
}

}  // namespace

bool mixing_fits(const Known& known) {
    for (int64_t i = 0; i < known.count * kMixingNear; ++i)
        if (known.near[i] < -1 || known.near[i] >= i / kMixingNear) return false;
    return true;
}

std::vector<uint8_t> mixing_encode(const int32_t* symbols, const Known& known) {
    const int digits = digits_of(known.size);
    if (known.count == 0 || digits == 0) return {};
    Encoder coder;
    Mixture mixture(known.count, digits);
    for (int64_t i = 0; i < known.count; ++i) code(coder, mixture, symbols, known, i, digits, symbols[i]);
    coder.end();
    return std::move(coder.bytes);
}

bool mixing_decode(const uint8_t* data, int64_t length, const Known& known, int32_t* symbols) {
    const int digits = digits_of(known.size);
    if (known.count == 0 || digits == 0) {
        std::fill_n(symbols, known.count, 0);
        return length == 0;
    }
    Decoder coder(data, length);
    Mixture mixture(known.count, digits);
    for (int64_t i = 0; i < known.count; ++i) {
        symbols[i] = code(coder, mixture, symbols, known, i, digits, 0);
        if (coder.cut()) return false;
    }
    return coder.ended();
}

void nearest_before(const int32_t* cells, int64_t count, int32_t* near) {
    for (int64_t i = 0; i < count; ++i) {
        std::array<int64_t, kMixingNear> best;
        best.fill(INT64_MAX);
        int32_t* found = near + i * kMixingNear;
        std::fill_n(found, kMixingNear, -1);
        for (int64_t j = i - 1; j >= std::max<int64_t>(0, i - kWindow); --j) {
            int64_t distance = 0;
            for (int axis = 0; axis < 3; ++axis) {
                const int64_t apart = int64_t{cells[3 * i + axis]} - cells[3 * j + axis];
                distance += apart * apart;
            }
            int place = kMixingNear;
            for (; place > 0 && distance < best[place - 1]; --place)
                if (place < kMixingNear) {
                    best[place] = best[place - 1];
                    found[place] = found[place - 1];
                }
            if (place < kMixingNear) {
                best[place] = distance;
                found[place] = static_cast<int32_t>(j);
            }
        }
    }
}

}  // namespace splat::cpu
