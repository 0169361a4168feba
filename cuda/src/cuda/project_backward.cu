// From the image-space gradients to those of the parameters and the pose; with Adam in the same pass, where
// nothing else needs the gradients.
//
// A thread takes one Gaussian up to its harmonics, whose 48 values the block then writes together, in the order
// of memory: their gradient is the product of the basis and the colour's gradient, kept in shared memory.
#include "gather.cuh"
#include "splat/footprint.h"

namespace splat::gpu {
namespace {

constexpr int kThreads = 128;
constexpr int kPose = 15;
constexpr float kUnscale = 1 / kWhitenScale;

// Everything but the harmonics, and what makes theirs.
template <int kDegree>
struct Local {
    RawGradient<float> raw;
    float colour[3];
    float basis[sh_coefficients(kDegree)];
    float pose[kPose];
};

SPLAT_DEVICE ImageGradient<float> image_gradient(const float* row) {
    const float square = kUnscale * kUnscale;
    return {row[kG],           row[kGu] * kUnscale, row[kGv] * kUnscale, row[kGuu] * square,
            row[kGuv] * square, row[kGvv] * square,  row[kDepth]};
}

template <int kDegree>
SPLAT_DEVICE void gradients(const ProjectBackward& a, int64_t i, Local<kDegree>& out) {
    constexpr int kUsed = sh_coefficients(kDegree);
    const Raw<float> raw = load_raw(a.scene, i);
    const Projection<float> o = splat::project(a.view, raw, a.scene.antialiased);
    const float* row = a.rows + i * kRow;
    const Splat& s = a.splats[i];
    // The clamp at 0 stops the gradient.
    out.colour[0] = s.red > 0 ? row[kRed] : 0.0f;
    out.colour[1] = s.green > 0 ? row[kGreen] : 0.0f;
    out.colour[2] = s.blue > 0 ? row[kBlue] : 0.0f;

    const Direction<float> direction = direction_to(a.view, raw.mean);
    const Vec3<float> unit = direction.unit;
    sh_basis(kDegree, unit.x, unit.y, unit.z, out.basis);
    Vec3<float> d{0, 0, 0};
    if constexpr (kDegree > 0) {
        float sh[3 * kUsed], weight[kUsed];
        load_sh<kUsed>(a.scene, i, sh);
#pragma unroll
        for (int k = 0; k < kUsed; ++k)
            weight[k] = sh[3 * k] * out.colour[0] + sh[3 * k + 1] * out.colour[1] + sh[3 * k + 2] * out.colour[2];
        sh_basis_backward(kDegree, unit.x, unit.y, unit.z, weight, d.x, d.y, d.z);
    }
    const Vec3<float> towards = direction_backward(direction, d);

    PoseGradient<float> pose;
    splat::project_backward(a.view, raw, o, image_gradient(row), a.scene.antialiased, out.raw, pose);
    out.raw.mean = out.raw.mean + towards;
    for (int k = 0; k < 9; ++k) out.pose[k] = pose.rotation[k];
    out.pose[9] = pose.translation.x, out.pose[10] = pose.translation.y, out.pose[11] = pose.translation.z;
    out.pose[12] = -towards.x, out.pose[13] = -towards.y, out.pose[14] = -towards.z;
}

// What becomes of the gradient of element `at` of array `which`.
struct Store {
    float* gradients[5];
    SPLAT_DEVICE void operator()(int which, int64_t at, float gradient, const AdamRates&) const {
        gradients[which][at] = gradient;
    }
};
struct Update {
    FusedStep step;
    SPLAT_DEVICE void operator()(int which, int64_t at, float gradient, const AdamRates& rates) const {
        float value = step.values[which][at], m = step.first[which][at], v = step.second[which][at];
        adam_update(rates, rates.step_size, gradient, value, m, v);
        step.values[which][at] = value, step.first[which][at] = m, step.second[which][at] = v;
    }
};

template <int kDegree, bool kFused, bool kPoseWanted, class Apply>
__global__ void __launch_bounds__(kThreads) project_backward_kernel(ProjectBackward a, FusedStep step, Apply apply) {
    constexpr int kUsed = sh_coefficients(kDegree);
    __shared__ float colour[3][kThreads];
    __shared__ float basis[kUsed][kThreads];
    if (kFused && a.counters->overflow) return;
    const int64_t i = thread_index();
    const bool inside = i < a.scene.count;
    Local<kDegree> local{};
    if (inside && a.tiles[i] > 0) gradients(a, i, local);

    if constexpr (kPoseWanted)
        for (int k = 0; k < kPose; ++k) {
            const float sum = warp_sum(local.pose[k]);
            if (lane_index() == 0 && sum != 0) atomicAdd(a.pose + k, static_cast<double>(sum));
        }
    for (int c = 0; c < 3; ++c) colour[c][threadIdx.x] = local.colour[c];
#pragma unroll
    for (int k = 0; k < kUsed; ++k) basis[k][threadIdx.x] = local.basis[k];

    if (inside) {
        float scale[3] = {local.raw.log_scale.x, local.raw.log_scale.y, local.raw.log_scale.z};
        float logit = local.raw.logit;
        if constexpr (kFused) {
            if (step.scale_penalty != 0)
                for (int k = 0; k < 3; ++k)
                    scale[k] = fma(step.scale_penalty, exp(step.values[2][3 * i + k]), scale[k]);
            if (step.opacity_penalty != 0) {
                const float opacity = sigmoid(step.values[3][i]);
                logit = fma(step.opacity_penalty, opacity * (1.0f - opacity), logit);
            }
        }
        apply(0, 3 * i, local.raw.mean.x, step.rates[0]);
        apply(0, 3 * i + 1, local.raw.mean.y, step.rates[0]);
        apply(0, 3 * i + 2, local.raw.mean.z, step.rates[0]);
        for (int k = 0; k < 4; ++k) apply(1, 4 * i + k, local.raw.quat[k], step.rates[1]);
        for (int k = 0; k < 3; ++k) apply(2, 3 * i + k, scale[k], step.rates[2]);
        apply(3, i, logit, step.rates[3]);
    }
    // Every thread has read its harmonics by now.
    __syncthreads();
    const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads;
    const int here = a.scene.count - first < kThreads ? static_cast<int>(a.scene.count - first) : kThreads;
    const int width = 3 * a.scene.coefficients;
    for (int e = static_cast<int>(threadIdx.x); e < here * width; e += kThreads) {
        const int who = e / width, place = e % width, k = place / 3;
        const float gradient = k < kUsed ? basis[k < kUsed ? k : 0][who] * colour[place - 3 * k][who] : 0.0f;
        apply(4, first * width + e, gradient, k == 0 ? step.sh0 : step.sh_rest);
    }
}

__global__ void centre_gradients_kernel(const Splat* splats, const uint32_t* tiles, const float* rows, int64_t n,
                                        float* means2d, float* absolute) {
    const int64_t i = thread_index();
    if (i >= n) return;
    const float* row = rows + i * kRow;
    const bool drawn = tiles[i] > 0;
    if (means2d) {
        float x = 0, y = 0;
        if (drawn) {
            const Splat& s = splats[i];
            centre_gradient(s.p * kUnscale, s.q * kUnscale, s.r * kUnscale, image_gradient(row), x, y);
        }
        means2d[2 * i] = x, means2d[2 * i + 1] = y;
    }
    if (absolute) {
        absolute[2 * i] = row[kAbsX] * kUnscale * kUnscale;
        absolute[2 * i + 1] = row[kAbsY] * kUnscale * kUnscale;
    }
}

// The centre of projection is -R^T t.
__global__ void finish_pose_kernel(View view, const double* pose, float* v_pose) {
    const int i = static_cast<int>(threadIdx.x);
    if (i >= 12) return;
    const double* v_position = pose + 12;
    double value = pose[i];
    if (i < 9)
        value -= static_cast<double>(view.translation[i / 3]) * v_position[i % 3];
    else
        for (int k = 0; k < 3; ++k) value -= static_cast<double>(view.rotation[3 * (i - 9) + k]) * v_position[k];
    v_pose[i] = static_cast<float>(value);
}

}  // namespace

void project_backward(const ProjectBackward& a, Stream stream) {
    Store store;
    for (int k = 0; k < 5; ++k) store.gradients[k] = a.gradients[k];
    with_degree(a.scene.degree, [&](auto degree) {
        constexpr int kDegree = degree.value;
        launch("project_backward",
               a.pose ? project_backward_kernel<kDegree, false, true, Store>
                      : project_backward_kernel<kDegree, false, false, Store>,
               divide_up(a.scene.count, kThreads), kThreads, stream, a, FusedStep{}, store);
    });
}

void fused_step(const ProjectBackward& a, const FusedStep& step, Stream stream) {
    with_degree(a.scene.degree, [&](auto degree) {
        launch("fused_step", project_backward_kernel<degree.value, true, false, Update>,
               divide_up(a.scene.count, kThreads), kThreads, stream, a, step, Update{step});
    });
}

void centre_gradients(const Splat* splats, const uint32_t* tiles, const float* rows, int64_t n, float* means2d,
                      float* absolute, Stream stream) {
    launch("centre_gradients", centre_gradients_kernel, divide_up(n, kThreads), kThreads, stream, splats, tiles, rows,
           n, means2d, absolute);
}

void finish_pose(const View& view, const double* pose, float* v_pose, Stream stream) {
    launch("finish_pose", finish_pose_kernel, 1, kWarp, stream, view, pose, v_pose);
}

}  // namespace splat::gpu
