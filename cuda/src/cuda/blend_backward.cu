// Gradients of the blend, back to front, a pixel a thread.
//
// With B the colour already composited behind a splat (dotted with the gradient of the outputs), and c its own,
// dLoss/dalpha = T (c - B) and B becomes B + alpha (c - B). A splat's sums over the warp are taken by a
// transposing reduction: with every exchange a lane keeps half of the values, so that 12 sums cost 13
// shuffles instead of 60, and end in 12 lanes that add them to 12 neighbouring floats with one instruction.
#include "blend.cuh"

namespace splat::gpu {
namespace {

// Sums of kValues values over the warp. Afterwards x[0] of each lane is the sum of the value
// `Transposed::value` of that lane.
template <int kValues>
struct Transposed {
    int value;  // -1: a lane whose sum is another's as well, or none

    SPLAT_DEVICE Transposed() {
        int first = 0, mine = kValues, width = kValues;
        for (int offset = kWarp / 2; offset > 0; offset /= 2) {
            const bool upper = lane_index() & offset;
            if (width == 1) {
                if (upper) mine = 0;
                continue;
            }
            width = (width + 1) / 2;
            if (upper) {
                first += width;
                mine -= width;
            } else {
                mine = mine < width ? mine : width;
            }
        }
        value = mine >= 1 ? first : -1;
    }

