// Front-to-back blending.
#include "blend.cuh"

namespace splat::gpu {
namespace {

// kExtras: depth, median or contribution is wanted.
// Four blocks, all that an sm_75 holds, leave registers enough; left to itself the compiler spills to fit eight.
// kCheckpoints: for blend_backward_splats.
template <bool kExtras, bool kCheckpoints>
__global__ void __launch_bounds__(kBlendThreads, 4) blend_forward_kernel(BlendForward a) {
    __shared__ Staged batch[kBatch];
    const Place place = place_of(a.grid, static_cast<int>(blockIdx.x));
    const float px = place.x + 0.5f, py = place.y + 0.5f;
    const int64_t begin = a.starts[place.tile];
    const int count = static_cast<int>(a.starts[place.tile + 1] - begin);

    float red = 0, green = 0, blue = 0, t = 1, depth = 0;
    int end = count, median = -1;
    bool alive = place.inside;
    for (int from = 0; from < count; from += kBatch) {
        // Also keeps the batch until the last warp is done with it.
        if (__syncthreads_count(alive) == 0) break;
        const int size = count - from < kBatch ? count - from : kBatch;
        if (static_cast<int>(threadIdx.x) < size)
            stage(batch[threadIdx.x], a.splats, a.list[begin + from + threadIdx.x]);
        __syncthreads();
        for (int base = 0; base < size && __any_sync(kAllLanes, alive); base += kWarp) {
            if constexpr (kCheckpoints) {
                const int64_t bucket = first_bucket(begin, place.tile) + (from + base) / kWarp;
                a.checkpoints.tile_of[bucket] = static_cast<uint32_t>(place.tile);
                const float values[kCheckpointValues] = {t, red, green, blue, depth};
                float* to = a.checkpoints.values + bucket * kCheckpointValues * kBlendThreads +
                            place.y % kTile * kTile + place.x % kTile;
#pragma unroll
                for (int k = 0; k < kCheckpointValues; ++k) to[k * kBlendThreads] = values[k];
            }
            const int candidate = base + static_cast<int>(lane_index());
            const bool touched = candidate < size && touches(batch[candidate], place);
            for (uint32_t rest = __ballot_sync(kAllLanes, touched); rest; rest &= rest - 1) {
                const int j = base + __ffs(static_cast<int>(rest)) - 1;
                const Staged& g = batch[j];
                const Hit h = hit(g, px, py);
                bool drawn = alive && h.s >= kExponentMin;
                float w = 0;
                if (drawn) {
                    const float alpha = min(alpha_unclamped(h.s), kAlphaMax);
                    const float after = fma(-alpha, t, t);
                    if (after < kTransmittanceMin) {
                        alive = drawn = false;
                        end = from + j;
                    } else {
                        w = alpha * t;
                        red = fma(w, g.red, red);
                        green = fma(w, g.green, green);
                        blue = fma(w, g.blue, blue);
                        if constexpr (kExtras) {
                            depth = fma(w, g.depth, depth);
                            if (t > kMedianTransmittance && after <= kMedianTransmittance) median = from + j;
                        }
                        t = after;
                    }
                }
                if constexpr (kExtras)
                    if (a.contribution && __any_sync(kAllLanes, drawn)) {
                        const float sum = warp_sum(w);
                        if (lane_index() == 0) atomicAdd(a.contribution + a.splats[g.id].source, sum);
                    }
            }
        }
    }
    if (!place.inside) return;
    const int64_t pixel = place.pixel;
    const float alpha = 1.0f - t;
    if (a.background) {
        red = fma(t, a.background[0], red);
        green = fma(t, a.background[1], green);
        blue = fma(t, a.background[2], blue);
    }
    a.image[3 * pixel] = red;
    a.image[3 * pixel + 1] = green;
    a.image[3 * pixel + 2] = blue;
    a.alpha[pixel] = alpha;
    a.transmittance[pixel] = t;
    a.end[pixel] = end;
    if constexpr (kExtras) {
        if (a.depth) a.depth[pixel] = alpha > 0 ? depth / alpha : 0.0f;
        if (a.median) a.median[pixel] = median;
        const Splat* s = median < 0 ? nullptr : a.splats + a.list[begin + median];
        if (a.median_depth) a.median_depth[pixel] = s ? s->depth : 0.0f;
        if (a.ids) a.ids[pixel] = s ? static_cast<int32_t>(s->source) : -1;
    }
}

// The features, kChunk channels a block in registers. Where each pixel ends is known from blend_forward.
__global__ void __launch_bounds__(kBlendThreads) blend_features_kernel(BlendForward a) {
    __shared__ Staged batch[kBatch];
    const int chunks = (a.channels + kChunk - 1) / kChunk;
    const Place place = place_of(a.grid, static_cast<int>(blockIdx.x) / chunks);
    const int first = static_cast<int>(blockIdx.x) % chunks * kChunk;
    const float px = place.x + 0.5f, py = place.y + 0.5f;
    const int64_t begin = a.starts[place.tile];
    const int count = static_cast<int>(a.starts[place.tile + 1] - begin);
    const int end = place.inside ? a.end[place.pixel] : 0;

    float sums[kChunk] = {}, t = 1;
    for (int from = 0; from < count; from += kBatch) {
        if (__syncthreads_count(from < end) == 0) break;
        const int size = count - from < kBatch ? count - from : kBatch;
        if (static_cast<int>(threadIdx.x) < size)
            stage(batch[threadIdx.x], a.splats, a.list[begin + from + threadIdx.x]);
        __syncthreads();
        for (int base = 0; base < size && __any_sync(kAllLanes, from + base < end); base += kWarp) {
            const int candidate = base + static_cast<int>(lane_index());
            const bool touched = candidate < size && touches(batch[candidate], place);
            for (uint32_t rest = __ballot_sync(kAllLanes, touched); rest; rest &= rest - 1) {
                const int j = base + __ffs(static_cast<int>(rest)) - 1;
                const Staged& g = batch[j];
                const Hit h = hit(g, px, py);
                if (h.s < kExponentMin || from + j >= end) continue;
                const float alpha = min(alpha_unclamped(h.s), kAlphaMax), w = alpha * t;
                const float* feature = a.features + static_cast<int64_t>(a.splats[g.id].source) * a.channels + first;
#pragma unroll
                for (int e = 0; e < kChunk; ++e)
                    if (first + e < a.channels) sums[e] = fma(w, feature[e], sums[e]);
                t = fma(-alpha, t, t);
            }
        }
    }
    if (!place.inside) return;
#pragma unroll
    for (int e = 0; e < kChunk; ++e)
        if (first + e < a.channels) a.feature_image[place.pixel * a.channels + first + e] = sums[e];
}

}  // namespace

void blend_forward(const BlendForward& a, Stream stream) {
    const bool extras = a.depth || a.median || a.contribution;
    const int64_t tiles = static_cast<int64_t>(a.grid.across) * a.grid.down;
    choose(extras, [&](auto with_extras) {
        choose(a.checkpoints.values != nullptr, [&](auto checkpoints) {
            launch("blend_forward", blend_forward_kernel<with_extras.value, checkpoints.value>, tiles, kBlendThreads,
                   stream, a);
        });
    });
    launch("blend_features", blend_features_kernel, tiles * divide_up(a.channels, kChunk), kBlendThreads, stream, a);
}

}  // namespace splat::gpu
