// Gradients of the blend, a splat a lane (Mallick et al. 2024, "Taming 3DGS", section 4.2), for comparison with
// blend_backward.cu. A warp has 32 neighbours of a tile's list, a bucket; the tile's pixels pass through its lanes,
// one lane further with every turn, and each lane adds to the sums of its own splat in registers. Where a bucket
// begins, the forward pass has left every pixel's transmittance and sums.
//
// With c the splat's colour and `rest` what is composited from it on, both dotted with the gradient of the outputs,
// dLoss/dalpha = T c - (rest - alpha T c) / (1 - alpha).
#include "blend.cuh"

namespace splat::gpu {
namespace {

constexpr int kThreads = 128;

// A pixel's gradients, and what is composited there, dotted with them.
struct PixelGradient {
    float red, green, blue, alpha, sum, median, total;
};

template <bool kExtras>
SPLAT_DEVICE PixelGradient pixel_gradient(const BlendBackward& a, int64_t pixel, float& alpha_drawn) {
    PixelGradient v{};
    const float* image = a.image + 3 * pixel;
    alpha_drawn = 1.0f - a.transmittance[pixel];
    if (a.v_image) {
        v.red = a.v_image[3 * pixel], v.green = a.v_image[3 * pixel + 1], v.blue = a.v_image[3 * pixel + 2];
        v.total = fma(image[0], v.red, fma(image[1], v.green, image[2] * v.blue));
    }
    if (a.v_alpha) v.alpha = a.v_alpha[pixel];
    if constexpr (kExtras) {
        if (a.v_depth && alpha_drawn > 0) {
            v.sum = a.v_depth[pixel] / alpha_drawn;
            v.alpha -= v.sum * a.depth[pixel];
            v.total = fma(v.sum * a.depth[pixel], alpha_drawn, v.total);
        }
        if (a.v_median_depth) v.median = a.v_median_depth[pixel];
    }
    v.total = fma(v.alpha, alpha_drawn, v.total);
    return v;
}

SPLAT_DEVICE float from_lane_before(float value) {
    const int lane = static_cast<int>(lane_index());
    return __shfl_sync(kAllLanes, value, lane > 0 ? lane - 1 : 0);
}

template <bool kExtras, bool kAbs>
__global__ void __launch_bounds__(kThreads) blend_backward_splats_kernel(BlendBackward a, int64_t buckets) {
    const int64_t bucket = thread_index() / kWarp;
    if (bucket >= buckets) return;
    const uint32_t tile = a.checkpoints.tile_of[bucket];
    if (tile == kNone) return;
    constexpr int kValues = kAbs ? kAbsY + 1 : kExtras ? kDepth + 1 : kBlue + 1;
    const int lane = static_cast<int>(lane_index());
    const int64_t begin = a.starts[tile];
    const int count = static_cast<int>(a.starts[tile + 1] - begin);
    const int from = static_cast<int>(bucket - first_bucket(begin, tile)) * kWarp;
    const int left = static_cast<int>(tile) % a.grid.across * kTile, top = static_cast<int>(tile) / a.grid.across * kTile;
    const float* checkpoint = a.checkpoints.values + bucket * kCheckpointValues * kBlendThreads;

    const bool has_splat = from + lane < count;
    Staged g{};
    if (has_splat) {
        const uint32_t id = a.list[begin + from + lane];
        const Splat& s = a.splats[id];
        g = {s.x, s.y, s.p, s.q, s.r, s.log_opacity, s.red, s.green, s.blue, s.depth, s.limit, id};
    }
    float x[kValues] = {};
    float t = 0, rest = 0;
    for (int turn = 0; turn < kBlendThreads + kWarp - 1; ++turn) {
        // The pixel comes from the lane before, or into the first lane.
        t = from_lane_before(t);
        rest = from_lane_before(rest);
        const int place = turn - lane;
        const int px = left + place % kTile, py = top + place / kTile;
        const bool inside = place >= 0 && place < kBlendThreads && px < a.grid.width && py < a.grid.height;
        const int64_t pixel = inside ? static_cast<int64_t>(py) * a.grid.width + px : 0;
        const int end = inside ? a.end[pixel] : 0;
        if (from >= end) continue;  // nothing of the bucket counts there
        float alpha_drawn;
        const PixelGradient v = pixel_gradient<kExtras>(a, pixel, alpha_drawn);
        if (lane == 0) {
            const auto at = [&](int value) { return checkpoint[value * kBlendThreads + place]; };
            t = at(0);
            rest = v.total - fma(at(1), v.red, fma(at(2), v.green, fma(at(3), v.blue, v.alpha * (1.0f - t))));
            if constexpr (kExtras) rest = fma(-at(4), v.sum, rest);
        }
        if (!has_splat || from + lane >= end) continue;
        const Hit h = hit(g, px + 0.5f, py + 0.5f);
        if (h.s < kExponentMin) continue;
        const float raw = alpha_unclamped(h.s), alpha = min(raw, kAlphaMax), w = alpha * t;
        float colour = fma(g.red, v.red, fma(g.green, v.green, fma(g.blue, v.blue, v.alpha)));
        if constexpr (kExtras) colour = fma(g.depth, v.sum, colour);
        rest = fma(-w, colour, rest);
        const float difference = fma(t, colour, -rest / (1.0f - alpha));
        t = fma(-alpha, t, t);
        const float gradient = raw <= kAlphaMax ? -alpha * difference : 0.0f;

        const float gu = gradient * h.u, gv = gradient * h.v;
        x[kG] += gradient;
        x[kGu] += gu, x[kGv] += gv;
        x[kGuu] = fma(gu, h.u, x[kGuu]), x[kGuv] = fma(gu, h.v, x[kGuv]), x[kGvv] = fma(gv, h.v, x[kGvv]);
        x[kRed] = fma(w, v.red, x[kRed]);
        x[kGreen] = fma(w, v.green, x[kGreen]);
        x[kBlue] = fma(w, v.blue, x[kBlue]);
        if constexpr (kValues > kDepth) {
            x[kDepth] = fma(w, v.sum, x[kDepth]);
            if (v.median != 0 && a.median[pixel] == from + lane) x[kDepth] += v.median;
        }
        if constexpr (kAbs) {
            x[kAbsX] += abs(g.p * gu);
            x[kAbsY] += abs(g.r * gv - g.q * gu);
        }
    }
    if (!has_splat) return;
    float* row = a.rows + static_cast<int64_t>(g.id) * kRow;
#pragma unroll
    for (int k = 0; k < kValues; ++k)
        if (x[k] != 0) atomicAdd(row + k, x[k]);
}

}  // namespace

void blend_backward_splats(const BlendBackward& a, int64_t capacity, Stream stream) {
    const int64_t buckets = bucket_count(capacity, a.grid.across * a.grid.down);
    choose(a.v_depth || a.v_median_depth, [&](auto extras) {
        choose(a.want_absgrad, [&](auto absolute) {
            launch("blend_backward_splats", blend_backward_splats_kernel<extras.value, absolute.value>,
                   divide_up(buckets * kWarp, kThreads), kThreads, stream, a, buckets);
        });
    });
}

}  // namespace splat::gpu
