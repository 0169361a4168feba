// Memory that is kept between calls: grows, never shrinks, is never initialised.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>
#include <utility>

namespace splat::cpu {

template <class T>
class Buffer {
public:
    Buffer() = default;
    Buffer(Buffer&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), capacity_(std::exchange(other.capacity_, 0)) {}
    Buffer& operator=(Buffer&&) = delete;
    ~Buffer() { std::free(data_); }

    // Room for `count` items; what was inside is lost if it has to grow. Throws std::bad_alloc.
    T* resize(size_t count) {
        if (count > capacity_) {
            std::free(data_);
            data_ = nullptr;
            capacity_ = 0;
            // Half as much again, so that a growing scene does not allocate at every step.
            const size_t wanted = count + count / 2 + kLine / sizeof(T) + 1;
            if (wanted > (static_cast<size_t>(-1) - kLine) / sizeof(T)) throw std::bad_alloc();
            const size_t bytes = (wanted * sizeof(T) + kLine - 1) / kLine * kLine;
            data_ = static_cast<T*>(std::aligned_alloc(kLine, bytes));
            if (!data_) throw std::bad_alloc();
            capacity_ = wanted;
        }
        return data_;
    }

    T* get() { return data_; }
    const T* get() const { return data_; }
    T& operator[](size_t i) { return data_[i]; }
    const T& operator[](size_t i) const { return data_[i]; }

private:
    static constexpr size_t kLine = 64;
    T* data_ = nullptr;
    size_t capacity_ = 0;
};

}  // namespace splat::cpu
