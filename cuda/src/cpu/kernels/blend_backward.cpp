// Gradients of one tile, back to front.
//
// With B the colour already composited behind a splat (dotted with the gradient of the outputs), and c its
// own, dLoss/dalpha = T (c - B) and B becomes B + alpha (c - B): no quotient but for T itself. Per splat
// and block only two vectors leave the loop, g = dLoss/dsigma and the weight w; the sums over pixels of g
// times 1, x, y, x^2, x y, y^2 and of w times the output gradients are taken for sixteen splats at once
// after a transposition, and brought to the splats' whitened coordinates once per batch.
#include "raster_parts.h"
#include "tile.h"

namespace splat::cpu::SPLAT_ISA {
namespace {

template <bool kExtras, bool kAbs>
struct Backward {
    const BlendBackward& a;
    const Tile tile;
    Batch batch;
    float sums[kBatch][kRow];
    F behind[kBlocks], transmittance[kBlocks];
    // Vectors of up to 16 splats, waiting for the transposition.
    F g_rows[kLanes], w_rows[kLanes], z_rows[kExtras ? kLanes : 1], ax_rows[kAbs ? kLanes : 1],
        ay_rows[kAbs ? kLanes : 1];
    uint16_t waiting[kLanes];
    // Gradients of the outputs in the block at hand.
    F v_red[kBlocks], v_green[kBlocks], v_blue[kBlocks], v_alpha[kBlocks];
    F v_median[kExtras ? kBlocks : 1];
    int32_t last[kBlocks];  // position behind the last splat of any lane

    Backward(const BlendBackward& arguments, const Tile& which) : a(arguments), tile(which) {}

    void run() {
        int32_t last_of_tile = 0;
        for (int b = 0; b < kBlocks; ++b) {
            start(b);
            if (last[b] > last_of_tile) last_of_tile = last[b];
        }
        for (int64_t i = last_of_tile; i < tile.count; ++i)
            F(0.0f).store(a.rows + (tile.begin + i) * kRow);
        if constexpr (kExtras)
            if (a.v_splat_features)
                for (int64_t i = 0; i < tile.count * a.channels; ++i) a.v_splat_features[tile.begin * a.channels + i] = 0;
        for (int64_t from = (last_of_tile - 1) / kBatch * kBatch; from >= 0 && last_of_tile > 0; from -= kBatch) {
            const int64_t left = last_of_tile - from;
            batch.load(tile, a.splats, a.list, from, static_cast<int>(left < kBatch ? left : kBatch));
            for (int i = 0; i < batch.size; ++i) F(0.0f).store(sums[i]);
            for (int b = 0; b < kBlocks; ++b)
                if (last[b] > from) block(b, from);
            finish(from);
        }
    }

    SPLAT_INLINE int64_t pixels(int b) const { return tile.index * kTilePixels + b * kLanes; }
    SPLAT_INLINE float* scratch(int b) const {
        return a.scratch + (tile.index * kBlocks + b) * (1 + a.channels) * kLanes;
    }

    void start(int b) {
        const int x = tile.left + kBlock * (b % 4), y = tile.top + kBlock * (b / 4);
        alignas(64) float red[kLanes] = {}, green[kLanes] = {}, blue[kLanes] = {}, alpha[kLanes] = {}, median[kLanes] = {};
        int32_t furthest = 0;
        const int columns = a.grid.width - x < kBlock ? a.grid.width - x : kBlock;
        const int rows = a.grid.height - y < kBlock ? a.grid.height - y : kBlock;
        const int32_t* end = a.end + pixels(b);
        for (int i = 0; i < kLanes; ++i) furthest = end[i] > furthest ? end[i] : furthest;
        last[b] = furthest;
        for (int i = 0; i < rows; ++i)
            for (int j = 0; j < columns; ++j) {
                const int lane = kBlock * i + j;
                const int64_t pixel = static_cast<int64_t>(y + i) * a.grid.width + x + j;
                if (a.v_image) {
                    red[lane] = a.v_image[3 * pixel];
                    green[lane] = a.v_image[3 * pixel + 1];
                    blue[lane] = a.v_image[3 * pixel + 2];
                }
                if (a.v_alpha) alpha[lane] = a.v_alpha[pixel];
                if constexpr (kExtras) {
                    if (a.scratch) start_sums(b, lane, pixel, alpha[lane]);
                    if (a.v_median_depth) median[lane] = a.v_median_depth[pixel];
                }
            }
        v_red[b] = F::load(red);
        v_green[b] = F::load(green);
        v_blue[b] = F::load(blue);
        v_alpha[b] = F::load(alpha);
        if constexpr (kExtras) v_median[b] = F::load(median);
        behind[b] = F(a.background[0]) * v_red[b] + F(a.background[1]) * v_green[b] + F(a.background[2]) * v_blue[b];
        transmittance[b] = F::load(a.transmittance + pixels(b));
    }

