// Threads that wait for work between kernels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace splat::cpu {

// Runs body(task) for every task in [0, tasks), spread over at most `threads` threads, the caller's
// among them; returns when all are done. Tasks are handed out one by one in increasing order. `body`
// must not throw and must not call parallel_for. Safe to call from several threads at once (while one
// call has the workers, another runs on its own thread alone) and in the child of a fork.
// Denormal numbers are treated as zero inside.
void parallel_for_raw(int threads, int64_t tasks, void (*body)(void*, int64_t), void* context);

template <class Body>
void parallel_for(int threads, int64_t tasks, Body&& body) {
    using Callable = std::remove_reference_t<Body>;
    parallel_for_raw(
        threads, tasks, [](void* context, int64_t task) { (*static_cast<Callable*>(context))(task); },
        const_cast<void*>(static_cast<const void*>(&body)));
}

// The same over index ranges [begin, end) of at most `grain` items each: body(begin, end).
// The ranges do not depend on the number of threads.
template <class Body>
void parallel_ranges(int threads, int64_t items, int64_t grain, Body&& body) {
    const int64_t tasks = (items + grain - 1) / grain;
    parallel_for(threads, tasks, [&](int64_t task) {
        const int64_t begin = task * grain;
        const int64_t end = begin + grain < items ? begin + grain : items;
        body(begin, end);
    });
}

}  // namespace splat::cpu
