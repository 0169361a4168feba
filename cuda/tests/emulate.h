// CUDA's execution model on one CPU thread, enough to run the kernels of src/cuda on small scenes.
//
// Blocks run one after the other, in an order that the seed shuffles. Every thread of a block is a fiber that
// runs until it waits at a barrier or a warp intrinsic; which of those that may go on does is drawn at
// random. So a missing barrier shows as a wrong result, one that not all threads reach as a deadlock,
// and warp intrinsics that lanes meet differently as an error. Not modelled: memory that several blocks
// write without atomics, fast arithmetic, limits of registers and shared memory. Work can be captured and replayed.
//
// Fibers are made with ucontext and switched with _setjmp and _longjmp, which call no kernel.
#pragma once

#undef _FORTIFY_SOURCE  // its longjmp refuses to change stacks
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#define SPLAT_DEVICE inline
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
// One block runs at a time, so its shared memory may be the process's.
#define __shared__ static

struct uint3 {
    unsigned x, y, z;
};
struct dim3 : uint3 {};

namespace splat::emulate {

// What the kernel did that CUDA leaves undefined.
struct Misuse : std::logic_error {
    using std::logic_error::logic_error;
};

// What a thread waits for. All threads that meet must have called the same.
enum class Call { none, block_barrier, warp_barrier, ballot, shuffle, shuffle_xor };

struct Fiber {
    ucontext_t start;
    jmp_buf at;
    std::unique_ptr<char[]> stack;
    uint3 thread;
    bool begun, done, waiting;
    Call call;
    uint32_t mask;
    uint64_t operand, result;
};

inline constexpr int kMaxThreads = 1024;
inline constexpr size_t kStack = 64 << 10;
inline constexpr unsigned kLanes = 32;

struct Machine {
    std::mutex busy;
    std::vector<Fiber> fibers{kMaxThreads};
    std::vector<int> ready;
    std::mt19937 random{0};
    std::optional<uint32_t> fixed;  // seed of every launch
    int threads = 0;
    const char* name = "";
    uint3 block{}, grid{}, size{};
    Fiber* current = nullptr;
    jmp_buf scheduler;
    const std::function<void()>* body = nullptr;
    std::string failure;

