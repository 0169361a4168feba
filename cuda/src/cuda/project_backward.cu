// From the image-space gradients to those of the parameters and the pose; with Adam in the same pass, where
// nothing else needs the gradients.
//
// A thread takes one Gaussian up to its harmonics, whose 48 values the block then writes together, in the order
// of memory: their gradient is the product of the basis and the colour's gradient, kept in shared memory. Where
// their moments are quantized, a warp takes a Gaussian at a time instead, as it must know the largest of them.
#include "gather.cuh"
#include "splat/footprint.h"
#include "splat/moments.h"

namespace splat::gpu {
namespace {

constexpr int kThreads = 128;
constexpr int kPose = 15;
constexpr float kUnscale = 1 / kWhitenScale;
// Arrays that are rounded at random: the five, and the harmonics' own values.
constexpr uint32_t kShValues = 5;

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
SPLAT_DEVICE void gradients(const ProjectBackward& a, int64_t i, uint32_t splat, Local<kDegree>& out) {
    constexpr int kUsed = sh_coefficients(kDegree);
    const View& view = a.frame->view;
    const Raw<float> raw = load_raw(a.scene, i);
    const Projection<float> o = splat::project(view, raw, a.scene.antialiased);
    const float* row = a.rows + static_cast<int64_t>(splat) * kRow;
    const Splat& s = a.splats[splat];
    // The clamp at 0 stops the gradient.
    out.colour[0] = s.red > 0 ? row[kRed] : 0.0f;
    out.colour[1] = s.green > 0 ? row[kGreen] : 0.0f;
    out.colour[2] = s.blue > 0 ? row[kBlue] : 0.0f;

    const Direction<float> direction = direction_to(view, raw.mean);
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
    splat::project_backward(view, raw, o, image_gradient(row), a.scene.antialiased, out.raw, pose);
    out.raw.mean = out.raw.mean + towards;
    for (int k = 0; k < 9; ++k) out.pose[k] = pose.rotation[k];
    out.pose[9] = pose.translation.x, out.pose[10] = pose.translation.y, out.pose[11] = pose.translation.z;
    out.pose[12] = -towards.x, out.pose[13] = -towards.y, out.pose[14] = -towards.z;
}

// What becomes of the gradient of element `at` of array `which`.
struct Store {
    static constexpr bool kFused = false, kBlocks = false;
    float* gradients[5];
    SPLAT_DEVICE void operator()(int which, int64_t at, float gradient, const FusedRates&, const AdamRates&) const {
        gradients[which][at] = gradient;
    }
};
// Adam with moments in float32.
struct Update {
    static constexpr bool kFused = true, kBlocks = false;
    float* values[5];
    Moments moments;
    SPLAT_DEVICE void operator()(int which, int64_t at, float gradient, const FusedRates&,
                                 const AdamRates& rates) const {
        float *first = static_cast<float*>(moments.first[which]), *second = static_cast<float*>(moments.second[which]);
        float value = values[which][at], m = first[at], v = second[at];
        adam_update(rates, rates.step_size, gradient, value, m, v);
        values[which][at] = value, first[at] = m, second[at] = v;
    }
};
// Adam with quantized moments.
struct QuantizedUpdate {
    static constexpr bool kFused = true, kBlocks = true;
    float* values[5];
    Moments moments;
    SPLAT_DEVICE void operator()(int which, int64_t at, float gradient, const FusedRates& step,
                                 const AdamRates& rates) const {
        uint16_t& first = static_cast<uint16_t*>(moments.first[which])[at];
        uint16_t& second = static_cast<uint16_t*>(moments.second[which])[at];
        float value = values[which][at], m = from_bfloat16(first), v = from_bfloat16(second);
        adam_update(rates, rates.step_size, gradient, value, m, v);
        values[which][at] = value;
        const uint32_t random = random_bits(step.step, static_cast<uint32_t>(which), static_cast<uint64_t>(at));
        first = to_bfloat16(m, random), second = to_bfloat16(v, random >> 16);
    }
    // The harmonics of Gaussian i, `width` values, by the whole warp; gradient(e) is that of value e, zero for all
    // where the Gaussian is `still`: then the codes stay.
    template <int kValues, class Gradient>
    SPLAT_DEVICE void block(int64_t i, int width, bool still, const FusedRates& step, Gradient gradient) const {
        constexpr int kEach = (kValues + kWarp - 1) / kWarp;
        uint8_t* first = static_cast<uint8_t*>(moments.first[4]) + i * width;
        uint8_t* second = static_cast<uint8_t*>(moments.second[4]) + i * width;
        float* scales = moments.sh_scales + 2 * i;
        float* value = values[4] + i * width;
        uint16_t* half = reinterpret_cast<uint16_t*>(values[4]) + i * width;  // if they are halves
        const float first_scale = scales[0], second_scale = scales[1];
        float m[kEach], v[kEach], most_first = 0, most_second = 0;
#pragma unroll
        for (int k = 0; k < kEach; ++k) {
            const int e = k * kWarp + static_cast<int>(lane_index());
            if (e >= width) continue;
            m[k] = from_first(first[e], first_scale), v[k] = from_second(second[e], second_scale);
            const AdamRates& rates = e < 3 ? step.sh0 : step.sh_rest;
            float now = moments.half_sh ? from_half(half[e]) : value[e];
            adam_update(rates, rates.step_size, gradient(e), now, m[k], v[k]);
            if (moments.half_sh)
                half[e] = to_half(now, random_bits(step.step, kShValues, static_cast<uint64_t>(i) * width + e));
            else
                value[e] = now;
            most_first = max(most_first, abs(m[k])), most_second = max(most_second, v[k]);
        }
        if (still) {
            // Both betas are those of every rate.
            if (lane_index() == 0) {
                scales[0] = first_scale * step.sh_rest.beta1;
                scales[1] = second_scale * sqrt(step.sh_rest.beta2);
            }
            return;
        }
        for (int offset = kWarp / 2; offset > 0; offset /= 2) {
            most_first = max(most_first, __shfl_xor_sync(kAllLanes, most_first, offset));
            most_second = max(most_second, __shfl_xor_sync(kAllLanes, most_second, offset));
        }
        const float to_first_scale = block_scale(most_first), to_second_scale = block_scale(sqrt(most_second));
        const float first_inverse = inverse_scale(to_first_scale), second_inverse = inverse_scale(to_second_scale);
#pragma unroll
        for (int k = 0; k < kEach; ++k) {
            const int e = k * kWarp + static_cast<int>(lane_index());
            if (e >= width) continue;
            const uint32_t random = random_bits(step.step, 4, static_cast<uint64_t>(i) * width + e);
            first[e] = to_first(m[k], first_inverse, random);
            second[e] = to_second(v[k], second_inverse, random * 747796405u);
        }
        if (lane_index() == 0) scales[0] = to_first_scale, scales[1] = to_second_scale;
    }
};

// Three blocks leave registers enough on every architecture; left to itself the compiler spills to fit more.
template <int kDegree, bool kPoseWanted, class Apply>
__global__ void __launch_bounds__(kThreads, 3)
    project_backward_kernel(ProjectBackward a, const Record* record, Apply apply) {
    constexpr int kUsed = sh_coefficients(kDegree);
    __shared__ float colour[3][kThreads];
    __shared__ float basis[kUsed][kThreads];
    if (Apply::kFused && record && record->refused) return;
    const FusedRates& step = a.frame->fused;
    const int64_t i = thread_index();
    const bool inside = i < a.scene.count;
    Local<kDegree> local{};
    const uint32_t splat = inside ? a.splat_of[i] : kNone;
    if (splat != kNone) gradients(a, i, splat, local);

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
        if constexpr (Apply::kFused) {
            if (step.scale_penalty != 0)
                for (int k = 0; k < 3; ++k)
                    scale[k] = fma(step.scale_penalty, exp(apply.values[2][3 * i + k]), scale[k]);
            if (step.opacity_penalty != 0) {
                const float opacity = sigmoid(apply.values[3][i]);
                logit = fma(step.opacity_penalty, opacity * (1.0f - opacity), logit);
            }
        }
        apply(0, 3 * i, local.raw.mean.x, step, step.rates[0]);
        apply(0, 3 * i + 1, local.raw.mean.y, step, step.rates[0]);
        apply(0, 3 * i + 2, local.raw.mean.z, step, step.rates[0]);
        for (int k = 0; k < 4; ++k) apply(1, 4 * i + k, local.raw.quat[k], step, step.rates[1]);
        for (int k = 0; k < 3; ++k) apply(2, 3 * i + k, scale[k], step, step.rates[2]);
        apply(3, i, logit, step, step.rates[3]);
    }
    // Every thread has read its harmonics by now.
    __syncthreads();
    const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads;
    const int here = a.scene.count - first < kThreads ? static_cast<int>(a.scene.count - first) : kThreads;
    const int width = 3 * a.scene.coefficients;
    const auto gradient = [&](int who, int place) {
        const int k = place / 3;
        return k < kUsed ? basis[k < kUsed ? k : 0][who] * colour[place - 3 * k][who] : 0.0f;
    };
    if constexpr (Apply::kBlocks) {
        for (int who = static_cast<int>(threadIdx.x / kWarp); who < here; who += kThreads / kWarp)
            apply.template block<3 * sh_coefficients(3)>(
                first + who, width, colour[0][who] == 0 && colour[1][who] == 0 && colour[2][who] == 0, step,
                [&](int e) { return gradient(who, e); });
    } else {
        for (int e = static_cast<int>(threadIdx.x); e < here * width; e += kThreads) {
            const int place = e % width;
            apply(4, first * width + e, gradient(e / width, place), step, place < 3 ? step.sh0 : step.sh_rest);
        }
    }
}

__global__ void centre_gradients_kernel(const Splat* splats, const uint32_t* splat_of, const float* rows, int64_t n,
                                        float* means2d, float* absolute) {
    const int64_t i = thread_index();
    if (i >= n) return;
    const bool drawn = splat_of[i] != kNone;
    const uint32_t splat = drawn ? splat_of[i] : 0;
    const float* row = rows + static_cast<int64_t>(splat) * kRow;
    if (means2d) {
        float x = 0, y = 0;
        if (drawn) {
            const Splat& s = splats[splat];
            centre_gradient(s.p * kUnscale, s.q * kUnscale, s.r * kUnscale, image_gradient(row), x, y);
        }
        means2d[2 * i] = x, means2d[2 * i + 1] = y;
    }
    if (absolute) {
        absolute[2 * i] = drawn ? row[kAbsX] * kUnscale * kUnscale : 0.0f;
        absolute[2 * i + 1] = drawn ? row[kAbsY] * kUnscale * kUnscale : 0.0f;
    }
}

// Element i of the gradient by the pose. The centre of projection is -R^T t.
SPLAT_DEVICE float pose_gradient(const View& view, const double* pose, int i) {
    const double* v_position = pose + 12;
    double value = pose[i];
    if (i < 9)
        value -= static_cast<double>(view.translation[i / 3]) * v_position[i % 3];
    else
        for (int k = 0; k < 3; ++k) value -= static_cast<double>(view.rotation[3 * (i - 9) + k]) * v_position[k];
    return static_cast<float>(value);
}

__global__ void finish_pose_kernel(const Frame* frame, const double* pose, float* v_pose) {
    const int i = static_cast<int>(threadIdx.x);
    if (i < 12) v_pose[i] = pose_gradient(frame->view, pose, i);
}

__global__ void step_pose_kernel(const Frame* frame, const double* pose, PoseArrays poses, const Record* record) {
    const int i = static_cast<int>(threadIdx.x);
    if (i >= 6 || (record && record->refused)) return;
    const PoseRates& rates = frame->pose;
    const int64_t row = 6 * static_cast<int64_t>(rates.view);
    float v_pose[12], xi[6];
    for (int k = 0; k < 12; ++k) v_pose[k] = pose_gradient(frame->view, pose, k);
    for (int k = 0; k < 6; ++k) xi[k] = poses.rows[row + k];
    __syncwarp(0x3fu);  // all have read the row
    const float gradient = motion_gradient(frame->base, xi, rates.extent, i, v_pose);
    float value = poses.rows[row + i], first = poses.first[row + i], second = poses.second[row + i];
    adam_update(rates.adam, rates.adam.step_size, gradient, value, first, second);
    poses.rows[row + i] = value, poses.first[row + i] = first, poses.second[row + i] = second;
}

}  // namespace

