#include "host/gpu/likelihood.h"

#include <algorithm>
#include <cmath>

#include "kernels/bernoulli.h"
#include "kernels/dense_bernoulli.h"
#include "kernels/logistic.h"
#include "kernels/poisson.h"
#include "kernels/softmax.h"

namespace vae::gpu {
namespace {

kernels::SoftmaxSettings softmax_settings(const ModelConfig& model) {
    return {.classes = static_cast<int>(model.levels),
            .is_onehot = model.likelihood == Likelihood::onehot};
}

}  // namespace

OutputLikelihood::OutputLikelihood(const ModelConfig& model, const ParameterLayout& layout,
                                   int capacity, const Stream& stream, DeviceArena& arena)
    : model_(model),
      pixels_(static_cast<int>(layout.pixels)),
      layer_(layout.output),
      logvar_(layout.output_logvar),
      bounds_(log_bounds(model)),
      capacity_(capacity),
      stream_(stream),
      variance_(arena, 1, "the likelihood's variance"),
      squares_(arena, logvar_.size > 0 ? static_cast<std::size_t>(capacity) : 0,
               "the squared errors") {}

void OutputLikelihood::start() {
    const double variance = model_.sigma * model_.sigma;
    const kernels::GaussianVariance fixed = {.logvar = std::log(variance),
                                             .precision = 1 / variance};
    variance_.upload({&fixed, 1}, stream_);
}

kernels::ScratchSize OutputLikelihood::scratch_size() const {
    if (is_softmax(model_.likelihood)) {
        return kernels::softmax_scratch_size(capacity_, pixels_, softmax_settings(model_));
    }
    return kernels::scratch_size(capacity_, pixels_, has_scale_outputs(model_) ? 2 : 1);
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

kernels::LogBounds OutputLikelihood::kernel_bounds() const {
    return {.least = static_cast<float>(bounds_.least), .most = static_cast<float>(bounds_.most)};
}

void OutputLikelihood::read_variance(const float* parameters) {
    if (logvar_.size == 0) return;  // fixed, and there
    const float* const parameter = parameters + logvar_.offset;
    if (model_.variance == Variance::shared) {
        kernels::gaussian_bounded_variance(parameter, bounds_.least, bounds_.most, variance_.data(),
                                           stream_.get());
    } else {
        kernels::gaussian_exact_variance(parameter, variance_.data(), stream_.get());
    }
}

void OutputLikelihood::recon(const DecoderOutput& output, const float* parameters,
                             const kernels::Scratch& scratch, float* recon) {
    const kernels::LikelihoodInput in = input_of(output, parameters);
    cudaStream_t stream = stream_.get();
    switch (model_.likelihood) {
        case Likelihood::bernoulli:
            return kernels::bernoulli_forward(in, recon, scratch, stream);
        case Likelihood::gaussian:
            if (model_.variance == Variance::pixel) {
                return kernels::gaussian_pixel_forward(in, kernel_bounds(), recon, scratch, stream);
            }
            read_variance(parameters);
            return kernels::gaussian_forward(in, variance_.data(), recon, scratch, stream);
        case Likelihood::logistic:
            return kernels::logistic_forward(in, {static_cast<int>(model_.levels), kernel_bounds()},
                                             recon, scratch, stream);
        case Likelihood::categorical:
        case Likelihood::onehot:
            return kernels::softmax_forward(in, softmax_settings(model_), recon, scratch, stream);
        case Likelihood::poisson:
            return kernels::poisson_forward(in, recon, scratch, stream);
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
    cudaStream_t stream = stream_.get();
    switch (model_.likelihood) {
        case Likelihood::bernoulli:
            return kernels::bernoulli_forward_backward(in, to, recon, scratch, stream);
        case Likelihood::gaussian:
            return gaussian_gradients(in, parameters, to, gradient.gradients, scratch, recon);
        case Likelihood::logistic:
            return kernels::logistic_forward_backward(
                in, {static_cast<int>(model_.levels), kernel_bounds()}, to, recon, scratch, stream);
        case Likelihood::categorical:
        case Likelihood::onehot:
            return kernels::softmax_forward_backward(in, softmax_settings(model_), to, recon,
                                                     scratch, stream);
        case Likelihood::poisson:
            return kernels::poisson_forward_backward(in, to, recon, scratch, stream);
    }
}

void OutputLikelihood::recon_and_gradients(const LayerProducts& products, ConstReals h,
                                           const DecoderOutput& output,
                                           const OutputGradient& gradient,
                                           const kernels::Scratch& scratch, float* recon) {
    kernels::dense_bernoulli(
        products.float_factors(),
        {.rows = output.rows, .in = width(layer_.in), .out = width(layer_.out)}, h,
        products.operand(layer_.weight), input_of(output, products.parameters()),
        {.scale = static_cast<float>(gradient.scale),
         .row_weight = gradient.row_weight,
         .d_product = gradient.d_product,
         .d_bias = nullptr},
        recon, scratch, products.early());
}

void OutputLikelihood::gaussian_gradients(const kernels::LikelihoodInput& in,
                                          const float* parameters,
                                          const kernels::LikelihoodGradient& to, float* gradients,
                                          const kernels::Scratch& scratch, float* recon) {
    cudaStream_t stream = stream_.get();
    if (model_.variance == Variance::pixel) {
        return kernels::gaussian_pixel_forward_backward(in, kernel_bounds(), to, recon, scratch,
                                                        stream);
    }
    if (model_.variance == Variance::optimal) {
        kernels::gaussian_squares(in, squares_.data(), scratch, stream);
        kernels::gaussian_optimal_variance(squares_.data(), in.rows, in.pixels, bounds_.least,
                                           parameters + logvar_.offset, variance_.data(), stream);
    } else {
        read_variance(parameters);
    }
    kernels::gaussian_forward_backward(in, variance_.data(), to, recon, squares_.data(), scratch,
                                       stream);
    if (logvar_.size == 0) return;
    // Of the optimal variance the slope is zero, and so is the gradient.
    kernels::gaussian_variance_gradient(squares_.data(), to.row_weight, in.rows, in.pixels,
                                        to.scale, variance_.data(), gradients + logvar_.offset,
                                        stream);
}

void OutputLikelihood::keep_variance(const unsigned* is_taken, float* parameters, double ema_decay,
                                     float* ema) {
    if (logvar_.size == 0 || model_.variance != Variance::optimal) return;
    kernels::gaussian_average_variance(
        variance_.data(), kVarianceDecay, is_taken, parameters + logvar_.offset, ema_decay,
        ema == nullptr ? nullptr : ema + logvar_.offset, stream_.get());
}

void OutputLikelihood::mean(const DecoderOutput& output, const float* parameters, float* mean) {
    const kernels::LikelihoodInput in = input_of(output, parameters);
    cudaStream_t stream = stream_.get();
    switch (model_.likelihood) {
        case Likelihood::bernoulli:
            return kernels::bernoulli_mean(in, mean, stream);
        case Likelihood::gaussian:
            return kernels::add_bias(in.product, in.bias, in.rows, static_cast<int>(layer_.out),
                                     pixels_, mean, stream);
        case Likelihood::logistic:
            return kernels::logistic_mean(in, {static_cast<int>(model_.levels), kernel_bounds()},
                                          mean, stream);
        case Likelihood::categorical:
        case Likelihood::onehot:
            return kernels::softmax_mean(in, softmax_settings(model_), mean, stream);
        case Likelihood::poisson:
            return kernels::poisson_mean(in, mean, stream);
    }
}

void OutputLikelihood::outputs(const DecoderOutput& output, const float* parameters,
                               float* outputs) {
    const auto width = static_cast<int>(layer_.out);
    kernels::add_bias(output.product, parameters + layer_.bias.offset, output.rows, width, width,
                      outputs, stream_.get());
}

}  // namespace vae::gpu
