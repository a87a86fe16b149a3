#include "kernels/softmax.h"

#include <algorithm>
#include <cstdint>

#include "kernels/likelihood.cuh"
#include "kernels/storage.cuh"

namespace vae::kernels {
namespace {

constexpr unsigned kWarps = 8;
constexpr unsigned kThreads = kWarps * kWarpSize;
constexpr unsigned kRowsPerWarp = 8;
// A group of 1024 classes is 32 registers of a thread, and as many sums. Without this bound ptxas
// aims at more blocks on some architectures and spills.
constexpr unsigned kResidentBlocks = 1;
constexpr unsigned kRowsPerBlock = kWarps * kRowsPerWarp;

// Arrays and how they are cut. Slots in scratch: [rows, groups] of losses, then [row_blocks,
// outputs] of column sums.
struct SoftmaxArrays {
    const float* product;
    const float* bias;
    const float* x;
    LikelihoodRows rows_in;
    unsigned rows;
    unsigned groups;
    unsigned classes;
    unsigned row_blocks;
    std::size_t pixels;
    float* losses;
    float* columns;

    __device__ std::size_t outputs() const { return static_cast<std::size_t>(groups) * classes; }
};

__device__ inline float warp_max(float value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
        value = fmaxf(value, __shfl_xor_sync(kFullWarp, value, distance));
    }
    return value;
}

// A group in the registers of a warp: class lane + 32·j is element j of a lane, −∞ beyond the last.
template <int kPerLane>
struct Group {
    float l[kPerLane];
    float largest;
    float inverse_sum;
    float log_sum;

    // Shuffles drop no NaN of the sum, while fmaxf drops it from the largest.
    __device__ Group(const SoftmaxArrays& in, unsigned row, unsigned group, unsigned lane) {
        const std::size_t first = static_cast<std::size_t>(group) * in.classes;
        const float* const product = in.product + row * in.outputs() + first;
        largest = -INFINITY;
#pragma unroll
        for (unsigned j = 0; j < kPerLane; ++j) {
            const unsigned k = lane + j * kWarpSize;
            l[j] = k < in.classes ? product[k] + in.bias[first + k] : -INFINITY;
            largest = fmaxf(largest, l[j]);
        }
        largest = warp_max(largest);
        float sum = 0;
#pragma unroll
        for (unsigned j = 0; j < kPerLane; ++j) sum += expf(l[j] - largest);
        sum = warp_sum(sum);
        inverse_sum = 1.0f / sum;
        log_sum = logf(sum);
    }
    __device__ float probability(unsigned j) const {
        return expf(l[j] - largest) * inverse_sum;
    }
};

// t_k: 1 at the data's class. NaN where x is.
template <bool kOneHot>
struct Target {
    float class_of_pixel;
    const float* values;