void project_backward(const ProjectBackward& a, Stream stream) {
    Store store;
    for (int k = 0; k < 5; ++k) store.gradients[k] = a.gradients[k];
    with_degree(a.scene.degree, [&](auto degree) {
        constexpr int kDegree = degree.value;
        launch("project_backward",
               a.pose ? project_backward_kernel<kDegree, true, Store> : project_backward_kernel<kDegree, false, Store>,
               divide_up(a.scene.count, kThreads), kThreads, stream, a, nullptr, store);
    });
}

namespace {

template <class Apply>
void fused_step_with(const ProjectBackward& a, float* const values[5], const Moments& moments, const Record* record,
                     Stream stream) {
    Apply apply;
    for (int k = 0; k < 5; ++k) apply.values[k] = values[k];
    apply.moments = moments;
    with_degree(a.scene.degree, [&](auto degree) {
        constexpr int kDegree = degree.value;
        launch("fused_step",
               a.pose ? project_backward_kernel<kDegree, true, Apply> : project_backward_kernel<kDegree, false, Apply>,
               divide_up(a.scene.count, kThreads), kThreads, stream, a, record, apply);
    });
}

}  // namespace

void fused_step(const ProjectBackward& a, float* const values[5], const Moments& moments, const Record* record,
                Stream stream) {
    if (moments.sh_scales)
        fused_step_with<QuantizedUpdate>(a, values, moments, record, stream);
    else
        fused_step_with<Update>(a, values, moments, record, stream);
}

void centre_gradients(const Splat* splats, const uint32_t* splat_of, const float* rows, int64_t n, float* means2d,
                      float* absolute, Stream stream) {
    launch("centre_gradients", centre_gradients_kernel, divide_up(n, kThreads), kThreads, stream, splats, splat_of,
           rows, n, means2d, absolute);
}

void step_pose(const Frame* frame, const double* sums, const PoseArrays& poses, const Record* record, Stream stream) {
    launch("step_pose", step_pose_kernel, 1, kWarp, stream, frame, sums, poses, record);
}

void finish_pose(const Frame* frame, const double* pose, float* v_pose, Stream stream) {
    launch("finish_pose", finish_pose_kernel, 1, kWarp, stream, frame, pose, v_pose);
}

}  // namespace splat::gpu
