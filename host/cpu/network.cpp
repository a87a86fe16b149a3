#include "host/cpu/network.h"

#include <algorithm>

#include "host/cpu/activation.h"
#include "host/cpu/chunks.h"
#include "host/cpu/free_bits.h"
#include "host/cpu/gated.h"
#include "host/cpu/matmul.h"
#include "host/cpu/poisson.h"
#include "host/output_layer.h"

namespace vae::cpu {

template <class T>
Network<T>::Network(const Config& config, const ParameterLayout& layout)
    : model_(config.model),
      objective_(effective_objective(config)),
      layout_(layout),
      likelihood_(config.model, layout),
      prior_(config.model, layout),
      encoder_(layout.encoder.size()),
      decoder_(layout.decoder.size()),
      kl_mask_(layout.heads.latent) {
    std::fill_n(kl_mask_.data(), layout.heads.latent, T(1));
}

template <class T>
void Network<T>::reserve(std::size_t examples, std::size_t samples) {
    const std::size_t rows = examples * samples;
    if (examples <= capacity_ && rows <= draw_capacity_) return;
    capacity_ = draw_capacity_ = 0;
    const Heads& heads = layout_.heads;
    const std::size_t encoded = examples + prior_.encoder_rows();
    std::size_t widest_input = heads.latent;
    std::size_t widest_product = std::max(heads.product_width(), layout_.output.out);
    const auto reserve_hidden = [&](const std::vector<DenseLayer>& layers,
                                    std::vector<Hidden>& hidden, std::size_t count) {
        for (std::size_t i = 0; i < layers.size(); ++i) {
            hidden[i].product.reserve(count * layers[i].product_width());
            hidden[i].h.reserve(count * layers[i].out);
            widest_input = std::max(widest_input, layers[i].out);
            widest_product = std::max(widest_product, layers[i].product_width());
        }
    };
    reserve_hidden(layout_.encoder, encoder_, encoded);
    reserve_hidden(layout_.decoder, decoder_, rows);
    x_.reserve(encoded * layout_.pixels);
    if (encodes_log_counts(model_.likelihood)) log_counts_.reserve(encoded * layout_.pixels);
    heads_product_.reserve(encoded * heads.product_width());
    d_heads_.reserve(encoded * heads.product_width());
    if (heads.is_full()) {
        tril_.reserve(examples * heads.tril_size());
        draw_gradient_.reserve(chunk_count(examples) * 2 * heads.latent);
    }
    for (Buffer<T>* buffer : {&mu_, &logvar_}) buffer->reserve(examples * heads.latent);
    for (Buffer<T>* buffer : {&closed_kl_, &loss_kl_, &recon_, &kl_, &loss_}) {
        buffer->reserve(examples);
    }
    for (Buffer<T>* buffer : {&epsilon_, &z_}) buffer->reserve(rows * heads.latent);
    for (Buffer<T>* buffer : {&log_ratio_, &draw_recon_}) buffer->reserve(rows);
    for (Buffer<T>& buffer : weights_) buffer.reserve(rows);
    output_product_.reserve(rows * layout_.output.out);
    likelihood_.reserve(rows);
    prior_.reserve(rows);
    const std::size_t most = std::max(rows, encoded);
    d_even_.reserve(most * widest_input);
    d_odd_.reserve(most * widest_input);
    partials_.reserve(chunk_count(most) * widest_product);
    capacity_ = examples;
    draw_capacity_ = rows;
}

template <class T>
const T* Network<T>::last_of(const std::vector<Hidden>& hidden, const T* input) const {
    return hidden.empty() ? input : hidden.back().h.data();
}

template <class T>
const T* Network<T>::encoder_input() const {
    return encodes_log_counts(model_.likelihood) ? log_counts_.data() : x_.data();
}

template <class T>
HeadsView<T> Network<T>::heads(const T* parameters, std::size_t examples,
                               std::size_t samples) const {
    const Heads& heads = layout_.heads;
    return {heads_product_.data(),
            parameters + heads.mu_bias.offset,
            parameters + heads.logvar_bias.offset,
            examples,
            samples,
            heads.latent,
            heads.stride,
            static_cast<T>(model_.logvar_min),
            static_cast<T>(model_.logvar_max)};
}

template <class T>
CholeskyHeads<T> Network<T>::cholesky_heads(const T* parameters, std::size_t examples,
                                            std::size_t samples) const {
    return {heads(parameters, examples, samples), parameters + layout_.heads.tril_bias.offset,
            layout_.heads.tril_stride};
}

// Of a gated layer.
template <class T>
GatedView<T> gated_view(const DenseLayer& layer, const T* product, const T* parameters,
                        std::size_t rows) {
    return {product,
            parameters + layer.bias.offset,
            parameters + layer.gate_bias.offset,
            rows,
            layer.out,
            layer.stride};
}

// Returns the last layer's output.
template <class T>
const T* Network<T>::forward(const std::vector<DenseLayer>& layers, std::vector<Hidden>& hidden,
                             const T* input, const T* parameters, std::size_t rows) {
    for (std::size_t i = 0; i < layers.size(); ++i) {
        const DenseLayer& layer = layers[i];
        T* product = hidden[i].product.data();
        matmul_nt(input, parameters + layer.weight.offset, rows, layer.product_width(), layer.in,
                  product);
        if (layer.is_gated()) {
            gated_forward(gated_view<T>(layer, product, parameters, rows), hidden[i].h.data());
        } else {
            bias_activation_forward(model_.activation, product, parameters + layer.bias.offset,
                                    rows, layer.out, hidden[i].h.data());
        }
        input = hidden[i].h.data();
    }
    return input;
}

template <class T>
void Network<T>::encode(const T* parameters, std::size_t examples) {
    const std::size_t rows = examples + prior_.encoder_rows();
    if (encodes_log_counts(model_.likelihood)) {
        log_counts(x_.data(), examples, layout_.pixels, log_counts_.data());
    }
    prior_.copy_pseudo_inputs(parameters, x_.data() + examples * layout_.pixels);
    const T* h = forward(layout_.encoder, encoder_, encoder_input(), parameters, rows);
    const Heads& heads = layout_.heads;
    matmul_nt(h, parameters + heads.mu_weight.offset, rows, heads.product_width(), heads.in,
              heads_product_.data());
    prior_.set_components(parameters, heads_product_.data() + examples * heads.product_width());
}

template <class T>
void Network<T>::sample(const T* parameters, std::size_t examples, std::size_t samples) {
    if (layout_.heads.is_full()) {
        cholesky_forward(cholesky_heads(parameters, examples, samples), epsilon_.data(),
                         CholeskyDraws<T>{.mu = mu_.data(),
                                          .logvar = logvar_.data(),
                                          .tril = tril_.data(),
                                          .z = z_.data(),
                                          .kl = closed_kl_.data(),
                                          .log_ratio = log_ratio_.data()});
    } else {
        reparameterize_forward(heads(parameters, examples, samples), epsilon_.data(), mu_.data(),
                               logvar_.data(), z_.data(), closed_kl_.data(), log_ratio_.data());
    }
    prior_.apply(z_.data(), examples * samples, log_ratio_.data());
}

template <class T>
void Network<T>::decode(const T* parameters, std::size_t rows) {
    const T* h = forward(layout_.decoder, decoder_, z_.data(), parameters, rows);
    const DenseLayer& output = layout_.output;
    matmul_nt(h, parameters + output.weight.offset, rows, output.out, output.in,
              output_product_.data());
}

template <class T>
DecoderOutput<T> Network<T>::output(std::size_t examples, std::size_t samples) const {
    return {output_product_.data(), x_.data(), examples * samples, samples};
}

template <class T>
void Network<T>::reconstruct(const T* parameters, std::size_t examples, std::size_t samples) {
    likelihood_.recon(output(examples, samples), parameters, draw_recon_.data());
}

template <class T>
void Network<T>::mean(const T* parameters, std::size_t rows, T* mean) const {
    likelihood_.mean(output(rows, 1), parameters, mean);
}

template <class T>
void Network<T>::outputs(const T* parameters, std::size_t rows, T* outputs) const {
    likelihood_.outputs(output(rows, 1), parameters, outputs);
}

template <class T>
void Network<T>::apply_free_bits(std::size_t examples) {
    const std::size_t latent = layout_.heads.latent;
    if (objective_.free_bits_per == FreeBitsPer::total) {
        free_bits_in_total(closed_kl_.data(), examples, latent, objective_.free_bits,
                           kl_mask_.data(), loss_kl_.data());
    } else {
        free_bits_per_dimension(mu_.data(), logvar_.data(), examples, latent, objective_.free_bits,
                                kl_mask_.data(), loss_kl_.data(), partials_.data());
    }
}

// Returns the mean signal of the score function.
template <class T>
double Network<T>::apply_objective(std::size_t examples, double beta, double running_mean,
                                   const DrawWeights<T>& weights) {
    const bool has_floor = objective_.uses_free_bits();
    if (has_floor) apply_free_bits(examples);
    return objective(objective_, beta, running_mean, examples,
                     DrawLosses<T>{draw_recon_.data(), log_ratio_.data(), closed_kl_.data(),
                                   has_floor ? loss_kl_.data() : nullptr},
                     ExampleLosses<T>{recon_.data(), kl_.data(), loss_.data()}, weights);
}

template <class T>
DrawWeights<T> Network<T>::draw_weights() {
    return {weights_[0].data(), weights_[1].data(), weights_[2].data(), weights_[3].data()};
}

template <class T>
void Network<T>::losses(const T* parameters, std::size_t examples, double beta) {
    reconstruct(parameters, examples, objective_.samples);
    apply_objective(examples, beta, 0, {});
}

template <class T>
void weight_backward(const DenseLayer& layer, const T* input, const T* d_product, std::size_t rows,
                     T* gradients) {
    matmul_tn(d_product, input, layer.product_width(), layer.in, rows,
              gradients + layer.weight.offset);
}

// The gradient of the layer's input, in whichever of the two buffers does not hold d_product.
template <class T>
T* Network<T>::input_backward(const DenseLayer& layer, const T* d_product, const T* parameters,
                              std::size_t rows) {
    T* d_input = d_product == d_even_.data() ? d_odd_.data() : d_even_.data();
    matmul_nn(d_product, parameters + layer.weight.offset, rows, layer.in, layer.product_width(),
              d_input);
    return d_input;
}

// Of a gated layer in the place of its product, else in that of d_h.
template <class T>
const T* Network<T>::hidden_backward(const DenseLayer& layer, Hidden& hidden, const T* parameters,
                                     std::size_t rows, T* d_h, T* gradients) {
    T* product = hidden.product.data();
    T* d_bias = gradients + layer.bias.offset;
    if (layer.is_gated()) {
        gated_backward(gated_view<T>(layer, product, parameters, rows), d_h, product, d_bias,
                       gradients + layer.gate_bias.offset, partials_.data());
        return product;
    }
    bias_activation_backward(model_.activation, product, parameters + layer.bias.offset, d_h, rows,
                             layer.out, d_h, d_bias, partials_.data());
    return d_h;
}

// From d_h of the last of at least one layer to the gradient of the first one's product, which is
// returned.
template <class T>
const T* Network<T>::backward(const std::vector<DenseLayer>& layers, std::vector<Hidden>& hidden,
                              const T* input, const T* parameters, std::size_t rows, T* d_h,
                              T* gradients) {
    for (std::size_t i = layers.size() - 1;; --i) {
        const DenseLayer& layer = layers[i];
        const T* d_product = hidden_backward(layer, hidden[i], parameters, rows, d_h, gradients);
        weight_backward(layer, i == 0 ? input : hidden[i - 1].h.data(), d_product, rows, gradients);
        if (i == 0) return d_product;
        d_h = input_backward(layer, d_product, parameters, rows);
    }
}

// From the output layer's gradients to d_z, which is returned.
template <class T>
const T* Network<T>::decoder_backward(const T* parameters, std::size_t rows, T* gradients) {
    weight_backward(layout_.output, last_of(decoder_, z_.data()), output_product_.data(), rows,
                    gradients);
    T* d_h = input_backward(layout_.output, output_product_.data(), parameters, rows);
    if (decoder_.empty()) return d_h;
    const T* d_product =
        backward(layout_.decoder, decoder_, z_.data(), parameters, rows, d_h, gradients);
    return input_backward(layout_.decoder.front(), d_product, parameters, rows);
}

// The prior's gradient passes through the encoder where its components do.
template <class T>
void Network<T>::posterior_backward(const T* parameters, std::size_t examples,
                                    const LatentGradient<T>& gradient, T* gradients) {
    const Heads& of = layout_.heads;
    T* d_mu_bias = gradients + of.mu_bias.offset;
    T* d_logvar_bias = gradients + of.logvar_bias.offset;
    if (of.is_full()) {
        cholesky_backward(
            cholesky_heads(parameters, examples, objective_.samples),
            CholeskySaved<T>{epsilon_.data(), mu_.data(), logvar_.data(), tril_.data(), z_.data()},
            gradient,
            CholeskyGradients<T>{d_heads_.data(), d_mu_bias, d_logvar_bias,
                                 gradients + of.tril_bias.offset, partials_.data(),
                                 draw_gradient_.data()});
        return;
    }
    reparameterize_backward(heads(parameters, examples, objective_.samples), epsilon_.data(),
                            gradient, d_heads_.data(), d_mu_bias, d_logvar_bias, partials_.data());
}

template <class T>
void Network<T>::encoder_backward(const T* parameters, std::size_t examples,
                                  const LatentGradient<T>& gradient, double beta, T* gradients) {
    posterior_backward(parameters, examples, gradient, gradients);
    DenseLayer joint;  // all heads as the one layer that they are
    joint.in = layout_.heads.in;
    joint.out = layout_.heads.product_width();
    joint.weight.offset = layout_.heads.mu_weight.offset;
    prior_.backward(z_.data(), weights_[0].data(), examples * objective_.samples,
                    gradient.scale * beta, d_heads_.data() + examples * joint.out, gradients);
    const std::size_t pseudo_inputs = prior_.encoder_rows();
    const std::size_t rows = examples + pseudo_inputs;
    const T* d_product = d_heads_.data();
    weight_backward(joint, last_of(encoder_, encoder_input()), d_product, rows, gradients);
    if (!encoder_.empty()) {
        T* d_h = input_backward(joint, d_product, parameters, rows);
        d_product =
            backward(layout_.encoder, encoder_, encoder_input(), parameters, rows, d_h, gradients);
    }
    if (pseudo_inputs == 0) return;
    const DenseLayer& first = encoder_.empty() ? joint : layout_.encoder.front();
    matmul_nn(d_product + examples * first.product_width(), parameters + first.weight.offset,
              pseudo_inputs, first.in, first.product_width(),
              prior_.pseudo_input_gradient(gradients));
}

// Every draw weighs the same in the decoder's gradient unless the bound is importance weighted:
// then all of an example's losses must be there first, and the likelihood is gone through twice.
template <class T>
double Network<T>::backward(const T* parameters, std::size_t examples, double beta,
                            double running_mean, T* gradients) {
    const std::size_t samples = objective_.samples;
    const std::size_t rows = examples * samples;
    const double scale = 1.0 / static_cast<double>(examples);
    const DrawWeights<T> weights = draw_weights();
    OutputGradient<T> gradient{.scale = scale,
                               .d_product = output_product_.data(),
                               .gradients = gradients,
                               .partials = partials_.data()};
    double signal = 0;
    if (objective_.bound == Bound::iwae) {
        reconstruct(parameters, examples, samples);
        apply_objective(examples, beta, 0, weights);
        gradient.row_weight = weights.decoder;
    } else {
        gradient.scale = scale / static_cast<double>(samples);
    }
    likelihood_.recon_and_gradients(output(examples, samples), parameters, gradient,
                                    draw_recon_.data());
    if (objective_.bound != Bound::iwae) {
        signal = apply_objective(examples, beta, running_mean, weights);
    }
    const bool is_closed = objective_.bound == Bound::elbo && objective_.kl == KlTerm::analytic;
    encoder_backward(parameters, examples,
                     {.d_z = decoder_backward(parameters, rows, gradients),
                      .path = weights.path,
                      .ratio = weights.ratio,
                      .score = weights.score,
                      .prior_score = prior_.score(),
                      .scale = scale,
                      .kl_scale = is_closed ? beta * scale : 0,
                      .kl_mask = kl_mask_.data()},
                     beta, gradients);
    return signal;
}

template class Network<float>;
template class Network<double>;

}  // namespace vae::cpu
