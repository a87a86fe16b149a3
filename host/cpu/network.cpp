#include "host/cpu/network.h"

#include <algorithm>

#include "host/cpu/activation.h"
#include "host/cpu/bernoulli.h"
#include "host/cpu/chunks.h"
#include "host/cpu/gated.h"
#include "host/cpu/gaussian.h"
#include "host/cpu/matmul.h"

namespace vae::cpu {

template <class T>
Network<T>::Network(const ModelConfig& model, const ParameterLayout& layout)
    : model_(model),
      layout_(layout),
      encoder_(layout.encoder.size()),
      decoder_(layout.decoder.size()) {}

template <class T>
void Network<T>::reserve(std::size_t rows) {
    if (rows <= capacity_) return;
    capacity_ = 0;
    const Heads& heads = layout_.heads;
    std::size_t widest_input = heads.latent;
    std::size_t widest_product = std::max(2 * heads.stride, layout_.pixels);
    const auto reserve_hidden = [&](const std::vector<DenseLayer>& layers,
                                    std::vector<Hidden>& hidden) {
        for (std::size_t i = 0; i < layers.size(); ++i) {
            hidden[i].product.reserve(rows * layers[i].product_width());
            hidden[i].h.reserve(rows * layers[i].out);
            widest_input = std::max(widest_input, layers[i].out);
            widest_product = std::max(widest_product, layers[i].product_width());
        }
    };
    reserve_hidden(layout_.encoder, encoder_);
    reserve_hidden(layout_.decoder, decoder_);
    x_.reserve(rows * layout_.pixels);
    heads_product_.reserve(rows * 2 * heads.stride);
    for (Buffer<T>* buffer : {&mu_, &logvar_, &epsilon_, &z_}) {
        buffer->reserve(rows * heads.latent);
    }
    output_product_.reserve(rows * layout_.pixels);
    recon_.reserve(rows);
    kl_.reserve(rows);
    d_even_.reserve(rows * widest_input);
    d_odd_.reserve(rows * widest_input);
    partials_.reserve(chunk_count(rows) * widest_product);
    capacity_ = rows;
}

template <class T>
const T* Network<T>::last_of(const std::vector<Hidden>& hidden, const T* input) const {
    return hidden.empty() ? input : hidden.back().h.data();
}

template <class T>
HeadsView<T> Network<T>::heads(const T* parameters, std::size_t rows) const {
    const Heads& heads = layout_.heads;
    return {heads_product_.data(),
            parameters + heads.mu_bias.offset,
            parameters + heads.logvar_bias.offset,
            rows,
            heads.latent,
            heads.stride,
            static_cast<T>(model_.logvar_min),
            static_cast<T>(model_.logvar_max)};
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
void Network<T>::encode(const T* parameters, std::size_t rows) {
    const T* h = forward(layout_.encoder, encoder_, x_.data(), parameters, rows);
    const Heads& heads = layout_.heads;
    matmul_nt(h, parameters + heads.mu_weight.offset, rows, 2 * heads.stride, heads.in,
              heads_product_.data());
}

template <class T>
void Network<T>::sample(const T* parameters, std::size_t rows) {
    reparameterize_forward(heads(parameters, rows), epsilon_.data(), mu_.data(), logvar_.data(),
                           z_.data(), kl_.data());
}

template <class T>
void Network<T>::decode(const T* parameters, std::size_t rows) {
    const T* h = forward(layout_.decoder, decoder_, z_.data(), parameters, rows);
    const DenseLayer& output = layout_.output;
    matmul_nt(h, parameters + output.weight.offset, rows, output.out, output.in,
              output_product_.data());
}

template <class T>
void Network<T>::reconstruct(const T* parameters, std::size_t rows) {
    const T* bias = parameters + layout_.output.bias.offset;
    const T* product = output_product_.data();
    if (model_.likelihood == Likelihood::bernoulli) {
        bernoulli_forward(product, bias, x_.data(), rows, layout_.pixels, recon_.data());
    } else {
        gaussian_forward(product, bias, x_.data(), rows, layout_.pixels, model_.sigma,
                         recon_.data());
    }
}

template <class T>
void Network<T>::mean(const T* parameters, std::size_t rows, T* mean) const {
    if (model_.likelihood == Likelihood::gaussian) {
        outputs(parameters, rows, mean);
        return;
    }
    bernoulli_mean(output_product_.data(), parameters + layout_.output.bias.offset, rows,
                   layout_.pixels, mean);
}

// The product with its bias, of either likelihood: logits or means.
template <class T>
void Network<T>::outputs(const T* parameters, std::size_t rows, T* outputs) const {
    gaussian_mean(output_product_.data(), parameters + layout_.output.bias.offset, rows,
                  layout_.pixels, outputs);
}

// The weight's gradient and, if wanted, the input's, in whichever of the two buffers does not hold
// d_product.
template <class T>
T* Network<T>::dense_backward(const DenseLayer& layer, const T* input, const T* d_product,
                              bool input_gradient, const T* parameters, std::size_t rows,
                              T* gradients) {
    const std::size_t width = layer.product_width();
    matmul_tn(d_product, input, width, layer.in, rows, gradients + layer.weight.offset);
    if (!input_gradient) return nullptr;
    T* d_input = d_product == d_even_.data() ? d_odd_.data() : d_even_.data();
    matmul_nn(d_product, parameters + layer.weight.offset, rows, layer.in, width, d_input);
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

// From d_h of the last layer's output to that of the first layer's input, which is returned.
template <class T>
T* Network<T>::backward(const std::vector<DenseLayer>& layers, std::vector<Hidden>& hidden,
                        const T* input, bool input_gradient, const T* parameters, std::size_t rows,
                        T* d_h, T* gradients) {
    for (std::size_t i = layers.size(); i-- > 0;) {
        const DenseLayer& layer = layers[i];
        const T* d_product = hidden_backward(layer, hidden[i], parameters, rows, d_h, gradients);
        const T* layer_input = i == 0 ? input : hidden[i - 1].h.data();
        d_h = dense_backward(layer, layer_input, d_product, i > 0 || input_gradient, parameters,
                             rows, gradients);
    }
    return d_h;
}

template <class T>
void Network<T>::backward(const T* parameters, std::size_t rows, double beta, T* gradients) {
    const double scale = 1.0 / static_cast<double>(rows);
    const DenseLayer& output = layout_.output;
    const T* bias = parameters + output.bias.offset;
    T* d_bias = gradients + output.bias.offset;
    T* product = output_product_.data();
    if (model_.likelihood == Likelihood::bernoulli) {
        bernoulli_forward_backward(product, bias, x_.data(), rows, layout_.pixels, scale,
                                   recon_.data(), product, d_bias, partials_.data());
    } else {
        gaussian_forward_backward(product, bias, x_.data(), rows, layout_.pixels, model_.sigma,
                                  scale, recon_.data(), product, d_bias, partials_.data());
    }
    T* d_h = dense_backward(output, last_of(decoder_, z_.data()), product, true, parameters, rows,
                            gradients);
    const T* d_z =
        backward(layout_.decoder, decoder_, z_.data(), true, parameters, rows, d_h, gradients);

    const Heads& heads_layout = layout_.heads;
    T* d_heads = heads_product_.data();
    reparameterize_backward(heads(parameters, rows), epsilon_.data(), d_z, beta * scale, d_heads,
                            gradients + heads_layout.mu_bias.offset,
                            gradients + heads_layout.logvar_bias.offset, partials_.data());
    DenseLayer joint;  // both heads as the one layer that they are
    joint.in = heads_layout.in;
    joint.out = 2 * heads_layout.stride;
    joint.weight.offset = heads_layout.mu_weight.offset;
    T* d_encoded = dense_backward(joint, last_of(encoder_, x_.data()), d_heads, !encoder_.empty(),
                                  parameters, rows, gradients);
    backward(layout_.encoder, encoder_, x_.data(), false, parameters, rows, d_encoded, gradients);
}

template class Network<float>;
template class Network<double>;

}  // namespace vae::cpu
