#include "guided.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <utility>

#include "arithmetic.h"

namespace splat::cpu {
namespace {

constexpr int kPlain = 11;  // contexts besides the sides
constexpr int kModels = kPlain + kGuidedSides;
constexpr int kSelectors = 3;
constexpr int kMostDigits = 20;
constexpr int kTableBits = 18, kLeastTableBits = 12;
constexpr int kRate = 24;      // of the weights
constexpr int kSlowest = 255;  // digits after which a model adapts no slower
constexpr int kScale = 16;     // of words: means of several are told in sixteenths
constexpr int kFine = 28;      // bits of a plane's reciprocal
// What the closest ones count in the mean.
constexpr std::array<int, kGuidedNear> kShare = {8, 6, 5, 4, 3, 3, 2, 2};

// A model's weight depends on how many digits it has met.
constexpr int kClasses = 8;
constexpr std::array<int32_t, kClasses> kFirstWeight = {0, 1835, 3146, 4194, 5243, 5767, 6292, 6292};

std::array<uint8_t, kSlowest + 1> classes() {
    std::array<uint8_t, kSlowest + 1> table{};
    int number = 0;
    for (int met = 0; met <= kSlowest; ++met) {
        for (const int first : {1, 2, 4, 8, 20, 60, kSlowest}) number += met == first;
        table[met] = static_cast<uint8_t>(number);
    }
    return table;
}
const std::array<uint8_t, kSlowest + 1> kClassOf = classes();

// 2^17 / (2 met + 3): how far a model moves towards a digit, of 2^16. The first digits count most.
std::array<int32_t, kSlowest + 1> steps() {
    std::array<int32_t, kSlowest + 1> table{};
    for (int met = 0; met <= kSlowest; ++met) table[met] = (1 << 17) / (2 * met + 3);
    return table;
}
const std::array<int32_t, kSlowest + 1> kStep = steps();

// Adaptive models of binary digits and three mixtures of them, whose logits are averaged.
class Mixture {
public:
    Mixture(int models, int64_t digits, const std::array<int, kSelectors>& sizes) : models_(models) {
        while (bits_ < kTableBits && (int64_t{1} << bits_) < digits) ++bits_;
        table_.assign(static_cast<size_t>(models) << bits_, 1u << 31);
        for (int s = 0; s < kSelectors; ++s) {
            weights_[s].resize(static_cast<size_t>(sizes[s]) * models * kClasses);
            for (size_t i = 0; i < weights_[s].size(); ++i) weights_[s][i] = kFirstWeight[i % kClasses];
        }
    }

    // Probability of 16 bits that the digit is 1 under these contexts.
    int32_t expect(const std::array<uint32_t, kModels>& contexts, const std::array<int, kSelectors>& selected) {
        for (int i = 0; i < models_; ++i) {
            uint32_t hash = contexts[i] * 0x85EBCA6Bu;
            hash = (hash ^ hash >> 15) * 0x2C1B3C6Du;
            model_[i] = &table_[(static_cast<size_t>(i) << bits_) + (hash >> (32 - bits_))];
        }
        for (int i = 0; i < models_; ++i) {
            logit_[i] = kLogits[*model_[i] >> 20];
            class_[i] = i * kClasses + kClassOf[*model_[i] & 1023];
        }
        int64_t total = 0;
        for (int s = 0; s < kSelectors; ++s) {
            weight_[s] = &weights_[s][static_cast<size_t>(selected[s]) * models_ * kClasses];
            int64_t sum = 0;
            for (int i = 0; i < models_; ++i) sum += int64_t{weight_[s][class_[i]]} * logit_[i];
            sum = std::clamp<int64_t>(sum >> 16, -kLargestLogit, kLargestLogit);
            expected_[s] = probability(sum);
            total += sum;
        }
        return probability(total / kSelectors);
    }

