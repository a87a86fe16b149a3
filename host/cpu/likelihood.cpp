#include "host/cpu/likelihood.h"

#include "host/cpu/bernoulli.h"
#include "host/cpu/gaussian.h"

namespace vae::cpu {
namespace {

template <class T>
LikelihoodInput<T> input_of(const DecoderOutput<T>& output, const T* bias, std::size_t pixels) {
    return {output.product, bias, output.x, output.rows, pixels, output.samples};
}

}  // namespace

template <class T>
OutputLikelihood<T>::OutputLikelihood(const ModelConfig& model, const ParameterLayout& layout)
    : model_(model), pixels_(layout.pixels), layer_(layout.output) {}

template <class T>
void OutputLikelihood<T>::recon(const DecoderOutput<T>& output, const T* parameters,
                                T* recon) const {
    const auto in = input_of(output, parameters + layer_.bias.offset, pixels_);
    switch (model_.likelihood) {
        case Likelihood::bernoulli:
            return bernoulli_forward(in, recon);
        case Likelihood::gaussian:
            return gaussian_forward(in, model_.sigma, recon);
    }
}

template <class T>
void OutputLikelihood<T>::recon_and_gradients(const DecoderOutput<T>& output, const T* parameters,
                                              const OutputGradient<T>& gradient, T* recon) const {
    const auto in = input_of(output, parameters + layer_.bias.offset, pixels_);
    const LikelihoodGradient<T> to{gradient.scale, gradient.row_weight, gradient.d_product,
                                   gradient.gradients + layer_.bias.offset, gradient.partials};
    switch (model_.likelihood) {
        case Likelihood::bernoulli:
            return bernoulli_forward_backward(in, to, recon);
        case Likelihood::gaussian:
            return gaussian_forward_backward(in, model_.sigma, to, recon);
    }
}

template <class T>
void OutputLikelihood<T>::mean(const DecoderOutput<T>& output, const T* parameters, T* mean) const {
    switch (model_.likelihood) {
        case Likelihood::bernoulli:
            return bernoulli_mean(input_of(output, parameters + layer_.bias.offset, pixels_), mean);
        case Likelihood::gaussian:
            return outputs(output, parameters, mean);
    }
}

template <class T>
void OutputLikelihood<T>::outputs(const DecoderOutput<T>& output, const T* parameters,
                                  T* outputs) const {
    add_bias(output.product, parameters + layer_.bias.offset, output.rows, layer_.out, outputs);
}

template class OutputLikelihood<float>;
template class OutputLikelihood<double>;

}  // namespace vae::cpu
