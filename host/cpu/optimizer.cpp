#include "host/cpu/optimizer.h"

#include <algorithm>
#include <cmath>

#include "host/cpu/sums.h"
#include "host/cpu/vector_math.h"

namespace vae::cpu {
namespace {

// Each takes its step by value: a copy that the stores cannot alias.
template <class T>
VAE_CPU_INLINE void adam_range(OptimizerStep<T> s, T scale, const T* gradients, std::size_t size,
                               const OptimizerArenas<T>& a) {
    T* p = a.parameters;
    T* m = a.moment1;
    T* v = a.moment2;
#pragma omp simd
    for (std::size_t i = 0; i < size; ++i) {
        const T g = scale * gradients[i] + s.weight_decay * p[i];
        const T mean = s.beta1 * m[i] + s.one_minus_beta1 * g;
        const T square = s.beta2 * v[i] + s.one_minus_beta2 * g * g;
        m[i] = mean;
        v[i] = square;
        p[i] = s.shrink * p[i] -
               s.step_size * mean / (std::sqrt(square) * s.inverse_sqrt_correction2 + s.epsilon);
    }
}

template <class T>
VAE_CPU_INLINE void adagrad_range(OptimizerStep<T> s, T scale, const T* gradients, std::size_t size,
                                  const OptimizerArenas<T>& a) {
    T* p = a.parameters;
    T* sum = a.moment1;
#pragma omp simd
    for (std::size_t i = 0; i < size; ++i) {
        const T g = scale * gradients[i] + s.weight_decay * p[i];
        sum[i] += g * g;
        p[i] -= s.step_size * g / (std::sqrt(sum[i]) + s.epsilon);
    }
}

template <class T>
VAE_CPU_INLINE void sgd_range(OptimizerStep<T> s, T scale, const T* gradients, std::size_t size,
                              const OptimizerArenas<T>& a) {
    T* p = a.parameters;
    T* v = a.moment1;
    if (v == nullptr) {
#pragma omp simd
        for (std::size_t i = 0; i < size; ++i) {
            p[i] -= s.step_size * (scale * gradients[i] + s.weight_decay * p[i]);
        }
        return;
    }
#pragma omp simd
    for (std::size_t i = 0; i < size; ++i) {
        v[i] = s.momentum * v[i] + (scale * gradients[i] + s.weight_decay * p[i]);
        p[i] -= s.step_size * v[i];
    }
}

template <class T>
VAE_CPU_INLINE void any_range(const OptimizerStep<T>& s, T scale, const T* gradients,
                              std::size_t size, const OptimizerArenas<T>& a) {
    switch (s.optimizer) {
        case Optimizer::adam:
        case Optimizer::adamw:
            adam_range(s, scale, gradients, size, a);
            break;
        case Optimizer::adagrad:
            adagrad_range(s, scale, gradients, size, a);
            break;
        case Optimizer::sgd:
            sgd_range(s, scale, gradients, size, a);
            break;
    }
    if (a.ema == nullptr) return;
    const T decay = s.ema_decay;
    const T rest = s.one_minus_ema_decay;
    const T* p = a.parameters;
    T* ema = a.ema;
#pragma omp simd
    for (std::size_t i = 0; i < size; ++i) ema[i] = decay * ema[i] + rest * p[i];
}

VAE_CPU_CLONES void update_range(const OptimizerStep<float>& step, float scale,
                                 const float* gradients, std::size_t size,
                                 const OptimizerArenas<float>& arenas) {
    any_range(step, scale, gradients, size, arenas);
}

void update_range(const OptimizerStep<double>& step, double scale, const double* gradients,
                  std::size_t size, const OptimizerArenas<double>& arenas) {
    any_range(step, scale, gradients, size, arenas);
}

template <class T>
OptimizerArenas<T> moved(const OptimizerArenas<T>& arenas, std::size_t by) {
    const auto move = [by](T* array) { return array == nullptr ? nullptr : array + by; };
    return {move(arenas.parameters), move(arenas.moment1), move(arenas.moment2), move(arenas.ema)};
}

}  // namespace

template <class T>
OptimizerStep<T> optimizer_step(const TrainConfig& config, double learning_rate, std::uint64_t t) {
    const auto steps = static_cast<double>(t);
    const bool is_adam =
        config.optimizer == Optimizer::adam || config.optimizer == Optimizer::adamw;
    const bool is_decoupled = config.optimizer == Optimizer::adamw;
    const double correction1 = is_adam ? 1 - std::pow(config.adam_beta1, steps) : 1;
    OptimizerStep<T> step;
    step.optimizer = config.optimizer;
    step.beta1 = static_cast<T>(config.adam_beta1);
    step.one_minus_beta1 = static_cast<T>(1 - config.adam_beta1);
    step.beta2 = static_cast<T>(config.adam_beta2);
    step.one_minus_beta2 = static_cast<T>(1 - config.adam_beta2);
    step.inverse_sqrt_correction2 =
        static_cast<T>(1 / std::sqrt(1 - std::pow(config.adam_beta2, steps)));
    step.epsilon = static_cast<T>(is_adam ? config.adam_epsilon : config.adagrad_epsilon);
    step.momentum = static_cast<T>(config.momentum);
    step.step_size = static_cast<T>(learning_rate / correction1);
    step.weight_decay = static_cast<T>(is_decoupled ? 0 : config.weight_decay);
    step.shrink = static_cast<T>(is_decoupled ? 1 - learning_rate * config.weight_decay : 1);
    step.ema_decay = static_cast<T>(config.ema);
    step.one_minus_ema_decay = static_cast<T>(1 - config.ema);
    return step;
}

template <class T>
void update(const OptimizerStep<T>& step, std::span<const Tensor> tensors,
            std::span<const double> scales, const T* gradients, const OptimizerArenas<T>& arenas) {
    constexpr std::size_t kBlock = 4096;
    for (std::size_t t = 0; t < tensors.size(); ++t) {
        const std::size_t offset = tensors[t].offset;
        const std::size_t size = tensors[t].size;
        const T scale = static_cast<T>(scales[t]);
#pragma omp parallel for schedule(static) if (size >= 2 * kBlock)
        for (std::size_t begin = 0; begin < size; begin += kBlock) {
            update_range(step, scale, gradients + offset + begin, std::min(kBlock, size - begin),
                         moved(arenas, offset + begin));
        }
    }
}

template OptimizerStep<float> optimizer_step(const TrainConfig&, double, std::uint64_t);
template OptimizerStep<double> optimizer_step(const TrainConfig&, double, std::uint64_t);
template void update(const OptimizerStep<float>&, std::span<const Tensor>, std::span<const double>,
                     const float*, const OptimizerArenas<float>&);
template void update(const OptimizerStep<double>&, std::span<const Tensor>, std::span<const double>,
                     const double*, const OptimizerArenas<double>&);

}  // namespace vae::cpu
