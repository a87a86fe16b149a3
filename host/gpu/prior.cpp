#include "host/gpu/prior.h"

namespace vae::gpu {

LearnedPrior::LearnedPrior(const ModelConfig& model, const ParameterLayout& layout, int draws,
                           const Stream& stream, DeviceArena& arena)
    : prior_(model.prior),
      count_(static_cast<int>(model.prior_components)),
      encoder_rows_(encoder_rows(model)),
      draws_(draws),
      logvar_min_(static_cast<float>(model.logvar_min)),
      logvar_max_(static_cast<float>(model.logvar_max)),
      layout_(layout),
      stream_(stream) {
    if (is_normal()) return;
    const auto count = static_cast<std::size_t>(count_);
    const auto rows = static_cast<std::size_t>(draws);
    const std::size_t latent = layout.heads.latent;
    for (DeviceArray<float>* array : {&mean_, &inverse_sigma_, &excess_}) {
        *array = {arena, count * latent, "the prior's components"};
    }
    offset_ = {arena, count, "the prior's components"};
    log_weight_ = {arena, count, "the prior's components"};
    score_ = {arena, rows * latent, "the prior's gradients"};
    gamma_ = {arena, rows * count, "the prior's responsibilities"};
}

void LearnedPrior::start() {
    components_ = {mean_.data(), inverse_sigma_.data(), excess_.data(), offset_.data(),
                   log_weight_.data()};
}

kernels::ScratchSize LearnedPrior::scratch_size() const {
    if (is_normal()) return {};
    return kernels::mixture_scratch_size(draws_, count_, static_cast<int>(layout_.heads.latent));
}

void LearnedPrior::copy_pseudo_inputs(kernels::ConstReals parameters, kernels::Reals x) const {
    const Tensor& inputs = layout_.pseudo_inputs;
    if (inputs.size == 0) return;
    cuda_check(cudaMemcpyAsync(x.data, parameters.from(inputs.offset).data,
                               inputs.size * kernels::bytes_of(x.storage), cudaMemcpyDeviceToDevice,
                               stream_.get()),
               "cudaMemcpyAsync of the pseudo-inputs");
}

void LearnedPrior::set_components(const float* parameters, const float* heads_product) {
    if (is_normal()) return;
    const Heads& heads = layout_.heads;
    const int latent = static_cast<int>(heads.latent);
    const int stride = static_cast<int>(heads.stride);
    if (prior_ == Prior::vamp) {
        source_ = {.mean = heads_product,
                   .logvar = heads_product + stride,
                   .row_stride = 2 * stride,
                   .mean_bias = parameters + heads.mu_bias.offset,
                   .logvar_bias = parameters + heads.logvar_bias.offset};
    } else {
        source_ = {.mean = parameters + layout_.prior_mean.offset,
                   .logvar = parameters + layout_.prior_logvar.offset,
                   .row_stride = latent,
                   .logits = parameters + layout_.prior_logits.offset};
    }
    source_.components = count_;
    source_.latent = latent;
    source_.logvar_min = logvar_min_;
    source_.logvar_max = logvar_max_;
    kernels::mixture_components(source_, components_, stream_.get());
}

void LearnedPrior::apply(const float* z, int rows, float* log_ratio) {
    if (is_normal()) return;
    kernels::mixture_forward(
        source_, components_, z, rows,
        {.log_ratio = log_ratio, .score = score_.data(), .gamma = gamma_.data()}, stream_.get());
}

void LearnedPrior::backward(const kernels::MixtureRows& rows, kernels::Reals d_heads,
                            float* gradients, const kernels::Scratch& scratch) const {
    if (is_normal()) return;
    const Heads& heads = layout_.heads;
    kernels::MixtureGradient gradient;
    if (prior_ == Prior::vamp) {
        const std::size_t bytes = static_cast<std::size_t>(count_) * 2 * heads.stride *
                                  kernels::bytes_of(d_heads.storage);
        cuda_check(cudaMemsetAsync(d_heads.data, 0, bytes, stream_.get()), "cudaMemsetAsync");
        gradient = {.mean = d_heads,
                    .logvar = d_heads.from(heads.stride),
                    .mean_bias = gradients + heads.mu_bias.offset,
                    .logvar_bias = gradients + heads.logvar_bias.offset};
    } else {
        gradient = {.mean = gradients + layout_.prior_mean.offset,
                    .logvar = gradients + layout_.prior_logvar.offset,
                    .logits = gradients + layout_.prior_logits.offset};
    }
    kernels::MixtureRows own = rows;
    own.gamma = gamma_.data();
    kernels::mixture_backward(source_, components_, own, gradient, scratch, stream_.get());
}

}  // namespace vae::gpu
