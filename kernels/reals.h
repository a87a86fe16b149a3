// Arrays of real numbers that are stored as float or as bf16, as a training's precision says.
// Kernels compute in float either way: bf16 is read exactly, and written rounded to nearest, ties
// to even, which is wrong by at most 2^-8 of the value. NaN stays NaN.
#pragma once

#include <cuda_bf16.h>

#include <cstddef>

namespace vae::kernels {

using Bf16 = __nv_bfloat16;

enum class Storage { fp32, bf16 };

constexpr std::size_t bytes_of(Storage storage) {
    return storage == Storage::bf16 ? sizeof(Bf16) : sizeof(float);
}

// A pointer to such an array, and made from a pointer to either. It owns nothing.
struct Reals {
    void* data = nullptr;
    Storage storage = Storage::fp32;

    Reals() = default;
    Reals(std::nullptr_t) {}
    Reals(float* array) : data(array) {}
    Reals(Bf16* array) : data(array), storage(Storage::bf16) {}
    Reals(void* array, Storage stored_as) : data(array), storage(stored_as) {}

    // The array from element `first` on.
    Reals from(std::size_t first) const {
        return {static_cast<std::byte*>(data) + first * bytes_of(storage), storage};
    }
    // T is float or Bf16, as storage says.
    template <class T>
    T* of() const {
        return static_cast<T*>(data);
    }
};

struct ConstReals {
    const void* data = nullptr;
    Storage storage = Storage::fp32;

    ConstReals() = default;
    ConstReals(std::nullptr_t) {}
    ConstReals(const float* array) : data(array) {}
    ConstReals(const Bf16* array) : data(array), storage(Storage::bf16) {}
    ConstReals(const void* array, Storage stored_as) : data(array), storage(stored_as) {}
    ConstReals(const Reals& array) : data(array.data), storage(array.storage) {}

    ConstReals from(std::size_t first) const {
        return {static_cast<const std::byte*>(data) + first * bytes_of(storage), storage};
    }
    template <class T>
    const T* of() const {
        return static_cast<const T*>(data);
    }
};

}  // namespace vae::kernels
