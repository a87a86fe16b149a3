#include "host/gpu/likelihood.h"

#include "kernels/bernoulli.h"
#include "kernels/gaussian.h"

namespace vae::gpu {

OutputLikelihood::OutputLikelihood(const ModelConfig& model, const ParameterLayout& layout,
                                   int capacity, const Stream& stream)
    : model_(model),
      pixels_(static_cast<int>(layout.pixels)),
      layer_(layout.output),
      capacity_(capacity),
      stream_(stream) {}

kernels::ScratchSize OutputLikelihood::scratch_size() const {
    return kernels::scratch_size(capacity_, pixels_);
}

kernels::LikelihoodInput OutputLikelihood::input_of(const DecoderOutput& output,
                                                    const float* parameters) const {
    return {.product = output.product,
            .bias = parameters + layer_.bias.offset,
            .x = output.x,
            .rows = output.rows,
            .pixels = pixels_,
            .samples = output.samples};
}

void OutputLikelihood::recon(const DecoderOutput& output, const float* parameters,
                             const kernels::Scratch& scratch, float* recon) {
    const kernels::LikelihoodInput in = input_of(output, parameters);
    switch (model_.likelihood) {
        case Likelihood::bernoulli:
            return kernels::bernoulli_forward(in, recon, scratch, stream_.get());
        case Likelihood::gaussian:
            return kernels::gaussian_forward(in, model_.sigma, recon, scratch, stream_.get());
    }
}

void OutputLikelihood::recon_and_gradients(const DecoderOutput& output, const float* parameters,
                                           const OutputGradient& gradient,
                                           const kernels::Scratch& scratch, float* recon) {
    const kernels::LikelihoodInput in = input_of(output, parameters);
    const kernels::LikelihoodGradient to = {.scale = static_cast<float>(gradient.scale),
                                            .row_weight = gradient.row_weight,
                                            .d_product = gradient.d_product,
                                            .d_bias = gradient.gradients + layer_.bias.offset};
    switch (model_.likelihood) {
        case Likelihood::bernoulli:
            return kernels::bernoulli_forward_backward(in, to, recon, scratch, stream_.get());
        case Likelihood::gaussian:
            return kernels::gaussian_forward_backward(in, model_.sigma, to, recon, scratch,
                                                      stream_.get());
    }
}

void OutputLikelihood::mean(const DecoderOutput& output, const float* parameters, float* mean) {
    switch (model_.likelihood) {
        case Likelihood::bernoulli:
            return kernels::bernoulli_mean(input_of(output, parameters), mean, stream_.get());
        case Likelihood::gaussian:
            return outputs(output, parameters, mean);
    }
}

void OutputLikelihood::outputs(const DecoderOutput& output, const float* parameters,
                               float* outputs) {
    kernels::add_bias(output.product, parameters + layer_.bias.offset, output.rows,
                      static_cast<int>(layer_.out), outputs, stream_.get());
}

}  // namespace vae::gpu
