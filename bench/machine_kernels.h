// Kernels that compute nothing of a network: what they take is what a GPU takes beside the work.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <string>

namespace vae::bench {

inline constexpr unsigned kMachineThreads = 256;  // in a block of each of these kernels

// Does nothing; with a count it adds 1 to it, in one thread, so that each of a chain of such
// kernels reads what the one before it wrote. starts_early: see kernels/launch.h; what is before it
// in the stream is a kernel then. Throws CudaError, as all of these.
void node(unsigned blocks, bool starts_early, unsigned* count, cudaStream_t stream);

// to = from, so many times in one launch, past the L1 caches. `bytes` are a multiple of 16, as are
// the addresses.
void copy_repeatedly(const void* from, void* to, std::size_t bytes, int times, unsigned blocks,
                     cudaStream_t stream);

// Kernels that nothing else launches, from 0 on: the first launch of each loads it.
inline constexpr unsigned kUnusedKernels = 16;
void unused_kernel(unsigned which, cudaStream_t stream);

// What barriers leave. `faults` counts blocks that went on too early or, in a grid, waited in vain
// for seconds, after which they wait no more.
struct BarrierTrace {
    unsigned* arrived = nullptr;  // [1]: of a grid, blocks at barriers, counted from 0
    unsigned* faults = nullptr;   // [1]
    unsigned* rounds = nullptr;   // [blocks], or null: nobody looks whether a barrier is one
};

// Barriers of all blocks of a grid, one after the other, by a counter in memory: those that
// cooperative groups have. A cooperative launch, so that no block waits for one that does not run.
void grid_barriers(unsigned blocks, int barriers, const BarrierTrace& trace, cudaStream_t stream);
// Blocks of it that fit on a multiprocessor.
unsigned grid_barrier_blocks_per_multiprocessor();
// Why the current device cannot; empty if it can.
std::string why_no_grid_barriers();

// Barriers of the blocks of each cluster of so many, at most 16.
void cluster_barriers(unsigned size, unsigned clusters, int barriers, const BarrierTrace& trace,
                      cudaStream_t stream);
// Why the current device cannot, or was not compiled for; empty if it can.
std::string why_no_cluster_barriers();

}  // namespace vae::bench
