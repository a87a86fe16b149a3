// make_cpu_backend and make_cpu_double_backend of host/backend.h.
#include "host/backend.h"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <numeric>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "host/cpu/adam.h"
#include "host/cpu/buffer.h"
#include "host/cpu/gather.h"
#include "host/cpu/network.h"
#include "host/cpu/sums.h"
#include "host/noise.h"
#include "host/output_layer.h"
#include "host/request_checks.h"

namespace vae {
namespace cpu {
namespace {

constexpr std::size_t kInferenceRows = 500;  // of a batch in evaluate, encode and decode

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

template <class T>
class CpuBackend final : public Backend {
  public:
    CpuBackend(const Config& config, const ParameterLayout& layout)
        : config_(config), layout_(layout), network_(config.model, layout) {
        for (Buffer<T>* arena : {&parameters_, &gradients_, &m_, &v_}) {
            arena->reserve(layout.arena_size);
        }
    }

    std::string name() const override { return is_double() ? "cpu-double" : "cpu"; }

    std::string device() const override {
        const int threads = omp_get_max_threads();
        return fmt::format("{} {} of {}", threads, threads == 1 ? "thread" : "threads",
                           processor_name());
    }

    bool is_double() const override { return std::is_same_v<T, double>; }

    void set_data(const Splits& splits) override {
        check_data(splits, layout_);
        splits_ = &splits;
    }

    void set_state(const TrainingState& state) override;
    TrainingState state() override;

    std::vector<double> exact_parameters() override {
        const auto values = parameters_.first(layout_.arena_size);
        return {values.begin(), values.end()};
    }

    void train(const TrainRequest& request) override;
    LossTotals take_totals() override { return std::exchange(totals_, {}); }
    LossTotals evaluate(Split split, double beta) override;
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
    void load_for_evaluation(const Dataset& data, Rows rows);
    void draw_epsilon(const Dataset& data, Rows rows, Purpose purpose, std::uint64_t step);
    template <class Visit>
    void decode_batches(std::span<const float> z, const char* caller, Visit visit);
    void forward(std::size_t rows);
    LossTotals totals(std::size_t rows, double beta) const;
    std::vector<NamedOutputs> named_outputs(std::size_t rows) const;

