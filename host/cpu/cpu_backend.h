// The CPU backend: host/backend.h in float, or in double as the oracle.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "host/backend.h"
#include "host/cpu/buffer.h"
#include "host/cpu/gradient_statistics.h"
#include "host/cpu/network.h"
#include "host/noise.h"
#include "host/output_layer.h"
#include "host/request_checks.h"
#include "host/shuffle.h"

namespace vae::cpu {

template <class T>
class CpuBackend final : public Backend {
  public:
    CpuBackend(const Config& config, const ParameterLayout& layout)
        : config_(config),
          layout_(layout),
          network_(config, layout),
          statistics_(layout),
          moments_(moment_names(config.train).size()) {
        for (Buffer<T>* arena : {&parameters_, &gradients_}) arena->reserve(layout.arena_size);
        for (Buffer<T>& moment : moments_) moment.reserve(layout.arena_size);
        if (config.train.ema > 0) ema_.reserve(layout.arena_size);
    }

    std::string name() const override { return is_double() ? "cpu-double" : "cpu"; }

    std::string device() const override;

    bool is_double() const override { return std::is_same_v<T, double>; }

    void set_data(const Splits& splits) override;

    void set_state(const TrainingState& state) override;
    TrainingState state() override;

    std::vector<double> exact_parameters() override {
        const auto values = parameters_.first(layout_.arena_size);
        return {values.begin(), values.end()};
    }

    std::vector<double> exact_ema() override {
        if (config_.train.ema == 0) return {};
        const auto values = ema_.first(layout_.arena_size);
        return {values.begin(), values.end()};
    }

    void train(const TrainRequest& request) override;
    void close_totals() override;
    TrainTotals take_totals() override;
    LossTotals evaluate(Split split, double beta) override;
    void draw(const DrawRequest& request,
              const std::function<void(const DrawBlock&)>& visit) override;
    Posterior encode(std::span<const float> x) override;
    std::vector<float> decode(std::span<const float> z) override;
    std::vector<float> outputs(std::span<const float> z) override;
    std::vector<float> examples(Split split, std::span<const std::uint32_t> rows) override;
    Trace trace(const TrainRequest& one_step) override;

  private:
    using Rows = std::span<const std::uint32_t>;

    const Dataset& data_of(Split split) const;
    void load(const Dataset& data, Rows rows, Purpose purpose, std::uint64_t step);
    void load_for_training(const Dataset& data, Rows rows, std::uint64_t step);
    void load_for_evaluation(const Dataset& data, Rows rows, std::size_t samples);
    void draw_epsilon(const Dataset& data, Rows rows, const NoiseAddress& first_sample,
                      std::size_t samples);
    NoiseAddress noise(Purpose purpose, std::uint64_t step) const {
        return {config_.train.seed, purpose, static_cast<std::uint32_t>(step), 0, 0};
    }
    template <class Visit>
    void decode_batches(std::span<const float> z, const char* caller, Visit visit);
    void forward(const T* parameters, std::size_t examples);
    double backward(std::size_t examples, double beta);
    void draw_block(DrawBlock& block, bool wants_z);
    void move_running_mean(double signal);
    // Valid until the next call.
    Rows rows_of(const EpochPart& part);
    bool update(const LossTotals& losses, double learning_rate);
    // The parameters that evaluation and generation use.
    const T* averaged() const { return config_.train.ema > 0 ? ema_.data() : parameters_.data(); }
    LossTotals totals(std::size_t examples, double beta) const;
    std::vector<NamedOutputs> named_outputs(std::size_t examples) const;

    Config config_;
    ParameterLayout layout_;
    Network<T> network_;
    GradientStatistics statistics_;
    const Splits* splits_ = nullptr;
    Buffer<T> parameters_;
    Buffer<T> gradients_;
    std::vector<Buffer<T>> moments_;
    Buffer<T> ema_;
    Buffer<float> uniforms_;
    std::optional<Shuffle> shuffle_;  // of shuffle_epoch_
    std::optional<std::uint32_t> shuffle_epoch_;
    std::vector<std::uint32_t> rows_;
    std::uint64_t step_ = 0;
    double running_mean_ = 0;  // of the score function's signal
    TrainTotals totals_;
    std::deque<TrainTotals> closed_;
};

extern template class CpuBackend<float>;
extern template class CpuBackend<double>;

}  // namespace vae::cpu