    static Machine& get() {
        static Machine machine;
        return machine;
    }
};

// What a program asked of the device.
struct Tally {
    int64_t launches = 0, fills = 0, waits = 0, messages = 0;
};
inline Tally& tally() {
    static Tally tally;
    return tally;
}

// Work that was recorded in place of being done, with the values that its arguments had then: a CUDA graph.
struct Graph {
    std::vector<std::function<void()>> work;
};
// The one that is being recorded, or null.
inline Graph*& recording() {
    static Graph* graph = nullptr;
    return graph;
}
template <class Work>
void enqueue(Work work) {
    if (recording())
        recording()->work.emplace_back(std::move(work));
    else
        work();
}
inline void forbid_capture(const char* what) {
    if (recording()) throw Misuse(std::string(what) + " while a graph is captured");
}

// every_launch: each begins with this seed, so that equal work has equal sums whatever ran before it.
inline void seed(uint32_t value, bool every_launch) {
    Machine& m = Machine::get();
    const std::lock_guard lock(m.busy);
    m.random.seed(value);
    m.fixed = every_launch ? std::optional(value) : std::nullopt;
}

inline void enter() {
    Machine& m = Machine::get();
    (*m.body)();
    m.current->done = true;
    _longjmp(m.scheduler, 1);
}

// Lets the others run until the call has all its participants; its result for this thread.
inline uint64_t meet(Call call, uint32_t mask, uint64_t operand) {
    Machine& m = Machine::get();
    Fiber& f = *m.current;
    f.call = call, f.mask = mask, f.operand = operand, f.waiting = true;
    if (_setjmp(f.at) == 0) _longjmp(m.scheduler, 1);
    return f.result;
}

inline void release(Machine& m, int i) {
    m.fibers[i].waiting = false;
    m.ready.push_back(i);
}

// After `self` came to wait or ended: completes its block's barrier if all that live stand there.
inline void complete_block(Machine& m) {
    uint64_t all = 1, any = 0, count = 0;
    for (int i = 0; i < m.threads; ++i) {
        const Fiber& f = m.fibers[i];
        if (f.done) continue;
        if (!f.waiting || f.call != Call::block_barrier) return;
        all &= f.operand != 0, any |= f.operand != 0, count += f.operand != 0;
    }
    for (int i = 0; i < m.threads; ++i)
        if (!m.fibers[i].done) {
            m.fibers[i].result = count << 2 | any << 1 | all;
            release(m, i);
        }
}

inline void complete_warp(Machine& m, int self) {
    const Fiber& mine = m.fibers[self];
    const int first = self / static_cast<int>(kLanes) * static_cast<int>(kLanes);
    const int lanes = std::min(static_cast<int>(kLanes), m.threads - first);
    if (!(mine.mask >> (self - first) & 1)) {
        m.failure = "a warp intrinsic whose mask leaves out the lane that calls it";
        return;
    }
    uint64_t ballot = 0;
    for (int i = 0; i < lanes; ++i) {
        const Fiber& f = m.fibers[first + i];
        if (!(mine.mask >> i & 1) || f.done) continue;
        if (!f.waiting || f.call == Call::block_barrier) return;
        if (f.call != mine.call || f.mask != mine.mask) {
            m.failure = "lanes of a warp met at different warp intrinsics";
            return;
        }
        ballot |= static_cast<uint64_t>(f.operand != 0) << i;
    }
    for (int i = 0; i < lanes; ++i) {
        Fiber& f = m.fibers[first + i];
        if (!(mine.mask >> i & 1) || f.done) continue;
        if (mine.call == Call::ballot) f.result = ballot;
        if (mine.call == Call::shuffle || mine.call == Call::shuffle_xor) {
            // The operand is the value below and the lane (or what it is xored with) above.
            const int wanted = static_cast<int>(f.operand >> 32);
            const int source = (mine.call == Call::shuffle ? wanted : i ^ wanted) & 31;
            const bool there = source < lanes && (mine.mask >> source & 1) && !m.fibers[first + source].done;
            if (!there) m.failure = "a shuffle from a lane that does not take part";
            f.result = there ? m.fibers[first + source].operand & 0xffffffffu : 0;
        }
    }
    for (int i = 0; i < lanes; ++i)
        if ((mine.mask >> i & 1) && !m.fibers[first + i].done) release(m, first + i);
}

inline void run_block(Machine& m) {
    m.ready.clear();
    for (int i = 0; i < m.threads; ++i) {
        Fiber& f = m.fibers[i];
        if (!f.stack) f.stack = std::make_unique<char[]>(kStack);
        f.thread = {static_cast<unsigned>(i), 0, 0};
        f.begun = f.done = f.waiting = false;
        m.ready.push_back(i);
    }
    int living = m.threads;
    while (living > 0) {
        if (m.ready.empty()) {
            m.failure = "a barrier or warp intrinsic that not all its threads reach";
            return;
        }
        // Volatile, as they live across _setjmp.
        const volatile size_t pick = m.random() % m.ready.size();
        const volatile int index = m.ready[pick];
        m.ready[pick] = m.ready.back();
        m.ready.pop_back();
        Fiber& f = m.fibers[index];
        m.current = &f;
        if (_setjmp(m.scheduler) == 0) {
            if (f.begun) _longjmp(f.at, 1);
            f.begun = true;
            getcontext(&f.start);
            f.start.uc_stack.ss_sp = f.stack.get();
            f.start.uc_stack.ss_size = kStack;
            f.start.uc_link = nullptr;
            makecontext(&f.start, enter, 0);
            setcontext(&f.start);
        }
        const int self = index;
        Fiber& back = m.fibers[self];
        living -= back.done;
        if (back.done) {
            // Those who wait may have waited for this one alone.
            complete_block(m);
            for (int i = self / 32 * 32; i < std::min(self / 32 * 32 + 32, m.threads); ++i)
                if (m.fibers[i].waiting && m.fibers[i].call != Call::block_barrier) {
                    complete_warp(m, i);
                    break;
                }
        } else if (back.call == Call::block_barrier) {
            complete_block(m);
        } else {
            complete_warp(m, self);
        }
        if (!m.failure.empty()) return;
    }
}

inline void run(const char* name, int64_t blocks, int threads, const std::function<void()>& body) {
    Machine& m = Machine::get();
    const std::lock_guard lock(m.busy);
    ++tally().launches;
    if (m.fixed) m.random.seed(*m.fixed);
    if (threads < 1 || threads > kMaxThreads) throw Misuse(std::string(name) + ": impossible block size");
    m.name = name, m.threads = threads, m.body = &body, m.failure.clear();
    m.grid = {static_cast<unsigned>(blocks), 1, 1}, m.size = {static_cast<unsigned>(threads), 1, 1};
    std::vector<unsigned> order(blocks);
    std::iota(order.begin(), order.end(), 0u);
    std::shuffle(order.begin(), order.end(), m.random);
    for (const unsigned block : order) {
        m.block = {block, 0, 0};
        run_block(m);
        if (!m.failure.empty()) throw Misuse(std::string(name) + ": " + m.failure);
    }
}

template <class T>
uint64_t pack(T value, int lane) {
    static_assert(sizeof(T) == 4, "32-bit values only");
    return static_cast<uint64_t>(static_cast<uint32_t>(lane)) << 32 | std::bit_cast<uint32_t>(value);
}

}  // namespace splat::emulate

