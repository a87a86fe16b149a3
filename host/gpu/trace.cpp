// One step of the CUDA backend, taken apart for comparison.
#include <fmt/format.h>

#include <stdexcept>
#include <utility>

#include "host/gpu/cuda_backend.h"
#include "host/request_checks.h"

namespace vae::gpu {
namespace {

// Of an array of floats, or of real numbers stored as the precision says.
template <class Array>
std::vector<double> values_of(const Array& array, std::size_t size, const Stream& stream) {
    std::vector<float> values(size);
    array.download(values, stream);
    return {values.begin(), values.end()};
}

// Copies tensors off the device under their names.
class Recorder {
  public:
    Recorder(std::size_t examples, std::size_t samples, const Stream& stream)
        : examples_(examples), samples_(samples), stream_(stream) {}

    template <class Array>
    void add(std::string name, const Array& array, std::size_t cols) {
        trace_.push_back(
            {std::move(name), {examples_, cols}, values_of(array, examples_ * cols, stream_)});
    }
    template <class Array>
    void add_draws(std::string name, const Array& array, std::size_t cols) {
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

// The fused loss kernel never writes the outputs with their bias, so it is added here, in float as
// in the kernel.
std::vector<NamedOutputs> CudaBackend::named_outputs(std::size_t examples) {
    const auto samples = static_cast<std::size_t>(network_.samples());
    const std::size_t width = layout_.output.out;
    std::vector<float> product(examples * samples * width);
    std::vector<float> parameters(layout_.arena_size);
    network_.output_product().download(product, stream_);
    network_.parameters().download(parameters, stream_);
    const float* const bias = parameters.data() + layout_.output.bias.offset;
    std::vector<double> outputs;
    outputs.reserve(product.size());
    for (std::size_t i = 0; i < product.size(); ++i) {
        outputs.push_back(static_cast<double>(product[i] + bias[i % width]));
    }
    const Tensor& logvar = layout_.output_logvar;
    return vae::named_outputs(
        config_.model, outputs, values_of(network_.x(), examples * layout_.pixels, stream_),
        {examples, samples}, logvar.size == 0 ? 0.0 : parameters[logvar.offset]);
}

Trace CudaBackend::trace(const TrainRequest& one_step) {
    check_trace(one_step, data(Split::train).size);
    if (one_step.rows.size() > static_cast<std::size_t>(network_.capacity())) {
        throw std::invalid_argument(
            fmt::format("a trace of {} rows; a part of a batch has up to {}", one_step.rows.size(),
                        network_.capacity()));
    }
    const std::size_t examples = one_step.rows.size();
    const auto samples = static_cast<std::size_t>(network_.samples());
    const int count = static_cast<int>(examples);
    const std::size_t latent = layout_.heads.latent;
    const Heads& heads = layout_.heads;
    // No step needs it: only who compares steps pays for it.
    DeviceArena arena("a traced step");
    EncodedPosteriors posteriors(count, heads, arena);
    DeviceArray<float> epsilon(arena, examples * samples * latent, "epsilon");
    arena.allocate();
    upload_index(one_step.rows);
    const TrainingBatch batch = {
        .index = index_.data(), .rows = count, .step = one_step.first_step};
    data_.gather(Split::train, one_step.rows, index_.data(), 0, training_pixels(batch),
                 network_.batch());
    PosteriorOutputs posterior_outputs = posteriors.get();
    posterior_outputs.epsilon = epsilon.data();
    forward(batch, posterior_outputs);
    network_.complete_output(count * network_.samples());

    Recorder recorder(examples, samples, stream_);
    recorder.add("x", network_.x(), layout_.pixels);
    recorder.add_draws("epsilon", epsilon, latent);
    for (std::size_t i = 0; i < layout_.encoder.size(); ++i) {
        recorder.add(fmt::format("encoder.{}.h", i), network_.encoder_h(i), layout_.encoder[i].out);
    }
    recorder.add("mu", posteriors.mu, latent);
    recorder.add("logvar", posteriors.logvar, latent);
    if (heads.is_full()) recorder.add("tril", posteriors.tril, heads.tril_size());
    recorder.add_draws("z", network_.z(), latent);
    for (std::size_t i = 0; i < layout_.decoder.size(); ++i) {
        recorder.add_draws(fmt::format("decoder.{}.h", i), network_.decoder_h(i),
                           layout_.decoder[i].out);
    }
    for (NamedOutputs& outputs : named_outputs(examples)) {
        recorder.add(
            {std::move(outputs.name), std::move(outputs.shape), std::move(outputs.values)});
    }

    const double beta = one_step.step_schedule(0).beta;
    network_.backward(count, epsilon_of(batch), {beta}, {count}, nullptr);
    if (samples > 1 || effective_objective(config_).uses_log_ratio()) {
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
