#include "host/cpu/adam.h"

#include <algorithm>
#include <cmath>

#include "host/cpu/sums.h"
#include "host/cpu/vector_math.h"

namespace vae::cpu {
namespace {

template <class T>
VAE_CPU_INLINE void update_range(const AdamStep<T>& s, const T* g, std::size_t size, T* p, T* m,
                                 T* v) {
    const AdamStep<T> step = s;  // a copy that the stores below cannot alias
#pragma omp simd
    for (std::size_t i = 0; i < size; ++i) {
        const T mean = step.beta1 * m[i] + step.one_minus_beta1 * g[i];
        const T square = step.beta2 * v[i] + step.one_minus_beta2 * g[i] * g[i];
        m[i] = mean;
        v[i] = square;
        p[i] -= step.step_size * mean /
                (std::sqrt(square) * step.inverse_sqrt_correction2 + step.epsilon);
    }
}

VAE_CPU_CLONES void update(const AdamStep<float>& step, const float* g, std::size_t size, float* p,
                           float* m, float* v) {
    update_range(step, g, size, p, m, v);
}

void update(const AdamStep<double>& step, const double* g, std::size_t size, double* p, double* m,
            double* v) {
    update_range(step, g, size, p, m, v);
}

}  // namespace

template <class T>
AdamStep<T> adam_step(const TrainConfig& config, double learning_rate, std::uint64_t t) {
    const auto steps = static_cast<double>(t);
    AdamStep<T> step;
    step.beta1 = static_cast<T>(config.adam_beta1);
    step.one_minus_beta1 = static_cast<T>(1 - config.adam_beta1);
    step.beta2 = static_cast<T>(config.adam_beta2);
    step.one_minus_beta2 = static_cast<T>(1 - config.adam_beta2);
    step.epsilon = static_cast<T>(config.adam_epsilon);
    step.step_size = static_cast<T>(learning_rate / (1 - std::pow(config.adam_beta1, steps)));
    step.inverse_sqrt_correction2 =
        static_cast<T>(1 / std::sqrt(1 - std::pow(config.adam_beta2, steps)));
    return step;
}

template <class T>
void adam(const AdamStep<T>& step, const T* gradients, std::size_t size, T* parameters, T* m,
          T* v) {
    constexpr std::size_t kBlock = 4096;
#pragma omp parallel for schedule(static) if (size >= 2 * kBlock)
    for (std::size_t begin = 0; begin < size; begin += kBlock) {
        update(step, gradients + begin, std::min(kBlock, size - begin), parameters + begin,
               m + begin, v + begin);
    }
}

template AdamStep<float> adam_step(const TrainConfig&, double, std::uint64_t);
template AdamStep<double> adam_step(const TrainConfig&, double, std::uint64_t);
template void adam(const AdamStep<float>&, const float*, std::size_t, float*, float*, float*);
template void adam(const AdamStep<double>&, const double*, std::size_t, double*, double*, double*);

}  // namespace vae::cpu
