// Projection of the scene: activations, covariance, colour, extent and exact number of tiles in one pass.
#include "gather.cuh"
#include "tiles.cuh"

namespace splat::gpu {
namespace {

constexpr int kThreads = 256;

template <int kDegree>
__global__ void __launch_bounds__(kThreads) project_kernel(Project a) {
    const int64_t i = thread_index();
    if (i >= a.scene.count) return;
    const Raw<float> raw = load_raw(a.scene, i);
    const Projection<float> o = splat::project(a.view, raw, a.scene.antialiased);
    const Footprint<float> print = footprint(a.view, o);
    uint32_t touched = 0;
    if (print.drawn) {
        constexpr int kUsed = sh_coefficients(kDegree);
        float sh[3 * kUsed], basis[kUsed], rgb[3];
        load_sh<kUsed>(a.scene, i, sh);
        const Direction<float> direction = direction_to(a.view, raw.mean);
        sh_basis(kDegree, direction.unit.x, direction.unit.y, direction.unit.z, basis);
#pragma unroll
        for (int c = 0; c < 3; ++c) {
            rgb[c] = kShOffset;
#pragma unroll
            for (int k = 0; k < kUsed; ++k) rgb[c] = fma(basis[k], sh[3 * k + c], rgb[c]);
        }
        Splat s{};
        s.x = o.x, s.y = o.y;
        s.p = o.p * kWhitenScale, s.q = o.q * kWhitenScale, s.r = o.r * kWhitenScale;
        s.log_opacity = print.log_opacity;
        s.red = max(rgb[0], 0.0f), s.green = max(rgb[1], 0.0f), s.blue = max(rgb[2], 0.0f);
        s.depth = o.point.z;
        s.limit = print.limit;
        if (usable(rgb[0]) && usable(rgb[1]) && usable(rgb[2])) {
            const TileRows rows = tile_rows(s, a.grid);
            for (int row = rows.first; row < rows.end; ++row) {
                const TileSpan span = tile_span(s, a.grid, row);
                touched += static_cast<uint32_t>(span.end - span.left);
            }
        }
        if (touched) a.splats[i] = s;
    }
    a.keys[i] = touched ? __float_as_uint(o.point.z) : kNotDrawn;
    a.ids[i] = static_cast<uint32_t>(i);
    a.tiles[i] = touched;
    if (a.radii) a.radii[i] = touched ? static_cast<int32_t>(::ceilf(drawn_radius(o, print.spread))) : 0;
}

}  // namespace

void project(const Project& a, Stream stream) {
    with_degree(a.scene.degree, [&](auto degree) {
        launch("project", project_kernel<degree.value>, divide_up(a.scene.count, kThreads), kThreads, stream, a);
    });
}

}  // namespace splat::gpu
