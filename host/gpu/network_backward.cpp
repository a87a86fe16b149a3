// The backward passes of the network on the device.
#include "host/gpu/heads_layer.h"
#include "host/gpu/network.h"
#include "kernels/accumulate.h"

namespace vae::gpu {

void Network::decoder_backward(int rows) {
    if (fuses_output_) {
        products_.backward_weight_fused(layout_.output, output_input(), d_output(), rows);
    } else {
        products_.backward_weight(layout_.output, output_input(), d_output(), rows);
    }
    decoder_.backward(z_operand(), d_output(), rows, d_h_.get(), scratch_);
    if (fuses_heads_) return;  // d_z goes no further than to its kernel
    if (decoder_.empty()) {
        products_.backward_input(layout_.output, d_output(), rows, d_z_.data());
    } else {
        products_.backward_input(layout_.decoder.front(), decoder_.first_d_product(), rows,
                                 d_z_.data());
    }
}

void Network::encoder_backward(int rows) {
    const DenseLayer heads = heads_as_layer(layout_.heads);
    if (fuses_heads_) {
        products_.backward_weight_fused(heads_as_pair(layout_.heads), heads_input(), d_heads_.get(),
                                        rows);
    } else {
        products_.backward_weight(heads, heads_input(), d_heads_.get(), rows);
    }
    encoder_.backward(encoder_input(), d_heads_.get(), rows, d_h_.get(), scratch_);
    const int pseudo_inputs = prior_.encoder_rows();
    if (pseudo_inputs == 0) return;
    const DenseLayer& first = encoder_.empty() ? heads : layout_.encoder.front();
    const ConstReals d_product =
        encoder_.empty() ? ConstReals(d_heads_.get()) : encoder_.first_d_product();
    const auto examples = static_cast<std::size_t>(rows - pseudo_inputs);
    products_.backward_input(first, d_product.from(examples * first.product_width()), pseudo_inputs,
                             gradient(layout_.pseudo_inputs));
}

void Network::backward(int examples, const kernels::EpsilonSource& noise, KlWeight beta,
                       const StepPart& part, kernels::LossSums* sums) {
    products_.write((part.is_first ? gradients_ : part_gradients_).data());
    const int rows = examples * samples_;
    const double scale = 1.0 / part.step_examples;
    likelihood_backward(examples, beta, part.step_examples);
    if (sums != nullptr) total_losses(examples, beta, sums);
    decoder_backward(rows);
    const Heads& heads = layout_.heads;
    const KlWeight kl = objective_.uses_log_ratio() ? KlWeight{0} : beta.times(scale);
    posterior_backward(examples, noise,
                       {.d_z = d_z_.data(),
                        .path = path_weight_.data(),
                        .ratio = ratio_weight_.data(),
                        .score = score_weight_.data(),
                        .prior_score = prior_.score(),
                        .scale = static_cast<float>(scale),
                        .kl_scale = kl.factor,
                        .state = kl.state,
                        .kl_mask = kl_mask_.data()});
    const KlWeight of_prior = beta.times(scale);
    prior_.backward({.z = z_.data(),
                     .weight = decoder_weight_.data(),
                     .rows = rows,
                     .scale = of_prior.factor,
                     .state = of_prior.state},
                    d_heads_.get().from(static_cast<std::size_t>(examples) * heads.product_width()),
                    products_.gradients(), scratch_);
    encoder_backward(examples + prior_.encoder_rows());
    products_.join();
    if (sums != nullptr) losses_.join();
    if (part.is_first) return;
    kernels::accumulate(part_gradients_.data(), part_gradients_.size(), gradients_.data(),
                        stream_.get());
}

}  // namespace vae::gpu
