// Built-in variables, synchronization, warp operations and atomics, as CUDA C++ names them. Atomics
// and fences are plain: threads take turns, and change only where they wait.
#pragma once

#include <bit>
#include <concepts>
#include <cstring>
#include <type_traits>

#include "device_engine.h"

// Variables and not macros, for cudaLaunchConfig_t has members of these names.
inline constinit uint3 threadIdx{};
inline constinit uint3 blockIdx{};
inline constinit dim3 blockDim{};
inline constinit dim3 gridDim{};
inline constexpr int warpSize = 32;

#define __launch_bounds__(...)
// Not a word here: a static object could not be poisoned for each block, and would hide reads of
// what nobody wrote. Kernels have dynamic_shared().
#undef __shared__

namespace emulation {

template <class T>
concept Shuffled = std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(std::uint64_t);

template <Shuffled T>
std::uint64_t to_bits(T value) {
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    return bits;
}

template <Shuffled T>
T from_bits(std::uint64_t bits) {
    T value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

template <Shuffled T>
T shuffle(WarpOperation operation, unsigned mask, T value, unsigned argument, int width,
          emulation::SourceLine where) {
    return from_bits<T>(warp_collective(
        {operation, mask, to_bits(value), argument, static_cast<unsigned>(width)}, where));
}

inline void multiply_fragments(WarpOperation operation, const MatrixFragments& fragments,
                               emulation::SourceLine where) {
    warp_collective({operation, 0xffffffffu, to_bits(&fragments)}, where);
}

template <class T>
T exchange(T* address, T value) {
    const T old = *address;
    *address = value;
    return old;
}

}  // namespace emulation

inline void __syncthreads(emulation::SourceLine where = emulation::SourceLine::here()) {
    emulation::block_barrier(false, where);
}
inline int __syncthreads_count(int predicate,
                               emulation::SourceLine where = emulation::SourceLine::here()) {
    return static_cast<int>(emulation::block_barrier(predicate != 0, where).in_favor);
}
inline int __syncthreads_and(int predicate,
                             emulation::SourceLine where = emulation::SourceLine::here()) {
    const auto votes = emulation::block_barrier(predicate != 0, where);
    return votes.in_favor == votes.arrived ? 1 : 0;
}
inline int __syncthreads_or(int predicate,
                            emulation::SourceLine where = emulation::SourceLine::here()) {
    return emulation::block_barrier(predicate != 0, where).in_favor != 0 ? 1 : 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffu,
                       emulation::SourceLine where = emulation::SourceLine::here()) {
    emulation::warp_collective({emulation::WarpOperation::sync, mask}, where);
}

template <emulation::Shuffled T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize,
              emulation::SourceLine where = emulation::SourceLine::here()) {
    return emulation::shuffle(emulation::WarpOperation::shuffle, mask, value,
                              static_cast<unsigned>(source), width, where);
}
template <emulation::Shuffled T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                 emulation::SourceLine where = emulation::SourceLine::here()) {
    return emulation::shuffle(emulation::WarpOperation::shuffle_up, mask, value, delta, width,
                              where);
}
template <emulation::Shuffled T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                   emulation::SourceLine where = emulation::SourceLine::here()) {
    return emulation::shuffle(emulation::WarpOperation::shuffle_down, mask, value, delta, width,
                              where);
}
template <emulation::Shuffled T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = warpSize,
                  emulation::SourceLine where = emulation::SourceLine::here()) {
    return emulation::shuffle(emulation::WarpOperation::shuffle_xor, mask, value,
                              static_cast<unsigned>(lane_mask), width, where);
}

inline unsigned __ballot_sync(unsigned mask, int predicate,
                              emulation::SourceLine where = emulation::SourceLine::here()) {
    return static_cast<unsigned>(emulation::warp_collective(
        {emulation::WarpOperation::ballot, mask, predicate != 0 ? 1u : 0u}, where));
}
inline int __any_sync(unsigned mask, int predicate,
                      emulation::SourceLine where = emulation::SourceLine::here()) {
    return __ballot_sync(mask, predicate, where) != 0 ? 1 : 0;
}
inline int __all_sync(unsigned mask, int predicate,
                      emulation::SourceLine where = emulation::SourceLine::here()) {
    return __ballot_sync(mask, predicate, where) == mask ? 1 : 0;
}
template <emulation::Shuffled T>
unsigned __match_any_sync(unsigned mask, T value,
                          emulation::SourceLine where = emulation::SourceLine::here()) {
    return static_cast<unsigned>(emulation::warp_collective(
        {emulation::WarpOperation::match, mask, emulation::to_bits(value)}, where));
}
// No lane may rely on others being converged with it, so each is told that it is alone.
inline unsigned __activemask() {
    return 1u << emulation::lane_of_thread();
}

