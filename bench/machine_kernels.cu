#include "bench/machine_kernels.h"

#include <array>
#include <utility>

#include "kernels/launch.h"
#include "kernels/programmatic.cuh"

namespace vae::bench {

using kernels::cuda_check;

namespace {

constexpr unsigned kPortableCluster = 8;   // blocks that every device with clusters takes
constexpr unsigned kCopiesInFlight = 4;    // of 16 bytes, of a thread
constexpr unsigned kMostPolls = 1u << 22;  // some seconds: what is lost must not hang the device

__global__ void __launch_bounds__(kMachineThreads) node_kernel(unsigned* count) {
    kernels::let_next_kernel_start();
    kernels::wait_for_previous_kernel();
    if (count != nullptr && blockIdx.x == 0 && threadIdx.x == 0) *count += 1;
}

// size: of 16 bytes each.
__global__ void __launch_bounds__(kMachineThreads)
    copy_kernel(const float4* from, float4* to, std::size_t size, int times) {
    const std::size_t stride = std::size_t{gridDim.x} * kMachineThreads;
    for (int t = 0; t < times; ++t) {
        std::size_t i = std::size_t{blockIdx.x} * kMachineThreads + threadIdx.x;
        for (; i < size; i += kCopiesInFlight * stride) {
            float4 values[kCopiesInFlight] = {};
#pragma unroll
            for (unsigned u = 0; u < kCopiesInFlight; ++u) {
                if (i + u * stride < size) values[u] = __ldcg(from + i + u * stride);
            }
#pragma unroll
            for (unsigned u = 0; u < kCopiesInFlight; ++u) {
                if (i + u * stride < size) __stcg(to + i + u * stride, values[u]);
            }
        }
    }
}

template <unsigned Which>
__global__ void __launch_bounds__(kMachineThreads) unused_kernel_of() {}

__device__ inline unsigned current(const unsigned* value) {
    return *static_cast<const volatile unsigned*>(value);
}

// By every thread; `target` blocks have arrived when it is over. is_lost is that of one thread.
__device__ inline void grid_barrier(const BarrierTrace& trace, unsigned target, bool& is_lost) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(trace.arrived, 1u);
        for (unsigned polls = 0; !is_lost && current(trace.arrived) < target; ++polls) {
            is_lost = polls > kMostPolls;
            if (is_lost) atomicAdd(trace.faults, 1u);
        }
        __threadfence();
    }
    __syncthreads();
}

__device__ inline void cluster_barrier() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.aligned;\n\tbarrier.cluster.wait.aligned;" ::: "memory");
#endif
}

// Says before a barrier which one it comes to.
__device__ inline void arrive(const BarrierTrace& trace, unsigned round) {
    if (trace.rounds == nullptr) return;
    if (threadIdx.x == 0) *static_cast<volatile unsigned*>(trace.rounds + blockIdx.x) = round;
    __syncwarp();
}

// Behind a barrier: whether another block came to it before.
__device__ inline void look(const BarrierTrace& trace, unsigned round, unsigned neighbour) {
    if (trace.rounds == nullptr) return;
    if (threadIdx.x == 0 && current(trace.rounds + neighbour) < round) atomicAdd(trace.faults, 1u);
    __syncwarp();
}

__global__ void __launch_bounds__(kMachineThreads)
    grid_barriers_kernel(const BarrierTrace trace, int barriers) {
    bool is_lost = false;
    const unsigned neighbour = (blockIdx.x + 1) % gridDim.x;
    const auto last = static_cast<unsigned>(barriers);
    for (unsigned round = 1; round <= last; ++round) {
        arrive(trace, round);
        grid_barrier(trace, round * gridDim.x, is_lost);
        look(trace, round, neighbour);
    }
}

__global__ void __launch_bounds__(kMachineThreads)
    cluster_barriers_kernel(const BarrierTrace trace, unsigned size, int barriers) {
    const unsigned first = blockIdx.x / size * size;  // of the cluster
    const unsigned neighbour = first + (blockIdx.x - first + 1) % size;
    const auto last = static_cast<unsigned>(barriers);
    for (unsigned round = 1; round <= last; ++round) {
        arrive(trace, round);
        cluster_barrier();
        look(trace, round, neighbour);
    }
}

