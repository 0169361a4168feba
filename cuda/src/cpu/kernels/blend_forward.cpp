// Front-to-back blending of one tile. A block's sixteen pixels stay in registers while its splats pass.
#include "raster_parts.h"
#include "tile.h"

namespace splat::cpu::SPLAT_ISA {
namespace {

struct BlockState {
    F red, green, blue, transmittance;
    uint32_t alive;  // lanes that still take splats
};

template <bool kExtras>
struct Blender {
    const BlendForward& a;
    const Tile tile;
    Batch batch;
    BlockState blocks[kBlocks];

    Blender(const BlendForward& arguments, const Tile& which) : a(arguments), tile(which) {}

    void run() {
        int64_t alive_blocks = 0;
        for (int b = 0; b < kBlocks; ++b) {
            BlockState& s = blocks[b];
            s.red = s.green = s.blue = F(0.0f);
            s.transmittance = F(1.0f);
            s.alive = lanes_inside(a.grid, tile.left + kBlock * (b % 4), tile.top + kBlock * (b / 4));
            alive_blocks += s.alive != 0;
            int32_t* end = a.end + tile.index * kTilePixels + b * kLanes;
            // Lanes outside the image end before the first splat.
            select(M::from_bits(s.alive), I(static_cast<int32_t>(tile.count)), I(0)).store(end);
            if constexpr (kExtras) {
                if (a.want_median) I(-1).store(a.median + tile.index * kTilePixels + b * kLanes);
                if (a.sums)
                    for (int e = 0; e <= a.channels; ++e) F(0.0f).store(sums(b) + e * kLanes);
            }
        }
        for (int64_t from = 0; from < tile.count && alive_blocks > 0; from += kBatch) {
            const int64_t left = tile.count - from;
            batch.load(tile, a.splats, a.list, from, static_cast<int>(left < kBatch ? left : kBatch));
            for (int b = 0; b < kBlocks; ++b)
                if (blocks[b].alive) {
                    blend(b, from);
                    alive_blocks -= blocks[b].alive == 0;
                }
        }
        for (int b = 0; b < kBlocks; ++b) write(b);
    }

    SPLAT_INLINE float* sums(int b) const {
        return a.sums + (tile.index * kBlocks + b) * (1 + a.channels) * kLanes;
    }

    SPLAT_INLINE void blend(int b, int64_t from) {
        BlockState& state = blocks[b];
        const F px = lane_x() + F(tile.left + kBlock * (b % 4) + 0.5f);
        const F py = lane_y() + F(tile.top + kBlock * (b / 4) + 0.5f);
        F red = state.red, green = state.green, blue = state.blue, t = state.transmittance;
        M alive = M::from_bits(state.alive);
        const uint16_t* list = batch.lists[b];
        const int length = batch.lengths[b];
        for (int k = 0; k < length; ++k) {
            const int j = list[k];
            const Splat& g = batch.splats[j];
            const F s = exponent(F(g.p), F(g.q), F(g.r), F(g.log_opacity), px - F(g.x), py - F(g.y));
            M drawn = alive & (s >= F(kExponentMin));
            if (!any(drawn)) continue;
            const F alpha = min(alpha_unclamped(s), F(kAlphaMax));
            const F after = select(drawn, fnma(alpha, t, t), t);
            const M ends = drawn & (after < F(kTransmittanceMin));
            const F before = t;
            t = after;
            if (any(ends)) [[unlikely]] {
                t = select(ends, before, t);
                alive = alive & !ends;
                drawn = drawn & !ends;
                int32_t* end = a.end + tile.index * kTilePixels + b * kLanes;
                select(ends, I(static_cast<int32_t>(from + j)), I::load(end)).store(end);
            }
            const F w = masked(drawn, alpha * before);
            red = fma(w, F(g.red), red);
            green = fma(w, F(g.green), green);
            blue = fma(w, F(g.blue), blue);
            if constexpr (kExtras) extras(b, from + j, g, w, drawn, before, t);
            if (!any(alive)) break;
        }
        state = {red, green, blue, t, bits(alive)};
    }

    void extras(int b, int64_t position, const Splat& g, F w, M drawn, F before, F after) {
        if (a.sums) {
            float* acc = sums(b);
            fma(w, F(g.depth), F::load(acc)).store(acc);
            const float* f = a.features + static_cast<int64_t>(a.list[tile.begin + position]) * a.channels;
            for (int e = 0; e < a.channels; ++e) {
                acc += kLanes;
                fma(w, F(f[e]), F::load(acc)).store(acc);
            }
        }
        if (a.contribution) a.contribution[tile.begin + position] += sum(w);
        if (a.want_median) {
            const M crosses = drawn & (before > F(kMedianTransmittance)) & (after <= F(kMedianTransmittance));
            if (any(crosses)) {
                int32_t* median = a.median + tile.index * kTilePixels + b * kLanes;
                select(crosses, I(static_cast<int32_t>(position)), I::load(median)).store(median);
            }
        }
    }

    void write(int b) {
        const BlockState& s = blocks[b];
        const int64_t pixels = tile.index * kTilePixels + b * kLanes;
        s.transmittance.store(a.transmittance + pixels);
        const int x = tile.left + kBlock * (b % 4), y = tile.top + kBlock * (b / 4);
        alignas(64) float red[kLanes], green[kLanes], blue[kLanes], alpha[kLanes];
        fma(s.transmittance, F(a.background[0]), s.red).store(red);
        fma(s.transmittance, F(a.background[1]), s.green).store(green);
        fma(s.transmittance, F(a.background[2]), s.blue).store(blue);
        (F(1.0f) - s.transmittance).store(alpha);
        const int columns = a.grid.width - x < kBlock ? a.grid.width - x : kBlock;
        const int rows = a.grid.height - y < kBlock ? a.grid.height - y : kBlock;
        for (int i = 0; i < rows; ++i)
            for (int j = 0; j < columns; ++j) {
                const int lane = kBlock * i + j;
                const int64_t pixel = static_cast<int64_t>(y + i) * a.grid.width + x + j;
                a.image[3 * pixel] = red[lane];
                a.image[3 * pixel + 1] = green[lane];
                a.image[3 * pixel + 2] = blue[lane];
                a.alpha[pixel] = alpha[lane];
                if constexpr (kExtras) write_extras(b, lane, pixel, alpha[lane]);
            }
    }

    void write_extras(int b, int lane, int64_t pixel, float alpha) {
        if (a.depth) a.depth[pixel] = alpha > 0 ? sums(b)[lane] / alpha : 0.0f;
        if (a.feature_image)
            for (int e = 0; e < a.channels; ++e)
                a.feature_image[pixel * a.channels + e] = sums(b)[(1 + e) * kLanes + lane];
        if (!a.want_median) return;
        const int32_t position = a.median[tile.index * kTilePixels + b * kLanes + lane];
        const uint32_t id = position < 0 ? 0 : a.list[tile.begin + position];
        if (a.median_depth) a.median_depth[pixel] = position < 0 ? 0.0f : a.splats[id].depth;
        if (a.ids) a.ids[pixel] = position < 0 ? -1 : static_cast<int32_t>(id);
    }
};

}  // namespace

void blend_forward(const BlendForward& a, int64_t index) {
    const Tile tile = tile_at(a.grid, a.starts, index);
    if (a.sums || a.want_median || a.contribution) {
        Blender<true>(a, tile).run();
    } else {
        Blender<false>(a, tile).run();
    }
}

}  // namespace splat::cpu::SPLAT_ISA
