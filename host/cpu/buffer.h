// An aligned array that only grows: a workspace is allocated once and reused by every step.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>
#include <span>

#include "host/error.h"

namespace vae::cpu {

template <class T>
class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(std::size_t size) { reserve(size); }

    // At least size elements. Growing discards the contents and fills with zero. Throws RunError
    // when there is no memory.
    void reserve(std::size_t size) {
        if (size <= size_) return;
        data_.reset();
        size_ = 0;
        void* memory = ::operator new(size * sizeof(T), kAlignment, std::nothrow);
        if (memory == nullptr) {
            throw RunError(
                fmt::format("not enough memory: the CPU backend needs {} more bytes; use a smaller "
                            "batch, fewer draws of z or a smaller network",
                            size * sizeof(T)));
        }
        data_.reset(static_cast<T*>(memory));
        size_ = size;
        std::fill_n(data_.get(), size, T(0));
    }

    T* data() { return data_.get(); }
    const T* data() const { return data_.get(); }
    std::span<const T> first(std::size_t count) const { return {data_.get(), count}; }

  private:
    static constexpr std::align_val_t kAlignment{64};  // a cache line, and the widest vector

    struct Free {
        void operator()(T* memory) const { ::operator delete(memory, kAlignment); }
    };

    std::unique_ptr<T[], Free> data_;
    std::size_t size_ = 0;
};

}  // namespace vae::cpu
