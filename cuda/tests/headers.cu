// Instantiates the shared mathematics for float in device code: it must compile for the GPU as it does for
// the CPU. Compiled by tests/raster/test_nvcc.py where nvcc is at hand.
#include "splat/adam.h"
#include "splat/blending.h"
#include "splat/projection.h"
#include "splat/sh.h"

namespace splat {

__global__ void forward_and_backward(View view, const Raw<float>* raw, const ImageGradient<float>* image, bool antialiased,
                                     RawGradient<float>* gradient, PoseGradient<float>* pose, Splat* splats) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    const Projection<float> o = project(view, raw[i], antialiased);
    float value[16], left, right;
    Vec3<float> d;
    sh_basis(3, o.point.x, o.point.y, o.point.z, value);
    sh_basis_backward(3, o.point.x, o.point.y, o.point.z, value, d.x, d.y, d.z);
    ellipse_extent(o.p, o.q, o.r, 1.0f, -8.0f, 8.0f, left, right);
    Splat s{};
    s.log_opacity = alpha_unclamped(exponent(o.p, o.q, o.r, log2(o.opacity), left, right)) + d.x;
    whiten_moments(o.p, o.q, o.r, o.x, o.y, left, right, d.y, d.z, d.x, left, s.x, s.y, s.p, s.q, s.r);
    splats[i] = s;
    project_backward(view, raw[i], o, image[i], antialiased, gradient[i], pose[i]);
}

__global__ void adam(AdamRates rates, const float* gradient, float* value, float* m, float* v) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    adam_update(rates, rates.step_size, gradient[i], value[i], m[i], v[i]);
}

}  // namespace splat
