#include "binning.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "thread_pool.h"

namespace splat::cpu {
namespace {

constexpr int kDigitBits = 11;
constexpr int kDigits = 1 << kDigitBits;
// Splats whose tiles are found together.
constexpr int kGroup = 16;
// Below this many splats a second thread costs more than it saves.
constexpr int64_t kSplatsPerThread = 2048;

}  // namespace

// Least significant digit first, over the 32 bits of the depth only: stable, so that equal depths keep the
// order of the scene. Depths are positive, so their bits sort as they do.
void Binning::sort(Buffer<uint64_t>& keys, int threads) {
    const int chunks = static_cast<int>(std::clamp<int64_t>(visible_ / (8 * kSplatsPerThread), 1, threads));
    uint64_t* from = keys.get();
    uint64_t* to = scratch_.resize(visible_);
    std::vector<int64_t> counts(static_cast<size_t>(chunks) * kDigits);
    const auto bounds = [&](int64_t c) { return visible_ * c / chunks; };
    for (int shift = 32; shift < 64; shift += kDigitBits) {
        const auto digit = [&](uint64_t key) { return static_cast<size_t>(key >> shift) & (kDigits - 1); };
        std::fill(counts.begin(), counts.end(), 0);
        parallel_for(threads, chunks, [&](int64_t c) {
            int64_t* count = counts.data() + c * kDigits;
            for (int64_t i = bounds(c); i < bounds(c + 1); ++i) ++count[digit(from[i])];
        });
        int64_t total = 0;
        bool one_digit = false;
        for (int d = 0; d < kDigits; ++d) {
            const int64_t before = total;
            for (int c = 0; c < chunks; ++c) total += std::exchange(counts[static_cast<size_t>(c) * kDigits + d], total);
            one_digit |= total - before == visible_;
        }
        if (one_digit) continue;  // all keys share it
        parallel_for(threads, chunks, [&](int64_t c) {
            int64_t* place = counts.data() + c * kDigits;
            for (int64_t i = bounds(c); i < bounds(c + 1); ++i) to[place[digit(from[i])]++] = from[i];
        });
        std::swap(from, to);
    }
    sorted_ = from;
}

void Binning::find_spans(const Grid& grid, const Splat* splats, Chunk& chunk, uint64_t* histogram) {
    const auto tile_rows = raster_kernels().tile_rows;
    chunk.spans.clear();
    chunk.left.resize(kGroup * grid.down);
    chunk.right.resize(kGroup * grid.down);
    int32_t first[kGroup], rows[kGroup];
    for (int64_t group = chunk.begin; group < chunk.end; group += kGroup) {
        const int n = static_cast<int>(std::min<int64_t>(kGroup, chunk.end - group));
        tile_rows(splats, sorted_ + group, n, grid, first, rows, chunk.left.data(), chunk.right.data());
        for (int i = 0; i < n; ++i) {
            const int64_t rank = group + i;
            uint64_t touched = 0;
            for (int k = 0; k < rows[i]; ++k) {
                const int32_t left = chunk.left[kGroup * k + i], right = chunk.right[kGroup * k + i];
                if (left > right) continue;
                const uint32_t tile = static_cast<uint32_t>(first[i] + k) * grid.across + left;
                const uint32_t count = right - left + 1;
                for (uint32_t t = 0; t < count; ++t) ++histogram[tile + t];
                chunk.spans.push_back({static_cast<uint32_t>(rank - chunk.begin), tile, count});
                touched += count;
            }
            offsets_[rank + 1] = touched;
        }
    }
}

void Binning::run(const Grid& grid, const Splat* splats, Buffer<uint64_t>& keys, int64_t visible, int threads) {
    visible_ = visible;
    tiles_ = static_cast<int64_t>(grid.across) * grid.down;
    sort(keys, threads);

    const int count = static_cast<int>(std::clamp<int64_t>(visible / kSplatsPerThread, 1, threads));
    chunks_.resize(count);
    histograms_.resize(static_cast<size_t>(count) * tiles_);
    offsets_.resize(visible + 1)[0] = 0;
    parallel_for(threads, count, [&](int64_t c) {
        Chunk& chunk = chunks_[c];
        chunk.begin = visible * c / count;
        chunk.end = visible * (c + 1) / count;
        uint64_t* histogram = histograms_.get() + c * tiles_;
        std::memset(histogram, 0, tiles_ * sizeof(uint64_t));
        find_spans(grid, splats, chunk, histogram);
    });

    // Where each chunk's first instance of each tile goes: tile by tile, chunks in order of depth.
    starts_.resize(tiles_ + 1);
    uint64_t total = 0;
    for (int64_t tile = 0; tile < tiles_; ++tile) {
        starts_[tile] = total;
        for (int c = 0; c < count; ++c) total += std::exchange(histograms_[c * tiles_ + tile], total);
    }
    starts_[tiles_] = instances_ = total;
    for (int64_t rank = 0; rank < visible; ++rank) offsets_[rank + 1] += offsets_[rank];

    list_.resize(total);
    places_.resize(total);
    parallel_for(threads, count, [&](int64_t c) {
        const Chunk& chunk = chunks_[c];
        uint64_t* next = histograms_.get() + c * tiles_;
        uint64_t* place = places_.get() + offsets_[chunk.begin];
        for (const Span& span : chunk.spans) {
            const uint32_t id = gaussian(chunk.begin + span.rank_in_chunk);
            for (uint32_t k = 0; k < span.count; ++k) {
                const uint64_t to = next[span.tile + k]++;
                list_[to] = id;
                *place++ = to;
            }
        }
    });
}

}  // namespace splat::cpu
