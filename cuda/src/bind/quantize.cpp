// Quantization and entropy coding.
#include <optional>
#include <vector>

#include <nanobind/stl/optional.h>

#include "bind.h"
#include "guided.h"
#include "quantize.h"
#include "mixing.h"
#include "rans.h"

namespace splat::bind {
namespace {

template <class T>
const T* data_or_null(const std::optional<Array<const T>>& array) {
    return array ? array->data() : nullptr;
}

void nearest(Array<const float> points, Array<const float> codewords, std::optional<Array<const float>> penalties,
             Array<int32_t> labels, int threads) {
    cpu::nearest(points.data(), static_cast<int64_t>(points.shape(0)), static_cast<int>(points.shape(1)),
                 codewords.data(), data_or_null(penalties), static_cast<int64_t>(codewords.shape(0)), labels.data(),
                 threads);
}

cpu::Cells cells_of(const Array<const int64_t>& points, const Array<const int64_t>& codewords) {
    return {static_cast<int64_t>(points.shape(0)) - 1, points.data(), codewords.data()};
}

void nearest_in_cells(Array<const float> points, Array<const float> codewords,
                      std::optional<Array<const float>> penalties, Array<const int64_t> point_starts,
                      Array<const int64_t> codeword_starts, Array<const int64_t> near, Array<int32_t> labels,
                      int threads) {
    cpu::nearest_in_cells(points.data(), static_cast<int>(points.shape(1)), codewords.data(), data_or_null(penalties),
                          cells_of(point_starts, codeword_starts), near.data(), static_cast<int64_t>(near.shape(1)),
                          labels.data(), threads);
}

void train_cells(Array<const float> points, std::optional<Array<const float>> weights,
                 Array<const int64_t> point_starts, Array<const int64_t> codeword_starts, Array<const double> uniforms,
                 int iterations, Array<float> codewords, Array<int64_t> drawn, int threads) {
    cpu::train_cells(points.data(), data_or_null(weights), static_cast<int>(points.shape(1)),
                     cells_of(point_starts, codeword_starts), uniforms.data(), iterations, codewords.data(),
                     drawn.data(), threads);
}

void accumulate(Array<const float> points, std::optional<Array<const float>> weights, Array<const int32_t> labels,
                Array<double> sums, Array<double> mass, int threads) {
    cpu::accumulate(points.data(), data_or_null(weights), labels.data(), static_cast<int64_t>(points.shape(0)),
                    static_cast<int>(points.shape(1)), static_cast<int64_t>(mass.shape(0)), sums.data(), mass.data(),
                    threads);
}

int64_t seed(Array<const float> points, std::optional<Array<const float>> weights, Array<const double> uniforms,
             Array<int64_t> chosen, int threads) {
    return cpu::seed(points.data(), data_or_null(weights), static_cast<int64_t>(points.shape(0)),
                     static_cast<int>(points.shape(1)), uniforms.data(), static_cast<int64_t>(uniforms.shape(0)),
                     chosen.data(), threads);
}

void partition(Array<const double> values, Array<const double> weights, Array<int64_t> ends) {
    cpu::partition(values.data(), weights.data(), static_cast<int64_t>(values.shape(0)),
                   static_cast<int>(ends.shape(0)), ends.data());
}

nb::bytes rans_encode(Array<const int32_t> symbols, Array<const uint32_t> starts) {
    std::vector<uint8_t> bytes;
    {
        nb::gil_scoped_release released;
        bytes = cpu::rans_encode(symbols.data(), static_cast<int64_t>(symbols.shape(0)), starts.data());
    }
    return nb::bytes(bytes.data(), bytes.size());
}

bool rans_decode(Array<const uint8_t> data, Array<const uint32_t> starts, Array<int32_t> symbols) {
    return cpu::rans_decode(data.data(), static_cast<int64_t>(data.shape(0)), starts.data(),
                            symbols.data(), static_cast<int64_t>(symbols.shape(0)));
}

cpu::Known known(size_t count, int32_t size, const Array<const int32_t>& near, const Array<const int32_t>& side) {
    const cpu::Known all{near.data(), side.data(), static_cast<int64_t>(count), size};
    if (near.ndim() != 2 || near.shape(0) != count || near.shape(1) != cpu::kMixingNear || side.ndim() != 2 ||
        side.shape(0) != count || side.shape(1) != cpu::kMixingSide || size < 1 || size > 1 << 20 ||
        !cpu::mixing_fits(all))
        throw nb::value_error("near or side do not fit the symbols");
    return all;
}

nb::bytes mixing_encode(Array<const int32_t> symbols, int32_t size, Array<const int32_t> near,
                        Array<const int32_t> side) {
    const cpu::Known all = known(symbols.shape(0), size, near, side);
    std::vector<uint8_t> bytes;
    {
        nb::gil_scoped_release released;
        bytes = cpu::mixing_encode(symbols.data(), all);
    }
    return nb::bytes(bytes.data(), bytes.size());
}

bool mixing_decode(Array<const uint8_t> data, int32_t size, Array<const int32_t> near, Array<const int32_t> side,
                   Array<int32_t> symbols) {
    const cpu::Known all = known(symbols.shape(0), size, near, side);
    nb::gil_scoped_release released;
    return cpu::mixing_decode(data.data(), static_cast<int64_t>(data.shape(0)), all, symbols.data());
}

void nearest_before(Array<const int32_t> cells, Array<int32_t> near) {
    cpu::nearest_before(cells.data(), static_cast<int64_t>(cells.shape(0)), near.data());
}

using Ints = Array<const int32_t>;

cpu::Guided guided(size_t count, const Array<const int16_t>& words, const Array<const int64_t>& starts, const Ints& table,
                   const Ints& near, const Ints& alike, const Ints& unlike, const Ints& gap, const Ints& side,
                   bool unsigned_words) {
    const auto is = [&](const Ints& column) { return column.ndim() == 1 && column.shape(0) == count; };
    if (words.ndim() != 2 || starts.ndim() != 1 || starts.shape(0) < 2 || near.ndim() != 2 || near.shape(0) != count ||
        near.shape(1) != cpu::kGuidedNear || side.ndim() != 2 || side.shape(0) != count || !is(table) || !is(alike) ||
        !is(unlike) || !is(gap))
        throw nb::value_error("what is known has other shapes than the symbols");
    const cpu::Guided all{words.data(), starts.data(), table.data(), near.data(), alike.data(), unlike.data(), gap.data(),
                          side.data(), static_cast<int64_t>(count), static_cast<int64_t>(starts.shape(0)) - 1,
                          static_cast<int>(words.shape(1)), static_cast<int>(side.shape(1)), unsigned_words};
    if (!cpu::guided_fits(all) || starts.data()[all.tables] != static_cast<int64_t>(words.shape(0)))
        throw nb::value_error("what is known does not fit the symbols");
    return all;
}

nb::bytes guided_encode(Ints symbols, Array<const int16_t> words, Array<const int64_t> starts, Ints table, Ints near,
                        Ints alike, Ints unlike, Ints gap, Ints side, bool unsigned_words) {
    const cpu::Guided all =
        guided(symbols.shape(0), words, starts, table, near, alike, unlike, gap, side, unsigned_words);
    for (int64_t i = 0; i < all.count; ++i) {
        const int64_t size = all.starts[all.table[i] + 1] - all.starts[all.table[i]];
        if (symbols.data()[i] < 0 || symbols.data()[i] >= size) throw nb::value_error("symbols lie outside their tables");
    }
    std::vector<uint8_t> bytes;
    {
        nb::gil_scoped_release released;
        bytes = cpu::guided_encode(symbols.data(), all);
    }
    return nb::bytes(bytes.data(), bytes.size());
}

bool guided_decode(Array<const uint8_t> data, Array<const int16_t> words, Array<const int64_t> starts, Ints table,
                   Ints near, Ints alike, Ints unlike, Ints gap, Ints side, bool unsigned_words, Array<int32_t> symbols) {
    const cpu::Guided all =
        guided(symbols.shape(0), words, starts, table, near, alike, unlike, gap, side, unsigned_words);
    nb::gil_scoped_release released;
    return cpu::guided_decode(data.data(), static_cast<int64_t>(data.shape(0)), all, symbols.data());
}

void nearest_among(Ints cells, int64_t window, Array<int32_t> near) {
    cpu::nearest_among(cells.data(), static_cast<int64_t>(cells.shape(0)), window, static_cast<int64_t>(near.shape(1)),
                       near.data());
}

void most_alike(Ints near, Array<const int16_t> features, Ints weights, Array<int32_t> alike, Array<int32_t> unlike) {
    cpu::most_alike(near.data(), static_cast<int64_t>(near.shape(0)), static_cast<int64_t>(near.shape(1)),
                    features.data(), weights.data(), static_cast<int64_t>(features.shape(1)), alike.data(),
                    unlike.data());
}

void halved(Array<const int16_t> vectors, Array<int32_t> order) {
    cpu::halved(vectors.data(), static_cast<int64_t>(vectors.shape(0)), order.data());
}

}  // namespace

void quantize(nb::module_& m) {
    using namespace nb::literals;
    m.def("nearest", &nearest, nb::arg("points").noconvert(), nb::arg("codewords").noconvert(),
          nb::arg("penalties").noconvert().none(), nb::arg("labels").noconvert(), "threads"_a,
          nb::call_guard<nb::gil_scoped_release>(),
          "labels [N] int32 = argmin over codewords [K, D] of |x - c|^2 + penalty, for points [N, D].");
    m.def("nearest_in_cells", &nearest_in_cells, nb::arg("points").noconvert(), nb::arg("codewords").noconvert(),
          nb::arg("penalties").noconvert().none(), nb::arg("point_starts").noconvert(),
          nb::arg("codeword_starts").noconvert(), nb::arg("near").noconvert(), nb::arg("labels").noconvert(),
          "threads"_a, nb::call_guard<nb::gil_scoped_release>(),
          "nearest among the codewords of the cells near [C, M] (ascending) to each point's own; rows lie cell by "
          "cell, from starts [C + 1] on.");
    m.def("train_cells", &train_cells, nb::arg("points").noconvert(), nb::arg("weights").noconvert().none(),
          nb::arg("point_starts").noconvert(), nb::arg("codeword_starts").noconvert(),
          nb::arg("uniforms").noconvert(), "iterations"_a, nb::arg("codewords").noconvert(),
          nb::arg("drawn").noconvert(), "threads"_a, nb::call_guard<nb::gil_scoped_release>(),
          "k-means++ and Lloyd's iterations in every cell by itself: fills codewords [K, D], and drawn [C] with how "
          "many of its codewords each cell has.");
    m.def("accumulate", &accumulate, nb::arg("points").noconvert(), nb::arg("weights").noconvert().none(),
          nb::arg("labels").noconvert(), nb::arg("sums").noconvert(), nb::arg("mass").noconvert(), "threads"_a,
          nb::call_guard<nb::gil_scoped_release>(),
          "sums [K, D] and mass [K], float64, of the weighted points [N, D] of each label [N] int32.");
    m.def("seed", &seed, nb::arg("points").noconvert(), nb::arg("weights").noconvert().none(),
          nb::arg("uniforms").noconvert(), nb::arg("chosen").noconvert(), "threads"_a,
          nb::call_guard<nb::gil_scoped_release>(),
          "k-means++: chosen [k] int64 points by uniforms [k]; returns how many could be drawn.");
    m.def("partition", &partition, nb::arg("values").noconvert(), nb::arg("weights").noconvert(),
          nb::arg("ends").noconvert(), nb::call_guard<nb::gil_scoped_release>(),
          "The runs of least squared error of sorted values: ends [k] int64, one past each run's last value.");
    m.def("rans_encode", &rans_encode, nb::arg("symbols").noconvert(), nb::arg("starts").noconvert(),
          "Bytes for int32 symbols whose frequencies' running sums are starts [S + 1], from 0 to 2^RANS_BITS.");
    m.def("rans_decode", &rans_decode, nb::arg("data").noconvert(), nb::arg("starts").noconvert(),
          nb::arg("symbols").noconvert(), nb::call_guard<nb::gil_scoped_release>(),
          "Fills symbols; false where data cannot come from rans_encode.");
    m.def("mixing_encode", &mixing_encode, nb::arg("symbols").noconvert(), "size"_a, nb::arg("near").noconvert(),
          nb::arg("side").noconvert(),
          "Bytes for int32 symbols [N] below size by those near [N, MIXING_NEAR], places before each or -1, and the "
          "numbers side [N, MIXING_SIDE].");
    m.def("mixing_decode", &mixing_decode, nb::arg("data").noconvert(), "size"_a, nb::arg("near").noconvert(),
          nb::arg("side").noconvert(), nb::arg("symbols").noconvert(),
          "Fills symbols; false where data cannot come from mixing_encode.");
    m.def("nearest_before", &nearest_before, nb::arg("cells").noconvert(), nb::arg("near").noconvert(),
          nb::call_guard<nb::gil_scoped_release>(),
          "Fills near [N, MIXING_NEAR] with the nearest among the 128 cells [N, 3] before each, -1: none.");
    m.def("guided_encode", &guided_encode, nb::arg("symbols").noconvert(), nb::arg("words").noconvert(),
          nb::arg("starts").noconvert(), nb::arg("table").noconvert(), nb::arg("near").noconvert(),
          nb::arg("alike").noconvert(), nb::arg("unlike").noconvert(), nb::arg("gap").noconvert(),
          nb::arg("side").noconvert(), "unsigned"_a,
          "Bytes for int32 symbols [N], numbers of words of their tables, by what Guided in guided.h says.");
    m.def("guided_decode", &guided_decode, nb::arg("data").noconvert(), nb::arg("words").noconvert(),
          nb::arg("starts").noconvert(), nb::arg("table").noconvert(), nb::arg("near").noconvert(),
          nb::arg("alike").noconvert(), nb::arg("unlike").noconvert(), nb::arg("gap").noconvert(),
          nb::arg("side").noconvert(), "unsigned"_a, nb::arg("symbols").noconvert(),
          "Fills symbols; false where data cannot come from guided_encode.");
    m.def("nearest_among", &nearest_among, nb::arg("cells").noconvert(), "window"_a, nb::arg("near").noconvert(),
          nb::call_guard<nb::gil_scoped_release>(),
          "Fills near [N, M] with the nearest among the `window` cells [N, 3] before each, -1: none.");
    m.def("most_alike", &most_alike, nb::arg("near").noconvert(), nb::arg("features").noconvert(),
          nb::arg("weights").noconvert(), nb::arg("alike").noconvert(), nb::arg("unlike").noconvert(),
          nb::call_guard<nb::gil_scoped_release>(),
          "Fills alike [N] with the place among near [N, M] of least weighted difference of features [N, D] int16, and "
          "unlike [N] with it.");
    m.def("halved", &halved, nb::arg("vectors").noconvert(), nb::arg("order").noconvert(),
          nb::call_guard<nb::gil_scoped_release>(), "Fills order [N] with a k-d tree of vectors [N, 3] int16.");

    nb::module_ c = nb::cast<nb::module_>(m.attr("constants"));
    c.attr("RANS_BITS") = cpu::kRansBits;
    c.attr("GUIDED_NEAR") = cpu::kGuidedNear;
    c.attr("GUIDED_SIDES") = cpu::kGuidedSides;
    c.attr("GUIDED_UNIT") = cpu::kGuidedUnit;
    c.attr("GUIDED_UNLIKE") = cpu::kGuidedUnlike;
    c.attr("MIXING_NEAR") = cpu::kMixingNear;
    c.attr("MIXING_SIDE") = cpu::kMixingSide;
}

}  // namespace splat::bind
