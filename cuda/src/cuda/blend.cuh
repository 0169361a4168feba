// What the forward and the backward blend share. A block of 256 threads has a tile, each of its warps 8 x 4 pixels
// of it. Splats come in batches through shared memory; a warp finds those that touch its pixels with one test
// of the ellipse a lane and a ballot.
#pragma once

#include <type_traits>

#include "stages.h"

namespace splat::gpu {

inline constexpr int kBlendThreads = kTile * kTile;
inline constexpr int kBlendWarps = kBlendThreads / kWarp;
inline constexpr int kSubWidth = 8, kSubHeight = 4;
inline constexpr int kBatch = kBlendThreads;
// Channels of features that a thread holds at a time.
inline constexpr int kChunk = 8;

// The first 48 bytes of a Splat, its number in the last place. Lanes that read neighbours meet no bank twice.
struct alignas(16) Staged {
    float x, y, p, q;
    float r, log_opacity, red, green;
    float blue, depth, limit;
    uint32_t id;
};
static_assert(sizeof(Staged) == 48 && sizeof(Splat) == 64);

SPLAT_DEVICE void stage(Staged& to, const Splat* splats, uint32_t id) {
    const Float4* from = reinterpret_cast<const Float4*>(splats + id);
    Float4* into = reinterpret_cast<Float4*>(&to);
    into[0] = from[0];
    into[1] = from[1];
    const Float4 last = from[2];
    to.blue = last.x, to.depth = last.y, to.limit = last.z, to.id = id;
}

struct Place {
    int tile;
    int left, top;  // of the warp's pixels
    int x, y;       // of this thread's pixel
    bool inside;    // the image
    int64_t pixel;
};

SPLAT_DEVICE Place place_of(const Grid& grid, int tile) {
    Place p;
    p.tile = tile;
    const int warp = static_cast<int>(threadIdx.x / kWarp), lane = static_cast<int>(lane_index());
    p.left = p.tile % grid.across * kTile + warp % (kTile / kSubWidth) * kSubWidth;
    p.top = p.tile / grid.across * kTile + warp / (kTile / kSubWidth) * kSubHeight;
    p.x = p.left + lane % kSubWidth;
    p.y = p.top + lane / kSubWidth;
    p.inside = p.x < grid.width && p.y < grid.height;
    p.pixel = static_cast<int64_t>(p.y) * grid.width + p.x;
    return p;
}

// Whether the ellipse may reach a pixel centre of the warp.
SPLAT_DEVICE bool touches(const Staged& s, const Place& place) {
    const float low = place.top + 0.5f - s.y;
    float left, right;
    ellipse_extent(s.p, s.q, s.r, s.limit, low, low + (kSubHeight - 1), left, right);
    const float slack = 1e-3f;
    return left + s.x - slack <= place.left + (kSubWidth - 0.5f) && right + s.x + slack >= place.left + 0.5f;
}

// Calls next(std::bool_constant<flag>).
template <class Next>
void choose(bool flag, const Next& next) {
    if (flag)
        next(std::true_type{});
    else
        next(std::false_type{});
}

// One splat at one pixel.
struct Hit {
    float u, v, s;  // whitened offset, times kWhitenScale; eighth of log2(alpha)
};
SPLAT_DEVICE Hit hit(const Staged& g, float px, float py) {
    const float dx = px - g.x, dy = py - g.y;
    Hit h;
    h.u = fma(g.p, dx, -(g.q * dy));
    h.v = g.r * dy;
    h.s = fma(-h.v, h.v, fma(-h.u, h.u, g.log_opacity));
    return h;
}

}  // namespace splat::gpu
