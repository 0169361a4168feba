// From projected splats, sorted by depth, to the list of every tile.
#include "tiles.cuh"

namespace splat::gpu {
namespace {

constexpr int kThreads = 256;
// A splat of more tiles than this is written out by its whole warp.
constexpr uint32_t kSharedFrom = 24;

// Splats that there are and that there is room for.
SPLAT_DEVICE int64_t stored_splats(const Counters& counters, int64_t capacity) {
    const int64_t visible = counters.visible;
    return visible < capacity ? visible : capacity;
}

__global__ void __launch_bounds__(kThreads)
    gather_counts_kernel(const uint32_t* __restrict__ ids, const uint32_t* __restrict__ tiles, const Counters* counters,
                         uint32_t* __restrict__ counts, int64_t capacity) {
    const int64_t i = thread_index();
    if (i < capacity) counts[i] = i < stored_splats(*counters, capacity) ? tiles[ids[i]] : 0;
}

// The instances [next, end) of one splat. The count came from another kernel, in which the compiler may have
// rounded otherwise: what it has too much goes to no tile, what it has too little is left out.
struct Slots {
    uint64_t next, end;
};

SPLAT_DEVICE void write_span(const Emit& a, Slots& slots, uint32_t id, int row, TileSpan span) {
    for (int column = span.left; column < span.end && slots.next < slots.end; ++column, ++slots.next) {
        a.tile_of[slots.next] = static_cast<uint32_t>(row * a.grid.across + column);
        a.id_of[slots.next] = id;
    }
}

SPLAT_DEVICE void write_nowhere(const Emit& a, Slots slots) {
    for (; slots.next < slots.end; ++slots.next) {
        a.tile_of[slots.next] = kNone;
        a.id_of[slots.next] = 0;
    }
}

SPLAT_DEVICE uint64_t at_most(uint64_t value, int64_t limit) {
    const uint64_t most = static_cast<uint64_t>(limit);
    return value < most ? value : most;
}

// A lane a row of tiles.
SPLAT_DEVICE void emit_together(const Emit& a, Slots slots, uint32_t id) {
    const Splat s = a.splats[id];
    const TileRows rows = tile_rows(s, a.grid);
    const int lane = static_cast<int>(lane_index());
    for (int base = rows.first; base < rows.end; base += kWarp) {
        const int row = base + lane;
        const TileSpan span = row < rows.end ? tile_span(s, a.grid, row) : TileSpan{0, 0};
        int before = span.end - span.left;  // becomes the sum up to this lane
        for (int offset = 1; offset < kWarp; offset *= 2) {
            const int other = __shfl_sync(kAllLanes, before, lane >= offset ? lane - offset : lane);
            if (lane >= offset) before += other;
        }
        const int all = __shfl_sync(kAllLanes, before, kWarp - 1);
        Slots mine{slots.next + static_cast<uint64_t>(before - (span.end - span.left)), slots.end};
        write_span(a, mine, id, row, span);
        slots.next += static_cast<uint64_t>(all);
    }
    if (lane == 0) write_nowhere(a, slots);
}

// Whether the render has room, and the guarded step with it may be taken.
SPLAT_DEVICE void judge(const Emit& a) {
    if (!a.record) return;
    Record& record = *a.record;
    const Counters& now = *a.counters;
    if (now.instances > record.instances) record.instances = now.instances;
    if (now.visible > record.visible) record.visible = now.visible;
    const bool room = now.instances <= static_cast<unsigned long long>(a.capacity) &&
                      static_cast<int64_t>(now.visible) <= a.splat_capacity;
    if (!room) record.refused = 1;
    if (!record.refused) ++record.taken;
}

__global__ void __launch_bounds__(kThreads) emit_kernel(Emit a) {
    const int64_t rank = thread_index();
    Slots slots{0, 0};
    uint32_t id = 0;
    if (rank == 0) judge(a);
    if (rank < stored_splats(*a.counters, a.splat_capacity)) {
        slots = {at_most(rank ? a.offsets[rank - 1] : 0, a.capacity), at_most(a.offsets[rank], a.capacity)};
        id = a.ids[rank];
    }
    const bool large = slots.end - slots.next > kSharedFrom;
    if (slots.end > slots.next && !large) {
        const Splat s = a.splats[id];
        const TileRows rows = tile_rows(s, a.grid);
        for (int row = rows.first; row < rows.end; ++row) write_span(a, slots, id, row, tile_span(s, a.grid, row));
        write_nowhere(a, slots);
    }
    for (uint32_t rest = __ballot_sync(kAllLanes, large); rest; rest &= rest - 1) {
        const int source = __ffs(static_cast<int>(rest)) - 1;
        // 32 bits a shuffle.
        const uint32_t low = __shfl_sync(kAllLanes, static_cast<uint32_t>(slots.next), source);
        const uint32_t high = __shfl_sync(kAllLanes, static_cast<uint32_t>(slots.next >> 32), source);
        const uint32_t number = __shfl_sync(kAllLanes, static_cast<uint32_t>(slots.end - slots.next), source);
        const uint64_t next = static_cast<uint64_t>(high) << 32 | low;
        emit_together(a, {next, next + number}, __shfl_sync(kAllLanes, id, source));
    }
}

__global__ void __launch_bounds__(kThreads)
    find_starts_kernel(const uint32_t* __restrict__ tile_of, int64_t capacity, int tiles, int64_t* __restrict__ starts) {
    const int64_t i = thread_index();
    if (i > capacity) return;
    // Instance i opens its own tile and those without instances before it; what lies behind the last opens the rest.
    const auto tile_at = [&](int64_t at) {
        return at < capacity && tile_of[at] < static_cast<uint32_t>(tiles) ? static_cast<int64_t>(tile_of[at]) : tiles;
    };
    const int64_t here = tile_at(i);
    for (int64_t tile = i > 0 ? tile_at(i - 1) + 1 : 0; tile <= here; ++tile) starts[tile] = i;
}

}  // namespace

void gather_counts(const uint32_t* ids, const uint32_t* tiles, const Counters* counters, uint32_t* counts,
                   int64_t capacity, Stream stream) {
    launch("gather_counts", gather_counts_kernel, divide_up(capacity, kThreads), kThreads, stream, ids, tiles, counters,
           counts, capacity);
}

void emit(const Emit& a, Stream stream) {
    launch("emit", emit_kernel, divide_up(a.splat_capacity, kThreads), kThreads, stream, a);
}

void find_starts(const uint32_t* tile_of, int64_t capacity, int tiles, int64_t* starts, Stream stream) {
    launch("find_starts", find_starts_kernel, divide_up(capacity + 1, kThreads), kThreads, stream, tile_of, capacity,
           tiles, starts);
}

}  // namespace splat::gpu