namespace emulation {

template <class T>
requires std::same_as<T, int> || std::same_as<T, unsigned> T reduce(WarpOperation for_int,
                                                                    WarpOperation for_unsigned,
                                                                    unsigned mask, T value,
                                                                    emulation::SourceLine where) {
    const bool is_signed = std::is_signed_v<T>;
    return static_cast<T>(warp_collective(
        {is_signed ? for_int : for_unsigned, mask, static_cast<unsigned>(value)}, where));
}

}  // namespace emulation

template <class T>
T __reduce_add_sync(unsigned mask, T value,
                    emulation::SourceLine where = emulation::SourceLine::here()) {
    return emulation::reduce(emulation::WarpOperation::add, emulation::WarpOperation::add, mask,
                             value, where);
}
template <class T>
T __reduce_min_sync(unsigned mask, T value,
                    emulation::SourceLine where = emulation::SourceLine::here()) {
    return emulation::reduce(emulation::WarpOperation::signed_minimum,
                             emulation::WarpOperation::minimum, mask, value, where);
}
template <class T>
T __reduce_max_sync(unsigned mask, T value,
                    emulation::SourceLine where = emulation::SourceLine::here()) {
    return emulation::reduce(emulation::WarpOperation::signed_maximum,
                             emulation::WarpOperation::maximum, mask, value, where);
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value,
                                  emulation::SourceLine where = emulation::SourceLine::here()) {
    return static_cast<unsigned>(
        emulation::warp_collective({emulation::WarpOperation::bit_and, mask, value}, where));
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value,
                                 emulation::SourceLine where = emulation::SourceLine::here()) {
    return static_cast<unsigned>(
        emulation::warp_collective({emulation::WarpOperation::bit_or, mask, value}, where));
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value,
                                  emulation::SourceLine where = emulation::SourceLine::here()) {
    return static_cast<unsigned>(
        emulation::warp_collective({emulation::WarpOperation::bit_xor, mask, value}, where));
}

namespace emulation {

template <class T>
concept AtomicInteger =
    std::same_as<T, int> || std::same_as<T, unsigned> || std::same_as<T, unsigned long long>;
template <class T>
concept AtomicNumber = AtomicInteger<T> || std::same_as<T, float> || std::same_as<T, double>;

}  // namespace emulation

template <emulation::AtomicNumber T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
    return emulation::exchange(address, static_cast<T>(*address + value));
}
template <emulation::AtomicInteger T>
T atomicSub(T* address, std::type_identity_t<T> value) {
    return emulation::exchange(address, static_cast<T>(*address - value));
}
template <class T>
requires emulation::AtomicInteger<T> || std::same_as<T, float> T
atomicExch(T* address, std::type_identity_t<T> value) {
    return emulation::exchange(address, value);
}
template <emulation::AtomicInteger T>
T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
    return emulation::exchange(address, *address == expected ? value : *address);
}
template <emulation::AtomicInteger T>
T atomicMin(T* address, std::type_identity_t<T> value) {
    return emulation::exchange(address, value < *address ? value : *address);
}
template <emulation::AtomicInteger T>
T atomicMax(T* address, std::type_identity_t<T> value) {
    return emulation::exchange(address, *address < value ? value : *address);
}
template <emulation::AtomicInteger T>
T atomicAnd(T* address, std::type_identity_t<T> value) {
    return emulation::exchange(address, static_cast<T>(*address & value));
}
template <emulation::AtomicInteger T>
T atomicOr(T* address, std::type_identity_t<T> value) {
    return emulation::exchange(address, static_cast<T>(*address | value));
}
template <emulation::AtomicInteger T>
T atomicXor(T* address, std::type_identity_t<T> value) {
    return emulation::exchange(address, static_cast<T>(*address ^ value));
}
inline unsigned atomicInc(unsigned* address, unsigned limit) {
    return emulation::exchange(address, *address >= limit ? 0u : *address + 1u);
}
inline unsigned atomicDec(unsigned* address, unsigned limit) {
    return emulation::exchange(address, *address == 0u || *address > limit ? limit : *address - 1u);
}

inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}

// Of a kernel that may begin early. Nothing runs beside it here, so that waiting is at once.
inline void cudaGridDependencySynchronize() {
    emulation::wait_for_earlier_work();
}
inline void cudaTriggerProgrammaticLaunchCompletion() {}

inline void __nanosleep(unsigned) {
    emulation::yield_thread();
}
[[noreturn]] inline void __trap(emulation::SourceLine where = emulation::SourceLine::here()) {
    emulation::trap_thread("__trap()", where);
}

template <class T>
T __ldg(const T* address) {
    return *address;
}
template <class T>
T __ldcg(const T* address) {
    return *address;
}
template <class T>
T __ldcs(const T* address) {
    return *address;
}
template <class T>
void __stcg(T* address, std::type_identity_t<T> value) {
    *address = value;
}
template <class T>
void __stcs(T* address, std::type_identity_t<T> value) {
    *address = value;
}
