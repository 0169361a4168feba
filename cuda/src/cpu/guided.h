// Entropy coding of the words of codebooks: what is known of similar things tells on which side of every halving of
// the codebook a word probably lies. Integer arithmetic alone, so that every machine gets the same.
#pragma once

#include <cstdint>
#include <vector>

namespace splat::cpu {

constexpr int kGuidedNear = 8;    // earlier symbols whose words each one's probably resembles
constexpr int kGuidedSides = 6;   // most other numbers that are known of a symbol
constexpr int kGuidedUnlike = 16; // classes of how much the most alike differs
constexpr int kGuidedUnit = 16383;

// `count` symbols, each the number of a word of its table. Words of the same first binary digits should be alike.
struct Guided {
    const int16_t* words;     // [starts[tables], width]
    const int64_t* starts;    // [tables + 1] where the words of each table begin; a table has 1 to 2^20
    const int32_t* table;     // [count]
    const int32_t* near;      // [count, kGuidedNear] places of earlier symbols, the closest first; -1: none
    const int32_t* alike;     // [count] the place of an earlier one that is most alike, or -1
    const int32_t* unlike;    // [count] how much it differs, below kGuidedUnlike
    const int32_t* gap;       // [count] how far away the first of `near` is, any small number
    const int32_t* side;      // [count, sides] any numbers
    int64_t count, tables;
    int width, sides;
    bool unsigned_words;      // words are vectors of kGuidedUnit's length, and their negatives the same
};

// Whether places, tables and sizes are as said above.
bool guided_fits(const Guided& known);

std::vector<uint8_t> guided_encode(const int32_t* symbols, const Guided& known);

// Fills symbols [count]; false where the bytes cannot come from guided_encode. Any bytes are safe.
bool guided_decode(const uint8_t* data, int64_t length, const Guided& known, int32_t* symbols);

// near [count, kept]: of each cell [count, 3] the nearest among the `window` before it, the later among equals first;
// -1: none. Coordinates lie in [0, 2^30).
void nearest_among(const int32_t* cells, int64_t count, int64_t window, int64_t kept, int32_t* near);

// Of the places near [count, kept] that whose features [count, width] differ least from each one's own: the sum of
// their weighted differences / 64, and 2 for every place that is closer. Fills the place, -1 where there is none, and
// the least sum.
void most_alike(const int32_t* near, int64_t count, int64_t kept, const int16_t* features, const int32_t* weights,
                int64_t width, int32_t* alike, int32_t* unlike);

// order [count]: a k-d tree of vectors [count, 3]. They are halved, to powers of two, along the column of largest
// range, the first of equal ones, and by their places where its values are equal.
void halved(const int16_t* vectors, int64_t count, int32_t* order);

}  // namespace splat::cpu
