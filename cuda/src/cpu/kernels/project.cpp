// Projection of the scene, sixteen Gaussians at a time, and the tiles that a splat touches.
#include "gather_scene.h"
#include "raster_parts.h"
#include "splat/sh.h"

namespace splat::cpu::SPLAT_ISA {
namespace {

// Beyond this a float is treated as not finite (NaN compares false).
constexpr float kHuge = 1e30f;

// Not clamped yet.
SPLAT_INLINE Vec3<F> colours(const View& view, const SceneArrays& scene, int64_t first, int64_t end, I lanes,
                             Vec3<F> mean) {
    const int used = sh_coefficients(scene.degree);
    F sh[48], basis[16];
    load_sh(scene, first, end, lanes, used, sh);
    const Direction direction = direction_to(view, mean);
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

// Whether the value is finite and of a size that can be computed with.
SPLAT_INLINE M usable(F a) { return abs(a) < F(kHuge); }

}  // namespace

int64_t project_range(const View& view, const SceneArrays& scene, int64_t begin, int64_t end, Splat* splats,
                      uint8_t* visible, uint64_t* keys, int32_t* radii) {
    int64_t found = 0;
    for (int64_t first = begin; first < end; first += kLanes) {
        const int n = end - first < kLanes ? static_cast<int>(end - first) : kLanes;
        const I lanes = clamped_lanes(first, end);
        const Raw<F> raw = load_raw(scene, first, lanes);
        const Projection<F> o = project(view, raw, scene.antialiased);

        const F log_opacity = log2(max(o.opacity, F(1e-30f))) * F(0.125f);
        const F limit = log_opacity - F(kExponentMin);
        // Half the bounding box of the ellipse sigma <= 8 ln(2) limit.
        const F spread = max(limit, F(0.0f)) * F(2.0f * 8.0f * 0.69314718f);
        const F half_x = sqrt(spread * o.xx), half_y = sqrt(spread * o.yy);
        M shown = first_lanes(n) & (o.point.z >= F(kNear)) & (o.opacity >= F(kAlphaMin));
        shown = shown & usable(o.x) & usable(o.y) & usable(o.xx) & usable(o.yy) & usable(o.det_filtered) &
                usable(o.p) & usable(o.q) & usable(o.r) & (o.r > F(0.0f)) & (o.p > F(0.0f));
        shown = shown & (o.x + half_x >= F(0.5f)) & (o.x - half_x <= F(view.width - 0.5f)) &
                (o.y + half_y >= F(0.5f)) & (o.y - half_y <= F(view.height - 0.5f));
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
        F rows[kLanes] = {o.x,      o.y,      o.p * scale, o.q * scale, o.r * scale, log_opacity,
                          max(colour.x, zero), max(colour.y, zero), max(colour.z, zero), o.point.z, limit,
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
            const F half_difference = (o.xx - o.yy) * F(0.5f);
            const F largest = (o.xx + o.yy) * F(0.5f) + sqrt(half_difference * half_difference + o.xy * o.xy);
            alignas(64) float radius[kLanes];
            min(sqrt(spread * largest), F(2147483520.0f)).store(radius);
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
    const F zero(0.0f), one(1.0f), inv_tile(1.0f / kTile), slack(1e-3f);
    // Rows of tiles whose pixel centres, 16 i + 0.5 to 16 i + 15.5, meet the ellipse's bounding box; kept in
    // float until they are clamped to the grid.
    const F half_y = sqrt(limit) / r * F(1.0001f) + slack;
    const I begin = ceiling(min(max((cy - half_y - F(kTile - 0.5f)) * inv_tile, zero), F(static_cast<float>(grid.down))));
    const F last_row(static_cast<float>(grid.down - 1));
    const I end = truncate(max(min((cy + half_y - F(0.5f)) * inv_tile, last_row), F(-1.0f)) + one);
    begin.store(first);
    (end - begin).store(rows);
    int most = 0;
    for (int i = 0; i < n; ++i) most = rows[i] > most ? rows[i] : most;

    const F last_column(static_cast<float>(grid.across - 1));
    for (int k = 0; k < most; ++k) {
        const F top = to_float(begin + I(k)) * F(kTile) + F(0.5f) - cy;
        const F bottom = min(top + F(kTile - 1), F(grid.height - 0.5f) - cy);
        F l, r2;
        ellipse_extent(p, q, r, limit, top, bottom, l, r2);
        l = l + cx;
        r2 = r2 + cx;
        const M beyond = l > F(grid.width - 0.5f) + slack;  // past the image's last column of pixels
        l = (l - F(kTile - 0.5f) - slack) * inv_tile;
        r2 = (r2 - F(0.5f) + slack) * inv_tile;
        l = select(beyond, last_column + one, min(max(l, zero), last_column + one));
        r2 = max(min(r2, last_column), F(-1.0f)) + one;
        ceiling(l).store(left + kLanes * k);
        (truncate(r2) - I(1)).store(right + kLanes * k);
    }
}

}  // namespace splat::cpu::SPLAT_ISA
