#include "host/gpu/network.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "host/backend.h"
#include "kernels/bias_activation.h"
#include "kernels/gated.h"

namespace vae::gpu {
namespace {

int width(std::size_t size) {
    return static_cast<int>(size);
}

kernels::Activation kernel_activation(Activation activation) {
    switch (activation) {
        case Activation::relu:
            return kernels::Activation::relu;
        case Activation::tanh:
            return kernels::Activation::tanh;
        case Activation::softplus:
            return kernels::Activation::softplus;
        case Activation::gelu:
            return kernels::Activation::gelu;
        case Activation::silu:
            return kernels::Activation::silu;
        case Activation::gated:
            break;
    }
    throw std::logic_error("an activation without a kernel");
}

// The widest gradient that passes from one layer to the one before it.
std::size_t widest_hidden(const ParameterLayout& layout) {
    std::size_t result = layout.heads.latent;
    for (const DenseLayer& layer : layout.encoder) result = std::max(result, layer.out);
    for (const DenseLayer& layer : layout.decoder) result = std::max(result, layer.out);
    return result;
}

// The widest array that a kernel sums over, of hidden layers and heads.
std::size_t widest(const ParameterLayout& layout) {
    std::size_t result = std::max(layout.heads.product_width(), widest_hidden(layout));
    for (const DenseLayer& layer : layout.encoder) result = std::max(result, layer.product_width());
    for (const DenseLayer& layer : layout.decoder) result = std::max(result, layer.product_width());
    return result;
}

// Rows of a decoder's means that are worth one call.
constexpr int kDecodeRows = 512;

int draws_of(int examples, int samples) {
    if (examples > std::numeric_limits<int>::max() / samples) {
        throw InputError(fmt::format(
            "{} examples of objective.samples = {} draws are too many at once; use a smaller "
            "train.batch",
            examples, samples));
    }
    return examples * samples;
}

}  // namespace

Network::Network(const Config& config, const ParameterLayout& layout, int capacity,
                 const Stream& stream)
    : model_(config.model),
      objective_(config.objective),
      layout_(layout),
      capacity_(capacity),
      samples_(static_cast<int>(config.objective.samples)),
      decode_capacity_(std::min(draws_of(capacity, samples_), std::max(capacity, kDecodeRows))),
      is_plain_(samples_ == 1 && !objective_.uses_log_ratio() && !objective_.uses_free_bits() &&
                objective_.gradient == EncoderGradient::pathwise),
      stream_(stream),
      matmul_(stream),
      likelihood_(config.model, layout, draws_of(capacity, samples_), stream),
      parameters_(layout.arena_size, "the parameters"),
      in_use_(parameters_.data()),
      gradients_(layout.arena_size, "the gradients"),
      encoder_(allocate(layout.encoder, capacity)),
      decoder_(allocate(layout.decoder, draws_of(capacity, samples_))) {
    const int draws = draws_of(capacity, samples_);
    const auto examples = static_cast<std::size_t>(capacity);
    const auto rows = static_cast<std::size_t>(draws);
    x_ = {static_cast<std::size_t>(decode_capacity_) * layout.pixels, "the batch"};
    for (DeviceArray<float>* heads : {&heads_product_, &d_heads_}) {
        *heads = {examples * layout.heads.product_width(), "the encoder's heads"};
    }
    if (layout.heads.is_full()) {
        for (DeviceArray<float>* of_draws : {&epsilon_, &draw_gradient_}) {
            *of_draws = {rows * layout.heads.latent, "the draws of the posterior"};
        }
    }
    closed_kl_ = {examples, "the KL terms"};
    z_ = {rows * layout.heads.latent, "the latents"};
    output_product_ = {rows * layout.output.out, "the decoder's output"};
    draw_recon_ = {rows, "the reconstruction terms"};
    for (DeviceArray<float>& buffer : d_h_) {
        buffer = {rows * widest_hidden(layout), "the gradients of the activations"};
    }
    if (!is_plain_) allocate_objective(examples, rows);
    kernels::ScratchSize size = kernels::scratch_size(draws, width(widest(layout)));
    const kernels::ScratchSize of_output = likelihood_.scratch_size();
    size = {std::max(size.partials, of_output.partials), std::max(size.tickets, of_output.tickets)};
    partials_ = {size.partials, "the partial sums"};
    tickets_ = {size.tickets, "the partial sums' tickets"};
    scratch_ = {partials_.data(), size.partials, tickets_.data(), size.tickets};

    parameters_.zero(stream);
    // Padding is never written again: the optimiser must find zero there.
    gradients_.zero(stream);
    tickets_.zero(stream);
}

void Network::allocate_objective(std::size_t examples, std::size_t rows) {
    for (DeviceArray<float>* losses : {&recon_, &kl_, &signal_}) {
        *losses = {examples, "the losses"};
    }
    if (objective_.uses_free_bits()) {
        loss_kl_ = {examples, "the losses"};
        kl_mask_ = {layout_.heads.latent, "the free bits' mask"};
    }
    // The ELBO's is the sum of the other two.
    if (objective_.bound == Bound::iwae || objective_.uses_free_bits()) {
        loss_ = {examples, "the losses"};
    }
    for (DeviceArray<float>* of_draws :
         {&log_ratio_, &decoder_weight_, &path_weight_, &ratio_weight_, &score_weight_}) {
        *of_draws = {rows, "the weights of the draws"};
    }
    running_mean_ = {1, "the running mean"};
    running_mean_.zero(stream_);
}

std::vector<Network::Hidden> Network::allocate(const std::vector<DenseLayer>& layers,
                                               int capacity) {
    std::vector<Hidden> result;
    for (const DenseLayer& layer : layers) {
        const auto rows = static_cast<std::size_t>(capacity);
        result.push_back({{rows * layer.product_width(), "a hidden layer"},
                          {rows * layer.out, "a hidden layer's activations"}});
    }
    return result;
}

const float* Network::heads_input() const {
    return encoder_.empty() ? x_.data() : encoder_.back().h.data();
}

const float* Network::output_input() const {
    return decoder_.empty() ? z_.data() : decoder_.back().h.data();
}

float* Network::other_d_h(const float* in_use) {
    return in_use == d_h_[0].data() ? d_h_[1].data() : d_h_[0].data();
}

kernels::HeadsView Network::heads_view(int examples) const {
    return {.product = heads_product_.data(),
            .mu_bias = weight(layout_.heads.mu_bias),
            .logvar_bias = weight(layout_.heads.logvar_bias),
            .examples = examples,
            .samples = samples_,
            .latent = width(layout_.heads.latent),
            .stride = width(layout_.heads.stride),
            .logvar_min = static_cast<float>(model_.logvar_min),
            .logvar_max = static_cast<float>(model_.logvar_max)};
}

kernels::GatedView Network::gated_view(const DenseLayer& layer, const Hidden& hidden,
                                       int rows) const {
    return {.product = hidden.product.data(),
            .bias = weight(layer.bias),
            .gate_bias = weight(layer.gate_bias),
            .rows = rows,
            .cols = width(layer.out),
            .stride = width(layer.stride)};
}

const float* Network::forward(const std::vector<DenseLayer>& layers, std::vector<Hidden>& hidden,
                              const float* x, int rows) {
    for (std::size_t i = 0; i < layers.size(); ++i) {
        const DenseLayer& layer = layers[i];
        const float* product = hidden[i].product.data();
        matmul_.forward(x, weight(layer.weight), rows, width(layer.in),
                        width(layer.product_width()), hidden[i].product.data());
        if (layer.is_gated()) {
            kernels::gated_forward(gated_view(layer, hidden[i], rows), hidden[i].h.data(),
                                   stream_.get());
        } else {
            kernels::bias_activation_forward(kernel_activation(model_.activation), product,
                                             weight(layer.bias), rows, width(layer.out),
                                             hidden[i].h.data(), stream_.get());
        }
        x = hidden[i].h.data();
    }
    return x;
}

void Network::encode(int examples, const kernels::EpsilonSource& noise,
                     const PosteriorOutputs& outputs) {
    const float* h = forward(layout_.encoder, encoder_, x_.data(), examples);
    const Heads& heads = layout_.heads;
    matmul_.forward(h, weight(heads.mu_weight), examples, width(heads.in),
                    width(heads.product_width()), heads_product_.data());
    sample_posterior(examples, noise, outputs);
}

void Network::decode(int rows) {
    const float* h = forward(layout_.decoder, decoder_, z_.data(), rows);
    const DenseLayer& output = layout_.output;
    matmul_.forward(h, weight(output.weight), rows, width(output.in), width(output.out),
                    output_product_.data());
}

DecoderOutput Network::decoder_output(int rows, int samples) const {
    return {.product = output_product_.data(), .x = x_.data(), .rows = rows, .samples = samples};
}

void Network::output_mean(int rows) {
    likelihood_.mean(decoder_output(rows, 1), in_use_, x_.data());
}

void Network::add_output_bias(int rows) {
    likelihood_.outputs(decoder_output(rows, 1), in_use_, output_product_.data());
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
void Network::apply_objective(int examples, double beta) {
    if (is_plain_) return;
    if (objective_.uses_free_bits()) apply_free_bits(examples);
    const bool is_score = objective_.gradient == EncoderGradient::score;
    kernels::objective(objective(),
                       {.recon = draw_recon_.data(),
                        .log_ratio = log_ratio_.data(),
                        .kl = objective_.kl == KlTerm::analytic ? closed_kl_.data() : nullptr,
                        .examples = examples,
                        .samples = samples_,
                        .beta = static_cast<float>(beta),
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

void Network::losses(int examples, double beta) {
    likelihood_.recon(decoder_output(examples * samples_, samples_), in_use_, scratch_,
                      draw_recon_.data());
    apply_objective(examples, beta);
}

// losses(), and the gradient of the output's product in its place. Every draw weighs the same here
// unless the bound is importance weighted: then all of an example's losses must be there first, and
// the likelihood is gone through twice.
void Network::likelihood_backward(int examples, double beta) {
    const bool is_weighted = objective_.bound == Bound::iwae;
    if (is_weighted) losses(examples, beta);
    const int weights = is_weighted ? 1 : samples_;
    likelihood_.recon_and_gradients(decoder_output(examples * samples_, samples_), in_use_,
                                    {.scale = 1.0 / (static_cast<double>(examples) * weights),
                                     .row_weight = is_weighted ? decoder_weight_.data() : nullptr,
                                     .d_product = output_product_.data(),
                                     .gradients = gradients_.data()},
                                    scratch_, draw_recon_.data());
    if (!is_weighted) apply_objective(examples, beta);
}

void Network::move_running_mean(int examples, bool first) {
    if (objective_.baseline != Baseline::running_mean) return;
    kernels::update_running_mean(signal_.data(), examples, 1 - kRunningMeanRate, first,
                                 running_mean_.data(), stream_.get());
}

// Of a gated layer in the place of its product, else in that of d_h.
const float* Network::hidden_backward(const DenseLayer& layer, Hidden& hidden, float* d_h,
                                      int rows) {
    float* product = hidden.product.data();
    if (layer.is_gated()) {
        kernels::gated_backward(gated_view(layer, hidden, rows), d_h, product, gradient(layer.bias),
                                gradient(layer.gate_bias), scratch_, stream_.get());
        return product;
    }
    kernels::bias_activation_backward(kernel_activation(model_.activation), product,
                                      weight(layer.bias), d_h, rows, width(layer.out), d_h,
                                      gradient(layer.bias), scratch_, stream_.get());
    return d_h;
}

float* Network::backward(const std::vector<DenseLayer>& layers, std::vector<Hidden>& hidden,
                         const float* x, float* d_h, int rows, bool want_input) {
    for (std::size_t i = layers.size(); i-- > 0;) {
        const DenseLayer& layer = layers[i];
        const int in = width(layer.in);
        const int out = width(layer.product_width());
        const float* input = i == 0 ? x : hidden[i - 1].h.data();
        const float* d_product = hidden_backward(layer, hidden[i], d_h, rows);
        matmul_.backward_weight(d_product, input, rows, in, out, gradient(layer.weight));
        if (i == 0 && !want_input) return nullptr;
        d_h = other_d_h(d_product);
        matmul_.backward_input(d_product, weight(layer.weight), rows, in, out, d_h);
    }
    return d_h;
}

void Network::backward(int examples, const kernels::EpsilonSource& noise, double beta) {
    const int rows = examples * samples_;
    const double scale = 1.0 / examples;
    const DenseLayer& output = layout_.output;
    likelihood_backward(examples, beta);
    const float* d_product = output_product_.data();
    matmul_.backward_weight(d_product, output_input(), rows, width(output.in), width(output.out),
                            gradient(output.weight));
    float* d_h = d_h_[0].data();
    matmul_.backward_input(d_product, weight(output.weight), rows, width(output.in),
                           width(output.out), d_h);
    const float* d_z = backward(layout_.decoder, decoder_, z_.data(), d_h, rows, true);

    const Heads& heads = layout_.heads;
    const int heads_out = width(heads.product_width());
    posterior_backward(
        examples, noise,
        {.d_z = d_z,
         .path = path_weight_.data(),
         .ratio = ratio_weight_.data(),
         .score = score_weight_.data(),
         .scale = static_cast<float>(scale),
         .kl_scale = objective_.uses_log_ratio() ? 0.0f : static_cast<float>(scale * beta),
         .kl_mask = kl_mask_.data()});
    matmul_.backward_weight(d_heads_.data(), heads_input(), examples, width(heads.in), heads_out,
                            gradient(heads.mu_weight));
    if (encoder_.empty()) return;
    d_h = d_h_[0].data();
    matmul_.backward_input(d_heads_.data(), weight(heads.mu_weight), examples, width(heads.in),
                           heads_out, d_h);
    backward(layout_.encoder, encoder_, x_.data(), d_h, examples, false);
}

}  // namespace vae::gpu
