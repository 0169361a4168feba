// Projection of one Gaussian (or of a vector of them) to the image plane, and its derivative.
//
// EWA splatting (Zwicker et al. 2001) as in 3DGS (Kerbl et al. 2023); antialiased form after
// Mip-Splatting (Yu et al. 2024). splat/raster/projection.py is the readable twin.
//
// The ellipse is kept in whitened form: with d = pixel - centre,
//     u = p dx - q dy,  v = r dy,  sigma = (u^2 + v^2) / 2,
// the Cholesky factor of the inverse covariance. Neither sigma nor its moments can cancel for needles.
#pragma once

#include "splat/constants.h"
#include "splat/hd.h"

namespace splat {

// A pinhole camera. Rotation and translation take world to camera.
struct View {
    float rotation[9];  // row-major
    float translation[3];
    float position[3];  // centre of projection, world units
    float fx, fy, cx, cy;
    float u_min, u_max, v_min, v_max;  // where the Jacobian's x/z and y/z are clamped
    int width, height;
};

// The camera's position in the world, from its pose.
SPLAT_HD void place_view(View& view) {
    for (int j = 0; j < 3; ++j) {
        double sum = 0;
        for (int i = 0; i < 3; ++i)
            sum -= static_cast<double>(view.rotation[3 * i + j]) * static_cast<double>(view.translation[i]);
        view.position[j] = static_cast<float>(sum);
    }
}

inline View make_view(const float* world_to_camera, float fx, float fy, float cx, float cy, int width, int height) {
    View view{};
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) view.rotation[3 * i + j] = world_to_camera[4 * i + j];
        view.translation[i] = world_to_camera[4 * i + 3];
    }
    place_view(view);
    view.fx = fx, view.fy = fy, view.cx = cx, view.cy = cy;
    view.width = width, view.height = height;
    const float margin_x = kFrustumMargin * width / (2 * fx), margin_y = kFrustumMargin * height / (2 * fy);
    view.u_min = -cx / fx - margin_x, view.u_max = (width - cx) / fx + margin_x;
    view.v_min = -cy / fy - margin_y, view.v_max = (height - cy) / fy + margin_y;
    return view;
}

