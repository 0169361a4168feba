// From projected splats to the list of every tile, front to back.
#pragma once

#include <cstdint>
#include <vector>

#include "buffer.h"
#include "raster_kernels.h"

namespace splat::cpu {

class Binning {
public:
    // `keys` [visible]: depth bits << 32 | Gaussian, by Gaussian; sorted here. `threads` changes nothing in
    // the result. Throws std::bad_alloc.
    void run(const Grid& grid, const Splat* splats, Buffer<uint64_t>& keys, int64_t visible, int threads);

    int64_t visible() const { return visible_; }
    uint64_t instances() const { return instances_; }
    int64_t tiles() const { return tiles_; }
    const uint32_t* list() const { return list_.get(); }
    const uint64_t* starts() const { return starts_.get(); }
    // The Gaussian of depth rank r, and where its instances stand in the list: places[offsets[r]] on.
    uint32_t gaussian(int64_t rank) const { return static_cast<uint32_t>(sorted_[rank]); }
    const uint64_t* offsets() const { return offsets_.get(); }
    const uint64_t* places() const { return places_.get(); }

private:
    // A run of tiles in one row that one splat touches.
    struct Span {
        uint32_t rank_in_chunk, tile, count;
    };
    struct Chunk {
        int64_t begin, end;  // depth ranks
        std::vector<Span> spans;
        std::vector<int32_t> left, right;
    };

    void sort(Buffer<uint64_t>& keys, int threads);
    void find_spans(const Grid& grid, const Splat* splats, Chunk& chunk, uint64_t* histogram);

    int64_t visible_ = 0, tiles_ = 0;
    uint64_t instances_ = 0;
    Buffer<uint64_t> scratch_, histograms_, starts_, offsets_, places_;
    Buffer<uint32_t> list_;
    const uint64_t* sorted_ = nullptr;
    std::vector<Chunk> chunks_;
};

}  // namespace splat::cpu
