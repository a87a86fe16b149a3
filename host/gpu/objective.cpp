// What of the network on the device is the objective's: the losses of each example, and what each
// draw weighs in their gradient.
#include <stdexcept>

#include "host/backend.h"
#include "host/gpu/network.h"

namespace vae::gpu {

void Network::reserve_objective(std::size_t examples, std::size_t rows, DeviceArena& arena) {
    for (DeviceArray<float>* losses : {&recon_, &kl_, &signal_}) {
        *losses = {arena, examples, "the losses"};
    }
    if (objective_.uses_free_bits()) {
        loss_kl_ = {arena, examples, "the losses"};
        kl_mask_ = {arena, layout_.heads.latent, "the free bits' mask"};
    }
    // The ELBO's is the sum of the other two.
    if (objective_.bound == Bound::iwae || objective_.uses_free_bits()) {
        loss_ = {arena, examples, "the losses"};
    }
    const bool is_score = objective_.gradient == EncoderGradient::score;
    const bool is_dreg = objective_.gradient == EncoderGradient::dreg;
    const bool uses_ratio = objective_.uses_log_ratio() && !is_score;
    // What stays null has the value that LatentGradient gives it: no noise is drawn for it.
    const auto reserve_if = [rows, &arena](bool is_needed, DeviceArray<float>& weights) {
        if (is_needed) weights = {arena, rows, "the weights of the draws"};
    };
    reserve_if(true, decoder_weight_);
    reserve_if(is_score || is_dreg, path_weight_);
    reserve_if(uses_ratio, ratio_weight_);
    reserve_if(is_score || (uses_ratio && !is_dreg), score_weight_);
    running_mean_ = {arena, 1, "the running mean"};
}

kernels::Objective Network::objective() const {
    using kernels::Objective;
    if (objective_.bound == Bound::iwae) {
        return objective_.gradient == EncoderGradient::dreg ? Objective::dreg : Objective::iwae;
    }
    if (objective_.gradient != EncoderGradient::score) return Objective::elbo;
    switch (objective_.baseline) {
        case Baseline::none:
            return Objective::score;
        case Baseline::leave_one_out:
            return Objective::score_leave_one_out;
        case Baseline::running_mean:
            return Objective::score_running_mean;
    }
    throw std::logic_error("a baseline without a kernel");
}

// The losses of each example, and what its draws weigh.
void Network::apply_objective(int examples, KlWeight beta) {
    if (is_plain_) return;
    if (objective_.uses_free_bits()) apply_free_bits(examples);
    const bool is_score = objective_.gradient == EncoderGradient::score;
    kernels::objective(objective(),
                       {.recon = draw_recon_.data(),
                        .log_ratio = log_ratio_.data(),
                        .kl = objective_.kl == KlTerm::analytic ? closed_kl_.data() : nullptr,
                        .examples = examples,
                        .samples = samples_,
                        .beta = beta.factor,
                        .state = beta.state,
                        .loss_kl = loss_kl_.data()},
                       running_mean_.data(),
                       {.recon = recon_.data(),
                        .kl = kl_.data(),
                        .loss = loss_.data(),
                        .decoder = decoder_weight_.data(),
                        .path = path_weight_.data(),
                        .ratio = ratio_weight_.data(),
                        .score = score_weight_.data(),
                        .signal = is_score ? signal_.data() : nullptr},
                       stream_.get());
}

void Network::losses(int examples, KlWeight beta) {
    likelihood_.recon(decoder_output(examples * samples_, samples_), products_.parameters(),
                      scratch_, draw_recon_.data());
    apply_objective(examples, beta);
}

// losses(), and the gradient of the output's product in its place. Every draw weighs the same here
// unless the bound is importance weighted: then all of an example's losses must be there first, and
// the likelihood is gone through twice.
void Network::likelihood_backward(int examples, KlWeight beta, int step_examples) {
    const bool is_weighted = objective_.bound == Bound::iwae;
    if (is_weighted) losses(examples, beta);
    const int weights = is_weighted ? 1 : samples_;
    const DecoderOutput output = decoder_output(examples * samples_, samples_);
    const OutputGradient gradient = {.scale = 1.0 / (static_cast<double>(step_examples) * weights),
                                     .row_weight = is_weighted ? decoder_weight_.data() : nullptr,
                                     .d_product = d_output(),
                                     .gradients = products_.gradients()};
    if (fuses_output_) {
        likelihood_.recon_and_gradients(products_, output_input(), output, gradient, scratch_,
                                        draw_recon_.data());
    } else {
        likelihood_.recon_and_gradients(output, products_.parameters(), gradient, scratch_,
                                        draw_recon_.data());
    }
    if (!is_weighted) apply_objective(examples, beta);
}

void Network::total_losses(int examples, KlWeight beta, kernels::LossSums* sums) {
    losses_.fork();
    cudaStream_t stream = losses_.stream().get();
    kernels::add_losses(recon().data(), kl().data(), loss(), examples, beta.factor, beta.state,
                        sums, stream);
    if (objective_.baseline != Baseline::running_mean) return;
    kernels::update_running_mean(signal_.data(), examples, 1 - kRunningMeanRate,
                                 running_mean_.data(), stream);
}

}  // namespace vae::gpu
