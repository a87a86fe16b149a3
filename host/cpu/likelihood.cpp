#include "host/cpu/likelihood.h"

#include <algorithm>
#include <cmath>

#include "host/cpu/bernoulli.h"
#include "host/cpu/gaussian.h"
#include "host/cpu/logistic.h"
#include "host/cpu/poisson.h"
#include "host/cpu/scalar_math.h"
#include "host/cpu/softmax.h"

namespace vae::cpu {
namespace {

LogisticSettings logistic_settings(const ModelConfig& model, const LogBounds& bounds) {
    return {model.levels, bounds.least, bounds.most};
}

SoftmaxSettings softmax_settings(const ModelConfig& model) {
    return {model.levels, model.likelihood == Likelihood::onehot};
}

}  // namespace

template <class T>
OutputLikelihood<T>::OutputLikelihood(const ModelConfig& model, const ParameterLayout& layout)
    : model_(model),
      pixels_(layout.pixels),
      layer_(layout.output),
      logvar_(layout.output_logvar),
      bounds_(log_bounds(model)) {}

template <class T>
void OutputLikelihood<T>::reserve(std::size_t rows) {
    if (logvar_.size > 0) squares_.reserve(rows);
}

template <class T>
LikelihoodInput<T> OutputLikelihood<T>::input_of(const DecoderOutput<T>& output,
                                                 const T* parameters) const {
    return {output.product, parameters + layer_.bias.offset, output.x, output.rows, pixels_,
            output.samples};
}

template <class T>
double OutputLikelihood<T>::variance(const T* parameters) const {
    if (logvar_.size == 0) return model_.sigma * model_.sigma;
    const auto parameter = static_cast<double>(parameters[logvar_.offset]);
    double slope = 0;
    return std::exp(model_.variance == Variance::shared
                        ? bounded(parameter, bounds_.least, bounds_.most, slope)
                        : parameter);
}

template <class T>
double OutputLikelihood<T>::optimal_variance(const LikelihoodInput<T>& in, const T* parameters) {
    gaussian_squares(in, squares_.data());
    double sum = 0;
    for (const T squares : squares_.first(in.rows)) sum += static_cast<double>(squares);
    const double mean = sum / static_cast<double>(in.rows * in.pixels);
    const double floor = std::exp(bounds_.least);
    batch_variance_ = mean < floor ? floor : mean;  // NaN passes
    average_before_ = static_cast<double>(parameters[logvar_.offset]);
    return batch_variance_;
}

template <class T>
void OutputLikelihood<T>::keep_variance(T* parameters, double ema_decay, T* ema) const {
    if (logvar_.size == 0 || model_.variance != Variance::optimal) return;
    // Zero is the average of no step.
    const double average = average_before_ == 0 ? batch_variance_
                                                : kVarianceDecay * std::exp(average_before_) +
                                                      (1 - kVarianceDecay) * batch_variance_;
    // A step that went wrong leaves it as it was: its loss says so.
    const double next = std::isfinite(average) ? std::log(average) : average_before_;
    T& parameter = parameters[logvar_.offset];
    if (ema != nullptr) {
        T& mended = ema[logvar_.offset];
        mended = static_cast<T>(static_cast<double>(mended) +
                                (1 - ema_decay) * (next - static_cast<double>(parameter)));
    }
    parameter = static_cast<T>(next);
}

template <class T>
void OutputLikelihood<T>::recon(const DecoderOutput<T>& output, const T* parameters,
                                T* recon) const {
    const auto in = input_of(output, parameters);
    switch (model_.likelihood) {
        case Likelihood::bernoulli:
            return bernoulli_forward(in, recon);
        case Likelihood::gaussian:
            if (model_.variance == Variance::pixel) {
                return gaussian_pixel_forward(in, bounds_.least, bounds_.most, recon);
            }
            return gaussian_forward(in, variance(parameters), recon);
        case Likelihood::logistic:
            return logistic_forward(in, logistic_settings(model_, bounds_), recon);
        case Likelihood::categorical:
        case Likelihood::onehot:
            return softmax_forward(in, softmax_settings(model_), recon);
        case Likelihood::poisson:
            return poisson_forward(in, recon);
    }
}

template <class T>
void OutputLikelihood<T>::recon_and_gradients(const DecoderOutput<T>& output, const T* parameters,
                                              const OutputGradient<T>& gradient, T* recon) {
    const auto in = input_of(output, parameters);
    const LikelihoodGradient<T> to{gradient.scale, gradient.row_weight, gradient.d_product,
                                   gradient.gradients + layer_.bias.offset, gradient.partials};
    switch (model_.likelihood) {
        case Likelihood::bernoulli:
            return bernoulli_forward_backward(in, to, recon);
        case Likelihood::gaussian:
            return gaussian_gradients(in, parameters, to, gradient.gradients, recon);
        case Likelihood::logistic:
            return logistic_forward_backward(in, logistic_settings(model_, bounds_), to, recon);
        case Likelihood::categorical:
        case Likelihood::onehot:
            return softmax_forward_backward(in, softmax_settings(model_), to, recon);
        case Likelihood::poisson:
            return poisson_forward_backward(in, to, recon);
    }
}

template <class T>
void OutputLikelihood<T>::gaussian_gradients(const LikelihoodInput<T>& in, const T* parameters,
                                             const LikelihoodGradient<T>& to, T* gradients,
                                             T* recon) {
    if (model_.variance == Variance::pixel) {
        return gaussian_pixel_forward_backward(in, bounds_.least, bounds_.most, to, recon);
    }
    const double of_all = model_.variance == Variance::optimal ? optimal_variance(in, parameters)
                                                               : variance(parameters);
    gaussian_forward_backward(in, of_all, to, recon, squares_.data());
    if (model_.variance == Variance::optimal) gradients[logvar_.offset] = 0;
    if (model_.variance != Variance::shared) return;
    double slope = 0;
    bounded(static_cast<double>(parameters[logvar_.offset]), bounds_.least, bounds_.most, slope);
    gradients[logvar_.offset] =
        static_cast<T>(slope * gaussian_logvar_gradient(in, of_all, to, squares_.data()));
}

template <class T>
void OutputLikelihood<T>::mean(const DecoderOutput<T>& output, const T* parameters, T* mean) const {
    const auto in = input_of(output, parameters);
    switch (model_.likelihood) {
        case Likelihood::bernoulli:
            return bernoulli_mean(in, mean);
        case Likelihood::gaussian:
            return add_bias(in.product, in.bias, in.rows, layer_.out, pixels_, mean);
        case Likelihood::logistic:
            return logistic_mean(in, logistic_settings(model_, bounds_), mean);
        case Likelihood::categorical:
        case Likelihood::onehot:
            return softmax_mean(in, softmax_settings(model_), mean);
        case Likelihood::poisson:
            return poisson_mean(in, mean);
    }
}

template <class T>
void OutputLikelihood<T>::outputs(const DecoderOutput<T>& output, const T* parameters,
                                  T* outputs) const {
    const auto in = input_of(output, parameters);
    add_bias(in.product, in.bias, in.rows, layer_.out, layer_.out, outputs);
}

template class OutputLikelihood<float>;
template class OutputLikelihood<double>;

}  // namespace vae::cpu
