// make_cpu_backend and make_cpu_double_backend of host/backend.h.
#include "host/cpu/cpu_backend.h"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "host/cpu/gather.h"
#include "host/cpu/optimizer.h"
#include "host/cpu/sums.h"
#include "host/stored_examples.h"

namespace vae {
namespace cpu {
namespace {

constexpr std::size_t kInferenceRows = 500;  // of what the decoder, or the encoder alone, sees
constexpr std::size_t kDrawsAtOnce = 50;     // of an example whose draws are many

// "model name" of /proc/cpuinfo, where there is one.
std::string processor_name() {
    std::ifstream info("/proc/cpuinfo");
    for (std::string line; std::getline(info, line);) {
        if (!line.starts_with("model name")) continue;
        const std::size_t colon = line.find(": ");
        if (colon != std::string::npos) return line.substr(colon + 2);
    }
    return "this processor";
}

template <class From, class To>
void convert(std::span<const From> from, To* to) {
    std::transform(from.begin(), from.end(), to, [](From v) { return static_cast<To>(v); });
}

}  // namespace

template <class T>
std::string CpuBackend<T>::device() const {
    const int threads = omp_get_max_threads();
    return fmt::format("{} {} of {}", threads, threads == 1 ? "thread" : "threads",
                       processor_name());
}

template <class T>
void CpuBackend<T>::set_state(const TrainingState& state) {
    check_state(state, layout_, config_.train);
    convert<float>(state.parameters, parameters_.data());
    for (std::size_t i = 0; i < moments_.size(); ++i) {
        convert<float>(state.moments[i], moments_[i].data());
    }
    convert<float>(state.ema, ema_.data());
    step_ = state.step;
    running_mean_ = state.running_mean;
}

template <class T>
TrainingState CpuBackend<T>::state() {
    TrainingState state;
    const auto copy = [&](const Buffer<T>& arena, std::vector<float>& to) {
        to.resize(layout_.arena_size);
        convert(arena.first(layout_.arena_size), to.data());
    };
    copy(parameters_, state.parameters);
    state.moments.resize(moments_.size());
    for (std::size_t i = 0; i < moments_.size(); ++i) copy(moments_[i], state.moments[i]);
    if (config_.train.ema > 0) copy(ema_, state.ema);
    state.step = step_;
    state.running_mean = running_mean_;
    return state;
}

template <class T>
void CpuBackend<T>::set_data(const Splits& splits) {
    check_data(splits, layout_);
    splits_ = &splits;
    shuffle_epoch_.reset();
    expect_scattered_reads(splits.train);
}

template <class T>
const Dataset& CpuBackend<T>::data_of(Split split) const {
    if (splits_ == nullptr) throw std::logic_error("CpuBackend: used before set_data");
    return splits_->of(split);
}

template <class T>
void CpuBackend<T>::load(const Dataset& data, Rows rows, Purpose purpose, std::uint64_t step) {
    expect_reads(data, rows);
    if (config_.data.binarize == Binarize::none) {
        gather(data, rows, network_.x());
        return;
    }
    uniforms_.reserve(rows.size() * layout_.pixels);
    gather_binary(data, rows, noise(purpose, step), uniforms_.data(), network_.x());
}

template <class T>
void CpuBackend<T>::load_for_training(const Dataset& data, Rows rows, std::uint64_t step) {
    network_.reserve(rows.size(), config_.objective.samples);
    if (config_.data.binarize == Binarize::dynamic) {
        load(data, rows, Purpose::dynamic_binarization, step);
    } else {
        load(data, rows, Purpose::fixed_binarization, 0);
    }
}

template <class T>
void CpuBackend<T>::load_for_evaluation(const Dataset& data, Rows rows, std::size_t samples) {
    network_.reserve(rows.size(), samples);
    load(data, rows, Purpose::fixed_binarization, 0);
}

// first_sample: the address of the first one, but for the example.
template <class T>
void CpuBackend<T>::draw_epsilon(const Dataset& data, Rows rows, const NoiseAddress& first_sample,
                                 std::size_t samples) {
    const std::size_t latent = layout_.heads.latent;
    T* epsilon = network_.epsilon();
    for_each_chunk(rows.size(), samples * latent * 8,
                   [=, &data](std::size_t, std::size_t first, std::size_t last) {
                       for (std::size_t r = first * samples; r < last * samples; ++r) {
                           NoiseAddress address = first_sample;
                           address.example = data.first_index + rows[r / samples];
                           address.sample += static_cast<std::uint32_t>(r % samples);
                           fill_normal(address, std::span<T>(epsilon + r * latent, latent));
                       }
                   });
}

// x and epsilon are there; all but the losses follows.
template <class T>
void CpuBackend<T>::forward(const T* parameters, std::size_t examples) {
    const std::size_t samples = config_.objective.samples;
    network_.encode(parameters, examples);
    network_.sample(parameters, examples, samples);
    network_.decode(parameters, examples * samples);
}

// Returns the mean signal of the score function.
template <class T>
double CpuBackend<T>::backward(std::size_t examples, double beta) {
    return network_.backward(parameters_.data(), examples, beta, running_mean_, gradients_.data());
}

// A signal that is not finite leaves it as it is.
template <class T>
void CpuBackend<T>::move_running_mean(double signal) {
    if (config_.objective.baseline != Baseline::running_mean || !std::isfinite(signal)) return;
    running_mean_ =
        running_mean_ == 0 ? signal : running_mean_ + kRunningMeanRate * (signal - running_mean_);
}

template <class T>
LossTotals CpuBackend<T>::totals(std::size_t examples, double beta) const {
    LossTotals sums;
    for (std::size_t b = 0; b < examples; ++b) {
        sums.recon += static_cast<double>(network_.recon()[b]);
        sums.kl += static_cast<double>(network_.kl()[b]);
        sums.loss += static_cast<double>(network_.loss()[b]);
    }
    // The sums of the two terms are more exact than that of their rounded sums.
    const ObjectiveConfig& objective = config_.objective;
    if (objective.bound == Bound::elbo && !objective.uses_free_bits()) {
        sums.loss = sums.recon + beta * sums.kl;
    }
    sums.examples = examples;
    return sums;
}

// The step is counted, and taken unless something is not finite; returns whether it was.
template <class T>
bool CpuBackend<T>::update(const LossTotals& losses, double learning_rate) {
    statistics_.measure(gradients_.data(), config_.train);
    const auto bad = statistics_.first_bad();
    const std::uint64_t step = step_++;
    if (bad || !std::isfinite(losses.loss)) {
        totals_.skipped += {1, step, bad ? statistics_.tensors()[*bad].name : ""};
        return false;
    }
    const auto moment = [this](std::size_t i) {
        return i < moments_.size() ? moments_[i].data() : nullptr;
    };
    cpu::update(optimizer_step<T>(config_.train, learning_rate, step_),
                std::span<const Tensor>(statistics_.tensors()), statistics_.scales(),
                std::as_const(gradients_).data(),
                OptimizerArenas<T>{parameters_.data(), moment(0), moment(1),
                                   config_.train.ema > 0 ? ema_.data() : nullptr});
    totals_.losses += losses;
    return true;
}

template <class T>
std::span<const std::uint32_t> CpuBackend<T>::rows_of(const EpochPart& part) {
    if (part.count == 0) return {};
    const auto examples = static_cast<std::uint32_t>(data_of(Split::train).size);
    if (shuffle_epoch_ != part.epoch) {
        shuffle_.emplace(config_.train.seed, part.epoch, examples);
        shuffle_epoch_ = part.epoch;
    }
    rows_.resize(part.count);
    for (std::uint32_t i = 0; i < part.count; ++i) rows_[i] = shuffle_->row(part.first + i);
    return rows_;
}

template <class T>
void CpuBackend<T>::train(const TrainRequest& request) {
    const Dataset& data = data_of(Split::train);
    check_training(request, data.size, step_);
    const Rows all = request.rows.empty() ? rows_of(request.part) : request.rows;
    for (std::size_t at = 0; at < all.size(); at += request.batch) {
        const StepSchedule& now = request.step_schedule(at / request.batch);
        const Rows rows = all.subspan(at, std::min<std::size_t>(request.batch, all.size() - at));
        load_for_training(data, rows, step_);
        draw_epsilon(data, rows, noise(Purpose::epsilon, step_), config_.objective.samples);
        forward(parameters_.data(), rows.size());
        move_running_mean(backward(rows.size(), now.beta));
        if (update(totals(rows.size(), now.beta), now.learning_rate)) {
            network_.keep_variance(parameters_.data(), config_.train.ema,
                                   config_.train.ema > 0 ? ema_.data() : nullptr);
        }
    }
}

template <class T>
void CpuBackend<T>::close_totals() {
    if (closed_.size() == kClosedTotals) throw std::logic_error("totals that nobody takes");
    closed_.push_back(std::exchange(totals_, {}));
}

template <class T>
TrainTotals CpuBackend<T>::take_totals() {
    if (closed_.empty()) close_totals();
    TrainTotals oldest = std::move(closed_.front());
    closed_.pop_front();
    return oldest;
}

template <class T>
LossTotals CpuBackend<T>::evaluate(Split split, double beta) {
    const Dataset& data = data_of(split);
    const std::size_t samples = config_.objective.samples;
    const std::size_t at_once = std::max<std::size_t>(kInferenceRows / samples, 1);
    std::array<std::uint32_t, kInferenceRows> indices{};
    LossTotals sums;
    for (std::size_t first = 0; first < data.size; first += at_once) {
        const Rows rows(indices.data(), std::min(at_once, data.size - first));
        std::iota(indices.begin(), indices.end(), static_cast<std::uint32_t>(first));
        load_for_evaluation(data, rows, samples);
        draw_epsilon(data, rows, noise(Purpose::evaluation_epsilon, 0), samples);
        forward(averaged(), rows.size());
        network_.losses(averaged(), rows.size(), beta);
        sums += totals(rows.size(), beta);
    }
    return sums;
}

template <class T>
void CpuBackend<T>::draw(const DrawRequest& request,
                         const std::function<void(const DrawBlock&)>& visit) {
    const Dataset& data = data_of(request.split);
    check_draws(request, data.size);
    const std::size_t draws = std::min<std::size_t>(request.draws, kDrawsAtOnce);
    const std::size_t examples = std::min(kInferenceRows / draws, request.rows.size());
    for (std::size_t first = 0; first < request.rows.size(); first += examples) {
        DrawBlock block;
        block.first_row = first;
        block.rows = std::min(examples, request.rows.size() - first);
        const Rows rows = request.rows.subspan(first, block.rows);
        load_for_evaluation(data, rows, draws);
        network_.encode(averaged(), block.rows);
        for (std::uint32_t at = 0; at < request.draws; at += block.draws) {
            block.first_draw = at;
            block.draws = std::min(static_cast<std::uint32_t>(draws), request.draws - at);
            draw_epsilon(data, rows, {request.seed, Purpose::importance_epsilon, 0, 0, at},
                         block.draws);
            draw_block(block, request.wants_z);
            visit(block);
        }
    }
}

// The rows are encoded, and epsilon is there.
template <class T>
void CpuBackend<T>::draw_block(DrawBlock& block, bool wants_z) {
    const std::size_t rows = block.rows * block.draws;
    network_.sample(averaged(), block.rows, block.draws);
    network_.decode(averaged(), rows);
    network_.reconstruct(averaged(), block.rows, block.draws);
    block.recon.assign(network_.draw_recon(), network_.draw_recon() + rows);
    block.log_ratio.assign(network_.log_ratio(), network_.log_ratio() + rows);
    if (!wants_z) return;
    block.z.resize(rows * layout_.heads.latent);
    convert(std::span<const T>(network_.z(), block.z.size()), block.z.data());
}

template <class T>
Posterior CpuBackend<T>::encode(std::span<const float> x) {
    const std::size_t count = whole_rows(x.size(), layout_.pixels, "encode");
    const std::size_t latent = layout_.heads.latent;
    const std::size_t below = layout_.heads.tril_size();
    Posterior posterior{std::vector<float>(count * latent), std::vector<float>(count * latent),
                        std::vector<float>(count * below)};
    for (std::size_t first = 0; first < count; first += kInferenceRows) {
        const std::size_t rows = std::min(kInferenceRows, count - first);
        network_.reserve(rows, 1);
        convert(x.subspan(first * layout_.pixels, rows * layout_.pixels), network_.x());
        std::fill_n(network_.epsilon(), rows * latent, T(0));
        network_.encode(averaged(), rows);
        network_.sample(averaged(), rows, 1);
        convert(std::span(network_.mu(), rows * latent), posterior.mu.data() + first * latent);
        convert(std::span(network_.logvar(), rows * latent),
                posterior.logvar.data() + first * latent);
        if (below == 0) continue;
        convert(std::span(network_.tril(), rows * below), posterior.tril.data() + first * below);
    }
    return posterior;
}

// Calls visit(first row, rows) after each batch of z is decoded.
template <class T>
template <class Visit>
void CpuBackend<T>::decode_batches(std::span<const float> z, const char* caller, Visit visit) {
    const std::size_t latent = layout_.heads.latent;
    const std::size_t count = whole_rows(z.size(), latent, caller);
    for (std::size_t first = 0; first < count; first += kInferenceRows) {
        const std::size_t rows = std::min(kInferenceRows, count - first);
        network_.reserve(rows, 1);
        convert(z.subspan(first * latent, rows * latent), network_.z());
        network_.decode(averaged(), rows);
        visit(first, rows);
    }
}

template <class T>
std::vector<float> CpuBackend<T>::decode(std::span<const float> z) {
    std::vector<float> means(z.size() / layout_.heads.latent * layout_.pixels);
    decode_batches(z, "decode", [&](std::size_t first, std::size_t rows) {
        network_.mean(averaged(), rows, network_.x());
        convert(std::span<const T>(network_.x(), rows * layout_.pixels),
                means.data() + first * layout_.pixels);
    });
    return means;
}

template <class T>
std::vector<float> CpuBackend<T>::outputs(std::span<const float> z) {
    const std::size_t width = layout_.output.out;
    std::vector<float> all(z.size() / layout_.heads.latent * width);
    decode_batches(z, "outputs", [&](std::size_t first, std::size_t rows) {
        std::vector<T> values(rows * width);
        network_.outputs(averaged(), rows, values.data());
        convert(std::span<const T>(values), all.data() + first * width);
    });
    return all;
}

template <class T>
std::vector<float> CpuBackend<T>::examples(Split split, Rows rows) {
    const Dataset& data = data_of(split);
    check_rows(rows, split, data.size);
    std::vector<float> values(rows.size() * layout_.pixels);
    for (std::size_t first = 0; first < rows.size(); first += kInferenceRows) {
        const Rows part = rows.subspan(first, std::min(kInferenceRows, rows.size() - first));
        load_for_evaluation(data, part, 1);
        convert(std::span<const T>(network_.x(), part.size() * layout_.pixels),
                values.data() + first * layout_.pixels);
    }
    return values;
}

template class CpuBackend<float>;
template class CpuBackend<double>;

}  // namespace cpu

std::unique_ptr<Backend> make_cpu_backend(const Config& config, const ParameterLayout& layout) {
    return std::make_unique<cpu::CpuBackend<float>>(config, layout);
}

std::unique_ptr<Backend> make_cpu_double_backend(const Config& config,
                                                 const ParameterLayout& layout) {
    return std::make_unique<cpu::CpuBackend<double>>(config, layout);
}

}  // namespace vae