template <class Real>
struct Vec3 {
    Real x, y, z;
    friend SPLAT_HD Vec3 operator+(Vec3 a, Vec3 b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
    friend SPLAT_HD Vec3 operator-(Vec3 a, Vec3 b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
    friend SPLAT_HD Vec3 operator*(Real s, Vec3 a) { return {s * a.x, s * a.y, s * a.z}; }
    friend SPLAT_HD Real dot(Vec3 a, Vec3 b) { return fma(a.x, b.x, fma(a.y, b.y, a.z * b.z)); }
    friend SPLAT_HD Vec3 cross(Vec3 a, Vec3 b) {
        return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
    }
};

// Raw parameters of one Gaussian, without its colour.
template <class Real>
struct Raw {
    Vec3<Real> mean;
    Real quat[4];  // wxyz, not normalised
    Vec3<Real> log_scale;
    Real logit;
};

template <class Real>
struct Projection {
    Vec3<Real> point;         // camera space
    Real x, y;                // centre, pixels
    Real u, v;                // point.x / z and point.y / z, clamped
    Real inv_z;
    Real norm_inv;            // 1 / |quat|
    Real n[4];                // unit quaternion
    Vec3<Real> turn[3];       // rows of its rotation matrix
    Vec3<Real> t0, t1;        // rows of Jacobian x camera rotation
    Vec3<Real> scale;
    Vec3<Real> a0, a1;        // rows of the half axes in the image plane: covariance = a a^T + low-pass
    Vec3<Real> minors;        // a0 x a1
    Real xx, xy, yy;          // covariance after the low-pass, square pixels
    Real det, det_filtered;   // before and after the low-pass
    Real opacity_raw;         // sigmoid(logit)
    Real compensation;        // 1, or the antialiased factor
    Real opacity;             // opacity_raw * compensation
    Real p, q, r;             // whitening (see above)
};

template <class Real>
SPLAT_HD Vec3<Real> rotate(const float* m, Vec3<Real> a) {
    return {fma(Real(m[0]), a.x, fma(Real(m[1]), a.y, Real(m[2]) * a.z)),
            fma(Real(m[3]), a.x, fma(Real(m[4]), a.y, Real(m[5]) * a.z)),
            fma(Real(m[6]), a.x, fma(Real(m[7]), a.y, Real(m[8]) * a.z))};
}

template <class Real>
SPLAT_HD Vec3<Real> rotate_back(const float* m, Vec3<Real> a) {
    return {fma(Real(m[0]), a.x, fma(Real(m[3]), a.y, Real(m[6]) * a.z)),
            fma(Real(m[1]), a.x, fma(Real(m[4]), a.y, Real(m[7]) * a.z)),
            fma(Real(m[2]), a.x, fma(Real(m[5]), a.y, Real(m[8]) * a.z))};
}

// Everything is defined (if not finite) wherever the point lies: whether the Gaussian is drawn is the
// caller's decision.
template <class Real>
SPLAT_HD Projection<Real> project(const View& view, const Raw<Real>& g, bool antialiased) {
    Projection<Real> o;
    const Real one(1.0f), two(2.0f);
    const float* m = view.rotation;
    o.point = rotate(m, g.mean) + Vec3<Real>{Real(view.translation[0]), Real(view.translation[1]),
                                             Real(view.translation[2])};
    o.inv_z = one / o.point.z;
    const Real ux = o.point.x * o.inv_z, vy = o.point.y * o.inv_z;
    o.x = fma(Real(view.fx), ux, Real(view.cx));
    o.y = fma(Real(view.fy), vy, Real(view.cy));
    o.u = min(max(ux, Real(view.u_min)), Real(view.u_max));
    o.v = min(max(vy, Real(view.v_min)), Real(view.v_max));

    // A zero quaternion is no rotation.
    o.norm_inv = one / sqrt(max(Real(1e-37f), g.quat[0] * g.quat[0] + g.quat[1] * g.quat[1] +
                                                  g.quat[2] * g.quat[2] + g.quat[3] * g.quat[3]));
    for (int i = 0; i < 4; ++i) o.n[i] = g.quat[i] * o.norm_inv;
    const Real w = o.n[0], x = o.n[1], y = o.n[2], z = o.n[3];
    o.turn[0] = {one - two * (y * y + z * z), two * (x * y - w * z), two * (x * z + w * y)};
    o.turn[1] = {two * (x * y + w * z), one - two * (x * x + z * z), two * (y * z - w * x)};
    o.turn[2] = {two * (x * z - w * y), two * (y * z + w * x), one - two * (x * x + y * y)};

    // Rows of the Jacobian: (fx/z, 0, -fx u/z) and (0, fy/z, -fy v/z).
    const Real jx = Real(view.fx) * o.inv_z, jy = Real(view.fy) * o.inv_z;
    o.t0 = {jx * (Real(m[0]) - o.u * Real(m[6])), jx * (Real(m[1]) - o.u * Real(m[7])),
            jx * (Real(m[2]) - o.u * Real(m[8]))};
    o.t1 = {jy * (Real(m[3]) - o.v * Real(m[6])), jy * (Real(m[4]) - o.v * Real(m[7])),
            jy * (Real(m[5]) - o.v * Real(m[8]))};

    o.scale = {exp(g.log_scale.x), exp(g.log_scale.y), exp(g.log_scale.z)};
    const Vec3<Real> c0{o.turn[0].x, o.turn[1].x, o.turn[2].x}, c1{o.turn[0].y, o.turn[1].y, o.turn[2].y},
        c2{o.turn[0].z, o.turn[1].z, o.turn[2].z};
    o.a0 = {dot(o.t0, c0) * o.scale.x, dot(o.t0, c1) * o.scale.y, dot(o.t0, c2) * o.scale.z};
    o.a1 = {dot(o.t1, c0) * o.scale.x, dot(o.t1, c1) * o.scale.y, dot(o.t1, c2) * o.scale.z};
    const Real sxx = dot(o.a0, o.a0), syy = dot(o.a1, o.a1), eps(kEps2d);
    o.xx = sxx + eps;
    o.xy = dot(o.a0, o.a1);
    o.yy = syy + eps;
    // By Cauchy-Binet the determinant is the sum of the squared 2x2 minors; xx yy - xy^2 would cancel.
    o.minors = cross(o.a0, o.a1);
    o.det = dot(o.minors, o.minors);
    o.det_filtered = fma(eps, sxx + syy + eps, o.det);

    o.opacity_raw = sigmoid(g.logit);
    o.compensation = antialiased ? sqrt(max(Real(0.0f), o.det / o.det_filtered)) : one;
    o.opacity = o.opacity_raw * o.compensation;

    // Given dy, dx is normal with mean (xy / yy) dy and variance det / yy; dy has variance yy.
    const Real inv_yy = one / o.yy;
    o.p = sqrt(o.yy / o.det_filtered);
    o.q = o.p * o.xy * inv_yy;
    o.r = sqrt(inv_yy);
    return o;
}

// What the blend backward pass sums per Gaussian, with g = dLoss/dsigma of a pixel and u, v as above.
template <class Real>
struct ImageGradient {
    Real g, gu, gv, guu, guv, gvv;  // sums of g times 1, u, v, u^2, u v, v^2
    Real depth;                     // dLoss / d(camera z), from the depth outputs
};

template <class Real>
struct RawGradient {
    Vec3<Real> mean;
    Real quat[4];
    Vec3<Real> log_scale;
    Real logit;
};

template <class Real>
struct PoseGradient {
    Real rotation[9];
    Vec3<Real> translation;
};

// dLoss / d(projected centre), pixels: sigma falls by (conic d) per step of the centre.
template <class Real>
SPLAT_HD void centre_gradient(Real p, Real q, Real r, const ImageGradient<Real>& d, Real& dx, Real& dy) {
    dx = -(p * d.gu);
    dy = q * d.gu - r * d.gv;
}

// Derivative of `project` (without the colours). `pose` receives this Gaussian's share.
template <class Real>
SPLAT_HD void project_backward(const View& view, const Raw<Real>& raw, const Projection<Real>& o,
                               const ImageGradient<Real>& d, bool antialiased, RawGradient<Real>& out,
                               PoseGradient<Real>& pose) {
    const Real zero(0.0f), one(1.0f), two(2.0f);
    Real dx2, dy2;
    centre_gradient(o.p, o.q, o.r, d, dx2, dy2);

    // Columns of the half axes whitened: w = L a with L = [p -q; 0 r]. Its first row is p / yy times
    // yy a0 - xy a1 = a1 x minors + eps a0, which does not cancel for needles as p a0 - q a1 would.
    const Real eps(kEps2d);
    const Vec3<Real> along0 = cross(o.a1, o.minors);
    const Vec3<Real> w0 = (o.p * o.r * o.r) * (along0 + eps * o.a0), w1 = o.r * o.a1;
    // dLoss/dCov = -L^T G L / 2 with G = [guu guv; guv gvv], hence dLoss/da = -L^T G w.
    const Vec3<Real> h0 = d.guu * w0 + d.guv * w1, h1 = d.guv * w0 + d.gvv * w1;
    Vec3<Real> da0 = -o.p * h0;
    Vec3<Real> da1 = o.q * h0 - o.r * h1;
    // A scale multiplies its column, so that its derivative is a . dLoss/da = -w . G w.
    out.log_scale = {-(w0.x * h0.x + w1.x * h1.x), -(w0.y * h0.y + w1.y * h1.y), -(w0.z * h0.z + w1.z * h1.z)};

    // alpha = o exp(-sigma): dLoss/do = -sum(g) / o, in terms of the logit without a division. 1 - o is taken
    // as sigmoid(-logit), which does not cancel near 1.
    const Real dlog_opacity = -d.g;
    out.logit = dlog_opacity * sigmoid(-raw.logit);
    if (antialiased) {
        // log o' = log o + log(det / det') / 2 with det' = det + eps (sxx + syy) + eps^2, and
        // d(det) = 2 minors . d(minors). 1 / det - 1 / det' in a form that does not cancel.
        const auto flat = o.det <= zero;
        const Real inv_filtered = one / o.det_filtered;
        const Real spread = eps * (o.xx + o.yy - eps) * inv_filtered / select(flat, one, o.det);
        const Real dminors = select(flat, zero, dlog_opacity * spread);
        const Real dtrace = select(flat, zero, -eps * inv_filtered * dlog_opacity);
        da0 = da0 + dtrace * o.a0 + dminors * along0;
        da1 = da1 + dtrace * o.a1 + dminors * cross(o.minors, o.a0);
        const Real mx = o.minors.x * o.minors.x, my = o.minors.y * o.minors.y, mz = o.minors.z * o.minors.z;
        out.log_scale = out.log_scale +
                        Vec3<Real>{dtrace * (o.a0.x * o.a0.x + o.a1.x * o.a1.x) + dminors * (my + mz),
                                   dtrace * (o.a0.y * o.a0.y + o.a1.y * o.a1.y) + dminors * (mz + mx),
                                   dtrace * (o.a0.z * o.a0.z + o.a1.z * o.a1.z) + dminors * (mx + my)};
    }

    // a_rk = (t_r . turn column k) scale_k.
    const Vec3<Real> b0{da0.x * o.scale.x, da0.y * o.scale.y, da0.z * o.scale.z};
    const Vec3<Real> b1{da1.x * o.scale.x, da1.y * o.scale.y, da1.z * o.scale.z};
    const Vec3<Real> dt0{dot(o.turn[0], b0), dot(o.turn[1], b0), dot(o.turn[2], b0)};
    const Vec3<Real> dt1{dot(o.turn[0], b1), dot(o.turn[1], b1), dot(o.turn[2], b1)};
    const Vec3<Real> r0 = o.t0.x * b0 + o.t1.x * b1;  // dLoss / d(turn), row 0
    const Vec3<Real> r1 = o.t0.y * b0 + o.t1.y * b1;
    const Vec3<Real> r2 = o.t0.z * b0 + o.t1.z * b1;

    const Real w = o.n[0], x = o.n[1], y = o.n[2], z = o.n[3];
    Real dn[4];
    dn[0] = two * (x * (r2.y - r1.z) + y * (r0.z - r2.x) + z * (r1.x - r0.y));
    dn[1] = two * (w * (r2.y - r1.z) + y * (r0.y + r1.x) + z * (r0.z + r2.x) - two * x * (r1.y + r2.z));
    dn[2] = two * (w * (r0.z - r2.x) + x * (r0.y + r1.x) + z * (r1.z + r2.y) - two * y * (r0.x + r2.z));
    dn[3] = two * (w * (r1.x - r0.y) + x * (r0.z + r2.x) + y * (r1.z + r2.y) - two * z * (r0.x + r1.y));
    const Real along = o.n[0] * dn[0] + o.n[1] * dn[1] + o.n[2] * dn[2] + o.n[3] * dn[3];
    for (int i = 0; i < 4; ++i) out.quat[i] = o.norm_inv * (dn[i] - o.n[i] * along);

    // t = J R. j0, j1: gradient of the Jacobian's rows.
    const float* m = view.rotation;
    const Vec3<Real> j0 = rotate(m, dt0), j1 = rotate(m, dt1);
    const Real jx = Real(view.fx) * o.inv_z, jy = Real(view.fy) * o.inv_z;
    const Real du = -jx * j0.z, dv = -jy * j1.z;
    Vec3<Real> dpoint;
    const Real ux = o.point.x * o.inv_z, vy = o.point.y * o.inv_z;
    const Real du_free = select((ux >= Real(view.u_min)) & (ux <= Real(view.u_max)), du, zero);
    const Real dv_free = select((vy >= Real(view.v_min)) & (vy <= Real(view.v_max)), dv, zero);
    const Real gx = fma(Real(view.fx), dx2, du_free), gy = fma(Real(view.fy), dy2, dv_free);
    dpoint.x = gx * o.inv_z;
    dpoint.y = gy * o.inv_z;
    dpoint.z = d.depth - o.inv_z * (ux * gx + vy * gy + jx * (j0.x - o.u * j0.z) + jy * (j1.y - o.v * j1.z));

    out.mean = rotate_back(m, dpoint);
    const Vec3<Real> c = raw.mean;
    const Real ju = -jx * o.u, jv = -jy * o.v;
    pose.rotation[0] = dpoint.x * c.x + jx * dt0.x;
    pose.rotation[1] = dpoint.x * c.y + jx * dt0.y;
    pose.rotation[2] = dpoint.x * c.z + jx * dt0.z;
    pose.rotation[3] = dpoint.y * c.x + jy * dt1.x;
    pose.rotation[4] = dpoint.y * c.y + jy * dt1.y;
    pose.rotation[5] = dpoint.y * c.z + jy * dt1.z;
    pose.rotation[6] = dpoint.z * c.x + ju * dt0.x + jv * dt1.x;
    pose.rotation[7] = dpoint.z * c.y + ju * dt0.y + jv * dt1.y;
    pose.rotation[8] = dpoint.z * c.z + ju * dt0.z + jv * dt1.z;
    pose.translation = dpoint;
}

}  // namespace splat
