// Projection of the scene: activations, covariance, colour, extent and exact number of tiles in one pass, which
// leaves the splats that are drawn side by side.
#include "compact.cuh"
#include "gather.cuh"
#include "tiles.cuh"

namespace splat::gpu {
namespace {

constexpr int kThreads = 256;

__global__ void set_view_kernel(View view, Frame* to) { to->base = view, to->view = view; }

__global__ void set_rates_kernel(FusedRates fused, PoseRates pose, Frame* to) { to->fused = fused, to->pose = pose; }

__global__ void refine_view_kernel(const float* rows, Frame* frame) {
    frame->view = moved_view(frame->base, rows + 6 * static_cast<int64_t>(frame->pose.view), frame->pose.extent);
}

// The number of tiles that the Gaussian touches, and its splat if that is not zero.
template <int kDegree>
SPLAT_DEVICE uint32_t project_one(const Project& a, const View& view, int64_t i, Splat& s, int32_t& radius) {
    const Raw<float> raw = load_raw(a.scene, i);
    const Projection<float> o = splat::project(view, raw, a.scene.antialiased);
    const Footprint<float> print = footprint(view, o);
    if (!print.drawn) return 0;
    constexpr int kUsed = sh_coefficients(kDegree);
    float sh[3 * kUsed], basis[kUsed], rgb[3];
    load_sh<kUsed>(a.scene, i, sh);
    const Direction<float> direction = direction_to(view, raw.mean);
    sh_basis(kDegree, direction.unit.x, direction.unit.y, direction.unit.z, basis);
#pragma unroll
    for (int c = 0; c < 3; ++c) {
        rgb[c] = kShOffset;
#pragma unroll
        for (int k = 0; k < kUsed; ++k) rgb[c] = fma(basis[k], sh[3 * k + c], rgb[c]);
    }
    if (!(usable(rgb[0]) && usable(rgb[1]) && usable(rgb[2]))) return 0;
    s.x = o.x, s.y = o.y;
    s.p = o.p * kWhitenScale, s.q = o.q * kWhitenScale, s.r = o.r * kWhitenScale;
    s.log_opacity = print.log_opacity;
    s.red = max(rgb[0], 0.0f), s.green = max(rgb[1], 0.0f), s.blue = max(rgb[2], 0.0f);
    s.depth = o.point.z;
    s.limit = print.limit;
    s.source = static_cast<uint32_t>(i);
    radius = static_cast<int32_t>(::ceilf(drawn_radius(o, print.spread)));
    uint32_t touched = 0;
    const TileRows rows = tile_rows(s, a.grid);
    for (int row = rows.first; row < rows.end; ++row) {
        const TileSpan span = tile_span(s, a.grid, row);
        touched += static_cast<uint32_t>(span.end - span.left);
    }
    return touched;
}

template <int kDegree>
__global__ void __launch_bounds__(kThreads) project_kernel(Project a) {
    const uint32_t ticket = block_ticket(&a.counters->ticket);
    const int64_t i = static_cast<int64_t>(ticket) * kThreads + threadIdx.x;
    Splat s{};
    int32_t radius = 0;
    const uint32_t touched = i < a.scene.count ? project_one<kDegree>(a, a.frame->view, i, s, radius) : 0;

    uint32_t total;
    const uint32_t place = ordered_place<kThreads>(touched > 0, ticket, a.status, total);
    if (threadIdx.x == 0 && ticket == gridDim.x - 1) a.counters->visible = total;
    const uint32_t tiles = warp_sum(touched);
    if (lane_index() == 0 && tiles) atomicAdd(&a.counters->instances, static_cast<unsigned long long>(tiles));

    const bool stored = touched > 0 && static_cast<int64_t>(place) < a.capacity;
    if (stored) {
        a.splats[place] = s;
        a.keys[place] = __float_as_uint(s.depth);
        a.ids[place] = place;
        a.tiles[place] = touched;
    }
    if (i < a.scene.count) {
        a.splat_of[i] = stored ? place : kNone;
        if (a.radii) a.radii[i] = touched ? radius : 0;
    }
}

}  // namespace

void set_view(const View& view, Frame* to, Stream stream) {
    launch("set_view", set_view_kernel, 1, 1, stream, view, to);
}

void set_rates(const FusedRates& fused, const PoseRates& pose, Frame* to, Stream stream) {
    launch("set_rates", set_rates_kernel, 1, 1, stream, fused, pose, to);
}

void refine_view(const float* rows, Frame* frame, Stream stream) {
    launch("refine_view", refine_view_kernel, 1, 1, stream, rows, frame);
}

int64_t project_blocks(int64_t count) { return divide_up(count, kThreads); }

void project(const Project& a, Stream stream) {
    with_degree(a.scene.degree, [&](auto degree) {
        launch("project", project_kernel<degree.value>, project_blocks(a.scene.count), kThreads, stream, a);
    });
}

}  // namespace splat::gpu
