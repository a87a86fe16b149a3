#include "kernels/optimizer.h"

#include <limits>

#include "kernels/check.h"
#include "kernels/launch.h"
#include "kernels/programmatic.cuh"
#include "kernels/storage.cuh"

namespace vae::kernels {
namespace {

constexpr unsigned kThreads = 256;
// 64 registers a thread. Left to itself ptxas takes fewer for sm_100, and spills one.
constexpr unsigned kBlocksAtLeast = 4;

// Of every step.
struct Constants {
    float beta1;
    float one_minus_beta1;
    float beta2;
    float one_minus_beta2;
    float epsilon;
    float momentum;
    float weight_decay;
    float average_decay;
    float one_minus_average_decay;
};

// A constant and not a function, which the device could not call.
template <UpdateRule rule>
constexpr int kMoments = rule == UpdateRule::adam  ? 2
                         : rule == UpdateRule::sgd ? 0
                                                   : 1;
template <UpdateRule rule>
constexpr bool kHasMoment1 = kMoments<rule> >= 1;
template <UpdateRule rule>
constexpr bool kHasMoment2 = kMoments<rule> >= 2;

// One element: what is moved against, and the moments behind it.
template <UpdateRule rule>
__device__ inline float direction(const Constants& c, const StepState& state, float g,
                                  float& moment1, float& moment2) {
    if constexpr (rule == UpdateRule::adam) {
        moment1 = c.beta1 * moment1 + c.one_minus_beta1 * g;
        moment2 = c.beta2 * moment2 + c.one_minus_beta2 * g * g;
        return moment1 / (sqrtf(moment2) * state.inverse_sqrt_correction2 + c.epsilon);
    } else if constexpr (rule == UpdateRule::adagrad) {
        moment1 += g * g;
        return g / (sqrtf(moment1) + c.epsilon);
    } else if constexpr (rule == UpdateRule::momentum) {
        moment1 = c.momentum * moment1 + g;
        return moment1;
    } else {
        return g;
    }
}

template <int V>
__device__ inline Pack<V>& at(float* array, unsigned i) {
    return reinterpret_cast<Pack<V>*>(array)[i];
}

template <UpdateRule rule, bool has_average, int V>
__device__ inline void update(const Constants& c, const StepState& state, float scale,
                              const OptimizerArenas& arenas, unsigned i) {
    const Pack<V> gradients = reinterpret_cast<const Pack<V>*>(arenas.gradients)[i];
    Pack<V> p = at<V>(arenas.parameters, i);
    Pack<V> moment1 = {};
    Pack<V> moment2 = {};
    Pack<V> average = {};
    if constexpr (kHasMoment1<rule>) moment1 = at<V>(arenas.moment1, i);
    if constexpr (kHasMoment2<rule>) moment2 = at<V>(arenas.moment2, i);
    if constexpr (has_average) average = at<V>(arenas.average, i);
#pragma unroll
    for (int k = 0; k < V; ++k) {
        const float g = scale * gradients.v[k] + c.weight_decay * p.v[k];
        const float u = direction<rule>(c, state, g, moment1.v[k], moment2.v[k]);
        p.v[k] = state.shrink * p.v[k] - state.step_size * u;
        average.v[k] = c.average_decay * average.v[k] + c.one_minus_average_decay * p.v[k];
    }
    at<V>(arenas.parameters, i) = p;
    if constexpr (kHasMoment1<rule>) at<V>(arenas.moment1, i) = moment1;
    if constexpr (kHasMoment2<rule>) at<V>(arenas.moment2, i) = moment2;
    if constexpr (has_average) at<V>(arenas.average, i) = average;
    if (arenas.copy != nullptr) store_floats<V>(arenas.copy + i * V, p);
}

// The arenas from a piece's first element on.
template <UpdateRule rule, bool has_average>
__device__ inline OptimizerArenas piece_of(OptimizerArenas arenas, unsigned offset) {
    arenas.gradients += offset;
    arenas.parameters += offset;
    if constexpr (kHasMoment1<rule>) arenas.moment1 += offset;
    if constexpr (kHasMoment2<rule>) arenas.moment2 += offset;
    if constexpr (has_average) arenas.average += offset;
    if (arenas.copy != nullptr) arenas.copy += offset;
    return arenas;
}

template <UpdateRule rule, bool has_average>
__global__ void __launch_bounds__(kThreads, kBlocksAtLeast)
    optimizer_kernel(const Constants c, const ArenaPiece* pieces, bool are_aligned,
                     const float* scales, const unsigned* is_taken, const StepState* state,
                     const OptimizerArenas arenas) {
    const ArenaPiece piece = pieces[blockIdx.x];
    wait_for_previous_kernel();
    if (*is_taken == 0) return;
    const StepState now = *state;
    const float scale = scales[piece.tensor];
    const OptimizerArenas mine = piece_of<rule, has_average>(arenas, piece.offset);
    const unsigned fours = are_aligned && piece.offset % 4 == 0 ? piece.size / 4 : 0;
    for (unsigned i = threadIdx.x; i < fours; i += kThreads) {
        update<rule, has_average, 4>(c, now, scale, mine, i);
    }
    for (unsigned i = 4 * fours + threadIdx.x; i < piece.size; i += kThreads) {
        update<rule, has_average, 1>(c, now, scale, mine, i);
    }
}

template <UpdateRule rule>
void launch_rule(const Constants& c, const StepState* state, const ArenaTable& arena,
                 const float* scales, const unsigned* is_taken, const OptimizerArenas& arenas,
                 cudaStream_t stream) {
    require(kMoments<rule> < 1 || arenas.moment1 != nullptr, "optimizer", "no first moment");
    require(kMoments<rule> < 2 || arenas.moment2 != nullptr, "optimizer", "no second moment");
    if (arena.piece_count == 0) return;
    // Null is aligned.
    const bool are_aligned = aligned_to_four(arenas.gradients, arenas.parameters, arenas.moment1,
                                             arenas.moment2, arenas.average, arenas.copy);
    // Behind gradient_statistics, whose is_taken every block waits for.
    const LaunchShape shape{dim3(arena.piece_count), dim3(kThreads), 0, true};
    const auto kernel =
        arenas.average != nullptr ? &optimizer_kernel<rule, true> : &optimizer_kernel<rule, false>;
    launch("optimizer", kernel, shape, stream, c, arena.pieces, are_aligned, scales, is_taken,
           state, arenas);
}

}  // namespace

void optimizer(const OptimizerSettings& settings, const StepState* state, const ArenaTable& arena,
               const float* scales, const unsigned* is_taken, const OptimizerArenas& arenas,
               cudaStream_t stream) {
    const bool divides = settings.rule == UpdateRule::adam || settings.rule == UpdateRule::adagrad;
    require(!divides || settings.epsilon > 0, "optimizer",
            "epsilon must be positive: 0 / 0 where there is no gradient");
    require(arena.piece_count <= std::numeric_limits<int>::max(), "optimizer", "too many pieces");
    const Constants c{static_cast<float>(settings.beta1),
                      static_cast<float>(1 - settings.beta1),
                      static_cast<float>(settings.beta2),
                      static_cast<float>(1 - settings.beta2),
                      settings.epsilon,
                      settings.momentum,
                      settings.weight_decay,
                      static_cast<float>(settings.average_decay),
                      static_cast<float>(1 - settings.average_decay)};
    switch (settings.rule) {
        case UpdateRule::adam:
            return launch_rule<UpdateRule::adam>(c, state, arena, scales, is_taken, arenas, stream);
        case UpdateRule::adagrad:
            return launch_rule<UpdateRule::adagrad>(c, state, arena, scales, is_taken, arenas,
                                                    stream);
        case UpdateRule::momentum:
            return launch_rule<UpdateRule::momentum>(c, state, arena, scales, is_taken, arenas,
                                                     stream);
        case UpdateRule::sgd:
            return launch_rule<UpdateRule::sgd>(c, state, arena, scales, is_taken, arenas, stream);
    }
    require(false, "optimizer", "no such rule");
}

}  // namespace vae::kernels
