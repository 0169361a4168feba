// From the image-space gradients to those of the parameters and the pose, sixteen Gaussians at a time; with
// Adam in the same pass, where nothing else needs the gradients.
#include "gather_scene.h"
#include "raster_parts.h"
#include "splat/footprint.h"
#include "splat/sh.h"

namespace splat::cpu::SPLAT_ISA {
namespace {

constexpr int kPose = 15;

// Gradients of sixteen Gaussians, in the order of the scene's arrays.
struct Local {
    alignas(64) float means[3 * kLanes], quats[4 * kLanes], log_scales[3 * kLanes], logits[kLanes];
    alignas(64) float sh[48 * kLanes];
};

__attribute__((noinline)) void interleave(float* to, int stride, int offset, F values) {
    alignas(64) float lane[kLanes];
    values.store(lane);
    for (int i = 0; i < kLanes; ++i) to[stride * i + offset] = lane[i];
}

// Lanes that are not drawn get zeros. `pose` (kPose vectors) is added to unless null.
__attribute__((noinline)) void gradients(const ProjectBackward& a, int64_t first, int64_t end, M drawn, Local& out, F* pose) {
    const I lanes = clamped_lanes(first, end);
    const uint32_t mask = bits(drawn);
    const Raw<F> raw = load_raw(a.scene, first, lanes);
    const Projection<F> o = project(*a.view, raw, a.scene.antialiased);

    F rows[kLanes], splat[kLanes];
    for (int i = 0; i < kLanes; ++i) {
        const bool use = mask >> i & 1;
        rows[i] = use ? F::load(a.rows + (first + i) * kRow) : F(0.0f);
        splat[i] = use ? F::load(&a.splats[first + i].x) : F(0.0f);
    }
    transpose(rows);
    transpose(splat);

    // Colour: the clamp at 0 stops the gradient.
    const int used = sh_coefficients(a.scene.degree);
    F sh[48], basis[16], weight[16], colour[3];
    load_sh(a.scene, first, end, lanes, used, sh);
    for (int c = 0; c < 3; ++c) colour[c] = masked(splat[6 + c] > F(0.0f), rows[kRed + c]);
    const Direction<F> direction = direction_to(*a.view, raw.mean);
    const Vec3<F> unit = direction.unit;
    sh_basis(a.scene.degree, unit.x, unit.y, unit.z, basis);
    for (int k = 0; k < used; ++k)
        weight[k] = sh[3 * k] * colour[0] + sh[3 * k + 1] * colour[1] + sh[3 * k + 2] * colour[2];
    Vec3<F> d;
    sh_basis_backward(a.scene.degree, unit.x, unit.y, unit.z, weight, d.x, d.y, d.z);
    const Vec3<F> towards = direction_backward(direction, d);

    const ImageGradient<F> image{rows[kG], rows[kGu], rows[kGv], rows[kGuu], rows[kGuv], rows[kGvv], rows[kDepth]};
    RawGradient<F> g;
    PoseGradient<F> p;
    project_backward(*a.view, raw, o, image, a.scene.antialiased, g, p);

    if (pose) {
        for (int i = 0; i < 9; ++i) pose[i] = pose[i] + masked(drawn, p.rotation[i]);
        const F rest[6] = {p.translation.x, p.translation.y, p.translation.z, -towards.x, -towards.y, -towards.z};
        for (int i = 0; i < 6; ++i) pose[9 + i] = pose[9 + i] + masked(drawn, rest[i]);
    }
    const Vec3<F> mean = g.mean + towards;
    interleave(out.means, 3, 0, masked(drawn, mean.x));
    interleave(out.means, 3, 1, masked(drawn, mean.y));
    interleave(out.means, 3, 2, masked(drawn, mean.z));
    for (int i = 0; i < 4; ++i) interleave(out.quats, 4, i, masked(drawn, g.quat[i]));
    interleave(out.log_scales, 3, 0, masked(drawn, g.log_scale.x));
    interleave(out.log_scales, 3, 1, masked(drawn, g.log_scale.y));
    interleave(out.log_scales, 3, 2, masked(drawn, g.log_scale.z));
    masked(drawn, g.logit).store(out.logits);

    const int stride = 3 * a.scene.coefficients;
    for (int k = 0; k < a.scene.coefficients; ++k)
        for (int c = 0; c < 3; ++c)
            sh[3 * k + c] = k < used ? masked(drawn, basis[k] * colour[c]) : F(0.0f);
    if (stride == 48) {
        for (int part = 0; part < 3; ++part) {
            F x[kLanes];
            for (int i = 0; i < kLanes; ++i) x[i] = sh[part * kLanes + i];
            transpose(x);
            for (int i = 0; i < kLanes; ++i) x[i].store(out.sh + 48 * i + part * kLanes);
        }
    } else {
        for (int i = 0; i < stride; ++i) interleave(out.sh, stride, i, sh[i]);
    }
}

SPLAT_INLINE M drawn_lanes(const uint8_t* visible, int64_t first, int n) {
    uint32_t mask = 0;
    for (int i = 0; i < n; ++i) mask |= static_cast<uint32_t>(visible[first + i] != 0) << i;
    return M::from_bits(mask);
}

SPLAT_INLINE void copy(float* to, const float* from, int n) {
    for (int i = 0; i < n; i += kLanes) F::load(from + i).store(to + i, n - i);
}

SPLAT_INLINE void clear(float* to, int n) {
    for (int i = 0; i < n; i += kLanes) F(0.0f).store(to + i, n - i);
}

SPLAT_INLINE void adam_run(const AdamRates& rates, float* value, float* m, float* v, const float* gradient, int n) {
    for (int i = 0; i < n; i += kLanes) {
        F x = F::load(value + i, n - i), m1 = F::load(m + i, n - i), v1 = F::load(v + i, n - i);
        adam_update(rates, F(rates.step_size), F::load(gradient + i), x, m1, v1);
        x.store(value + i, n - i);
        m1.store(m + i, n - i);
        v1.store(v + i, n - i);
    }
}

// The harmonics of n Gaussians; band 0 has its own step size.
SPLAT_INLINE void adam_sh(const FusedStep& step, int64_t offset, int stride, const float* gradient, int n) {
    float *value = step.values[4] + offset, *m = step.first[4] + offset, *v = step.second[4] + offset;
    alignas(64) float size[48 + kLanes];
    for (int i = 0; i < stride + kLanes; ++i)
        size[i] = (i % stride) < 3 ? step.sh0.step_size : step.sh_rest.step_size;
    const AdamRates& rates = step.sh_rest;
    const int count = n * stride;
    int phase = 0;
    for (int i = 0; i < count; i += kLanes) {
        F x = F::load(value + i, count - i), m1 = F::load(m + i, count - i), v1 = F::load(v + i, count - i);
        adam_update(rates, F::load(size + phase), F::load(gradient + i), x, m1, v1);
        x.store(value + i, count - i);
        m1.store(m + i, count - i);
        v1.store(v + i, count - i);
        phase = (phase + kLanes) % stride;
    }
}

}  // namespace

void project_backward_range(const ProjectBackward& a, int64_t begin, int64_t end) {
    F pose[kPose];
    for (F& x : pose) x = F(0.0f);
    const int stride = 3 * a.scene.coefficients;
    for (int64_t first = begin; first < end; first += kLanes) {
        const int n = end - first < kLanes ? static_cast<int>(end - first) : kLanes;
        const M drawn = drawn_lanes(a.visible, first, n);
        if (!any(drawn)) {
            clear(a.means + 3 * first, 3 * n);
            clear(a.quats + 4 * first, 4 * n);
            clear(a.log_scales + 3 * first, 3 * n);
            clear(a.logit_opacities + first, n);
            clear(a.sh + stride * first, stride * n);
            continue;
        }
        Local local;
        gradients(a, first, end, drawn, local, a.pose ? pose : nullptr);
        copy(a.means + 3 * first, local.means, 3 * n);
        copy(a.quats + 4 * first, local.quats, 4 * n);
        copy(a.log_scales + 3 * first, local.log_scales, 3 * n);
        copy(a.logit_opacities + first, local.logits, n);
        copy(a.sh + stride * first, local.sh, stride * n);
    }
    if (a.pose)
        for (int i = 0; i < kPose; ++i) a.pose[begin / kRange * kPose + i] = sum(pose[i]);
}

void fused_step_range(const ProjectBackward& a, const FusedStep& step, int64_t begin, int64_t end) {
    const int stride = 3 * a.scene.coefficients;
    for (int64_t first = begin; first < end; first += kLanes) {
        const int n = end - first < kLanes ? static_cast<int>(end - first) : kLanes;
        const M drawn = drawn_lanes(a.visible, first, n);
        Local local;
        if (any(drawn)) {
            gradients(a, first, end, drawn, local, nullptr);
        } else {
            clear(local.means, 3 * kLanes);
            clear(local.quats, 4 * kLanes);
            clear(local.log_scales, 3 * kLanes);
            clear(local.logits, kLanes);
            clear(local.sh, stride * kLanes);
        }
        if (step.opacity_penalty != 0) {
            const F opacity = sigmoid(F::load(step.values[3] + first, n));
            fma(F(step.opacity_penalty), opacity * (F(1.0f) - opacity), F::load(local.logits)).store(local.logits);
        }
        if (step.scale_penalty != 0)
            for (int i = 0; i < 3 * n; i += kLanes)
                fma(F(step.scale_penalty), exp(F::load(step.values[2] + 3 * first + i, 3 * n - i)),
                    F::load(local.log_scales + i))
                    .store(local.log_scales + i);
        const float* gradient[4] = {local.means, local.quats, local.log_scales, local.logits};
        constexpr int width[4] = {3, 4, 3, 1};
        for (int k = 0; k < 4; ++k) {
            const int64_t offset = width[k] * first;
            adam_run(step.rates[k], step.values[k] + offset, step.first[k] + offset, step.second[k] + offset,
                     gradient[k], width[k] * n);
        }
        adam_sh(step, stride * first, stride, local.sh, n);
    }
}

}  // namespace splat::cpu::SPLAT_ISA
