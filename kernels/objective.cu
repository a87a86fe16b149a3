#include "kernels/objective.h"

#include <cfloat>

#include "kernels/check.h"
#include "kernels/largest.cuh"
#include "kernels/launch.h"
#include "kernels/reduce.cuh"
#include "kernels/shared_memory.cuh"
#include "kernels/step_state.cuh"
#include "kernels/tile_grid.h"

namespace vae::kernels {
namespace {

constexpr unsigned kWarps = 8;
constexpr unsigned kThreads = kWarps * kWarpSize;

bool is_weighted(Objective kind) {
    return kind == Objective::iwae || kind == Objective::dreg;
}

bool is_score(Objective kind) {
    return kind == Objective::score || kind == Objective::score_leave_one_out ||
           kind == Objective::score_running_mean;
}

// One example's draws, spread over the lanes of a warp.
struct ExampleDraws {
    const float* recon;
    const float* log_ratio;  // null: zero
    unsigned samples;
    unsigned lane;
    double beta;

    __device__ double ratio(unsigned s) const { return log_ratio != nullptr ? log_ratio[s] : 0; }
    __device__ double log_weight(unsigned s) const { return -recon[s] - beta * ratio(s); }

    // The sum of term(s) over all draws, in every lane.
    template <class Term>
    __device__ double sum(const Term& term) const {
        double lanes = 0;
        for (unsigned s = lane; s < samples; s += kWarpSize) lanes += term(s);
        return warp_sum(lanes);
    }
};

// loss, and the weights of the importance-weighted bound.
__device__ inline double weighted_loss(const ExampleDraws& draws, bool is_dreg, std::size_t first,
                                       const ObjectiveOutputs& out) {
    double top = -DBL_MAX;
    for (unsigned s = draws.lane; s < draws.samples; s += kWarpSize) {
        top = larger(top, draws.log_weight(s));
    }
    top = warp_largest(top);
    const double total = draws.sum([&](unsigned s) { return exp(draws.log_weight(s) - top); });
    for (unsigned s = draws.lane; s < draws.samples; s += kWarpSize) {
        const double v = exp(draws.log_weight(s) - top) / total;
        const double path = is_dreg ? 1 - draws.beta * (1 - v) : 1;
        const double ratio = draws.beta * v * path;
        const std::size_t r = first + s;
        if (out.decoder != nullptr) out.decoder[r] = static_cast<float>(v);
        if (out.path != nullptr) out.path[r] = static_cast<float>(path);
        if (out.ratio != nullptr) out.ratio[r] = static_cast<float>(ratio);
        if (out.score != nullptr) out.score[r] = is_dreg ? 0.0f : static_cast<float>(ratio);
    }
    return log(static_cast<double>(draws.samples)) - top - log(total);
}

__device__ inline void plain_weights(const ExampleDraws& draws, double ratio, std::size_t first,
                                     const ObjectiveOutputs& out) {
    const double each = 1 / static_cast<double>(draws.samples);
    for (unsigned s = draws.lane; s < draws.samples; s += kWarpSize) {
        const std::size_t r = first + s;
        if (out.decoder != nullptr) out.decoder[r] = static_cast<float>(each);
        if (out.path != nullptr) out.path[r] = 1.0f;
        if (out.ratio != nullptr) out.ratio[r] = static_cast<float>(ratio * each);
        if (out.score != nullptr) out.score[r] = static_cast<float>(ratio * each);
    }
}

// `kl_weight` is beta if the KL term is part of the signal, else 0.
__device__ inline void score_weights(const ExampleDraws& draws, Objective kind, double kl_weight,
                                     double baseline, std::size_t first, std::size_t example,
                                     const ObjectiveOutputs& out) {
    const auto signal = [&](unsigned s) { return draws.recon[s] + kl_weight * draws.ratio(s); };
    const double count = draws.samples;
    const double mean = draws.sum(signal) / count;
    for (unsigned s = draws.lane; s < draws.samples; s += kWarpSize) {
        // signal − (Σ − signal)/(S − 1)
        const double advantage = kind == Objective::score_leave_one_out
                                     ? (signal(s) - mean) * count / (count - 1)
                                     : signal(s) - baseline;
        const std::size_t r = first + s;
        if (out.decoder != nullptr) out.decoder[r] = static_cast<float>(1 / count);
        if (out.path != nullptr) out.path[r] = 0.0f;
        if (out.ratio != nullptr) out.ratio[r] = 0.0f;
        if (out.score != nullptr) out.score[r] = static_cast<float>(advantage / count);
    }
    if (out.signal != nullptr && draws.lane == 0) out.signal[example] = static_cast<float>(mean);
}

template <Objective kKind>
__global__ void __launch_bounds__(kThreads)
    objective_kernel(const ObjectiveInputs in, const double* running_mean,
                     const ObjectiveOutputs out) {
    const std::size_t example =
        static_cast<std::size_t>(blockIdx.x) * kWarps + threadIdx.x / kWarpSize;
    if (example >= static_cast<std::size_t>(in.examples)) return;  // the whole warp
    const std::size_t first = example * static_cast<std::size_t>(in.samples);
    const ExampleDraws draws{
        in.recon + first, in.log_ratio != nullptr ? in.log_ratio + first : nullptr,
        static_cast<unsigned>(in.samples), threadIdx.x % kWarpSize, with_beta(in.beta, in.state)};
    const double count = draws.samples;
    const double recon = draws.sum([&](unsigned s) { return draws.recon[s]; }) / count;
    const bool is_sampled = in.kl == nullptr;
    const double kl = is_sampled ? draws.sum([&](unsigned s) { return draws.ratio(s); }) / count
                                 : static_cast<double>(in.kl[example]);
    // The losses last, so that fewer registers are in use at the same time.
    double loss = 0;
    const double ratio = is_sampled ? draws.beta : 0;
    if constexpr (kKind == Objective::iwae || kKind == Objective::dreg) {
        loss = weighted_loss(draws, kKind == Objective::dreg, first, out);
    } else if constexpr (kKind == Objective::elbo) {
        plain_weights(draws, ratio, first, out);
    } else {
        const double baseline = kKind == Objective::score_running_mean ? *running_mean : 0;
        score_weights(draws, kKind, ratio, baseline, first, example, out);
    }
    if (draws.lane != 0) return;
    if constexpr (kKind != Objective::iwae && kKind != Objective::dreg) {
        loss = recon + draws.beta * (in.loss_kl != nullptr ? in.loss_kl[example] : kl);
    }
    if (out.recon != nullptr) out.recon[example] = static_cast<float>(recon);
    if (out.kl != nullptr) out.kl[example] = static_cast<float>(kl);
    if (out.loss != nullptr) out.loss[example] = static_cast<float>(loss);
}

__global__ void __launch_bounds__(kThreads)
    update_running_mean_kernel(const float* signal, unsigned examples, double decay,
                               double* running_mean) {
    double sum = 0;
    for (unsigned b = threadIdx.x; b < examples; b += kThreads) sum += signal[b];
    sum = block_sum(sum, dynamic_shared<double>());
    if (threadIdx.x != 0) return;
    const double mean = sum / examples;
    const double before = *running_mean;
    const double next = before == 0 ? mean : before + (1 - decay) * (mean - before);
    if (fabs(next) <= DBL_MAX) *running_mean = next;
}

template <Objective kKind>
void launch_objective(const ObjectiveInputs& inputs, const double* running_mean,
                      const ObjectiveOutputs& outputs, cudaStream_t stream) {
    const auto blocks =
        static_cast<unsigned>(tiles_of(static_cast<std::size_t>(inputs.examples), kWarps));
    launch("objective", objective_kernel<kKind>, {dim3(blocks), dim3(kThreads)}, stream, inputs,
           running_mean, outputs);
}

}  // namespace

void objective(Objective kind, const ObjectiveInputs& inputs, const double* running_mean,
               const ObjectiveOutputs& outputs, cudaStream_t stream) {
    constexpr const char* kLauncher = "objective";
    require(inputs.examples >= 0 && inputs.samples >= 1, kLauncher,
            "examples must not be negative, and samples at least 1");
    require(kind != Objective::score_leave_one_out || inputs.samples >= 2, kLauncher,
            "the mean of an example's other draws needs 2 of them");
    require(kind != Objective::score_running_mean || running_mean != nullptr, kLauncher,
            "the running mean is missing");
    require(inputs.log_ratio != nullptr || (inputs.kl != nullptr && !is_weighted(kind)), kLauncher,
            "log_ratio is missing");
    require(inputs.loss_kl == nullptr || !is_weighted(kind), kLauncher,
            "another KL term is for the ELBO");
    require(outputs.signal == nullptr || is_score(kind), kLauncher,
            "only the score function has a signal");
    if (inputs.examples == 0) return;
    switch (kind) {
        case Objective::elbo:
            return launch_objective<Objective::elbo>(inputs, running_mean, outputs, stream);
        case Objective::iwae:
            return launch_objective<Objective::iwae>(inputs, running_mean, outputs, stream);
        case Objective::dreg:
            return launch_objective<Objective::dreg>(inputs, running_mean, outputs, stream);
        case Objective::score:
            return launch_objective<Objective::score>(inputs, running_mean, outputs, stream);
        case Objective::score_leave_one_out:
            return launch_objective<Objective::score_leave_one_out>(inputs, running_mean, outputs,
                                                                    stream);
        case Objective::score_running_mean:
            return launch_objective<Objective::score_running_mean>(inputs, running_mean, outputs,
                                                                   stream);
    }
    require(false, kLauncher, "unknown objective");
}

void update_running_mean(const float* signal, int examples, double decay, double* running_mean,
                         cudaStream_t stream) {
    require(examples >= 0, "update_running_mean", "examples must not be negative");
    if (examples == 0) return;
    const LaunchShape shape{dim3(1), dim3(kThreads), kWarps * sizeof(double)};
    launch("update_running_mean", update_running_mean_kernel, shape, stream, signal,
           static_cast<unsigned>(examples), decay, running_mean);
}

}  // namespace vae::kernels
