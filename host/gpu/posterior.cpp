// What of the network on the device is the posterior's: its draws, its gradient, and the floor
// under its KL term.
#include "host/gpu/network.h"
#include "kernels/dense_reparameterize.h"
#include "kernels/free_bits.h"

namespace vae::gpu {
namespace {

static_assert(kernels::kMostCholeskyLatent == kMostFullLatent);

}  // namespace

kernels::CholeskyHeads Network::cholesky_heads(int examples, int samples) const {
    return {.heads = heads_view(examples, samples),
            .tril_bias = bias(layout_.heads.tril_bias),
            .tril_stride = width(layout_.heads.tril_stride)};
}

void Network::sample_posterior(int examples, int samples, const kernels::EpsilonSource& noise,
                               const PosteriorOutputs& outputs, const DrawSums& sums) {
    if (layout_.heads.is_full()) {
        kernels::cholesky_forward(cholesky_heads(examples, samples), noise,
                                  {.mu = outputs.mu,
                                   .logvar = outputs.logvar,
                                   .tril = outputs.tril,
                                   .kl = sums.kl,
                                   .epsilon = epsilon_.data(),
                                   .z = z_.data(),
                                   .log_ratio = sums.log_ratio,
                                   .rounded_z = rounded_z_.data()},
                                  stream_.get());
        if (outputs.epsilon != nullptr) {
            const std::size_t draws = static_cast<std::size_t>(examples) *
                                      static_cast<std::size_t>(samples) * layout_.heads.latent;
            cuda_check(cudaMemcpyAsync(outputs.epsilon, epsilon_.data(), draws * sizeof(float),
                                       cudaMemcpyDeviceToDevice, stream_.get()),
                       "cudaMemcpyAsync of epsilon");
        }
    } else {
        kernels::reparameterize_forward(heads_view(examples, samples), noise,
                                        {.mu = outputs.mu,
                                         .logvar = outputs.logvar,
                                         .kl = sums.kl,
                                         .epsilon = outputs.epsilon,
                                         .z = z_.data(),
                                         .log_ratio = sums.log_ratio,
                                         .rounded_z = rounded_z_.data()},
                                        stream_.get());
    }
    if (sums.log_ratio != nullptr) prior_.apply(z_.data(), examples * samples, sums.log_ratio);
}

void Network::encode_and_sample(int examples, const kernels::EpsilonSource& noise) {
    const Heads& heads = layout_.heads;
    kernels::dense_reparameterize(
        products_.float_factors(), width(heads.in), heads_input(),
        products_.operand(heads.mu_weight), heads_view(examples, 1), noise, heads_product_.data(),
        {.kl = closed_kl_.data(), .z = z_.data(), .rounded_z = rounded_z_.data()}, scratch_,
        {stream_.get(), !encoder_.empty()});
}

void Network::apply_free_bits(int examples) {
    const auto nats = static_cast<float>(objective_.free_bits);
    if (objective_.free_bits_per == FreeBitsPer::total) {
        kernels::free_bits_in_total(closed_kl_.data(), examples, width(layout_.heads.latent), nats,
                                    kl_mask_.data(), loss_kl_.data(), stream_.get());
    } else {
        kernels::free_bits_per_dimension(heads_view(examples, samples_), nats, kl_mask_.data(),
                                         loss_kl_.data(), scratch_, stream_.get());
    }
}

void Network::posterior_backward(int examples, const kernels::EpsilonSource& noise,
                                 const kernels::LatentGradient& of_draws) {
    const Heads& heads = layout_.heads;
    if (fuses_heads_) {
        const DenseLayer& first = decoder_.empty() ? layout_.output : layout_.decoder.front();
        kernels::dense_reparameterize_backward(
            products_.float_factors(),
            {.rows = examples, .in = width(first.in), .out = width(first.product_width())},
            decoder_.empty() ? ConstReals(d_output()) : decoder_.first_d_product(),
            products_.operand(first.weight), heads_view(examples, 1), noise,
            {.scale = of_draws.kl_scale, .state = of_draws.state}, d_heads_.get(),
            products_.early());
        return;
    }
    float* const d_mu_bias = gradient(heads.mu_bias);
    float* const d_logvar_bias = gradient(heads.logvar_bias);
    if (heads.is_full()) {
        kernels::cholesky_backward(cholesky_heads(examples, samples_), {epsilon_.data(), z_.data()},
                                   of_draws,
                                   {.d_product = d_heads_.get(),
                                    .d_mu_bias = d_mu_bias,
                                    .d_logvar_bias = d_logvar_bias,
                                    .d_tril_bias = gradient(heads.tril_bias),
                                    .draws = draw_gradient_.data()},
                                   scratch_, stream_.get());
        return;
    }
    kernels::reparameterize_backward(heads_view(examples, samples_), noise, of_draws,
                                     d_heads_.get(), d_mu_bias, d_logvar_bias, scratch_,
                                     stream_.get());
}

}  // namespace vae::gpu
