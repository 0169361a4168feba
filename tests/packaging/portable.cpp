// Renders a random scene, differentiates it, takes a few steps; codes symbols and looks up codewords: whatever of
// the CPU kernels is built per processor. Prints every number, a line each, for test_arm.py to compare.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

#include "guided.h"
#include "mixing.h"
#include "photometric.h"
#include "quantize.h"
#include "rans.h"
#include "raster.h"

#if defined(__x86_64__)
// What runs here is what every processor can run; the other builds are not linked.
namespace splat::cpu {
namespace avx2 {
const RasterKernels raster{};
const PhotometricKernels photometric{};
const QuantizeKernels quantize{};
}  // namespace avx2
namespace avx512 {
const RasterKernels raster{};
const PhotometricKernels photometric{};
const QuantizeKernels quantize{};
}  // namespace avx512
}  // namespace splat::cpu
#endif

namespace {

using namespace splat;

void print(const char* name, const std::vector<float>& values) {
    for (const float value : values) std::printf("%s %.9g\n", name, static_cast<double>(value));
}

// The same on every machine: std's distributions are not.
struct Random {
    std::mt19937 bits{7};
    float operator()(float low, float high) {
        return low + (high - low) * static_cast<float>(bits() >> 8) / static_cast<float>(1u << 24);
    }
    std::vector<float> many(int64_t count, float low, float high) {
        std::vector<float> values(static_cast<size_t>(count));
        for (float& value : values) value = (*this)(low, high);
        return values;
    }
};

void train(Random& random) {
    constexpr int kCount = 400, kCoefficients = 16, kWidth = 75, kHeight = 52, kSteps = 3;
    std::vector<float> values[5] = {random.many(3 * kCount, -1, 1), random.many(4 * kCount, -1, 1),
                                    random.many(3 * kCount, -4, -1.5), random.many(kCount, -3, 3),
                                    random.many(3 * kCoefficients * kCount, -0.4f, 0.6f)};
    std::vector<float> first[5], second[5];
    for (int k = 0; k < 5; ++k) first[k].assign(values[k].size(), 0), second[k].assign(values[k].size(), 0);
    const float pose[16] = {1, 0, 0, 0.1f, 0, 1, 0, 0, 0, 0, 1, 3, 0, 0, 0, 1};
    const View view = make_view(pose, 70, 72, kWidth / 2.0f, kHeight / 2.0f, kWidth, kHeight);
    std::vector<uint8_t> target(3 * kWidth * kHeight);
    for (uint8_t& level : target) level = static_cast<uint8_t>(random.bits() >> 24);
    const SceneArrays scene{values[0].data(), values[1].data(), values[2].data(), values[3].data(), values[4].data(),
                            kCount, kCoefficients, 3, false};
    const float background[3] = {0.2f, 0.4f, 0.1f};
    std::vector<float> image(3 * kWidth * kHeight), alpha(kWidth * kHeight), depth(alpha), v_image(image), v_depth(alpha);
    cpu::Raster raster;
    for (int step = 1; step <= kSteps; ++step) {
        raster.forward(view, scene, background, nullptr, 0,
                       {image.data(), alpha.data(), depth.data(), nullptr, nullptr, nullptr, nullptr, nullptr}, 2);
        print("image", image);
        print("depth", depth);
        const cpu::Photometric job{image.data(), target.data(), nullptr, v_image.data(), kHeight, kWidth, 0, 0};
        const cpu::Loss loss = cpu::photometric_loss(job, 0.2f, 2);
        print("loss", {static_cast<float>(loss.l1), static_cast<float>(loss.dissimilarity)});
        for (float& v : v_depth) v = 1e-4f;
        raster.blend_backward({v_image.data(), nullptr, v_depth.data(), nullptr, nullptr}, depth.data(), nullptr, nullptr,
                              nullptr, nullptr, 2);
        if (step == 1) {
            std::vector<float> gradients[5];
            float* arrays[5];
            for (int k = 0; k < 5; ++k) gradients[k].resize(values[k].size()), arrays[k] = gradients[k].data();
            raster.project_backward(scene, arrays, nullptr, 2);
            for (const auto& gradient : gradients) print("gradient", gradient);
        }
        const double rates[6] = {1e-4, 1e-3, 5e-3, 5e-2, 2.5e-3, 1e-4};
        FusedStep fused{make_fused_rates(rates, step, 0.9, 0.999, 1e-15, 0.01, 0.01, kCount), {}, {}, {}};
        for (int k = 0; k < 5; ++k)
            fused.values[k] = values[k].data(), fused.first[k] = first[k].data(), fused.second[k] = second[k].data();
        raster.fused_step(scene, fused, 2);
    }
}

void code(Random& random) {
    const std::vector<uint32_t> starts{0, 1u << 20, 5u << 20, 1u << cpu::kRansBits};
    std::vector<int32_t> symbols(1000), decoded(symbols.size());
    for (int32_t& symbol : symbols) symbol = static_cast<int32_t>(random.bits() % 3);
    const std::vector<uint8_t> bytes = cpu::rans_encode(symbols.data(), 1000, starts.data());
    const bool whole = cpu::rans_decode(bytes.data(), static_cast<int64_t>(bytes.size()), starts.data(), decoded.data(), 1000);
    print("coded", {whole && decoded == symbols ? 1.0f : 0.0f, static_cast<float>(bytes.size())});
    for (const uint8_t byte : bytes) print("byte", {static_cast<float>(byte)});

    std::vector<int32_t> cells(3000), near(3000), side(2000);
    for (int32_t& cell : cells) cell = static_cast<int32_t>(random.bits() % 1000);
    for (int32_t& number : side) number = static_cast<int32_t>(random.bits() % 5);
    cpu::nearest_before(cells.data(), 1000, near.data());
    const cpu::Known known{near.data(), side.data(), 1000, 3};
    const std::vector<uint8_t> mixed = cpu::mixing_encode(symbols.data(), known);
    const bool mended = cpu::mixing_decode(mixed.data(), static_cast<int64_t>(mixed.size()), known, decoded.data());
    print("mixed", {mended && decoded == symbols ? 1.0f : 0.0f, static_cast<float>(mixed.size())});
    for (const uint8_t byte : mixed) print("byte", {static_cast<float>(byte)});

    const std::vector<int16_t> words{100, -3, 7, -50, 20, 80, 11, 12, 13};
    const std::vector<int64_t> tables{0, 3};
    const std::vector<int32_t> zeros(1000, 0);
    std::vector<int32_t> close(8000), first(1000);
    cpu::nearest_among(cells.data(), 1000, 200, 8, close.data());
    for (int i = 0; i < 1000; ++i) first[i] = close[8 * i + 1];
    for (const bool signless : {false, true}) {
        const cpu::Guided guides{words.data(), tables.data(), zeros.data(), close.data(), first.data(), zeros.data(),
                                 zeros.data(), side.data(), 1000, 1, 3, 2, signless};
        const std::vector<uint8_t> led = cpu::guided_encode(symbols.data(), guides);
        const bool right = cpu::guided_decode(led.data(), static_cast<int64_t>(led.size()), guides, decoded.data());
        print("mixed", {right && decoded == symbols ? 1.0f : 0.0f, static_cast<float>(led.size())});
        for (const uint8_t byte : led) print("byte", {static_cast<float>(byte)});
    }

    const std::vector<float> points = random.many(300 * 7, -1, 1), codewords = random.many(50 * 7, -1, 1);
    std::vector<int32_t> labels(300);
    cpu::nearest(points.data(), 300, 7, codewords.data(), nullptr, 50, labels.data(), 2);
    for (const int32_t label : labels) print("label", {static_cast<float>(label)});
}

}  // namespace

int main() {
    Random random;
    train(random);
    code(random);
}
