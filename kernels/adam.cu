#include "kernels/adam.h"

#include <limits>

#include "kernels/check.h"
#include "kernels/launch.h"

namespace vae::kernels {
namespace {

constexpr unsigned kThreads = 256;

struct Coefficients {
    float beta1;
    float one_minus_beta1;
    float beta2;
    float one_minus_beta2;
    float epsilon;
    float step_size;
    float inverse_sqrt_correction2;
};

__device__ inline void update(const Coefficients& c, float g, float& parameter, float& m,
                              float& v) {
    m = c.beta1 * m + c.one_minus_beta1 * g;
    v = c.beta2 * v + c.one_minus_beta2 * g * g;
    parameter -= c.step_size * m / (sqrtf(v) * c.inverse_sqrt_correction2 + c.epsilon);
}

// Four elements a thread. Those after the last whole four, or all if the arrays are not aligned,
// are left to adam_tail_kernel.
__global__ void __launch_bounds__(kThreads)
    adam_kernel(const Coefficients c, const float4* gradients, std::size_t fours,
                float4* parameters, float4* m, float4* v) {
    const std::size_t i = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (i >= fours) return;
    const float4 g = gradients[i];
    float4 new_parameters = parameters[i];
    float4 new_m = m[i];
    float4 new_v = v[i];
    update(c, g.x, new_parameters.x, new_m.x, new_v.x);
    update(c, g.y, new_parameters.y, new_m.y, new_v.y);
    update(c, g.z, new_parameters.z, new_m.z, new_v.z);
    update(c, g.w, new_parameters.w, new_m.w, new_v.w);
    parameters[i] = new_parameters;
    m[i] = new_m;
    v[i] = new_v;
}

__global__ void __launch_bounds__(kThreads)
    adam_tail_kernel(const Coefficients c, const float* gradients, std::size_t first,
                     std::size_t size, float* parameters, float* m, float* v) {
    const std::size_t i = first + static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (i < size) update(c, gradients[i], parameters[i], m[i], v[i]);
}

unsigned blocks_for(std::size_t threads) {
    const std::size_t blocks = (threads + kThreads - 1) / kThreads;
    require(blocks <= std::numeric_limits<int>::max(), "adam", "the arrays are too large");
    return static_cast<unsigned>(blocks);
}

}  // namespace

void adam(const AdamStep& step, const float* gradients, std::size_t size, float* parameters,
          float* m, float* v, cudaStream_t stream) {
    require(step.epsilon > 0, "adam", "epsilon must be positive: 0 / 0 where there is no gradient");
    const Coefficients c{static_cast<float>(step.beta1),
                         static_cast<float>(1 - step.beta1),
                         static_cast<float>(step.beta2),
                         static_cast<float>(1 - step.beta2),
                         step.epsilon,
                         step.step_size,
                         step.inverse_sqrt_correction2};
    const std::size_t fours = aligned_to_16(gradients, parameters, m, v) ? size / 4 : 0;
    if (fours > 0) {
        const LaunchShape shape{dim3(blocks_for(fours)), dim3(kThreads)};
        launch("adam", adam_kernel, shape, stream, c, reinterpret_cast<const float4*>(gradients),
               fours, reinterpret_cast<float4*>(parameters), reinterpret_cast<float4*>(m),
               reinterpret_cast<float4*>(v));
    }
    if (4 * fours < size) {
        const LaunchShape shape{dim3(blocks_for(size - 4 * fours)), dim3(kThreads)};
        launch("adam", adam_tail_kernel, shape, stream, c, gradients, 4 * fours, size, parameters,
               m, v);
    }
}

}  // namespace vae::kernels