    static SPLAT_DEVICE void reduce(float (&x)[kValues]) {
        int width = kValues;
#pragma unroll
        for (int offset = kWarp / 2; offset > 0; offset /= 2) {
            if (width == 1) {
                x[0] += __shfl_xor_sync(kAllLanes, x[0], offset);
                continue;
            }
            const bool upper = lane_index() & offset;
            const int half = (width + 1) / 2;
#pragma unroll
            for (int i = 0; i < kValues; ++i) {
                if (i >= half) continue;
                const float low = x[i], high = i + half < width ? x[i + half] : 0.0f;
                x[i] = (upper ? high : low) + __shfl_xor_sync(kAllLanes, upper ? low : high, offset);
            }
            width = half;
        }
    }
};

// Channels [first, first + kChunk) of a row of `channels`, zeros beyond.
SPLAT_DEVICE void load_chunk(const float* row, int first, int channels, float (&to)[kChunk]) {
#pragma unroll
    for (int e = 0; e < kChunk; ++e) to[e] = first + e < channels ? row[first + e] : 0.0f;
}

// kExtras: the depth has a gradient; kFeatures: features have.
template <bool kExtras, bool kAbs, bool kFeatures>
__global__ void __launch_bounds__(kBlendThreads, kFeatures ? 3 : 4) blend_backward_kernel(BlendBackward a) {
    __shared__ Staged batch[kBatch];
    __shared__ int last_of_tile;
    constexpr int kValues = kAbs ? kAbsY + 1 : kExtras ? kDepth + 1 : kBlue + 1;
    const Transposed<kValues> transposed;
    [[maybe_unused]] const Transposed<kChunk> of_chunk;
    const Place place = place_of(a.grid, static_cast<int>(blockIdx.x));
    const float px = place.x + 0.5f, py = place.y + 0.5f;
    const int64_t begin = a.starts[place.tile];
    if (a.starts[place.tile + 1] == begin) return;

    // Gradients of the outputs; v_sum is that of sum(w z), of which the expected depth is the alpha-th part.
    float v_red = 0, v_green = 0, v_blue = 0, v_alpha = 0, v_sum = 0, v_median = 0, t = 1;
    int end = 0, median = -1;
    if (place.inside) {
        const int64_t pixel = place.pixel;
        t = a.transmittance[pixel];
        end = a.end[pixel];
        if (a.v_image) v_red = a.v_image[3 * pixel], v_green = a.v_image[3 * pixel + 1], v_blue = a.v_image[3 * pixel + 2];
        if (a.v_alpha) v_alpha = a.v_alpha[pixel];
        if constexpr (kExtras) {
            if (a.v_depth && t < 1) {
                v_sum = a.v_depth[pixel] / (1.0f - t);
                v_alpha -= v_sum * a.depth[pixel];
            }
            if (a.v_median_depth) v_median = a.v_median_depth[pixel], median = a.median[pixel];
        }
    }
    // Of the first channels, which are often all.
    [[maybe_unused]] float v_chunk[kChunk] = {};
    [[maybe_unused]] const float* v_features = nullptr;
    if constexpr (kFeatures)
        if (place.inside) {
            v_features = a.v_features + place.pixel * a.channels;
            load_chunk(v_features, 0, a.channels, v_chunk);
        }
    float behind = 0;
    if (a.background) behind = a.background[0] * v_red + a.background[1] * v_green + a.background[2] * v_blue;

    int last = end;  // of the warp
    for (int offset = kWarp / 2; offset > 0; offset /= 2) {
        const int other = __shfl_xor_sync(kAllLanes, last, offset);
        last = other > last ? other : last;
    }
    if (threadIdx.x == 0) last_of_tile = 0;
    __syncthreads();
    if (lane_index() == 0) atomicMax(&last_of_tile, last);
    __syncthreads();

    for (int from = (last_of_tile - 1) / kBatch * kBatch; from >= 0 && last_of_tile > 0; from -= kBatch) {
        const int size = last_of_tile - from < kBatch ? last_of_tile - from : kBatch;
        __syncthreads();  // the batch before is done with
        if (static_cast<int>(threadIdx.x) < size)
            stage(batch[threadIdx.x], a.splats, a.list[begin + from + threadIdx.x]);
        __syncthreads();
        const int mine = last - from < size ? last - from : size;
        for (int base = (mine - 1) / kWarp * kWarp; base >= 0 && mine > 0; base -= kWarp) {
            const int candidate = base + static_cast<int>(lane_index());
            const bool touched = candidate < mine && touches(batch[candidate], place);
            uint32_t rest = __ballot_sync(kAllLanes, touched);
            while (rest) {
                const int bit = kWarp - 1 - __clz(static_cast<int>(rest));
                rest &= ~(1u << bit);
                const int j = base + bit;
                const Staged& g = batch[j];
                const Hit h = hit(g, px, py);
                const bool drawn = h.s >= kExponentMin && from + j < end;
                if (!__any_sync(kAllLanes, drawn)) continue;

                const float raw = alpha_unclamped(h.s);
                const float alpha = drawn ? min(raw, kAlphaMax) : 0.0f;
                t = t / (1.0f - alpha);
                float colour = fma(g.red, v_red, fma(g.green, v_green, fma(g.blue, v_blue, v_alpha)));
                if constexpr (kExtras) colour = fma(g.depth, v_sum, colour);
                [[maybe_unused]] int64_t features = 0;
                if constexpr (kFeatures) {
                    features = static_cast<int64_t>(a.splats[g.id].source) * a.channels;
                    float own[kChunk];
                    load_chunk(a.features + features, 0, a.channels, own);
#pragma unroll
                    for (int e = 0; e < kChunk; ++e) colour = fma(own[e], v_chunk[e], colour);
                    if (drawn)
                        for (int e = kChunk; e < a.channels; ++e)
                            colour = fma(a.features[features + e], v_features[e], colour);
                }
                const float difference = colour - behind;
                const float w = alpha * t;
                behind = fma(alpha, difference, behind);
                const float gradient = drawn && raw <= kAlphaMax ? -w * difference : 0.0f;

                float x[kValues];
                const float gu = gradient * h.u, gv = gradient * h.v;
                x[kG] = gradient;
                x[kGu] = gu, x[kGv] = gv;
                x[kGuu] = gu * h.u, x[kGuv] = gu * h.v, x[kGvv] = gv * h.v;
                x[kRed] = w * v_red, x[kGreen] = w * v_green, x[kBlue] = w * v_blue;
                if constexpr (kValues > kDepth) x[kDepth] = w * v_sum + (median == from + j ? v_median : 0.0f);
                if constexpr (kAbs) {
                    // d sigma / d centre = -(p u, r v - q u).
                    x[kAbsX] = abs(g.p * gu);
                    x[kAbsY] = abs(g.r * gv - g.q * gu);
                }
                Transposed<kValues>::reduce(x);
                if (transposed.value >= 0)
                    atomicAdd(a.rows + static_cast<int64_t>(g.id) * kRow + transposed.value, x[0]);
                if constexpr (kFeatures) {
                    if (!a.v_splat_features) continue;
                    for (int first = 0; first < a.channels; first += kChunk) {
                        float sums[kChunk] = {};
                        if (drawn) {
                            if (first == 0) {
#pragma unroll
                                for (int e = 0; e < kChunk; ++e) sums[e] = v_chunk[e];
                            } else {
                                load_chunk(v_features, first, a.channels, sums);
                            }
#pragma unroll
                            for (int e = 0; e < kChunk; ++e) sums[e] *= w;
                        }
                        Transposed<kChunk>::reduce(sums);
                        const int channel = first + of_chunk.value;
                        if (of_chunk.value >= 0 && channel < a.channels)
                            atomicAdd(a.v_splat_features + features + channel, sums[0]);
                    }
                }
            }
        }
    }
}

}  // namespace

void blend_backward(const BlendBackward& a, Stream stream) {
    choose(a.v_depth || a.v_median_depth, [&](auto extras) {
        choose(a.want_absgrad, [&](auto absolute) {
            choose(a.channels > 0, [&](auto features) {
                launch("blend_backward", blend_backward_kernel<extras.value, absolute.value, features.value>,
                       static_cast<int64_t>(a.grid.across) * a.grid.down, kBlendThreads, stream, a);
            });
        });
    });
}

}  // namespace splat::gpu
