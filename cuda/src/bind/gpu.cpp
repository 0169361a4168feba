#include "gpu.h"

#if defined(SPLAT_EMULATE)
#include <nanobind/stl/string.h>

#include "selftest.h"
#endif

namespace nb = nanobind;
using namespace nb::literals;

#if defined(SPLAT_EMULATE)

NB_MODULE(_emulated, m) {
    m.doc() = "The kernels of splat._cuda on the CPU, thread by thread: slow, for tests alone.";
    nb::set_leak_warnings(false);
    m.attr("ARCHITECTURES") = "emulated";
    splat::bind::gpu_raster(m);
    splat::bind::gpu_training(m);
    m.def("seed", &splat::emulate::seed, "value"_a, "Seed of the order in which threads and blocks run.");
    m.def(
        "selftest",
        [](const std::string& which, splat::bind::Address values, splat::bind::Address out, int64_t blocks) {
            splat::gpu::selftest(which.c_str(), splat::bind::pointer<float>(values),
                                 splat::bind::pointer<float>(out), blocks);
        },
        "which"_a, "values"_a, "out"_a, "blocks"_a, "A kernel that tries the emulation (cuda/tests/selftest.cu).");
}

#else

NB_MODULE(_cuda, m) {
    m.doc() = "GPU kernels of splat; validated and documented in splat.raster.cuda.";
    nb::set_leak_warnings(false);
    m.attr("ARCHITECTURES") = SPLAT_ARCHITECTURES;
    m.attr("CUDART") = CUDART_VERSION;
    m.def(
        "device_problem",
        [] {
            int count = 0;
            const cudaError_t status = cudaGetDeviceCount(&count);
            cudaGetLastError();  // it is reported here, and not by the next launch
            return nb::str(status == cudaSuccess ? "" : cudaGetErrorString(status));
        },
        "Why the driver runs no kernels of this build; empty if it does.");
    splat::bind::gpu_raster(m);
    splat::bind::gpu_training(m);
}

#endif