    void learn(bool digit) {
        for (int s = 0; s < kSelectors; ++s) {
            const int32_t error = (((digit ? 1 << 16 : 0) - expected_[s]) * kRate) >> 4;
            for (int i = 0; i < models_; ++i) weight_[s][class_[i]] += (logit_[i] * error + 0x8000) >> 16;
        }
        for (int i = 0; i < models_; ++i) {
            // 22 bits of probability, 10 of how often it was met.
            const int32_t met = *model_[i] & 1023, was = static_cast<int32_t>(*model_[i] >> 10);
            const int64_t off = (digit ? (1 << 22) - 1 : 0) - was;
            const int32_t now = was + static_cast<int32_t>(off * kStep[met] >> 16);
            *model_[i] = static_cast<uint32_t>(now) << 10 | static_cast<uint32_t>(std::min(met + 1, kSlowest));
        }
    }

private:
    int models_, bits_ = kLeastTableBits;
    std::vector<uint32_t> table_;
    std::array<std::vector<int32_t>, kSelectors> weights_;
    std::array<int32_t*, kSelectors> weight_{};
    std::array<int32_t, kSelectors> expected_{};
    std::array<uint32_t*, kModels> model_{};
    std::array<int32_t, kModels> logit_{};
    std::array<int, kModels> class_{};
};

constexpr int kWords = 5;  // whose places are told: the mean of those near, the first three, the most alike

// For each halving of a table's words the plane between the means of both halves.
class Planes {
public:
    Planes(const int16_t* words, int64_t count, int width) : width_(width), digits_(digits_of(static_cast<int32_t>(count))) {
        const int64_t nodes = int64_t{1} << digits_;
        normal_.assign(static_cast<size_t>(nodes * width), 0);
        middle_.assign(static_cast<size_t>(nodes * width), 0);
        std::vector<int64_t> sums(static_cast<size_t>((count + 1) * width), 0);
        for (int64_t i = 0; i < count * width; ++i) sums[i + width] = sums[i] + words[i];
        for (int64_t node = 1; node < nodes; ++node) {
            int depth = 0;
            while (node >> (depth + 1)) ++depth;
            const int64_t half = int64_t{1} << (digits_ - depth - 1), first = 2 * half * node - nodes;
            const int64_t second = first + half, end = std::min(second + half, count);
            if (second >= end) continue;  // its digit is known
            std::array<int64_t, kMostWidth> apart{};
            int64_t square = 0;
            for (int d = 0; d < width; ++d) {
                const auto mean = [&](int64_t from, int64_t to) {
                    return (sums[to * width + d] - sums[from * width + d]) * kScale / (to - from);
                };
                const int64_t low = mean(first, second), high = mean(second, end);
                apart[d] = high - low;
                square += apart[d] * apart[d];
                middle_[node * width + d] = static_cast<int32_t>(low + high);
            }
            for (int d = 0; d < width && square > 0; ++d)
                normal_[node * width + d] = static_cast<int32_t>(apart[d] * (int64_t{1} << kFine) / square);
        }
    }

    static constexpr int kMostWidth = 16;

    int digits() const { return digits_; }

    // Where a word, in sixteenths, lies about the plane of a node: at -64 and 64 lie the means of both halves.
    // `words`: kWords for each of the columns.
    std::array<int64_t, kWords> places(int64_t node, const int32_t* words, bool either) const {
        const int32_t *normal = &normal_[node * width_], *middle = &middle_[node * width_];
        std::array<int64_t, kWords> sum{}, along{};
        int64_t offset = 0;
        for (int d = 0; d < width_; ++d) {
            for (int k = 0; k < kWords; ++k) sum[k] += int64_t{normal[d]} * words[d * kWords + k];
            offset += int64_t{normal[d]} * middle[d];
        }
        if (either) {
            for (int d = 0; d < width_; ++d)
                for (int k = 0; k < kWords; ++k) along[k] += int64_t{middle[d]} * words[d * kWords + k];
            for (int k = 0; k < kWords; ++k) sum[k] = along[k] < 0 ? -sum[k] : sum[k];
        }
        for (int k = 0; k < kWords; ++k) sum[k] = (2 * sum[k] - offset) >> (kFine - 6);
        return sum;
    }

private:
    int width_, digits_;
    std::vector<int32_t> normal_, middle_;
};

constexpr int kPlaces = 17;  // 8 on either side of a plane, and unknown

// A place about a plane as a small number.
constexpr int kFar = 320;
std::array<uint8_t, 2 * kFar + 1> grades() {
    std::array<uint8_t, 2 * kFar + 1> table{};
    for (int place = -kFar; place <= kFar; ++place) {
        int grade = 0;
        for (const int limit : {8, 24, 48, 80, 128, 200, kFar}) grade += (place < 0 ? -place : place) >= limit;
        table[place + kFar] = static_cast<uint8_t>(place < 0 ? 7 - grade : 8 + grade);
    }
    return table;
}
const std::array<uint8_t, 2 * kFar + 1> kGrades = grades();

int graded(int64_t place) { return kGrades[std::clamp<int64_t>(place, -kFar, kFar) + kFar]; }

// The same in ten steps.
uint32_t coarse(int grade) {
    return static_cast<uint32_t>(grade == kPlaces - 1 ? 10 : grade < 8 ? 4 - (8 - grade) / 2 : 5 + (grade - 7) / 2);
}

// What the coder of one symbol knows besides the digits.
struct Contexts {
    std::array<uint32_t, kModels> fixed{};  // the same for all digits of a symbol
    std::vector<int32_t> words;             // in sixteenths, column by column
    std::array<bool, kWords> has{};
};

class Model {
public:
    explicit Model(const Guided& known) : known_(known), mixture_(kPlain + known.sides, digits(known), sizes()) {
        for (int64_t t = 0; t < known.tables; ++t)
            planes_.emplace_back(known.words + known.starts[t] * known.width, known.starts[t + 1] - known.starts[t],
                                 known.width);
        contexts_.words.resize(kWords * static_cast<size_t>(known.width));
    }

