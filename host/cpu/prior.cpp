#include "host/cpu/prior.h"

#include <algorithm>

namespace vae::cpu {

template <class T>
LearnedPrior<T>::LearnedPrior(const ModelConfig& model, const ParameterLayout& layout)
    : prior_(model.prior),
      count_(model.prior_components),
      logvar_min_(static_cast<T>(model.logvar_min)),
      logvar_max_(static_cast<T>(model.logvar_max)),
      layout_(layout) {
    if (is_normal()) return;
    for (Buffer<T>* buffer : {&mean_, &inverse_sigma_, &excess_}) {
        buffer->reserve(count_ * layout.heads.latent);
    }
    offset_.reserve(count_);
    log_weight_.reserve(count_);
    components_ = {mean_.data(), inverse_sigma_.data(), excess_.data(), offset_.data(),
                   log_weight_.data()};
}

template <class T>
std::size_t LearnedPrior<T>::encoder_rows() const {
    return prior_ == Prior::vamp ? count_ : 0;
}

template <class T>
void LearnedPrior<T>::reserve(std::size_t rows) {
    if (is_normal()) return;
    score_.reserve(rows * layout_.heads.latent);
    gamma_.reserve(rows * count_);
}

template <class T>
void LearnedPrior<T>::copy_pseudo_inputs(const T* parameters, T* x) const {
    const Tensor& inputs = layout_.pseudo_inputs;
    std::copy_n(parameters + inputs.offset, inputs.size, x);
}

template <class T>
void LearnedPrior<T>::set_components(const T* parameters, const T* heads_product) {
    if (is_normal()) return;
    const Heads& heads = layout_.heads;
    source_ = {.components = count_,
               .latent = heads.latent,
               .logvar_min = logvar_min_,
               .logvar_max = logvar_max_};
    if (prior_ == Prior::vamp) {
        source_.mean = heads_product;
        source_.logvar = heads_product + heads.stride;
        source_.row_stride = 2 * heads.stride;
        source_.mean_bias = parameters + heads.mu_bias.offset;
        source_.logvar_bias = parameters + heads.logvar_bias.offset;
    } else {
        source_.mean = parameters + layout_.prior_mean.offset;
        source_.logvar = parameters + layout_.prior_logvar.offset;
        source_.row_stride = heads.latent;
        source_.logits = parameters + layout_.prior_logits.offset;
    }
    mixture_components(source_, components_);
}

template <class T>
void LearnedPrior<T>::apply(const T* z, std::size_t rows, T* log_ratio) {
    if (is_normal()) return;
    mixture_forward(
        source_, components_, z, rows,
        MixtureOutputs<T>{.log_ratio = log_ratio, .score = score_.data(), .gamma = gamma_.data()});
}

template <class T>
void LearnedPrior<T>::backward(const T* z, const T* weight, std::size_t rows, double scale,
                               T* d_heads, T* gradients) const {
    if (is_normal()) return;
    const Heads& heads = layout_.heads;
    MixtureGradient<T> gradient;
    if (prior_ == Prior::vamp) {
        std::fill_n(d_heads, count_ * 2 * heads.stride, T(0));
        gradient = {.mean = d_heads,
                    .logvar = d_heads + heads.stride,
                    .mean_bias = gradients + heads.mu_bias.offset,
                    .logvar_bias = gradients + heads.logvar_bias.offset};
    } else {
        gradient = {.mean = gradients + layout_.prior_mean.offset,
                    .logvar = gradients + layout_.prior_logvar.offset,
                    .logits = gradients + layout_.prior_logits.offset};
    }
    mixture_backward(
        source_, components_,
        MixtureRows<T>{
            .z = z, .gamma = gamma_.data(), .weight = weight, .rows = rows, .scale = scale},
        gradient);
}

template class LearnedPrior<float>;
template class LearnedPrior<double>;

}  // namespace vae::cpu
