#include "kernels/gradient_statistics.h"

#include <limits>

#include "kernels/check.h"
#include "kernels/launch.h"
#include "kernels/programmatic.cuh"
#include "kernels/reduce.cuh"
#include "kernels/shared_memory.cuh"

namespace vae::kernels {
namespace {

constexpr unsigned kThreads = 256;
// 64 registers a thread. Left to itself ptxas takes fewer for sm_100, and spills one.
constexpr unsigned kBlocksAtLeast = 4;
constexpr unsigned kWarps = kThreads / kWarpSize;
constexpr double kNormEpsilon = 1e-7;
constexpr double kLargest = std::numeric_limits<double>::max();

struct BlockMemory {
    double sums[kWarps];
    double clip;
    unsigned first_bad;
    unsigned is_last;
};

__device__ inline bool is_finite(double value) {
    return fabs(value) <= kLargest;  // false for a NaN too
}

__device__ inline double square(float value) {
    return static_cast<double>(value) * value;
}

// The thread's part of a piece's sum of squares.
__device__ inline double piece_squares(const float* gradients, unsigned size, bool wide) {
    double sum = 0;
    const unsigned fours = wide ? size / 4 : 0;
    const float4* const packs = reinterpret_cast<const float4*>(gradients);
    for (unsigned i = threadIdx.x; i < fours; i += kThreads) {
        const float4 g = packs[i];
        sum += (square(g.x) + square(g.y)) + (square(g.z) + square(g.w));
    }
    for (unsigned i = 4 * fours + threadIdx.x; i < size; i += kThreads) sum += square(gradients[i]);
    return sum;
}

// squares from the pieces' sums: a warp for each tensor.
__device__ inline void sum_pieces(const ArenaTable& arena, const GradientStatistics& out) {
    const unsigned lane = threadIdx.x % kWarpSize;
    for (unsigned t = threadIdx.x / kWarpSize; t < arena.tensor_count; t += kWarps) {
        const unsigned end = arena.first_piece[t + 1];
        double sum = 0;
        // Loads in flight, as a large tensor has thousands of pieces.
#pragma unroll 8
        for (unsigned p = arena.first_piece[t] + lane; p < end; p += kWarpSize) {
            sum += out.partials[p];
        }
        sum = warp_sum(sum);
        if (lane == 0) out.squares[t] = sum;
    }
}

// Of one tensor, before clipping.
__device__ inline double normalizer(const GradientRules& rules, double squares) {
    return rules.normalize ? 1 / (sqrt(squares) + kNormEpsilon) : 1.0;
}

// The tensor's part of the square of the norm that is clipped.
__device__ inline double clipped_square(const GradientRules& rules, double squares) {
    if (!rules.normalize) return squares;
    const double norm = sqrt(squares) * normalizer(rules, squares);
    return norm * norm;
}

// By one thread, when memory.first_bad is known.
__device__ inline void decide(const ArenaTable& arena, const StepState* state,
                              const GradientStatistics& out, unsigned first_bad) {
    const LossSums batch = *out.batch;
    const bool is_taken = first_bad == arena.tensor_count && is_finite(batch.loss);
    *out.is_taken = is_taken ? 1u : 0u;
    *out.batch = {};
    StepRecord& record = *out.record;
    if (is_taken) {
        record.losses.recon += batch.recon;
        record.losses.kl += batch.kl;
        record.losses.loss += batch.loss;
        record.losses.examples += batch.examples;
        return;
    }
    if (record.skipped == 0) {
        record.first_step = state->step;
        record.first_tensor = first_bad;
    }
    ++record.skipped;
}

// By the last block, when all partials are there.
__device__ inline void finish(const ArenaTable& arena, const GradientRules& rules,
                              const StepState* state, const GradientStatistics& out,
                              BlockMemory& memory) {
    if (threadIdx.x == 0) memory.first_bad = arena.tensor_count;
    sum_pieces(arena, out);
    __syncthreads();
    double total = 0;
    for (unsigned t = threadIdx.x; t < arena.tensor_count; t += kThreads) {
        const double squares = out.squares[t];
        if (!is_finite(squares)) atomicMin(&memory.first_bad, t);
        total += clipped_square(rules, squares);
    }
    total = block_sum(total, memory.sums);  // its barrier orders first_bad too
    if (threadIdx.x == 0) {
        const double norm = sqrt(total);
        const bool clips = rules.clip_norm > 0 && norm > rules.clip_norm;
        memory.clip = clips ? rules.clip_norm / norm : 1.0;
        decide(arena, state, out, memory.first_bad);
    }
    __syncthreads();
    for (unsigned t = threadIdx.x; t < arena.tensor_count; t += kThreads) {
        out.scales[t] = static_cast<float>(normalizer(rules, out.squares[t]) * memory.clip);
    }
}

__global__ void __launch_bounds__(kThreads, kBlocksAtLeast)
    gradient_statistics_kernel(const ArenaTable arena, const float* gradients, bool is_aligned,
                               const GradientRules rules, const StepState* state,
                               const GradientStatistics out) {
    let_next_kernel_start();
    BlockMemory& memory = *dynamic_shared<BlockMemory>();
    if (blockIdx.x < arena.piece_count) {
        const ArenaPiece piece = arena.pieces[blockIdx.x];
        const bool wide = is_aligned && piece.offset % 4 == 0;
        const double sum =
            block_sum(piece_squares(gradients + piece.offset, piece.size, wide), memory.sums);
        if (threadIdx.x == 0) out.partials[blockIdx.x] = sum;
    }
    if (threadIdx.x == 0) {
        __threadfence();
        memory.is_last = take_last_ticket(out.ticket, gridDim.x) ? 1u : 0u;
        __threadfence();  // and the others' partials are seen, before the block reads them
    }
    __syncthreads();
    if (memory.is_last != 0) finish(arena, rules, state, out, memory);
}

}  // namespace

void gradient_statistics(const ArenaTable& arena, const float* gradients,
                         const GradientRules& rules, const StepState* state,
                         const GradientStatistics& statistics, cudaStream_t stream) {
    require(rules.clip_norm >= 0, "gradient_statistics", "clip_norm must not be negative");
    require(arena.piece_count <= std::numeric_limits<int>::max(), "gradient_statistics",
            "too many pieces");
    // Without a gradient the loss has to be looked at all the same.
    const unsigned blocks = arena.piece_count > 0 ? arena.piece_count : 1;
    const LaunchShape shape{dim3(blocks), dim3(kThreads), sizeof(BlockMemory)};
    launch("gradient_statistics", gradient_statistics_kernel, shape, stream, arena, gradients,
           aligned_to_four(gradients), rules, state, statistics);
}

}  // namespace vae::kernels