    __device__ Target(const SoftmaxArrays& in, unsigned row, unsigned group) {
        const float* const x = in.x + in.rows_in.example(row) * in.pixels;
        class_of_pixel = 0;
        values = nullptr;
        if constexpr (kOneHot) {
            values = x + static_cast<std::size_t>(group) * in.classes;
        } else {
            class_of_pixel = rintf(x[group] * static_cast<float>(in.classes - 1));
        }
    }
    __device__ float of(unsigned k) const {
        if constexpr (kOneHot) return values[k];
        const auto number = static_cast<float>(k);
        // Of a NaN the difference is NaN, and no class is its.
        if (class_of_pixel == number) return 1.0f;
        return 0.0f * (class_of_pixel - number);
    }
};

// Each warp takes every eighth row of its block and one group of it. d_product is stored as D.
template <int kPerLane, bool kOneHot, bool kBackward, class D>
__global__ void __launch_bounds__(kThreads, kResidentBlocks)
    softmax_kernel(const SoftmaxArrays in, D* d_product) {
    const unsigned warp = threadIdx.x / kWarpSize;
    const unsigned lane = threadIdx.x % kWarpSize;
    const unsigned group = blockIdx.x % in.groups;
    const unsigned row_block = blockIdx.x / in.groups;
    float column_sums[kPerLane] = {};
    for (unsigned i = 0; i < kRowsPerWarp; ++i) {
        const unsigned row = row_block * kRowsPerBlock + i * kWarps + warp;
        if (row >= in.rows) break;
        const Group<kPerLane> softmax(in, row, group, lane);
        const Target<kOneHot> target(in, row, group);
        const float weight = kBackward ? in.rows_in.weight(row) : 0.0f;
        const std::size_t at = row * in.outputs() + static_cast<std::size_t>(group) * in.classes;
        float loss = 0;
#pragma unroll
        for (unsigned j = 0; j < kPerLane; ++j) {
            const unsigned k = lane + j * kWarpSize;
            if (k >= in.classes) break;
            const float t = target.of(k);
            // Zero times the infinite loss of an impossible class is none.
            if (t != 0) loss += t * (softmax.log_sum - (softmax.l[j] - softmax.largest));
            if constexpr (kBackward) {
                const float d = weight * (softmax.probability(j) - t);
                column_sums[j] += d;
                store_floats<1>(d_product + at + k, {{d}});
            }
        }
        loss = warp_sum(loss);
        if (lane == 0) in.losses[static_cast<std::size_t>(row) * in.groups + group] = loss;
    }
    if constexpr (kBackward) {
        float* const memory = dynamic_shared<float>();  // [kWarps, 32·kPerLane]
        constexpr unsigned kWidth = kWarpSize * kPerLane;
#pragma unroll
        for (unsigned j = 0; j < kPerLane; ++j) {
            memory[warp * kWidth + lane + j * kWarpSize] = column_sums[j];
        }
        __syncthreads();
        for (unsigned k = threadIdx.x; k < in.classes; k += kThreads) {
            float sum = 0;
            for (unsigned w = 0; w < kWarps; ++w) sum += memory[w * kWidth + k];
            in.columns[row_block * in.outputs() + static_cast<std::size_t>(group) * in.classes +
                       k] = sum;
        }
    }
}

// A warp a row over its groups' losses.
__global__ void __launch_bounds__(kThreads)
    softmax_rows_kernel(const SoftmaxArrays in, float* recon) {
    const unsigned row = blockIdx.x * kWarps + threadIdx.x / kWarpSize;
    const unsigned lane = threadIdx.x % kWarpSize;
    if (row >= in.rows) return;
    double sum = 0;
    for (unsigned group = lane; group < in.groups; group += kWarpSize) {
        sum += in.losses[static_cast<std::size_t>(row) * in.groups + group];
    }
    sum = warp_sum(sum);
    if (lane == 0) recon[row] = static_cast<float>(sum);
}

// A thread a column over the blocks of rows.
__global__ void __launch_bounds__(kThreads)
    softmax_columns_kernel(const SoftmaxArrays in, float* d_bias) {
    const std::size_t column = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (column >= in.outputs()) return;
    double sum = 0;
    for (unsigned block = 0; block < in.row_blocks; ++block) {
        sum += in.columns[block * in.outputs() + column];
    }
    d_bias[column] = static_cast<float>(sum);
}

template <int kPerLane, bool kOneHot>
__global__ void __launch_bounds__(kThreads, kResidentBlocks)
    softmax_mean_kernel(const SoftmaxArrays in, float* mean) {
    const unsigned warp = threadIdx.x / kWarpSize;
    const unsigned lane = threadIdx.x % kWarpSize;
    const unsigned group = blockIdx.x % in.groups;
    for (unsigned i = 0; i < kRowsPerWarp; ++i) {
        const unsigned row = blockIdx.x / in.groups * kRowsPerBlock + i * kWarps + warp;
        if (row >= in.rows) break;
        const Group<kPerLane> softmax(in, row, group, lane);
        float expected = 0;
#pragma unroll
        for (unsigned j = 0; j < kPerLane; ++j) {
            const unsigned k = lane + j * kWarpSize;
            if (k >= in.classes) break;
            const float p = softmax.probability(j);
            if constexpr (kOneHot) {
                mean[row * in.outputs() + static_cast<std::size_t>(group) * in.classes + k] = p;
            } else {
                expected += p * static_cast<float>(k);
            }
        }
        if constexpr (!kOneHot) {
            expected = warp_sum(expected) / static_cast<float>(in.classes - 1);
            if (lane == 0) mean[static_cast<std::size_t>(row) * in.groups + group] = expected;
        }
    }
}

// Calls body(elements a lane, whether one-hot) as constants.
template <class Body>
void with_kind(const SoftmaxSettings& settings, const Body& body) {
    const auto with_size = [&](auto per_lane) {
        if (settings.is_onehot) return body(per_lane, std::true_type{});
        return body(per_lane, std::false_type{});
    };
    if (settings.classes <= 32) return with_size(std::integral_constant<int, 1>{});
    if (settings.classes <= 64) return with_size(std::integral_constant<int, 2>{});
    if (settings.classes <= 128) return with_size(std::integral_constant<int, 4>{});
    if (settings.classes <= 256) return with_size(std::integral_constant<int, 8>{});
    return with_size(std::integral_constant<int, 32>{});
}

std::size_t blocks_of(std::size_t size, std::size_t block) {
    return (size + block - 1) / block;
}

SoftmaxArrays arrays_of(const LikelihoodInput& in, const SoftmaxSettings& settings,
                        const LikelihoodGradient& gradient, const Scratch& scratch,
                        const char* launcher) {
    require_input(in, launcher);
    require(settings.classes >= 2 && settings.classes <= kMostClasses, launcher,
            "classes must lie in 2 … 1024");
    require(!settings.is_onehot || in.pixels % settings.classes == 0, launcher,
            "pixels must be whole groups");
    SoftmaxArrays arrays = {};
    arrays.product = in.product;
    arrays.bias = in.bias;
    arrays.x = in.x;
    arrays.rows_in = rows_of(in, gradient);
    arrays.rows = static_cast<unsigned>(in.rows);
    arrays.groups = static_cast<unsigned>(softmax_groups(settings, in.pixels));
    arrays.classes = static_cast<unsigned>(settings.classes);
    arrays.row_blocks = static_cast<unsigned>(blocks_of(arrays.rows, kRowsPerBlock));
    arrays.pixels = static_cast<std::size_t>(in.pixels);
    arrays.losses = scratch.partials;
    arrays.columns = scratch.partials + static_cast<std::size_t>(arrays.rows) * arrays.groups;
    return arrays;
}

LaunchShape blocks(std::size_t count, std::size_t shared_bytes, const char* launcher) {
    require(count <= INT32_MAX, launcher, "the array is too large");
    return {dim3(static_cast<unsigned>(count)), dim3(kThreads), shared_bytes};
}

std::size_t group_blocks(const SoftmaxArrays& arrays) {
    return static_cast<std::size_t>(arrays.row_blocks) * arrays.groups;
}

// Both directions.
template <bool kBackward>
void launch_softmax(const char* launcher, const LikelihoodInput& in,
                    const SoftmaxSettings& settings, const LikelihoodGradient& gradient,
                    float* recon, const Scratch& scratch, cudaStream_t stream) {
    const SoftmaxArrays arrays = arrays_of(in, settings, gradient, scratch, launcher);
    require_gradient(in, gradient, launcher);
    const std::size_t outputs = static_cast<std::size_t>(arrays.groups) * arrays.classes;
    if (in.rows == 0 || in.pixels == 0) {
        const std::size_t rows = static_cast<std::size_t>(in.rows);
        if (rows > 0) {
            cuda_check(cudaMemsetAsync(recon, 0, sizeof(float) * rows, stream), launcher);
        }
        if (kBackward && outputs > 0) {
            cuda_check(cudaMemsetAsync(gradient.d_bias, 0, sizeof(float) * outputs, stream),
                       launcher);
        }
        return;
    }
    require(scratch.partials_size >= softmax_scratch_size(in.rows, in.pixels, settings).partials,
            launcher, "scratch is smaller than softmax_scratch_size says");
    const auto launch_as = [&](auto element) {
        using D = decltype(element);
        with_kind(settings, [&](auto per_lane, auto is_onehot) {
            constexpr int kPerLane = decltype(per_lane)::value;
            const std::size_t bytes = kBackward ? sizeof(float) * kThreads * kPerLane : 0;
            launch(launcher, softmax_kernel<kPerLane, decltype(is_onehot)::value, kBackward, D>,
                   blocks(group_blocks(arrays), bytes, launcher), stream, arrays,
                   gradient.d_product.of<D>());
        });
    };
    if constexpr (kBackward) {
        with_storage(launcher, {gradient.d_product}, launch_as);
    } else {
        launch_as(float{});
    }
    launch(launcher, softmax_rows_kernel, blocks(blocks_of(arrays.rows, kWarps), 0, launcher),
           stream, arrays, recon);
    if constexpr (kBackward) {
        launch(launcher, softmax_columns_kernel, blocks(blocks_of(outputs, kThreads), 0, launcher),
               stream, arrays, gradient.d_bias);
    }
}

}  // namespace

