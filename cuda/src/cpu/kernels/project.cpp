// Projection of the scene, sixteen Gaussians at a time, and the tiles that a splat touches.
#include "gather_scene.h"
#include "raster_parts.h"
#include "splat/footprint.h"
#include "splat/sh.h"

namespace splat::cpu::SPLAT_ISA {
namespace {

// Not clamped yet.
SPLAT_INLINE Vec3<F> colours(const View& view, const SceneArrays& scene, int64_t first, int64_t end, I lanes,
                             Vec3<F> mean) {
    const int used = sh_coefficients(scene.degree);
    F sh[48], basis[16];
    load_sh(scene, first, end, lanes, used, sh);
    const Direction<F> direction = direction_to(view, mean);
    sh_basis(scene.degree, direction.unit.x, direction.unit.y, direction.unit.z, basis);
    F rgb[3];
    for (int c = 0; c < 3; ++c) {
        rgb[c] = F(kShOffset);
        for (int k = 0; k < used; ++k) rgb[c] = fma(basis[k], sh[3 * k + c], rgb[c]);
    }
    return {rgb[0], rgb[1], rgb[2]};
}

// Of a value >= 0.
SPLAT_INLINE I ceiling(F a) {
    const I whole = truncate(a);
    return whole + select(to_float(whole) < a, I(1), I(0));
}

}  // namespace

int64_t project_range(const View& view, const SceneArrays& scene, int64_t begin, int64_t end, Splat* splats,
                      uint8_t* visible, uint64_t* keys, int32_t* radii) {
    int64_t found = 0;
    for (int64_t first = begin; first < end; first += kLanes) {
        const int n = end - first < kLanes ? static_cast<int>(end - first) : kLanes;
        const I lanes = clamped_lanes(first, end);
        const Raw<F> raw = load_raw(scene, first, lanes);
        const Projection<F> o = project(view, raw, scene.antialiased);

        const Footprint<F> print = footprint(view, o);
        const M shown = first_lanes(n) & print.drawn;
        uint32_t mask = bits(shown);
        for (int i = 0; i < n; ++i) visible[first + i] = mask >> i & 1;
        if (!mask) {
            if (radii)
                for (int i = 0; i < n; ++i) radii[first + i] = 0;
            continue;
        }

        const Vec3<F> colour = colours(view, scene, first, end, lanes, raw.mean);
        const M sane = usable(colour.x) & usable(colour.y) & usable(colour.z);
        if (!all(sane)) {
            mask &= bits(sane);
            for (int i = 0; i < n; ++i) visible[first + i] = mask >> i & 1;
        }
        const F scale(kWhitenScale), zero(0.0f);
        F rows[kLanes] = {o.x,      o.y,      o.p * scale, o.q * scale, o.r * scale, print.log_opacity,
                          max(colour.x, zero), max(colour.y, zero), max(colour.z, zero), o.point.z, print.limit,
                          zero, zero, zero, zero, zero};
        alignas(64) int32_t depth_bits[kLanes];
        as_int(o.point.z).store(depth_bits);
        transpose(rows);
        for (uint32_t rest = mask; rest; rest &= rest - 1) {
            const int i = __builtin_ctz(rest);
            rows[i].store(&splats[first + i].x);
            keys[found++] = static_cast<uint64_t>(static_cast<uint32_t>(depth_bits[i])) << 32 |
                            static_cast<uint64_t>(first + i);
        }
        if (radii) {
            alignas(64) float radius[kLanes];
            drawn_radius(o, print.spread).store(radius);
            for (int i = 0; i < n; ++i) radii[first + i] = mask >> i & 1 ? static_cast<int32_t>(__builtin_ceilf(radius[i])) : 0;
        }
    }
    return found;
}

void tile_rows(const Splat* splats, const uint64_t* ids, int n, const Grid& grid, int32_t* first, int32_t* rows,
               int32_t* left, int32_t* right) {
    F x[kLanes];
    for (int i = 0; i < kLanes; ++i) x[i] = F::load(&splats[static_cast<uint32_t>(ids[i < n ? i : n - 1])].x);
    transpose(x);
    const F cx = x[0], cy = x[1], p = x[2], q = x[3], r = x[4], limit = x[10];
    F first_row, end_row;
    tile_rows_of(cy, r, limit, grid.down, first_row, end_row);
    const I begin = ceiling(first_row), end = truncate(end_row);
    begin.store(first);
    (end - begin).store(rows);
    int most = 0;
    for (int i = 0; i < n; ++i) most = rows[i] > most ? rows[i] : most;

    for (int k = 0; k < most; ++k) {
        F l, r2;
        tile_columns_of(cx, cy, p, q, r, limit, to_float(begin + I(k)), grid.width, grid.height, grid.across, l, r2);
        ceiling(l).store(left + kLanes * k);
        (truncate(r2) - I(1)).store(right + kLanes * k);
    }
}

}  // namespace splat::cpu::SPLAT_ISA
