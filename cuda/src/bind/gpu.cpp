#include "gpu.h"

#if defined(SPLAT_EMULATE)
#include <nanobind/stl/string.h>

#include "selftest.h"
#endif

namespace nb = nanobind;
using namespace nb::literals;

namespace {

// A call or launch that failed is splat's DeviceError, whose message names it.
void translate_failures() {
    nb::register_exception_translator([](const std::exception_ptr& pointer, void*) {
        try {
            std::rethrow_exception(pointer);
        } catch (const splat::gpu::DeviceFailure& failure) {
            const nb::object error = nb::module_::import_("splat.core.errors").attr("DeviceError");
            PyErr_SetString(error.ptr(), (std::string("the GPU failed in ") + failure.what() +
                                          ": start the program again (a run goes on from its last checkpoint with --resume)")
                                             .c_str());
        }
    });
}

}  // namespace

#if defined(SPLAT_EMULATE)

NB_MODULE(_emulated, m) {
    m.doc() = "The kernels of splat._cuda on the CPU, thread by thread: slow, for tests alone.";
    nb::set_leak_warnings(false);
    m.attr("ARCHITECTURES") = "emulated";
    translate_failures();
    splat::bind::gpu_raster(m);
    splat::bind::gpu_training(m);
    m.def(
        "tally",
        [] {
            const auto& tally = splat::emulate::tally();
            nb::dict d;
            d["launches"] = tally.launches;
            d["fills"] = tally.fills;
            d["waits"] = tally.waits;
            d["messages"] = tally.messages;
            return d;
        },
        "Kernels launched, memory filled, waits of the host, messages to it, since the module was loaded.");
    using splat::emulate::Graph;
    nb::class_<Graph>(m, "Graph", "Work of this module, recorded with the values of its arguments.")
        .def(nb::init<>())
        .def("__len__", [](const Graph& g) { return g.work.size(); })
        .def("capture", [](Graph& g) { splat::emulate::recording() = &g; }, "From now on work is recorded, not done.")
        .def_static("end_capture", [] { splat::emulate::recording() = nullptr; })
        .def(
            "replay",
            [](const Graph& g, size_t begin, size_t end) {
                for (size_t i = begin; i < end; ++i) g.work.at(i)();
            },
            "begin"_a, "end"_a, "Does a part of it.");
    m.def("seed", &splat::emulate::seed, "value"_a, "every_launch"_a = false,
          "Seed of the order in which threads and blocks run; or of that in every launch.");
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
    translate_failures();
    splat::bind::gpu_raster(m);
    splat::bind::gpu_training(m);
}

#endif