    // Codes the symbol at `i`; `symbol` is what it is for an encoder, and of no account for a decoder. What it is.
    template <class Coder>
    int32_t code(Coder& coder, const int32_t* symbols, int64_t i, int32_t symbol) {
        const int32_t table = known_.table[i];
        const Planes& planes = planes_[table];
        const int64_t size = known_.starts[table + 1] - known_.starts[table];
        gather(symbols, i);
        uint32_t node = 1;
        int64_t found = 0;
        for (int depth = 0; depth < planes.digits(); ++depth) {
            const int place = planes.digits() - 1 - depth;
            bool digit = false;
            // Where all larger symbols are beyond the last one the digit is known.
            if (found + (int64_t{1} << place) < size) {
                digit = coder.code(symbol >> place & 1, expect(planes, i, node, depth));
                mixture_.learn(digit);
            }
            node = node << 1 | static_cast<uint32_t>(digit);
            found |= int64_t{digit} << place;
        }
        return static_cast<int32_t>(found);
    }

private:
    static std::array<int, kSelectors> sizes() {
        return {kMostDigits + 1, (kMostDigits + 1) * kPlaces, kPlaces * kGuidedUnlike};
    }
    static int64_t digits(const Guided& known) {
        int64_t largest = 1;
        for (int64_t t = 0; t < known.tables; ++t) largest = std::max(largest, known.starts[t + 1] - known.starts[t]);
        return known.count * digits_of(static_cast<int32_t>(largest));
    }

    const int16_t* word(const int32_t* symbols, int32_t place) const {
        return known_.words + (known_.starts[known_.table[place]] + symbols[place]) * known_.width;
    }