    // Gradients of the sums w z and w f; the expected depth is sum(w z) / alpha.
    void start_sums(int b, int lane, int64_t pixel, float& v_alpha_lane) {
        float* v = scratch(b) + lane;
        v[0] = 0;
        if (a.v_depth) {
            const float opacity = 1.0f - a.transmittance[pixels(b) + lane];
            if (opacity > 0) {
                v[0] = a.v_depth[pixel] / opacity;
                v_alpha_lane -= v[0] * a.depth[pixel];
            }
        }
        for (int e = 0; e < a.channels; ++e)
            v[(1 + e) * kLanes] = a.v_features ? a.v_features[pixel * a.channels + e] : 0.0f;
    }

    SPLAT_INLINE void block(int b, int64_t from) {
        const F px = lane_x() + F(tile.left + kBlock * (b % 4) + 0.5f);
        const F py = lane_y() + F(tile.top + kBlock * (b / 4) + 0.5f);
        const F vr = v_red[b], vg = v_green[b], vb = v_blue[b], va = v_alpha[b];
        const I end = I::load(a.end + pixels(b)) - I(static_cast<int32_t>(from));
        F back = behind[b], t = transmittance[b];
        const uint16_t* list = batch.lists[b];
        int n = 0;
        for (int k = batch.lengths[b] - 1; k >= 0; --k) {
            const int j = list[k];
            const Splat& g = batch.splats[j];
            const F dx = px - F(g.x), dy = py - F(g.y);
            const F u = F(g.p) * dx - F(g.q) * dy, v = F(g.r) * dy;
            const F s = (F(g.log_opacity) - u * u) - v * v;
            const M drawn = (s >= F(kExponentMin)) & (I(j) < end);
            if (!any(drawn)) continue;
            const F raw = alpha_unclamped(s);
            const F alpha = masked(drawn, min(raw, F(kAlphaMax)));
            t = t * reciprocal(F(1.0f) - alpha);
            F colour = fma(F(g.red), vr, va);
            colour = fma(F(g.green), vg, colour);
            colour = fma(F(g.blue), vb, colour);
            if constexpr (kExtras) colour = extras(b, from + j, g, colour);
            const F difference = colour - back;
            const F w = alpha * t;
            back = fma(alpha, difference, back);
            const F gradient = masked(raw <= F(kAlphaMax), -w * difference);
            g_rows[n] = gradient;
            w_rows[n] = w;
            waiting[n] = static_cast<uint16_t>(j);
            if constexpr (kExtras) z_rows[n] = depth_gradient(b, from + j, w);
            if constexpr (kAbs) {
                // d sigma / d centre = -(p u, r v - q u); p, q, r carry kWhitenScale, as do u and v.
                ax_rows[n] = abs(gradient * (F(g.p) * u));
                ay_rows[n] = abs(gradient * (F(g.r) * v - F(g.q) * u));
            }
            if (++n == kLanes) {
                flush(b, from, n);
                n = 0;
            }
        }
        if (n > 0) flush(b, from, n);
        behind[b] = back;
        transmittance[b] = t;
    }

    F extras(int b, int64_t position, const Splat& g, F colour) {
        if (!a.scratch) return colour;
        const float* v = scratch(b);
        colour = fma(F(g.depth), F::load(v), colour);
        const float* f = a.features + static_cast<int64_t>(a.list[tile.begin + position]) * a.channels;
        for (int e = 0; e < a.channels; ++e) {
            v += kLanes;
            colour = fma(F(f[e]), F::load(v), colour);
        }
        return colour;
    }

    F depth_gradient(int b, int64_t position, F w) {
        F z = a.scratch ? w * F::load(scratch(b)) : F(0.0f);
        if (a.v_median_depth)
            z = z + masked(I::load(a.median + pixels(b)) == I(static_cast<int32_t>(position)), v_median[b]);
        return z;
    }

