#include "mixing.h"

#include <algorithm>
#include <array>
#include <utility>

namespace splat::cpu {
namespace {

constexpr int kModels = 7;  // contexts of a digit
constexpr int kMostDigits = 20;
constexpr int kWindow = 128;
constexpr int kRate = 12;              // of the weights
constexpr int kFirstWeight = 22938;    // 0.35 of 2^16
constexpr int kSlowest = 255;          // digits after which a model adapts no slower
constexpr int kTableBits = 18, kLeastTableBits = 12;
constexpr int kLargest = 2047;         // logit 8, in units of 1/256

// 2^16 / (1 + exp(-x)) for x = -8, -7.5, ..., 8, kept off 0 and 2^16.
constexpr std::array<int32_t, 33> kLogistic = {
    32, 36, 60, 98, 162, 267, 439, 720, 1179, 1921, 3108,
    4971, 7812, 11955, 17625, 24743, 32768, 40793, 47911, 53581, 57724, 60565,
    62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438, 65476, 65500, 65504};

// Probability of 16 bits from a logit in units of 1/256.
int32_t probability(int64_t logit) {
    const int32_t x = static_cast<int32_t>(std::clamp<int64_t>(logit, -kLargest, kLargest)) + 2048;
    const int32_t place = x >> 7, part = x & 127;
    return (kLogistic[place] * (128 - part) + kLogistic[place + 1] * part + 64) >> 7;
}

// Probability of 12 bits -> logit: the inverse of `probability`.
std::array<int16_t, 4096> logits() {
    std::array<int16_t, 4096> table{};
    int next = 0;
    for (int logit = -kLargest; logit <= kLargest; ++logit)
        for (const int last = probability(logit) >> 4; next <= last; ++next) table[next] = static_cast<int16_t>(logit);
    for (; next < 4096; ++next) table[next] = kLargest;
    return table;
}

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
    static const std::array<int16_t, 4096> kLogits;
    int bits_;
    std::vector<uint32_t> models_;
    std::vector<int32_t> weights_;
    int32_t* weight_ = nullptr;
    std::array<uint32_t*, kModels> model_{};
    std::array<int32_t, kModels> logit_{};
    int32_t expected_ = 0;
};

const std::array<int16_t, 4096> Mixture::kLogits = logits();

// An interval of 32 bits that every digit divides; bytes leave it when its ends agree on them.
struct Interval {
    uint32_t low = 0, high = ~uint32_t{0};

    uint32_t middle(int32_t one) const {
        return low + static_cast<uint32_t>(uint64_t{high - low} * static_cast<uint32_t>(one) >> 16);
    }
    void take(bool digit, uint32_t middle) { digit ? high = middle : low = middle + 1; }
    bool settled() const { return (low ^ high) >> 24 == 0; }
    void shift() {
        low <<= 8;
        high = high << 8 | 255;
    }
};

class Encoder {
public:
    std::vector<uint8_t> bytes;

    bool code(bool digit, int32_t one) {
        interval_.take(digit, interval_.middle(one));
        for (; interval_.settled(); interval_.shift()) bytes.push_back(static_cast<uint8_t>(interval_.high >> 24));
        return digit;
    }
    void end() {
        for (int shift = 24; shift >= 0; shift -= 8) bytes.push_back(static_cast<uint8_t>(interval_.low >> shift));
    }

private:
    Interval interval_;
};

class Decoder {
public:
    Decoder(const uint8_t* data, int64_t length) : data_(data), length_(length) {
        for (int i = 0; i < 4; ++i) next();
    }
    bool code(bool, int32_t one) {
        const uint32_t middle = interval_.middle(one);
        const bool digit = value_ <= middle;
        interval_.take(digit, middle);
        for (; interval_.settled(); interval_.shift()) next();
        return digit;
    }
    bool cut() const { return at_ > length_; }
    bool ended() const { return at_ == length_; }

private:
    void next() {
        value_ = value_ << 8 | (at_ < length_ ? data_[at_] : 0);
        ++at_;
    }
    const uint8_t* data_;
    int64_t length_, at_ = 0;
    uint32_t value_ = 0;
    Interval interval_;
};

int digits_of(int32_t size) {
    int digits = 0;
    while ((int64_t{1} << digits) < size) ++digits;
    return digits;
}

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