    void gather(const int32_t* symbols, int64_t i) {
        const int width = known_.width;
        const int32_t* near = known_.near + i * kGuidedNear;
        int32_t* to = contexts_.words.data();
        std::array<int64_t, Planes::kMostWidth> sum{};
        int64_t shares = 0;
        for (int k = 0; k < kGuidedNear; ++k) {
            if (near[k] < 0) continue;
            const int16_t* from = word(symbols, near[k]);
            int64_t sign = 1;
            if (known_.unsigned_words) {
                int64_t along = 0;
                for (int d = 0; d < width; ++d) along += sum[d] * from[d];
                sign = along < 0 ? -1 : 1;
            }
            for (int d = 0; d < width; ++d) sum[d] += sign * kShare[k] * from[d];
            shares += kShare[k];
        }
        contexts_.has[0] = shares > 0;
        if (shares > 0) {
            int64_t unit = kScale, length = shares;
            if (known_.unsigned_words) {
                double square = 0;  // of integers below 2^53, so that it is exact
                for (int d = 0; d < width; ++d) square += static_cast<double>(sum[d] * sum[d]);
                unit = int64_t{kScale} * kGuidedUnit;
                length = std::max<int64_t>(1, static_cast<int64_t>(std::sqrt(square)));
            }
            for (int d = 0; d < width; ++d) to[d * kWords] = static_cast<int32_t>(sum[d] * unit / length);
        }
        const std::array<int32_t, 4> others = {near[0], near[1], near[2], known_.alike[i]};
        for (int k = 0; k < 4; ++k) {
            contexts_.has[k + 1] = others[k] >= 0;
            if (others[k] >= 0)
                for (int d = 0; d < width; ++d) to[d * kWords + k + 1] = kScale * word(symbols, others[k])[d];
        }

        const int32_t table = known_.table[i];
        const uint32_t which = static_cast<uint32_t>(table) * 0x01000193u;
        const auto like = [&](int32_t place) {
            if (place < 0) return uint32_t{0};
            const int all = planes_[known_.table[place]].digits();
            return 1 + static_cast<uint32_t>(symbols[place] >> std::max(all - 5, 0));
        };
        auto& fixed = contexts_.fixed;
        fixed[0] = which;
        fixed[1] = which + like(near[0]);
        fixed[2] = which + like(near[1]);
        fixed[3] = which + static_cast<uint32_t>(known_.gap[i]);
        const uint32_t same = known_.alike[i] < 0 ? 0 : 1 + static_cast<uint32_t>(symbols[known_.alike[i]]);
        fixed[4] = which + same * kGuidedUnlike + static_cast<uint32_t>(known_.unlike[i]);
        for (int k = 0; k < known_.sides; ++k)
            fixed[kPlain + k] = which + static_cast<uint32_t>(known_.side[i * known_.sides + k]);
    }

    int32_t expect(const Planes& planes, int64_t i, uint32_t node, int depth) {
        std::array<int, kWords> grade;
        const auto places = planes.places(node, contexts_.words.data(), known_.unsigned_words);
        for (int k = 0; k < kWords; ++k) grade[k] = contexts_.has[k] ? graded(places[k]) : kPlaces - 1;
        const uint32_t mean = static_cast<uint32_t>(grade[0]), alike = static_cast<uint32_t>(grade[4]);
        const uint32_t unlike = static_cast<uint32_t>(known_.unlike[i]), gap = static_cast<uint32_t>(known_.gap[i]);
        const uint32_t here = node * 0x9E3779B1u, level = static_cast<uint32_t>(depth) << 24;
        const uint32_t first = known_.sides ? contexts_.fixed[kPlain] : contexts_.fixed[0];
        std::array<uint32_t, kModels> contexts;
        for (int k = 0; k < 5; ++k) contexts[k] = contexts_.fixed[k] + here;
        contexts[5] = contexts_.fixed[0] + here + mean;
        contexts[6] = first * kPlaces + here + alike;
        contexts[7] = level + gap * kPlaces + mean;
        contexts[8] = level + (coarse(grade[1]) * 11 + coarse(grade[2])) * 11 + coarse(grade[3]);
        contexts[9] = level + (alike * kPlaces + mean) * kGuidedUnlike + unlike;
        contexts[10] = level + static_cast<uint32_t>(grade[1] * kPlaces + grade[2]);
        for (int k = kPlain; k < kPlain + known_.sides; ++k) contexts[k] = contexts_.fixed[k] + here;
        return mixture_.expect(contexts, {depth, depth * kPlaces + grade[0],
                                          grade[4] * kGuidedUnlike + static_cast<int>(unlike)});
    }

