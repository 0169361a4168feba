// Rows of files: splat/codecs/columns.py validates and documents.
#include <optional>

#include <nanobind/stl/optional.h>

#include "bind.h"
#include "columns.h"

namespace splat::bind {
namespace {

// Views of tensors and of parts of them: rows may be further apart than they are long.
template <class T>
using Rows = nb::ndarray<T, nb::ndim<2>, nb::device::cpu>;

void gather_floats(Array<const uint8_t> rows, Array<const int64_t> offsets, Rows<float> out, int threads) {
    cpu::gather_floats(rows.data(), rows.stride(0), static_cast<int64_t>(rows.shape(0)), offsets.data(),
                       static_cast<int>(offsets.size()), out.data(), out.stride(0), threads);
}

void scatter_floats(Rows<const float> in, Array<const int64_t> offsets, Array<uint8_t> rows, int threads) {
    cpu::scatter_floats(in.data(), in.stride(0), static_cast<int64_t>(in.shape(0)), offsets.data(),
                        static_cast<int>(offsets.size()), rows.data(), rows.stride(0), threads);
}

void expand_bytes(Array<const uint8_t> bytes, Array<const int32_t> target, Array<const float> tables, Rows<float> out,
                  int threads) {
    cpu::expand_bytes(bytes.data(), bytes.stride(0), static_cast<int64_t>(bytes.shape(0)),
                      static_cast<int>(target.size()), target.data(), tables.data(), tables.shape(0) > 1 ? 256 : 0, out.data(),
                      out.stride(0), threads);
}

void pack_bytes(Rows<const float> in, std::optional<Array<const int64_t>> order, Array<const int32_t> source,
                Array<const float> gain, Array<const float> bias, Array<const int32_t> step, Array<uint8_t> out,
                int threads) {
    cpu::pack_bytes(in.data(), in.stride(0), static_cast<int64_t>(out.shape(0)), order ? order->data() : nullptr,
                    static_cast<int>(source.size()), source.data(), gain.data(), bias.data(), step.data(), out.data(),
                    threads);
}

bool all_finite(Array<const float> values, int threads) {
    return cpu::all_finite(values.data(), static_cast<int64_t>(values.size()), threads);
}

}  // namespace

void codecs(nb::module_& m) {
    using namespace nb::literals;
    m.def("gather_floats", &gather_floats, nb::arg("rows").noconvert(), nb::arg("offsets").noconvert(),
          nb::arg("out").noconvert(), "threads"_a, nb::call_guard<nb::gil_scoped_release>(),
          "out[i, c] = the float32 at byte offsets[c] of rows[i].");
    m.def("scatter_floats", &scatter_floats, nb::arg("values").noconvert(), nb::arg("offsets").noconvert(),
          nb::arg("rows").noconvert(), "threads"_a, nb::call_guard<nb::gil_scoped_release>(),
          "The float32 at byte offsets[c] of rows[i] = values[i, c].");
    m.def("expand_bytes", &expand_bytes, nb::arg("rows").noconvert(), nb::arg("target").noconvert(),
          nb::arg("tables").noconvert(), nb::arg("out").noconvert(), "threads"_a,
          nb::call_guard<nb::gil_scoped_release>(), "out[i, target[c]] = tables[c or 0, rows[i, c]].");
    m.def("pack_bytes", &pack_bytes, nb::arg("values").noconvert(), nb::arg("order").noconvert().none(),
          nb::arg("source").noconvert(), nb::arg("gain").noconvert(), nb::arg("bias").noconvert(),
          nb::arg("step").noconvert(), nb::arg("out").noconvert(), "threads"_a,
          nb::call_guard<nb::gil_scoped_release>(),
          "out[i, c] = min(255, step[c] round(gain[c] values[order[i], source[c]] + bias[c])), not below 0.");
    m.def("all_finite", &all_finite, nb::arg("values").noconvert(), "threads"_a,
          nb::call_guard<nb::gil_scoped_release>(), "Whether no value is NaN or infinite.");
}

}  // namespace splat::bind
