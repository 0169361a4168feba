// Which Gaussians are drawn, which tiles they touch, and the direction in which their colour is seen.
#pragma once

#include <utility>

#include "splat/blending.h"
#include "splat/projection.h"

namespace splat {

// Beyond this a float is treated as not finite (NaN compares false).
inline constexpr float kHuge = 1e30f;

// Whether the value is finite and of a size that can be computed with.
template <class Real>
SPLAT_HD auto usable(Real a) {
    return abs(a) < Real(kHuge);
}

template <class Real>
struct Footprint {
    Real log_opacity, limit;  // as in Splat
    Real spread;              // the ellipse's half axes are sqrt(spread) times those of the covariance
    decltype(std::declval<Real>() < std::declval<Real>()) drawn;  // some pixel may be reached; all is finite
};

template <class Real>
SPLAT_HD Footprint<Real> footprint(const View& view, const Projection<Real>& o) {
    Footprint<Real> f;
    f.log_opacity = log2(max(o.opacity, Real(1e-30f))) * Real(0.125f);
    f.limit = f.log_opacity - Real(kExponentMin);
    // Half the bounding box of the ellipse sigma <= 8 ln(2) limit.
    f.spread = max(f.limit, Real(0.0f)) * Real(2.0f * 8.0f * 0.69314718f);
    const Real half_x = sqrt(f.spread * o.xx), half_y = sqrt(f.spread * o.yy);
    auto drawn = (o.point.z >= Real(kNear)) & (o.opacity >= Real(kAlphaMin));
    drawn = drawn & usable(o.x) & usable(o.y) & usable(o.xx) & usable(o.yy) & usable(o.det_filtered) & usable(o.p) &
            usable(o.q) & usable(o.r) & (o.r > Real(0.0f)) & (o.p > Real(0.0f));
    drawn = drawn & (o.x + half_x >= Real(0.5f)) & (o.x - half_x <= Real(view.width - 0.5f)) &
            (o.y + half_y >= Real(0.5f)) & (o.y - half_y <= Real(view.height - 0.5f));
    f.drawn = drawn;
    return f;
}

// Larger half axis of the drawn ellipse, pixels; small enough for an int32.
template <class Real>
SPLAT_HD Real drawn_radius(const Projection<Real>& o, Real spread) {
    const Real half_difference = (o.xx - o.yy) * Real(0.5f);
    const Real largest = (o.xx + o.yy) * Real(0.5f) + sqrt(half_difference * half_difference + o.xy * o.xy);
    return min(sqrt(spread * largest), Real(2147483520.0f));
}

// Rows of tiles whose pixel centres, 16 i + 0.5 to 16 i + 15.5, meet the ellipse's bounding box: from
// ceil(first) to trunc(end), exclusive. Both lie in [0, down].
template <class Real>
SPLAT_HD void tile_rows_of(Real cy, Real r, Real limit, int down, Real& first, Real& end) {
    const Real slack(1e-3f), inv_tile(1.0f / kTile);
    const Real half_y = sqrt(limit) / r * Real(1.0001f) + slack;
    first = min(max((cy - half_y - Real(kTile - 0.5f)) * inv_tile, Real(0.0f)), Real(static_cast<float>(down)));
    end = max(min((cy + half_y - Real(0.5f)) * inv_tile, Real(static_cast<float>(down - 1))), Real(-1.0f)) + Real(1.0f);
}

// Columns of tiles that the ellipse touches in the row of tiles `row`: from ceil(left) to trunc(end), exclusive;
// left >= end where there are none.
template <class Real>
SPLAT_HD void tile_columns_of(Real cx, Real cy, Real p, Real q, Real r, Real limit, Real row, int width, int height,
                              int across, Real& left, Real& end) {
    const Real zero(0.0f), one(1.0f), slack(1e-3f), inv_tile(1.0f / kTile);
    const Real last_column(static_cast<float>(across - 1));
    const Real top = row * Real(kTile) + Real(0.5f) - cy;
    const Real bottom = min(top + Real(kTile - 1), Real(height - 0.5f) - cy);
    Real l, e;
    ellipse_extent(p, q, r, limit, top, bottom, l, e);
    l = l + cx;
    e = e + cx;
    const auto beyond = l > Real(width - 0.5f) + slack;  // past the image's last column of pixels
    l = (l - Real(kTile - 0.5f) - slack) * inv_tile;
    e = (e - Real(0.5f) + slack) * inv_tile;
    left = select(beyond, last_column + one, min(max(l, zero), last_column + one));
    end = max(min(e, last_column), Real(-1.0f)) + one;
}

// Of a Gaussian seen from the camera.
template <class Real>
struct Direction {
    Vec3<Real> unit;
    Real inv_length;
};

template <class Real>
SPLAT_HD Direction<Real> direction_to(const View& view, Vec3<Real> mean) {
    const Vec3<Real> d = mean - Vec3<Real>{Real(view.position[0]), Real(view.position[1]), Real(view.position[2])};
    const Real inv_length = Real(1.0f) / max(sqrt(dot(d, d)), Real(1e-12f));
    return {inv_length * d, inv_length};
}

// dLoss / d(mean), given dLoss / d(unit).
template <class Real>
SPLAT_HD Vec3<Real> direction_backward(const Direction<Real>& direction, Vec3<Real> d) {
    return direction.inv_length * (d - dot(d, direction.unit) * direction.unit);
}

}  // namespace splat
