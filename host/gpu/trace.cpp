// One step of the CUDA backend, taken apart for comparison.
#include <fmt/format.h>

#include <utility>

#include "host/gpu/cuda_backend.h"
#include "host/request_checks.h"

namespace vae::gpu {
namespace {

std::vector<double> values_of(const DeviceArray<float>& array, std::size_t size,
                              const Stream& stream) {
    std::vector<float> values(size);
    array.download(values, stream);
    return {values.begin(), values.end()};
}

// Copies tensors off the device under their names.
class Recorder {
  public:
    Recorder(std::size_t examples, std::size_t samples, const Stream& stream)
        : examples_(examples), samples_(samples), stream_(stream) {}

    void add(std::string name, const DeviceArray<float>& array, std::size_t cols) {
        trace_.push_back(
            {std::move(name), {examples_, cols}, values_of(array, examples_ * cols, stream_)});
    }
    void add_draws(std::string name, const DeviceArray<float>& array, std::size_t cols) {
        trace_.push_back({std::move(name), shape_of_draws(cols),
                          values_of(array, examples_ * samples_ * cols, stream_)});
    }
    std::vector<std::size_t> shape_of_draws(std::size_t cols) const {
        if (samples_ == 1) return {examples_, cols};
        return {examples_, samples_, cols};
    }
    void add_per_example(std::string name, const DeviceArray<float>& array) {
        trace_.push_back({std::move(name), {examples_}, values_of(array, examples_, stream_)});
    }
    void add(TracedTensor tensor) { trace_.push_back(std::move(tensor)); }

    Trace take() { return std::move(trace_); }

  private:
    std::size_t examples_;
    std::size_t samples_;
    const Stream& stream_;
    Trace trace_;
};

}  // namespace

// The fused loss kernel never writes the logits, so they are the product plus the bias here, in
// float as in the kernel.
TracedTensor CudaBackend::trace_output(std::size_t rows, std::vector<std::size_t> shape) {
    const Tensor& bias = layout_.output.bias;
    std::vector<float> product(rows * layout_.pixels);
    std::vector<float> parameters(layout_.arena_size);
    network_.output_product().download(product, stream_);
    network_.parameters().download(parameters, stream_);
    TracedTensor tensor = {config_.model.likelihood == Likelihood::bernoulli ? "logits" : "mean",
                           std::move(shape),
                           {}};
    tensor.values.reserve(product.size());
    for (std::size_t i = 0; i < product.size(); ++i) {
        tensor.values.push_back(product[i] + parameters[bias.offset + i % layout_.pixels]);
    }
    return tensor;
}

Trace CudaBackend::trace(const TrainRequest& one_step) {
    check_trace(one_step, data(Split::train).size());
    check_capacity(one_step);
    const std::size_t examples = one_step.rows.size();
    const auto samples = static_cast<std::size_t>(network_.samples());
    const int count = static_cast<int>(examples);
    const std::size_t latent = layout_.heads.latent;
    DeviceArray<float> mu(examples * latent, "posterior means");
    DeviceArray<float> logvar(examples * latent, "posterior log-variances");
    DeviceArray<float> epsilon(examples * samples * latent, "epsilon");
    upload_index(one_step.rows);
    const TrainingBatch batch = {index_.data(), count, one_step.first_step};
    forward(batch, {.mu = mu.data(), .logvar = logvar.data(), .epsilon = epsilon.data()});

    Recorder recorder(examples, samples, stream_);
    recorder.add("x", network_.x(), layout_.pixels);
    recorder.add_draws("epsilon", epsilon, latent);
    for (std::size_t i = 0; i < layout_.encoder.size(); ++i) {
        recorder.add(fmt::format("encoder.{}.h", i), network_.encoder_h(i), layout_.encoder[i].out);
    }
    recorder.add("mu", mu, latent);
    recorder.add("logvar", logvar, latent);
    recorder.add_draws("z", network_.z(), latent);
    for (std::size_t i = 0; i < layout_.decoder.size(); ++i) {
        recorder.add_draws(fmt::format("decoder.{}.h", i), network_.decoder_h(i),
                           layout_.decoder[i].out);
    }
    recorder.add(trace_output(examples * samples, recorder.shape_of_draws(layout_.pixels)));

    const double beta = one_step.step_schedule(0).beta;
    backward(batch, beta);
    if (samples > 1 || config_.objective.uses_log_ratio()) {
        recorder.add("recon.draws", network_.draw_recon(), samples);
        recorder.add("log_ratio", network_.log_ratio(), samples);
    }
    recorder.add_per_example("recon", network_.recon());
    recorder.add_per_example("kl", network_.kl());
    recorder.add({"loss", {1}, {mean_loss(count, beta)}});
    std::vector<float> gradients(layout_.arena_size);
    network_.gradients().download(gradients, stream_);
    for (const Tensor& tensor : layout_.tensors()) {
        const auto first = gradients.begin() + static_cast<std::ptrdiff_t>(tensor.offset);
        recorder.add({"grad." + tensor.name,
                      tensor.shape,
                      {first, first + static_cast<std::ptrdiff_t>(tensor.size)}});
    }
    return recorder.take();
}

}  // namespace vae::gpu
