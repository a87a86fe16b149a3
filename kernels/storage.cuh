// From the storage of kernels/reals.h to a type, and between that type and float.
#pragma once

#include <cstring>
#include <initializer_list>
#include <type_traits>

#include "kernels/check.h"
#include "kernels/reals.h"
#include "kernels/tile.cuh"

namespace vae::kernels {

// V neighboring elements of bf16 as loaded: in words, which take half the registers of as many
// floats. As members of 16 bits each would have a register of its own.
template <int V>
struct alignas(V * sizeof(Bf16)) HalfPack {
    static_assert(V % 2 == 0);
    unsigned words[V / 2];  // the first of two elements in the lower half
};
template <>
struct HalfPack<1> {
    unsigned short bits;
};

// V neighboring elements of float or Bf16, as loaded.
template <int V, class T>
using StoredPack = std::conditional_t<std::is_same_v<T, Bf16>, HalfPack<V>, Pack<V>>;

template <int V, class T>
__device__ inline StoredPack<V, T> load_stored(const T* address) {
    return *reinterpret_cast<const StoredPack<V, T>*>(address);
}

// As floats: bf16 is a float's upper half.
template <int V>
__device__ inline Pack<V> widened(const Pack<V>& stored) {
    return stored;
}
template <int V>
__device__ inline Pack<V> widened(const HalfPack<V>& stored) {
    Pack<V> result;
#pragma unroll
    for (int i = 0; i < V; i += 2) {
        result.v[i] = __uint_as_float(stored.words[i / 2] << 16);
        result.v[i + 1] = __uint_as_float(stored.words[i / 2] & 0xFFFF0000u);
    }
    return result;
}
__device__ inline Pack<1> widened(const HalfPack<1>& stored) {
    return {{__uint_as_float(static_cast<unsigned>(stored.bits) << 16)}};
}

template <int V, class T>
__device__ inline Pack<V> load_floats(const T* address) {
    return widened(load_stored<V>(address));
}

template <int V>
__device__ inline void store_floats(float* address, const Pack<V>& values) {
    store_pack<V>(address, values);
}
// Two at a time, which is one instruction from sm_80 on.
template <int V>
__device__ inline void store_floats(Bf16* address, const Pack<V>& values) {
    if constexpr (V == 1) {
        *address = __float2bfloat16_rn(values.v[0]);
    } else {
        HalfPack<V> stored;
#pragma unroll
        for (int i = 0; i < V; i += 2) {
            const __nv_bfloat162 two = __floats2bfloat162_rn(values.v[i], values.v[i + 1]);
            memcpy(&stored.words[i / 2], &two, sizeof two);
        }
        *reinterpret_cast<HalfPack<V>*>(address) = stored;
    }
}

// Calls body with a value of the type that the elements of all these arrays have.
template <class Body>
void with_storage(const char* launcher, std::initializer_list<ConstReals> arrays,
                  const Body& body) {
    const Storage storage = arrays.begin()->storage;
    for (const ConstReals& array : arrays) {
        require(array.storage == storage, launcher, "arrays are not stored alike");
    }
    switch (storage) {
        case Storage::fp32:
            return body(float{});
        case Storage::bf16:
            return body(Bf16{});
    }
    require(false, launcher, "unknown storage");
}

}  // namespace vae::kernels
