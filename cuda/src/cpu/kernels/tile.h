// What the forward and backward blend share: a batch of a tile's splats beside each other in cache, and for
// each 4 x 4 block the list of those that touch it.
#pragma once

#include "raster_kernels.h"
#include "simd.h"

namespace splat::cpu::SPLAT_ISA {
namespace {

constexpr int kBatch = 256;

struct Tile {
    int64_t index;
    int left, top;  // first pixel
    uint64_t begin;
    int64_t count;
};

SPLAT_INLINE Tile tile_at(const Grid& grid, const uint64_t* starts, int64_t index) {
    return {index, static_cast<int>(index % grid.across) * kTile, static_cast<int>(index / grid.across) * kTile,
            starts[index], static_cast<int64_t>(starts[index + 1] - starts[index])};
}

// Offsets of the lanes inside a block: lane = 4 row + column.
SPLAT_INLINE F lane_x() {
    alignas(64) static constexpr float values[kLanes] = {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3};
    return F::load(values);
}
SPLAT_INLINE F lane_y() {
    alignas(64) static constexpr float values[kLanes] = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
    return F::load(values);
}

// Lanes of block (x, y first pixel) that lie in the image.
SPLAT_INLINE uint32_t lanes_inside(const Grid& grid, int x, int y) {
    const int across = grid.width - x, down = grid.height - y;
    if (across >= kBlock && down >= kBlock) return 0xffff;
    if (across <= 0 || down <= 0) return 0;
    const uint32_t row = (1u << (across < kBlock ? across : kBlock)) - 1;
    const uint32_t rows = (1u << (4 * (down < kBlock ? down : kBlock))) - 1;
    return (row * 0x1111u) & rows;
}

struct Batch {
    Splat splats[kBatch];
    uint16_t lists[kBlocks][kBatch + kLanes];
    int lengths[kBlocks];
    int size;

    // Takes list positions [from, from + size) of the tile and sorts them into the lists of the blocks.
    void load(const Tile& tile, const Splat* all, const uint32_t* list, int64_t from, int count) {
        size = count;
        const uint32_t* ids = list + tile.begin + from;
        for (int i = 0; i < size; ++i) {
            const float* source = &all[ids[i]].x;
            F::load(source).store(&splats[i].x);
        }
        for (int b = 0; b < kBlocks; ++b) lengths[b] = 0;
        for (int i = 0; i < size; i += kLanes) {
            const int n = size - i < kLanes ? size - i : kLanes;
            F rows[kLanes];
            for (int k = 0; k < kLanes; ++k) rows[k] = F::load(&splats[i + (k < n ? k : n - 1)].x);
            transpose(rows);
            const F x = rows[0] - F(tile.left + 0.5f), y = rows[1] - F(tile.top + 0.5f);
            const M valid = first_lanes(n);
            for (int band = 0; band < 4; ++band) {
                const F low = F(static_cast<float>(kBlock * band)) - y;
                F left, right;
                ellipse_extent(rows[2], rows[3], rows[4], rows[10], low, low + F(kBlock - 1), left, right);
                left = left + x - F(1e-3f);
                right = right + x + F(1e-3f);
                for (int column = 0; column < 4; ++column) {
                    const int b = 4 * band + column;
                    const M touches = valid & (left <= F(static_cast<float>(kBlock * column + kBlock - 1))) &
                                      (right >= F(static_cast<float>(kBlock * column)));
                    lengths[b] += append_set_bits(lists[b] + lengths[b], bits(touches), i);
                }
            }
        }
    }
};

}  // namespace
}  // namespace splat::cpu::SPLAT_ISA
