// What the device built-ins of a kernel need of the engine.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emulation {

inline constexpr unsigned kWarpSize = 32;

// A line of source. As std::source_location, which older compilers and the tools on them lack.
struct SourceLine {
    const char* file = "";
    unsigned line = 0;

    // As a default argument: the line of the call.
    static constexpr SourceLine here(const char* file = __builtin_FILE(),
                                     unsigned line = __builtin_LINE()) {
        return {file, line};
    }
};

// How a kernel of one parameter list is called, and how its arguments are copied.
struct KernelSignature {
    void (*call)(const void* kernel, const void* const* arguments);
    std::size_t parameters;
    const std::size_t* sizes;
    const bool* are_pointers;
};

// Makes the signature known under which cudaLaunchKernelExC is about to be asked for a kernel.
void remember_signature(const void* kernel, const KernelSignature& signature);

// Barrier 0 of the block. Counts the threads whose predicate is not zero.
struct BarrierVotes {
    unsigned arrived;
    unsigned in_favor;
};
BarrierVotes block_barrier(bool predicate, SourceLine where);

enum class WarpOperation {
    sync,
    shuffle,
    shuffle_up,
    shuffle_down,
    shuffle_xor,
    ballot,
    match,
    add,
    minimum,
    maximum,
    signed_minimum,
    signed_maximum,
    bit_and,
    bit_or,
    bit_xor,
    multiply_tf32,
    multiply_bf16,
};

// The registers of a lane with its part of matrices that its warp multiplies, sum += a b, which
// kernels/tensor_cores.cuh says: 4, 2 and 4.
struct MatrixFragments {
    const unsigned* a;
    const unsigned* b;
    float* sum;
};

// One lane's part in a warp-wide operation: waits for all lanes of `mask`, returns its result.
// A shuffle from a lane outside the mask gives all ones (a NaN), as its value is undefined.
struct WarpCall {
    WarpOperation operation = WarpOperation::sync;
    unsigned mask = 0;
    std::uint64_t value = 0;  // of multiplications: the address of MatrixFragments
    unsigned argument = 0;    // of shuffles: source lane, delta or xor mask
    unsigned width = kWarpSize;
};
std::uint64_t warp_collective(const WarpCall& call, SourceLine where);

unsigned lane_of_thread();
// Lets other threads go on.
void yield_thread();
// Ends the kernel with an error: what was called where, and what is wrong with it.
[[noreturn]] void trap_thread(const char* call, SourceLine where, const char* why = "");

// The thread waits for the end of what its kernel comes after.
void wait_for_earlier_work();

// A thread's copy of `size` bytes into shared memory, the last `zeros` of them zero instead, which
// may take place at any time until the thread waits for it. Bad ones end the kernel.
struct AsyncCopy {
    void* to;
    const void* from;
    std::size_t size;
    std::size_t zeros;
};
void copy_async(const AsyncCopy& copy, SourceLine where);
// Makes a group of the copies since the last; waits for all groups but the last `prior`.
void commit_copies();
void wait_for_copies(std::size_t prior);

// The block's dynamic shared memory.
void* dynamic_shared_memory();

}  // namespace emulation
