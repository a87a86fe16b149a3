// One step of the CPU backend, taken apart for comparison.
#include <fmt/format.h>

#include <utility>

#include "host/cpu/cpu_backend.h"

namespace vae::cpu {

template <class T>
std::vector<NamedOutputs> CpuBackend<T>::named_outputs(std::size_t examples) const {
    const std::size_t samples = config_.objective.samples;
    const std::size_t rows = examples * samples;
    std::vector<T> outputs(rows * layout_.output.out);
    network_.outputs(parameters_.data(), rows, outputs.data());
    const std::vector<double> exact(outputs.begin(), outputs.end());
    const auto x = network_.x_values(examples);
    const T parameter =
        layout_.output_logvar.size == 0 ? T(0) : parameters_.data()[layout_.output_logvar.offset];
    return vae::named_outputs(config_.model, exact, std::vector<double>(x.begin(), x.end()),
                              {examples, samples}, static_cast<double>(parameter));
}

template <class T>
Trace CpuBackend<T>::trace(const TrainRequest& one_step) {
    const Rows rows = one_step.rows;
    const Dataset& data = data_of(Split::train);
    check_trace(one_step, data.size);
    const std::size_t batch = rows.size();
    const double beta = one_step.step_schedule(0).beta;
    const std::size_t latent = layout_.heads.latent;
    const std::size_t samples = config_.objective.samples;
    Trace trace;
    const auto add = [&](std::string name, std::vector<std::size_t> shape, const T* values) {
        std::size_t size = 1;
        for (const std::size_t extent : shape) size *= extent;
        trace.push_back({std::move(name), std::move(shape), {values, values + size}});
    };
    const auto add_draws = [&](std::string name, std::size_t cols, const T* values) {
        std::vector<std::size_t> shape = {batch, cols};
        if (samples > 1) shape = {batch, samples, cols};
        add(std::move(name), std::move(shape), values);
    };
    load_for_training(data, rows, one_step.first_step);
    draw_epsilon(data, rows, noise(Purpose::epsilon, one_step.first_step), samples);
    forward(parameters_.data(), batch);
    add("x", {batch, layout_.pixels}, network_.x());
    add_draws("epsilon", latent, network_.epsilon());
    for (std::size_t i = 0; i < layout_.encoder.size(); ++i) {
        add(fmt::format("encoder.{}.h", i), {batch, layout_.encoder[i].out},
            network_.encoder_hidden(i));
    }
    add("mu", {batch, latent}, network_.mu());
    add("logvar", {batch, latent}, network_.logvar());
    if (layout_.heads.is_full()) {
        add("tril", {batch, layout_.heads.tril_size()}, network_.tril());
    }
    add_draws("z", latent, network_.z());
    for (std::size_t i = 0; i < layout_.decoder.size(); ++i) {
        add_draws(fmt::format("decoder.{}.h", i), layout_.decoder[i].out,
                  network_.decoder_hidden(i));
    }
    for (NamedOutputs& outputs : named_outputs(batch)) {
        trace.push_back(
            {std::move(outputs.name), std::move(outputs.shape), std::move(outputs.values)});
    }
    backward(batch, beta);
    if (samples > 1 || effective_objective(config_).uses_log_ratio()) {
        add("recon.draws", {batch, samples}, network_.draw_recon());
        add("log_ratio", {batch, samples}, network_.log_ratio());
    }
    add("recon", {batch}, network_.recon());
    add("kl", {batch}, network_.kl());
    const double loss = totals(batch, beta).loss / static_cast<double>(batch);
    trace.push_back({"loss", {1}, {loss}});
    for (const Tensor& tensor : layout_.tensors()) {
        add("grad." + tensor.name, tensor.shape, gradients_.data() + tensor.offset);
    }
    return trace;
}

template std::vector<NamedOutputs> CpuBackend<float>::named_outputs(std::size_t) const;
template std::vector<NamedOutputs> CpuBackend<double>::named_outputs(std::size_t) const;
template Trace CpuBackend<float>::trace(const TrainRequest&);
template Trace CpuBackend<double>::trace(const TrainRequest&);

}  // namespace vae::cpu