ScratchSize softmax_scratch_size(int rows, int pixels, const SoftmaxSettings& settings) {
    require_shape(rows, pixels, "softmax_scratch_size");
    const auto height = static_cast<std::size_t>(rows);
    const auto groups = static_cast<std::size_t>(softmax_groups(settings, pixels));
    const std::size_t outputs = groups * static_cast<std::size_t>(settings.classes);
    return {height * groups + blocks_of(height, kRowsPerBlock) * outputs, 0};
}

void softmax_forward(const LikelihoodInput& in, const SoftmaxSettings& settings, float* recon,
                     const Scratch& scratch, cudaStream_t stream) {
    launch_softmax<false>("softmax_forward", in, settings, {}, recon, scratch, stream);
}

void softmax_forward_backward(const LikelihoodInput& in, const SoftmaxSettings& settings,
                              const LikelihoodGradient& gradient, float* recon,
                              const Scratch& scratch, cudaStream_t stream) {
    launch_softmax<true>("softmax_forward_backward", in, settings, gradient, recon, scratch,
                         stream);
}

void softmax_mean(const LikelihoodInput& in, const SoftmaxSettings& settings, float* mean,
                  cudaStream_t stream) {
    constexpr const char* kLauncher = "softmax_mean";
    const SoftmaxArrays arrays = arrays_of(in, settings, {}, {}, kLauncher);
    if (in.rows == 0 || in.pixels == 0) return;
    with_kind(settings, [&](auto per_lane, auto is_onehot) {
        launch(kLauncher,
               softmax_mean_kernel<decltype(per_lane)::value, decltype(is_onehot)::value>,
               blocks(group_blocks(arrays), 0, kLauncher), stream, arrays, mean);
    });
}

}  // namespace vae::kernels
