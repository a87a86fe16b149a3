#include "host/cpu/network.h"

#include <algorithm>

#include "host/cpu/activation.h"
#include "host/cpu/chunks.h"
#include "host/cpu/matmul.h"

namespace vae::cpu {

template <class T>
Network<T>::Network(const ModelConfig& model, const ParameterLayout& layout)
    : model_(model),
      layout_(layout),
      likelihood_(model, layout),
      encoder_(layout.encoder.size()),
      decoder_(layout.decoder.size()) {}

template <class T>
void Network<T>::reserve(std::size_t rows) {
    if (rows <= capacity_) return;
    capacity_ = 0;
    const Heads& heads = layout_.heads;
    std::size_t widest_input = heads.latent;
    std::size_t widest_product = std::max(2 * heads.stride, layout_.output.out);
    const auto reserve_hidden = [&](const std::vector<DenseLayer>& layers,
                                    std::vector<Hidden>& hidden) {
        for (std::size_t i = 0; i < layers.size(); ++i) {
            hidden[i].product.reserve(rows * layers[i].out);
            hidden[i].h.reserve(rows * layers[i].out);
            widest_input = std::max(widest_input, layers[i].out);
            widest_product = std::max(widest_product, layers[i].out);
        }
    };
    reserve_hidden(layout_.encoder, encoder_);
    reserve_hidden(layout_.decoder, decoder_);
    x_.reserve(rows * layout_.pixels);
    heads_product_.reserve(rows * 2 * heads.stride);
    for (Buffer<T>* buffer : {&mu_, &logvar_, &epsilon_, &z_}) {
        buffer->reserve(rows * heads.latent);
    }
    output_product_.reserve(rows * layout_.output.out);
    recon_.reserve(rows);
    likelihood_.reserve(rows);
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

// Returns the last layer's output.
template <class T>
const T* Network<T>::forward(const std::vector<DenseLayer>& layers, std::vector<Hidden>& hidden,
                             const T* input, const T* parameters, std::size_t rows) {
    for (std::size_t i = 0; i < layers.size(); ++i) {
        const DenseLayer& layer = layers[i];
        T* product = hidden[i].product.data();
        matmul_nt(input, parameters + layer.weight.offset, rows, layer.out, layer.in, product);
        bias_activation_forward(model_.activation, product, parameters + layer.bias.offset, rows,
                                layer.out, hidden[i].h.data());
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
DecoderOutput<T> Network<T>::output(std::size_t rows) const {
    return {output_product_.data(), x_.data(), rows};
}

template <class T>
void Network<T>::reconstruct(const T* parameters, std::size_t rows) {
    likelihood_.recon(output(rows), parameters, recon_.data());
}

template <class T>
void Network<T>::mean(const T* parameters, std::size_t rows, T* mean) const {
    likelihood_.mean(output(rows), parameters, mean);
}

template <class T>
void Network<T>::outputs(const T* parameters, std::size_t rows, T* outputs) const {
    likelihood_.outputs(output(rows), parameters, outputs);
}

// The weight's gradient and, if wanted, the input's, in whichever of the two buffers does not hold
// d_product.
template <class T>
T* Network<T>::dense_backward(const DenseLayer& layer, const T* input, const T* d_product,
                              bool input_gradient, const T* parameters, std::size_t rows,
                              T* gradients) {
    matmul_tn(d_product, input, layer.out, layer.in, rows, gradients + layer.weight.offset);
    if (!input_gradient) return nullptr;
    T* d_input = d_product == d_even_.data() ? d_odd_.data() : d_even_.data();
    matmul_nn(d_product, parameters + layer.weight.offset, rows, layer.in, layer.out, d_input);
    return d_input;
}

// From d_h of the last layer's output to that of the first layer's input, which is returned.
template <class T>
T* Network<T>::backward(const std::vector<DenseLayer>& layers, std::vector<Hidden>& hidden,
                        const T* input, bool input_gradient, const T* parameters, std::size_t rows,
                        T* d_h, T* gradients) {
    for (std::size_t i = layers.size(); i-- > 0;) {
        const DenseLayer& layer = layers[i];
        bias_activation_backward(model_.activation, hidden[i].product.data(),
                                 parameters + layer.bias.offset, d_h, rows, layer.out, d_h,
                                 gradients + layer.bias.offset, partials_.data());
        const T* layer_input = i == 0 ? input : hidden[i - 1].h.data();
        d_h = dense_backward(layer, layer_input, d_h, i > 0 || input_gradient, parameters, rows,
                             gradients);
    }
    return d_h;
}

template <class T>
void Network<T>::backward(const T* parameters, std::size_t rows, double beta, T* gradients) {
    const double scale = 1.0 / static_cast<double>(rows);
    T* product = output_product_.data();
    likelihood_.recon_and_gradients(output(rows), parameters,
                                    {.scale = scale,
                                     .d_product = product,
                                     .gradients = gradients,
                                     .partials = partials_.data()},
                                    recon_.data());
    T* d_h = dense_backward(layout_.output, last_of(decoder_, z_.data()), product, true, parameters,
                            rows, gradients);
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
