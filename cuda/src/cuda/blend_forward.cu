// Front-to-back blending.
#include "blend.cuh"

namespace splat::gpu {
namespace {

// kExtras: depth, median, features or contribution is wanted.
// Four blocks, all that an sm_75 holds, leave registers enough; left to itself the compiler spills to fit eight.
template <bool kExtras>
__global__ void __launch_bounds__(kBlendThreads, 4) blend_forward_kernel(BlendForward a) {
    __shared__ Staged batch[kBatch];
    const Place place = place_of(a.grid);
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
                            for (int e = 0; e < a.channels; ++e)
                                a.feature_image[place.pixel * a.channels + e] +=
                                    w * a.features[static_cast<int64_t>(g.id) * a.channels + e];
                        }
                        t = after;
                    }
                }
                if constexpr (kExtras)
                    if (a.contribution && __any_sync(kAllLanes, drawn)) {
                        const float sum = warp_sum(w);
                        if (lane_index() == 0) atomicAdd(a.contribution + g.id, sum);
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
        const uint32_t id = median < 0 ? 0 : a.list[begin + median];
        if (a.median_depth) a.median_depth[pixel] = median < 0 ? 0.0f : a.splats[id].depth;
        if (a.ids) a.ids[pixel] = median < 0 ? -1 : static_cast<int32_t>(id);
    }
}

}  // namespace

void blend_forward(const BlendForward& a, Stream stream) {
    const bool extras = a.depth || a.median || a.channels || a.contribution;
    launch("blend_forward", extras ? blend_forward_kernel<true> : blend_forward_kernel<false>,
           static_cast<int64_t>(a.grid.across) * a.grid.down, kBlendThreads, stream, a);
}

}  // namespace splat::gpu
