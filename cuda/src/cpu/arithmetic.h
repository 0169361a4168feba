// Binary digits by their probabilities, in integer arithmetic alone: logits, and an arithmetic coder.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

namespace splat::cpu {

constexpr int kLargestLogit = 2047;         // logit 8, in units of 1/256

// 2^16 / (1 + exp(-x)) for x = -8, -7.5, ..., 8, kept off 0 and 2^16.
inline constexpr std::array<int32_t, 33> kLogistic = {
    32, 36, 60, 98, 162, 267, 439, 720, 1179, 1921, 3108,
    4971, 7812, 11955, 17625, 24743, 32768, 40793, 47911, 53581, 57724, 60565,
    62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438, 65476, 65500, 65504};

// Probability of 16 bits from a logit in units of 1/256.
inline int32_t probability(int64_t logit) {
    const int32_t x = static_cast<int32_t>(std::clamp<int64_t>(logit, -kLargestLogit, kLargestLogit)) + 2048;
    const int32_t place = x >> 7, part = x & 127;
    return (kLogistic[place] * (128 - part) + kLogistic[place + 1] * part + 64) >> 7;
}

// Probability of 12 bits -> logit: the inverse of `probability`.
inline std::array<int16_t, 4096> logits() {
    std::array<int16_t, 4096> table{};
    int next = 0;
    for (int logit = -kLargestLogit; logit <= kLargestLogit; ++logit)
        for (const int last = probability(logit) >> 4; next <= last; ++next) table[next] = static_cast<int16_t>(logit);
    for (; next < 4096; ++next) table[next] = kLargestLogit;
    return table;
}
inline const std::array<int16_t, 4096> kLogits = logits();

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

// Binary digits of the numbers below a size.
inline int digits_of(int32_t size) {
    int digits = 0;
    while ((int64_t{1} << digits) < size) ++digits;
    return digits;
}

}  // namespace splat::cpu
