// The tiles that a splat touches.
#pragma once

#include "splat/footprint.h"
#include "stages.h"

namespace splat::gpu {

struct TileRows {
    int first, end;
};
SPLAT_DEVICE TileRows tile_rows(const Splat& s, const Grid& grid) {
    float first, end;
    tile_rows_of(s.y, s.r, s.limit, grid.down, first, end);
    return {static_cast<int>(::ceilf(first)), static_cast<int>(end)};
}

struct TileSpan {
    int left, end;  // left <= end
};
SPLAT_DEVICE TileSpan tile_span(const Splat& s, const Grid& grid, int row) {
    float left, end;
    tile_columns_of(s.x, s.y, s.p, s.q, s.r, s.limit, static_cast<float>(row), grid.width, grid.height, grid.across,
                    left, end);
    const int from = static_cast<int>(::ceilf(left)), to = static_cast<int>(end);
    return {from, to > from ? to : from};
}

}  // namespace splat::gpu