template <unsigned... Which>
void launch_unused(unsigned which, cudaStream_t stream,
                   std::integer_sequence<unsigned, Which...> /*all*/) {
    constexpr std::array kAll = {&unused_kernel_of<Which>...};
    kernels::launch("unused_kernel", kAll.at(which), {.grid = 1, .block = kMachineThreads}, stream);
}

int device_attribute(cudaDeviceAttr attribute) {
    int device = 0;
    int value = 0;
    cuda_check(cudaGetDevice(&device), "cudaGetDevice");
    const cudaError_t status = cudaDeviceGetAttribute(&value, attribute, device);
    if (status == cudaSuccess) return value;
    (void)cudaGetLastError();  // a device that does not know the attribute has not got it
    return 0;
}

cudaLaunchConfig_t machine_launch(unsigned blocks, cudaStream_t stream) {
    cudaLaunchConfig_t config = {};
    config.gridDim = blocks;
    config.blockDim = kMachineThreads;
    config.stream = stream;
    return config;
}

}  // namespace

void node(unsigned blocks, bool starts_early, unsigned* count, cudaStream_t stream) {
    kernels::launch(
        "node", node_kernel,
        {.grid = blocks, .block = kMachineThreads, .shared_bytes = 0, .starts_early = starts_early},
        stream, count);
}

void copy_repeatedly(const void* from, void* to, std::size_t bytes, int times, unsigned blocks,
                     cudaStream_t stream) {
    kernels::launch("copy_repeatedly", copy_kernel, {.grid = blocks, .block = kMachineThreads},
                    stream, static_cast<const float4*>(from), static_cast<float4*>(to),
                    bytes / sizeof(float4), times);
}

void unused_kernel(unsigned which, cudaStream_t stream) {
    launch_unused(which, stream, std::make_integer_sequence<unsigned, kUnusedKernels>());
}

// launch() of kernels/launch.h has no attributes for cooperative kernels and for clusters.
void grid_barriers(unsigned blocks, int barriers, const BarrierTrace& trace, cudaStream_t stream) {
    cudaLaunchConfig_t config = machine_launch(blocks, stream);
    cudaLaunchAttribute cooperative = {};
    cooperative.id = cudaLaunchAttributeCooperative;
    cooperative.val.cooperative = 1;
    config.attrs = &cooperative;
    config.numAttrs = 1;
    cuda_check(cudaLaunchKernelEx(&config, grid_barriers_kernel, trace, barriers), "grid_barriers");
}

unsigned grid_barrier_blocks_per_multiprocessor() {
    int blocks = 0;
    cuda_check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, grid_barriers_kernel,
                                                             kMachineThreads, 0),
               "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
    return static_cast<unsigned>(blocks);
}

std::string why_no_grid_barriers() {
    return device_attribute(cudaDevAttrCooperativeLaunch) != 0
               ? ""
               : "this device has no cooperative launch";
}

void cluster_barriers(unsigned size, unsigned clusters, int barriers, const BarrierTrace& trace,
                      cudaStream_t stream) {
    if (size > kPortableCluster) {
        cuda_check(cudaFuncSetAttribute(reinterpret_cast<const void*>(cluster_barriers_kernel),
                                        cudaFuncAttributeNonPortableClusterSizeAllowed, 1),
                   "cudaFuncSetAttribute(NonPortableClusterSizeAllowed)");
    }
    cudaLaunchConfig_t config = machine_launch(size * clusters, stream);
    cudaLaunchAttribute cluster = {};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = size;
    cluster.val.clusterDim.y = 1;
    cluster.val.clusterDim.z = 1;
    config.attrs = &cluster;
    config.numAttrs = 1;
    cuda_check(cudaLaunchKernelEx(&config, cluster_barriers_kernel, trace, size, barriers),
               "cluster_barriers");
}

std::string why_no_cluster_barriers() {
    if (device_attribute(cudaDevAttrClusterLaunch) == 0) return "this device has no clusters";
    constexpr int kFirst = 90;  // of the architecture that the kernel's source was compiled for
    cudaFuncAttributes attributes = {};
    cuda_check(
        cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(cluster_barriers_kernel)),
        "cudaFuncGetAttributes");
    return attributes.ptxVersion >= kFirst ? "" : "compiled for GPUs without clusters";
}

}  // namespace vae::bench