    // Adds the sums over the block of the first n waiting splats.
    SPLAT_INLINE void flush(int b, int64_t from, int n) {
        F x[kLanes], out[kLanes];
        for (int i = 0; i < kLanes; ++i) x[i] = g_rows[i];
        transpose(x);
        // x[4 row + column]: lanes are splats. Moments about the block's centre, offsets -1.5 to 1.5.
        const F half(0.5f), three_halves(1.5f);
        F row[4], row_x[4], row_xx[4];
        for (int i = 0; i < 4; ++i) {
            const F outer = x[4 * i] + x[4 * i + 3], inner = x[4 * i + 1] + x[4 * i + 2];
            row[i] = outer + inner;
            row_x[i] = fma(three_halves, x[4 * i + 3] - x[4 * i], half * (x[4 * i + 2] - x[4 * i + 1]));
            row_xx[i] = fma(F(2.25f), outer, F(0.25f) * inner);
        }
        const F outer = row[0] + row[3], inner = row[1] + row[2];
        const F s = outer + inner;
        const F sy = fma(three_halves, row[3] - row[0], half * (row[2] - row[1]));
        const F syy = fma(F(2.25f), outer, F(0.25f) * inner);
        const F sx = (row_x[0] + row_x[3]) + (row_x[1] + row_x[2]);
        const F sxy = fma(three_halves, row_x[3] - row_x[0], half * (row_x[2] - row_x[1]));
        const F sxx = (row_xx[0] + row_xx[3]) + (row_xx[1] + row_xx[2]);
        // Moved to the tile's centre.
        const F ox(kBlock * (b % 4) - 6.0f), oy(kBlock * (b / 4) - 6.0f);
        out[kG] = s;
        out[kGu] = fma(ox, s, sx);
        out[kGv] = fma(oy, s, sy);
        out[kGuu] = fma(ox, fma(ox, s, sx + sx), sxx);
        out[kGuv] = fma(ox, fma(oy, s, sy), fma(oy, sx, sxy));
        out[kGvv] = fma(oy, fma(oy, s, sy + sy), syy);

        for (int i = 0; i < kLanes; ++i) x[i] = w_rows[i];
        transpose(x);
        out[kRed] = weighted(x, v_red[b]);
        out[kGreen] = weighted(x, v_green[b]);
        out[kBlue] = weighted(x, v_blue[b]);
        for (int i = kDepth; i < kLanes; ++i) out[i] = F(0.0f);
        if constexpr (kExtras) {
            if (a.v_splat_features) add_features(b, from, n, x);
            out[kDepth] = total(z_rows);
        }
        if constexpr (kAbs) {
            out[kAbsX] = total(ax_rows);
            out[kAbsY] = total(ay_rows);
        }
        transpose(out);
        for (int i = 0; i < n; ++i) {
            float* into = sums[waiting[i]];
            (F::load(into) + out[i]).store(into);
        }
    }

    // sum over pixels k of x[k] v[k], for sixteen splats.
    SPLAT_INLINE F weighted(const F (&x)[kLanes], F v) {
        alignas(64) float each[kLanes];
        v.store(each);
        return weighted(x, each);
    }
    SPLAT_INLINE F weighted(const F (&x)[kLanes], const float* v) {
        F even = x[0] * F(v[0]), odd = x[1] * F(v[1]);
        for (int k = 2; k < kLanes; k += 2) {
            even = fma(x[k], F(v[k]), even);
            odd = fma(x[k + 1], F(v[k + 1]), odd);
        }
        return even + odd;
    }

    SPLAT_INLINE F total(const F (&rows)[kLanes]) {
        F x[kLanes];
        for (int i = 0; i < kLanes; ++i) x[i] = rows[i];
        transpose(x);
        for (int width = kLanes / 2; width > 0; width /= 2)
            for (int i = 0; i < width; ++i) x[i] = x[i] + x[i + width];
        return x[0];
    }

    void add_features(int b, int64_t from, int n, const F (&x)[kLanes]) {
        for (int e = 0; e < a.channels; ++e) {
            alignas(64) float each[kLanes];
            weighted(x, scratch(b) + (1 + e) * kLanes).store(each);
            for (int i = 0; i < n; ++i)
                a.v_splat_features[(tile.begin + from + waiting[i]) * a.channels + e] += each[i];
        }
    }

    // Whitens the moments of the batch and writes its rows.
    void finish(int64_t from) {
        const F unscale(1.0f / kWhitenScale);
        for (int i = 0; i < batch.size; i += kLanes) {
            const int n = batch.size - i < kLanes ? batch.size - i : kLanes;
            F splat[kLanes], x[kLanes];
            for (int k = 0; k < kLanes; ++k) {
                const int from_row = i + (k < n ? k : n - 1);
                splat[k] = F::load(&batch.splats[from_row].x);
                x[k] = F::load(sums[from_row]);
            }
            transpose(splat);
            transpose(x);
            const F cx = F(tile.left + kTile / 2) - splat[0], cy = F(tile.top + kTile / 2) - splat[1];
            F gu, gv, guu, guv, gvv;
            whiten_moments(splat[2] * unscale, splat[3] * unscale, splat[4] * unscale, cx, cy, x[kG], x[kGu], x[kGv],
                           x[kGuu], x[kGuv], x[kGvv], gu, gv, guu, guv, gvv);
            x[kGu] = gu, x[kGv] = gv, x[kGuu] = guu, x[kGuv] = guv, x[kGvv] = gvv;
            const F unsquare = unscale * unscale;
            x[kAbsX] = x[kAbsX] * unsquare;
            x[kAbsY] = x[kAbsY] * unsquare;
            transpose(x);
            for (int k = 0; k < n; ++k) x[k].store(a.rows + (tile.begin + from + i + k) * kRow);
        }
    }
};

}  // namespace

void blend_backward(const BlendBackward& a, int64_t index) {
    const Tile tile = tile_at(a.grid, a.starts, index);
    const bool extras = a.scratch || a.v_median_depth;
    if (extras && a.want_absgrad)
        Backward<true, true>(a, tile).run();
    else if (extras)
        Backward<true, false>(a, tile).run();
    else if (a.want_absgrad)
        Backward<false, true>(a, tile).run();
    else
        Backward<false, false>(a, tile).run();
}

}  // namespace splat::cpu::SPLAT_ISA
