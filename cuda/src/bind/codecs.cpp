// Rows of files: splat/codecs/columns.py validates and documents.
#include <optional>
#include <vector>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include "bind.h"
#include "columns.h"

namespace splat::bind {
namespace {

// Views of tensors and of parts of them: rows may be further apart than they are long.
template <class T>
using Rows = nb::ndarray<T, nb::ndim<2>, nb::device::cpu>;

// As numpy views bytes: at any alignment.
using Bytes = Array<const uint8_t>;

void gather(Bytes rows, int kind, Array<const int64_t> offsets, Rows<float> out, int threads) {
    cpu::gather(rows.data(), rows.stride(0), static_cast<int64_t>(rows.shape(0)), static_cast<cpu::Number>(kind),
                offsets.data(), static_cast<int>(offsets.size()), out.data(), out.stride(0), threads);
}

// The columns of all parts, whose places in a row follow each other in `offsets`.
template <class Float>
std::vector<cpu::Columns<Float>> columns_of(const std::vector<Rows<Float>>& parts, const Array<const int64_t>& offsets) {
    std::vector<cpu::Columns<Float>> found;
    const int64_t* at = offsets.data();
    for (const auto& part : parts) {
        const int columns = static_cast<int>(part.shape(1));
        found.push_back({at, columns, part.data(), part.stride(0)});
        at += columns;
    }
    return found;
}

int read_columns(int file, int64_t start, int64_t row_bytes, int64_t count, Array<const int64_t> offsets,
                 const std::vector<Rows<float>>& parts, int threads) {
    return cpu::read_columns(file, start, row_bytes, count, columns_of(parts, offsets), threads);
}

int write_columns(int file, int64_t start, int64_t row_bytes, int64_t count, Array<const int64_t> offsets,
                  const std::vector<Rows<const float>>& parts, int threads) {
    return cpu::write_columns(file, start, row_bytes, count, columns_of(parts, offsets), threads);
}

int read_bytes(int file, int64_t start, Array<uint8_t> out, int threads) {
    return cpu::read_bytes(file, start, static_cast<int64_t>(out.size()), out.data(), threads);
}

void interleave(const std::vector<Rows<const float>>& parts, Array<const float> signs, Array<float> out, int threads) {
    std::vector<const float*> starts;
    std::vector<int64_t> strides;
    for (const auto& part : parts) starts.push_back(part.data()), strides.push_back(part.stride(0));
    cpu::interleave(starts.data(), strides.data(), signs.data(), static_cast<int64_t>(out.shape(0)),
                    static_cast<int>(parts.size()), out.data(), threads);
}

int read_interleaved(int file, Array<const int64_t> starts, Array<const float> signs, Array<float> out, int threads) {
    return cpu::read_interleaved(file, starts.data(), signs.data(), static_cast<int64_t>(out.shape(0)),
                                 static_cast<int>(starts.size()), out.data(), threads);
}

using Packed = nb::ndarray<const uint32_t, nb::ndim<1>, nb::device::cpu>;

void unpack_fields(Packed packed, int shift, Array<const int32_t> bits, Array<const float> low, Array<const float> high,
                   int64_t chunk, Rows<float> out, int threads) {
    cpu::unpack_fields(packed.data(), packed.stride(0), static_cast<int64_t>(packed.shape(0)), shift, bits.data(),
                       low.data(), high.data(), chunk, out.data(), out.stride(0), threads);
}

void unpack_largest(Packed packed, Array<const float> table, Array<const int32_t> slots, Array<const float> signs,
                    Array<float> out, int threads) {
    cpu::unpack_largest(packed.data(), packed.stride(0), static_cast<int64_t>(packed.shape(0)), table.data(),
                        slots.data(), signs.data(), out.data(), threads);
}

void expand_bytes(Rows<const uint8_t> bytes, Array<const int32_t> target, Array<const float> tables, Rows<float> out,
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
    m.def("gather", &gather, nb::arg("rows").noconvert(), "kind"_a, nb::arg("offsets").noconvert(),
          nb::arg("out").noconvert(), "threads"_a, nb::call_guard<nb::gil_scoped_release>(),
          "out[i, c] = the number at byte offsets[c] of rows[i]; kinds: 0 float32, 1 float16, 2 uint16.");
    m.def("read_columns", &read_columns, "file"_a, "start"_a, "row_bytes"_a, "count"_a, nb::arg("offsets").noconvert(),
          nb::arg("parts").noconvert(), "threads"_a, nb::call_guard<nb::gil_scoped_release>(),
          "parts[p][i, c] = the float32 of row i of the open file; 0, an errno, or -1 where the file ends early.");
    m.def("write_columns", &write_columns, "file"_a, "start"_a, "row_bytes"_a, "count"_a,
          nb::arg("offsets").noconvert(), nb::arg("parts").noconvert(), "threads"_a,
          nb::call_guard<nb::gil_scoped_release>(), "The reverse of read_columns.");
    m.def("read_bytes", &read_bytes, "file"_a, "start"_a, nb::arg("out").noconvert(), "threads"_a,
          nb::call_guard<nb::gil_scoped_release>(), "Fills `out` from byte `start` of the open file; as read_columns.");
    m.def("interleave", &interleave, nb::arg("parts").noconvert(), nb::arg("signs").noconvert(),
          nb::arg("out").noconvert(), "threads"_a, nb::call_guard<nb::gil_scoped_release>(),
          "out[i, k, c] = signs[k] parts[k][i, c].");
    m.def("read_interleaved", &read_interleaved, "file"_a, nb::arg("starts").noconvert(), nb::arg("signs").noconvert(),
          nb::arg("out").noconvert(), "threads"_a, nb::call_guard<nb::gil_scoped_release>(),
          "out[i, k, c] = signs[k] times what lies in the open file from starts[k] on; as read_columns.");
    m.def("unpack_fields", &unpack_fields, nb::arg("packed").noconvert(), "shift"_a, nb::arg("bits").noconvert(),
          nb::arg("low").noconvert(), nb::arg("high").noconvert(), "chunk"_a, nb::arg("out").noconvert(), "threads"_a,
          nb::call_guard<nb::gil_scoped_release>(), "Three fields of each number, between the bounds of their chunk.");
    m.def("unpack_largest", &unpack_largest, nb::arg("packed").noconvert(), nb::arg("table").noconvert(),
          nb::arg("slots").noconvert(), nb::arg("signs").noconvert(), nb::arg("out").noconvert(), "threads"_a,
          nb::call_guard<nb::gil_scoped_release>(), "Unit quaternions of 2-10-10-10 bits.");
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