    const Guided& known_;
    Mixture mixture_;
    std::vector<Planes> planes_;
    Contexts contexts_;
};

}  // namespace

bool guided_fits(const Guided& known) {
    if (known.width < 1 || known.width > Planes::kMostWidth || known.sides < 0 || known.sides > kGuidedSides ||
        known.tables < 1 || known.starts[0] != 0)
        return false;
    for (int64_t t = 0; t < known.tables; ++t) {
        const int64_t size = known.starts[t + 1] - known.starts[t];
        if (size < 1 || size > 1 << kMostDigits) return false;
    }
    for (int64_t i = 0; i < known.count; ++i) {
        if (known.table[i] < 0 || known.table[i] >= known.tables || known.unlike[i] < 0 ||
            known.unlike[i] >= kGuidedUnlike || known.alike[i] < -1 || known.alike[i] >= i)
            return false;
        for (int k = 0; k < kGuidedNear; ++k)
            if (known.near[i * kGuidedNear + k] < -1 || known.near[i * kGuidedNear + k] >= i) return false;
    }
    return true;
}

std::vector<uint8_t> guided_encode(const int32_t* symbols, const Guided& known) {
    if (known.count == 0) return {};
    Encoder coder;
    Model model(known);
    for (int64_t i = 0; i < known.count; ++i) model.code(coder, symbols, i, symbols[i]);
    coder.end();
    return std::move(coder.bytes);
}

bool guided_decode(const uint8_t* data, int64_t length, const Guided& known, int32_t* symbols) {
    if (known.count == 0) return length == 0;
    Decoder coder(data, length);
    Model model(known);
    for (int64_t i = 0; i < known.count; ++i) {
        symbols[i] = model.code(coder, symbols, i, 0);
        if (coder.cut()) return false;
    }
    return coder.ended();
}

void nearest_among(const int32_t* cells, int64_t count, int64_t window, int64_t kept, int32_t* near) {
    std::vector<int64_t> best(static_cast<size_t>(kept));
    for (int64_t i = 0; i < count; ++i) {
        std::fill(best.begin(), best.end(), INT64_MAX);
        int32_t* found = near + i * kept;
        std::fill_n(found, kept, -1);
        for (int64_t j = i - 1; j >= std::max<int64_t>(0, i - window) && best[kept - 1] > 0; --j) {
            int64_t distance = 0;
            for (int axis = 0; axis < 3; ++axis) {
                const int64_t apart = int64_t{cells[3 * i + axis]} - cells[3 * j + axis];
                distance += apart * apart;
            }
            if (distance >= best[kept - 1]) continue;
            int64_t place = kept - 1;
            for (; place > 0 && distance < best[place - 1]; --place) {
                best[place] = best[place - 1];
                found[place] = found[place - 1];
            }
            best[place] = distance;
            found[place] = static_cast<int32_t>(j);
        }
    }
}

void most_alike(const int32_t* near, int64_t count, int64_t kept, const int16_t* features, const int32_t* weights,
                int64_t width, int32_t* alike, int32_t* unlike) {
    for (int64_t i = 0; i < count; ++i) {
        int64_t least = INT32_MAX;
        alike[i] = -1;
        for (int64_t k = 0; k < kept; ++k) {
            const int32_t j = near[i * kept + k];
            if (j < 0) continue;
            int64_t sum = 0;
            for (int64_t d = 0; d < width; ++d) {
                const int32_t apart = features[i * width + d] - features[j * width + d];
                sum += int64_t{weights[d]} * (apart < 0 ? -apart : apart);
            }
            sum = 2 * k + sum / 64;
            if (sum < least) {
                least = sum;
                alike[i] = j;
            }
        }
        unlike[i] = static_cast<int32_t>(least);
    }
}

void halved(const int16_t* vectors, int64_t count, int32_t* order) {
    struct Part {
        int64_t begin, end;
    };
    // The value, kept off 0, and the place.
    std::vector<uint64_t> keys(static_cast<size_t>(count));
    std::iota(order, order + count, 0);
    std::vector<Part> left = {{0, count}};
    while (!left.empty()) {
        const auto [begin, end] = left.back();
        left.pop_back();
        if (end - begin <= 1) continue;
        int64_t half = 1;
        while (2 * half < end - begin) half *= 2;
        int column = 0, widest = -1;
        for (int d = 0; d < 3; ++d) {
            int low = INT16_MAX, high = INT16_MIN;
            for (int64_t i = begin; i < end; ++i) {
                const int value = vectors[3 * order[i] + d];
                low = std::min(low, value), high = std::max(high, value);
            }
            if (high - low > widest) widest = high - low, column = d;
        }
        for (int64_t i = begin; i < end; ++i)
            keys[i] = static_cast<uint64_t>(vectors[3 * order[i] + column] + 32768) << 32 |
                      static_cast<uint32_t>(order[i]);
        std::nth_element(keys.begin() + begin, keys.begin() + begin + half, keys.begin() + end);
        for (int64_t i = begin; i < end; ++i) order[i] = static_cast<int32_t>(keys[i] & 0xFFFFFFFFu);
        left.push_back({begin, begin + half});
        left.push_back({begin + half, end});
    }
}

}  // namespace splat::cpu
