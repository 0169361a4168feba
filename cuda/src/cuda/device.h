// What the .cu files are written against: the CUDA runtime, or its stand-in on the CPU (tests/emulate.h),
// under which the very same sources are compiled by the host compiler and tested without a GPU.
//
// Kernels use threadIdx and its kin, __shared__ arrays of fixed size, __syncthreads and its votes, the
// *_sync warp intrinsics and atomicAdd. The host side uses `launch` and the few functions below and nothing
// else of the runtime.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#if defined(SPLAT_EMULATE)
#include "emulate.h"
#else
#include <cuda_runtime.h>
#define SPLAT_DEVICE __device__ __forceinline__
#endif

#include "splat/hd.h"

namespace splat::gpu {

inline constexpr int kWarp = 32;
inline constexpr uint32_t kAllLanes = 0xffffffffu;

// A call or a launch that failed; what() names the kernel or the call.
struct DeviceFailure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline void check_blocks(const char* name, int64_t blocks) {
    if (blocks > INT32_MAX) throw DeviceFailure(std::string(name) + ": more blocks than one launch can hold");
}

#if defined(__CUDACC__) || defined(SPLAT_EMULATE)

// Index of this thread among all of a one-dimensional launch.
SPLAT_DEVICE int64_t thread_index() {
    return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
SPLAT_DEVICE uint32_t lane_index() { return threadIdx.x % kWarp; }

template <class T>
SPLAT_DEVICE T warp_sum(T value) {
    for (int offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(kAllLanes, value, offset);
    return value;
}

#endif

#if defined(SPLAT_EMULATE)

using Stream = void*;

template <class... Expected, class... Given>
void launch(const char* name, void (*kernel)(Expected...), int64_t blocks, int threads, Stream, Given... given) {
    check_blocks(name, blocks);
    if (blocks <= 0) return;
    emulate::enqueue([=] { emulate::run(name, blocks, threads, [&] { kernel(static_cast<Expected>(given)...); }); });
}
// What a library that has no emulation does in a number of launches, for those who count.
template <class Work>
void launch_library(int launches, Work work) {
    emulate::enqueue([=] {
        emulate::tally().launches += launches;
        work();
    });
}

inline void set_bytes(void* to, int byte, size_t bytes, Stream) {
    emulate::enqueue([=] {
        ++emulate::tally().fills;
        std::memset(to, byte, bytes);
    });
}
// Waits for the stream.
inline void copy_to_host(void* to, const void* from, size_t bytes, Stream) {
    emulate::forbid_capture("a wait for the stream");
    ++emulate::tally().waits;
    std::memcpy(to, from, bytes);
}

// Makes `device` the current one while it lives.
struct DeviceGuard {
    explicit DeviceGuard(int) {}
};

// A few values that the device writes and the host reads later without waiting. What is sent before the last
// message was received is dropped, so that a host that runs ahead of the device hears something at all.
template <class T>
class Mailbox {
public:
    void send(const T* device, Stream) {
        emulate::forbid_capture("a message to the host");
        if (asked_ >= 0) return;
        ++emulate::tally().messages;
        value_ = *device, asked_ = 0;
    }
    // The message, if it has arrived: here at the fifth time of asking.
    bool receive(T& value) {
        if (asked_ < 0 || ++asked_ < 5) return false;
        value = value_, asked_ = -1;
        return true;
    }
    // Drops a message that is on its way.
    void forget() { asked_ = -1; }

private:
    T value_{};
    int asked_ = -1;  // -1: no message is on its way
};

#else

using Stream = cudaStream_t;

inline void check(cudaError_t status, const char* what) {
    if (status == cudaSuccess) return;
    cudaGetLastError();  // so that a failed launch is reported once
    throw DeviceFailure(std::string(what) + ": " + cudaGetErrorString(status));
}

#if defined(__CUDACC__)

// One-dimensional launch on `stream`. In a build with SPLAT_CHECK_LAUNCHES it also waits for the kernel, so
// that a fault is reported by the kernel that made it.
template <class... Expected, class... Given>
void launch(const char* name, void (*kernel)(Expected...), int64_t blocks, int threads, Stream stream,
            Given... given) {
    check_blocks(name, blocks);
    if (blocks <= 0) return;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(blocks));
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.stream = stream;
    check(cudaLaunchKernelEx(&config, kernel, static_cast<Expected>(given)...), name);
#if defined(SPLAT_CHECK_LAUNCHES)
    check(cudaStreamSynchronize(stream), name);
#endif
}

#endif

inline void set_bytes(void* to, int byte, size_t bytes, Stream stream) {
    check(cudaMemsetAsync(to, byte, bytes, stream), "memset");
}
// Waits for the stream.
inline void copy_to_host(void* to, const void* from, size_t bytes, Stream stream) {
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream), "memcpy");
    check(cudaStreamSynchronize(stream), "an earlier kernel");
}

// Makes `device` the current one while it lives.
class DeviceGuard {
public:
    explicit DeviceGuard(int device) {
        check(cudaGetDevice(&before_), "cudaGetDevice");
        if (before_ != device) check(cudaSetDevice(device), "cudaSetDevice");
    }
    ~DeviceGuard() { cudaSetDevice(before_); }
    DeviceGuard(const DeviceGuard&) = delete;
    DeviceGuard& operator=(const DeviceGuard&) = delete;

private:
    int before_ = 0;
};

// A few values that the device writes and the host reads later without waiting. What is sent before the last
// message was received is dropped, so that a host that runs ahead of the device hears something at all.
template <class T>
class Mailbox {
public:
    Mailbox() = default;
    Mailbox(const Mailbox&) = delete;
    Mailbox& operator=(const Mailbox&) = delete;
    ~Mailbox() {
        if (!value_) return;
        cudaEventSynchronize(arrived_);
        cudaEventDestroy(arrived_);
        cudaFreeHost(value_);
    }
    void send(const T* device, Stream stream) {
        if (sent_) return;
        if (!value_) {
            check(cudaMallocHost(reinterpret_cast<void**>(&value_), sizeof(T)), "cudaMallocHost");
            check(cudaEventCreateWithFlags(&arrived_, cudaEventDisableTiming), "cudaEventCreate");
        }
        check(cudaMemcpyAsync(value_, device, sizeof(T), cudaMemcpyDeviceToHost, stream), "memcpy");
        check(cudaEventRecord(arrived_, stream), "cudaEventRecord");
        sent_ = true;
    }
    // The message, if it has arrived.
    bool receive(T& value) {
        if (!sent_) return false;
        const cudaError_t status = cudaEventQuery(arrived_);
        if (status == cudaErrorNotReady) return false;
        check(status, "an earlier kernel");
        value = *value_, sent_ = false;
        return true;
    }
    // Drops a message that is on its way.
    void forget() {
        if (sent_) check(cudaEventSynchronize(arrived_), "an earlier kernel");
        sent_ = false;
    }

private:
    T* value_ = nullptr;
    cudaEvent_t arrived_ = nullptr;
    bool sent_ = false;
};

#endif

}  // namespace splat::gpu