    Config config_;
    ParameterLayout layout_;
    Network<T> network_;
    const Splits* splits_ = nullptr;
    Buffer<T> parameters_;
    Buffer<T> gradients_;
    Buffer<T> m_;
    Buffer<T> v_;
    Buffer<float> uniforms_;
    std::uint64_t step_ = 0;
    LossTotals totals_;
};

template <class T>
void CpuBackend<T>::set_state(const TrainingState& state) {
    check_state(state, layout_);
    convert<float>(state.parameters, parameters_.data());
    convert<float>(state.adam_m, m_.data());
    convert<float>(state.adam_v, v_.data());
    step_ = state.step;
}

template <class T>
TrainingState CpuBackend<T>::state() {
    TrainingState state;
    const auto copy = [&](const Buffer<T>& arena, std::vector<float>& to) {
        to.resize(layout_.arena_size);
        convert(arena.first(layout_.arena_size), to.data());
    };
    copy(parameters_, state.parameters);
    copy(m_, state.adam_m);
    copy(v_, state.adam_v);
    state.step = step_;
    return state;
}

template <class T>
const Dataset& CpuBackend<T>::data_of(Split split) const {
    if (splits_ == nullptr) throw std::logic_error("CpuBackend: used before set_data");
    return splits_->of(split);
}

template <class T>
void CpuBackend<T>::load(const Dataset& data, Rows rows, Purpose purpose, std::uint64_t step) {
    network_.reserve(rows.size());
    if (config_.data.binarize == Binarize::none) {
        gather(data, rows, network_.x());
        return;
    }
    uniforms_.reserve(rows.size() * layout_.pixels);
    const NoiseAddress stream{config_.train.seed, purpose, static_cast<std::uint32_t>(step), 0, 0};
    gather_binary(data, rows, stream, uniforms_.data(), network_.x());
}

template <class T>
void CpuBackend<T>::load_for_training(const Dataset& data, Rows rows, std::uint64_t step) {
    if (config_.data.binarize == Binarize::dynamic) {
        load(data, rows, Purpose::dynamic_binarization, step);
    } else {
        load(data, rows, Purpose::fixed_binarization, 0);
    }
}

template <class T>
void CpuBackend<T>::load_for_evaluation(const Dataset& data, Rows rows) {
    load(data, rows, Purpose::fixed_binarization, 0);
}

template <class T>
void CpuBackend<T>::draw_epsilon(const Dataset& data, Rows rows, Purpose purpose,
                                 std::uint64_t step) {
    const std::size_t latent = layout_.heads.latent;
    const NoiseAddress stream{config_.train.seed, purpose, static_cast<std::uint32_t>(step), 0, 0};
    T* epsilon = network_.epsilon();
    for_each_chunk(rows.size(), latent * 8,
                   [=, &data](std::size_t, std::size_t first, std::size_t last) {
                       for (std::size_t r = first; r < last; ++r) {
                           NoiseAddress address = stream;
                           address.example = data.first_index + rows[r];
                           fill_normal(address, std::span<T>(epsilon + r * latent, latent));
                       }
                   });
}

// x and epsilon are there; all but recon follows.
template <class T>
void CpuBackend<T>::forward(std::size_t rows) {
    network_.encode(parameters_.data(), rows);
    network_.sample(parameters_.data(), rows);
    network_.decode(parameters_.data(), rows);
}

template <class T>
LossTotals CpuBackend<T>::totals(std::size_t rows, double beta) const {
    LossTotals sums;
    for (std::size_t r = 0; r < rows; ++r) {
        sums.recon += static_cast<double>(network_.recon()[r]);
        sums.kl += static_cast<double>(network_.kl()[r]);
    }
    sums.loss = sums.recon + beta * sums.kl;
    sums.examples = rows;
    return sums;
}

template <class T>
void CpuBackend<T>::train(const TrainRequest& request) {
    const Dataset& data = data_of(Split::train);
    check_training(request, data.size, step_);
    for (std::size_t at = 0; at < request.rows.size(); at += request.batch) {
        const Rows rows = request.rows.subspan(
            at, std::min<std::size_t>(request.batch, request.rows.size() - at));
        load_for_training(data, rows, step_);
        draw_epsilon(data, rows, Purpose::epsilon, step_);
        forward(rows.size());
        network_.backward(parameters_.data(), rows.size(), request.beta, gradients_.data());
        ++step_;
        adam(adam_step<T>(config_.train, request.learning_rate, step_), gradients_.data(),
             layout_.arena_size, parameters_.data(), m_.data(), v_.data());
        network_.keep_variance(step_ == 1, parameters_.data());
        totals_ += totals(rows.size(), request.beta);
    }
}

template <class T>
LossTotals CpuBackend<T>::evaluate(Split split, double beta) {
    const Dataset& data = data_of(split);
    std::array<std::uint32_t, kInferenceRows> indices{};
    LossTotals sums;
    for (std::size_t first = 0; first < data.size; first += kInferenceRows) {
        const Rows rows(indices.data(), std::min(kInferenceRows, data.size - first));
        std::iota(indices.begin(), indices.end(), static_cast<std::uint32_t>(first));
        load_for_evaluation(data, rows);
        draw_epsilon(data, rows, Purpose::evaluation_epsilon, 0);
        forward(rows.size());
        network_.reconstruct(parameters_.data(), rows.size());
        sums += totals(rows.size(), beta);
    }
    return sums;
}

template <class T>
Posterior CpuBackend<T>::encode(std::span<const float> x) {
    const std::size_t count = whole_rows(x.size(), layout_.pixels, "encode");
    const std::size_t latent = layout_.heads.latent;
    Posterior posterior{std::vector<float>(count * latent), std::vector<float>(count * latent)};
    for (std::size_t first = 0; first < count; first += kInferenceRows) {
        const std::size_t rows = std::min(kInferenceRows, count - first);
        network_.reserve(rows);
        convert(x.subspan(first * layout_.pixels, rows * layout_.pixels), network_.x());
        std::fill_n(network_.epsilon(), rows * latent, T(0));
        network_.encode(parameters_.data(), rows);
        network_.sample(parameters_.data(), rows);
        convert(std::span(network_.mu(), rows * latent), posterior.mu.data() + first * latent);
        convert(std::span(network_.logvar(), rows * latent),
                posterior.logvar.data() + first * latent);
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
        network_.reserve(rows);
        convert(z.subspan(first * latent, rows * latent), network_.z());
        network_.decode(parameters_.data(), rows);
        visit(first, rows);
    }
}

template <class T>
std::vector<float> CpuBackend<T>::decode(std::span<const float> z) {
    std::vector<float> means(z.size() / layout_.heads.latent * layout_.pixels);
    decode_batches(z, "decode", [&](std::size_t first, std::size_t rows) {
        network_.mean(parameters_.data(), rows, network_.x());
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
        network_.outputs(parameters_.data(), rows, values.data());
        convert(std::span<const T>(values), all.data() + first * width);
    });
    return all;
}

template <class T>
std::vector<NamedOutputs> CpuBackend<T>::named_outputs(std::size_t rows) const {
    std::vector<T> outputs(rows * layout_.output.out);
    network_.outputs(parameters_.data(), rows, outputs.data());
    const std::vector<double> exact(outputs.begin(), outputs.end());
    const auto x = network_.x_values(rows);
    const T parameter =
        layout_.output_logvar.size == 0 ? T(0) : parameters_.data()[layout_.output_logvar.offset];
    return vae::named_outputs(config_.model, exact, std::vector<double>(x.begin(), x.end()), rows,
                              static_cast<double>(parameter));
}

template <class T>
std::vector<float> CpuBackend<T>::examples(Split split, Rows rows) {
    const Dataset& data = data_of(split);
    check_rows(rows, split, data.size);
    std::vector<float> values(rows.size() * layout_.pixels);
    for (std::size_t first = 0; first < rows.size(); first += kInferenceRows) {
        const Rows part = rows.subspan(first, std::min(kInferenceRows, rows.size() - first));
        load_for_evaluation(data, part);
        convert(std::span<const T>(network_.x(), part.size() * layout_.pixels),
                values.data() + first * layout_.pixels);
    }
    return values;
}

template <class T>
Trace CpuBackend<T>::trace(const TrainRequest& one_step) {
    const Rows rows = one_step.rows;
    const Dataset& data = data_of(Split::train);
    check_trace(one_step, data.size);
    const std::size_t batch = rows.size();
    const std::size_t latent = layout_.heads.latent;
    Trace trace;
    const auto add = [&](std::string name, std::vector<std::size_t> shape, const T* values) {
        std::size_t size = 1;
        for (const std::size_t extent : shape) size *= extent;
        trace.push_back({std::move(name), std::move(shape), {values, values + size}});
    };
    load_for_training(data, rows, one_step.first_step);
    draw_epsilon(data, rows, Purpose::epsilon, one_step.first_step);
    forward(batch);
    add("x", {batch, layout_.pixels}, network_.x());
    add("epsilon", {batch, latent}, network_.epsilon());
    for (std::size_t i = 0; i < layout_.encoder.size(); ++i) {
        add(fmt::format("encoder.{}.h", i), {batch, layout_.encoder[i].out},
            network_.encoder_hidden(i));
    }
    add("mu", {batch, latent}, network_.mu());
    add("logvar", {batch, latent}, network_.logvar());
    add("z", {batch, latent}, network_.z());
    for (std::size_t i = 0; i < layout_.decoder.size(); ++i) {
        add(fmt::format("decoder.{}.h", i), {batch, layout_.decoder[i].out},
            network_.decoder_hidden(i));
    }
    for (NamedOutputs& outputs : named_outputs(batch)) {
        trace.push_back(
            {std::move(outputs.name), std::move(outputs.shape), std::move(outputs.values)});
    }
    network_.backward(parameters_.data(), batch, one_step.beta, gradients_.data());
    add("recon", {batch}, network_.recon());
    add("kl", {batch}, network_.kl());
    const double loss = totals(batch, one_step.beta).loss / static_cast<double>(batch);
    trace.push_back({"loss", {1}, {loss}});
    for (const Tensor& tensor : layout_.tensors()) {
        add("grad." + tensor.name, tensor.shape, gradients_.data() + tensor.offset);
    }
    return trace;
}

}  // namespace
}  // namespace cpu

std::unique_ptr<Backend> make_cpu_backend(const Config& config, const ParameterLayout& layout) {
    return std::make_unique<cpu::CpuBackend<float>>(config, layout);
}

std::unique_ptr<Backend> make_cpu_double_backend(const Config& config,
                                                 const ParameterLayout& layout) {
    return std::make_unique<cpu::CpuBackend<double>>(config, layout);
}

}  // namespace vae