#define threadIdx (::splat::emulate::Machine::get().current->thread)
#define blockIdx (::splat::emulate::Machine::get().block)
#define blockDim (::splat::emulate::Machine::get().size)
#define gridDim (::splat::emulate::Machine::get().grid)

inline void __syncthreads() { splat::emulate::meet(splat::emulate::Call::block_barrier, 0, 0); }
inline int __syncthreads_and(int value) {
    return splat::emulate::meet(splat::emulate::Call::block_barrier, 0, value != 0) & 1;
}
inline int __syncthreads_or(int value) {
    return splat::emulate::meet(splat::emulate::Call::block_barrier, 0, value != 0) >> 1 & 1;
}
inline int __syncthreads_count(int value) {
    return static_cast<int>(splat::emulate::meet(splat::emulate::Call::block_barrier, 0, value != 0) >> 2);
}
inline void __syncwarp(uint32_t mask = 0xffffffffu) { splat::emulate::meet(splat::emulate::Call::warp_barrier, mask, 0); }
inline uint32_t __ballot_sync(uint32_t mask, int value) {
    return static_cast<uint32_t>(splat::emulate::meet(splat::emulate::Call::ballot, mask, value != 0));
}
inline int __any_sync(uint32_t mask, int value) { return __ballot_sync(mask, value) != 0; }
inline int __all_sync(uint32_t mask, int value) { return __ballot_sync(mask, !value) == 0; }

template <class T>
T __shfl_sync(uint32_t mask, T value, int lane) {
    using namespace splat::emulate;
    return std::bit_cast<T>(static_cast<uint32_t>(meet(Call::shuffle, mask, pack(value, lane))));
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int lane_mask) {
    using namespace splat::emulate;
    return std::bit_cast<T>(static_cast<uint32_t>(meet(Call::shuffle_xor, mask, pack(value, lane_mask))));
}

// Only one fiber runs at a time.
template <class T>
T atomicAdd(T* to, T value) {
    const T before = *to;
    *to = before + value;
    return before;
}
template <class T>
T atomicMax(T* to, T value) {
    const T before = *to;
    *to = std::max(before, value);
    return before;
}
inline int __popc(uint32_t value) { return std::popcount(value); }
inline int __ffs(int value) { return value == 0 ? 0 : std::countr_zero(static_cast<uint32_t>(value)) + 1; }
inline int __clz(int value) { return std::countl_zero(static_cast<uint32_t>(value)); }
inline uint32_t __float_as_uint(float value) { return std::bit_cast<uint32_t>(value); }
inline float __uint_as_float(uint32_t value) { return std::bit_cast<float>(value); }
