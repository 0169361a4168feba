#include "thread_pool.h"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace splat::cpu {
namespace {

// How long an idle worker looks for work before it sleeps: about the gap between two kernels of a step.
constexpr auto kSpin = std::chrono::microseconds(40);

inline void relax() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Denormals cost an assist of ~150 cycles each; the moments of Gaussians that are never seen decay
// into them. Flushed to zero while kernels run, restored afterwards.
class FlushDenormals {
public:
#if defined(__x86_64__)
    FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040u); }
    ~FlushDenormals() { _mm_setcsr(saved_); }

private:
    unsigned saved_;
#elif defined(__aarch64__)
    FlushDenormals() {
        asm volatile("mrs %0, fpcr" : "=r"(saved_));
        asm volatile("msr fpcr, %0" ::"r"(saved_ | (uint64_t{1} << 24)));
    }
    ~FlushDenormals() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }

private:
    uint64_t saved_;
#endif
};

struct Job {
    void (*body)(void*, int64_t);
    void* context;
    int64_t tasks;
    int open_places;  // workers that may still join; guarded by Pool::mutex
    int active = 0;   // workers inside; guarded by Pool::mutex
    alignas(64) std::atomic<int64_t> next{0};

    void work() {
        for (int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;)
            body(context, task);
    }
};

class Pool {
public:
    void run(int threads, Job& job) {
        grow(threads - 1);
        job.open_places = threads - 1;
        {
            std::lock_guard lock(mutex_);
            job_ = &job;
            epoch_.fetch_add(1, std::memory_order_release);
            if (sleepers_ > 0) wake_.notify_all();
        }
        job.work();
        // Nobody joins any more; wait only for workers that did.
        std::unique_lock lock(mutex_);
        job_ = nullptr;
        const auto deadline = std::chrono::steady_clock::now() + kSpin;
        while (job.active > 0) {
            if (std::chrono::steady_clock::now() < deadline) {
                lock.unlock();
                relax();
                lock.lock();
            } else {
                done_.wait(lock);
            }
        }
    }

    std::mutex in_use;

private:
    void grow(int workers) {
        for (; workers_ < workers; ++workers_) std::thread([this] { loop(); }).detach();
    }

    void loop() {
        FlushDenormals flush;
        uint64_t seen = 0;
        for (;;) {
            wait_for_work(seen);
            Job* job = nullptr;
            {
                std::lock_guard lock(mutex_);
                seen = epoch_.load(std::memory_order_relaxed);
                if (job_ && job_->open_places > 0) {
                    job = job_;
                    --job->open_places;
                    ++job->active;
                }
            }
            if (!job) continue;
            job->work();
            std::lock_guard lock(mutex_);
            if (--job->active == 0) done_.notify_all();
        }
    }

    void wait_for_work(uint64_t seen) {
        const auto deadline = std::chrono::steady_clock::now() + kSpin;
        while (std::chrono::steady_clock::now() < deadline)
            for (int i = 0; i < 32; ++i) {
                if (epoch_.load(std::memory_order_acquire) != seen) return;
                relax();
            }
        std::unique_lock lock(mutex_);
        ++sleepers_;
        wake_.wait(lock, [&] { return epoch_.load(std::memory_order_relaxed) != seen; });
        --sleepers_;
    }

    std::mutex mutex_;
    std::condition_variable wake_, done_;
    std::atomic<uint64_t> epoch_{0};
    Job* job_ = nullptr;
    int sleepers_ = 0;
    int workers_ = 0;
};

// Threads do not survive a fork: the child starts with a new pool. The old one is left as it is,
// its locks may be held by threads that no longer exist. Workers are detached and never end; the pool
// outlives them because it is never freed.
std::atomic<Pool*> g_pool{nullptr};

Pool& pool() {
    static const int registered = pthread_atfork(nullptr, nullptr, [] { g_pool.store(nullptr); });
    (void)registered;
    Pool* current = g_pool.load(std::memory_order_acquire);
    if (!current) {
        Pool* fresh = new Pool;
        if (g_pool.compare_exchange_strong(current, fresh))
            current = fresh;
        else
            delete fresh;
    }
    return *current;
}

}  // namespace

void parallel_for_raw(int threads, int64_t tasks, void (*body)(void*, int64_t), void* context) {
    if (tasks <= 0) return;
    FlushDenormals flush;
    if (threads > tasks) threads = static_cast<int>(tasks);
    if (threads > 1) {
        Pool& shared = pool();
        std::unique_lock lock(shared.in_use, std::try_to_lock);
        if (lock) {
            Job job{body, context, tasks, 0};
            shared.run(threads, job);
            return;
        }
    }
    for (int64_t task = 0; task < tasks; ++task) body(context, task);
}

}  // namespace splat::cpu
