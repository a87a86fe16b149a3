#include "host/gpu/network.h"

#include <algorithm>
#include <stdexcept>

#include "kernels/bernoulli.h"
#include "kernels/bias_activation.h"
#include "kernels/gaussian.h"

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

// The widest array that a kernel sums over, of hidden layers, heads and output.
std::size_t widest(const ParameterLayout& layout) {
    return std::max({2 * layout.heads.stride, layout.pixels, widest_hidden(layout)});
}

}  // namespace

Network::Network(const ModelConfig& model, const ParameterLayout& layout, int capacity,
                 const Stream& stream)
    : model_(model),
      layout_(layout),
      capacity_(capacity),
      stream_(stream),
      matmul_(stream),
      parameters_(layout.arena_size, "the parameters"),
      in_use_(parameters_.data()),
      gradients_(layout.arena_size, "the gradients"),
      encoder_(allocate(layout.encoder, capacity)),
      decoder_(allocate(layout.decoder, capacity)) {
    const auto rows = static_cast<std::size_t>(capacity);
    x_ = {rows * layout.pixels, "the batch"};
    heads_product_ = {rows * 2 * layout.heads.stride, "the encoder's heads"};
    z_ = {rows * layout.heads.latent, "the latents"};
    kl_ = {rows, "the KL terms"};
    output_product_ = {rows * layout.pixels, "the decoder's output"};
    recon_ = {rows, "the reconstruction terms"};
    for (DeviceArray<float>& buffer : d_h_) {
        buffer = {rows * widest_hidden(layout), "the gradients of the activations"};
    }
    const kernels::ScratchSize size = kernels::scratch_size(capacity, width(widest(layout)));
    partials_ = {size.partials, "the partial sums"};
    tickets_ = {size.tickets, "the partial sums' tickets"};
    scratch_ = {partials_.data(), size.partials, tickets_.data(), size.tickets};

    parameters_.zero(stream);
    // Padding is never written again: the optimiser must find zero there.
    gradients_.zero(stream);
    tickets_.zero(stream);
}

std::vector<Network::Hidden> Network::allocate(const std::vector<DenseLayer>& layers,
                                               int capacity) {
    std::vector<Hidden> result;
    for (const DenseLayer& layer : layers) {
        const std::size_t size = static_cast<std::size_t>(capacity) * layer.out;
        result.push_back({{size, "a hidden layer"}, {size, "a hidden layer's activations"}});
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

kernels::HeadsView Network::heads_view(int rows) const {
    return {.product = heads_product_.data(),
            .mu_bias = weight(layout_.heads.mu_bias),
            .logvar_bias = weight(layout_.heads.logvar_bias),
            .rows = rows,
            .latent = width(layout_.heads.latent),
            .stride = width(layout_.heads.stride),
            .logvar_min = static_cast<float>(model_.logvar_min),
            .logvar_max = static_cast<float>(model_.logvar_max)};
}

const float* Network::forward(const std::vector<DenseLayer>& layers, std::vector<Hidden>& hidden,
                              const float* x, int rows) {
    const kernels::Activation f = kernel_activation(model_.activation);
    for (std::size_t i = 0; i < layers.size(); ++i) {
        const DenseLayer& layer = layers[i];
        matmul_.forward(x, weight(layer.weight), rows, width(layer.in), width(layer.out),
                        hidden[i].product.data());
        kernels::bias_activation_forward(f, hidden[i].product.data(), weight(layer.bias), rows,
                                         width(layer.out), hidden[i].h.data(), stream_.get());
        x = hidden[i].h.data();
    }
    return x;
}

void Network::encode(int rows, const BatchNoise& noise, const PosteriorOutputs& outputs) {
    const float* h = forward(layout_.encoder, encoder_, x_.data(), rows);
    const Heads& heads = layout_.heads;
    matmul_.forward(h, weight(heads.mu_weight), rows, width(heads.in), width(2 * heads.stride),
                    heads_product_.data());
    kernels::reparameterize_forward(heads_view(rows), noise.stream, noise.index, noise.first_index,
                                    outputs.mu, outputs.logvar, outputs.epsilon, z_.data(),
                                    kl_.data(), stream_.get());
}

void Network::decode(int rows) {
    const float* h = forward(layout_.decoder, decoder_, z_.data(), rows);
    const DenseLayer& output = layout_.output;
    matmul_.forward(h, weight(output.weight), rows, width(output.in), width(output.out),
                    output_product_.data());
}

void Network::reconstruction_loss(int rows) {
    const float* bias = weight(layout_.output.bias);
    const int cols = width(layout_.pixels);
    switch (model_.likelihood) {
        case Likelihood::bernoulli:
            kernels::bernoulli_forward(output_product_.data(), bias, x_.data(), rows, cols,
                                       recon_.data(), scratch_, stream_.get());
            break;
        case Likelihood::gaussian:
            kernels::gaussian_forward(output_product_.data(), bias, x_.data(), rows, cols,
                                      model_.sigma, recon_.data(), scratch_, stream_.get());
            break;
    }
}

void Network::output_mean(int rows) {
    float* product = output_product_.data();
    const float* bias = weight(layout_.output.bias);
    const int cols = width(layout_.pixels);
    switch (model_.likelihood) {
        case Likelihood::bernoulli:
            kernels::bernoulli_mean(product, bias, rows, cols, product, stream_.get());
            break;
        case Likelihood::gaussian:
            kernels::gaussian_mean(product, bias, rows, cols, product, stream_.get());
            break;
    }
}

// recon(), the gradient of the output's product in its place, and that of the output's bias.
void Network::output_backward(int rows, double scale) {
    float* product = output_product_.data();
    const float* bias = weight(layout_.output.bias);
    float* d_bias = gradient(layout_.output.bias);
    const int cols = width(layout_.pixels);
    const auto scale_f = static_cast<float>(scale);
    switch (model_.likelihood) {
        case Likelihood::bernoulli:
            kernels::bernoulli_forward_backward(product, bias, x_.data(), rows, cols, scale_f,
                                                recon_.data(), product, d_bias, scratch_,
                                                stream_.get());
            break;
        case Likelihood::gaussian:
            kernels::gaussian_forward_backward(product, bias, x_.data(), rows, cols, model_.sigma,
                                               scale_f, recon_.data(), product, d_bias, scratch_,
                                               stream_.get());
            break;
    }
}

float* Network::backward(const std::vector<DenseLayer>& layers, std::vector<Hidden>& hidden,
                         const float* x, float* d_h, int rows, bool want_input) {
    const kernels::Activation f = kernel_activation(model_.activation);
    for (std::size_t i = layers.size(); i-- > 0;) {
        const DenseLayer& layer = layers[i];
        const int in = width(layer.in);
        const int out = width(layer.out);
        const float* input = i == 0 ? x : hidden[i - 1].h.data();
        float* d_pre = d_h;
        kernels::bias_activation_backward(f, hidden[i].product.data(), weight(layer.bias), d_h,
                                          rows, out, d_pre, gradient(layer.bias), scratch_,
                                          stream_.get());
        matmul_.backward_weight(d_pre, input, rows, in, out, gradient(layer.weight));
        if (i == 0 && !want_input) return nullptr;
        d_h = other_d_h(d_pre);
        matmul_.backward_input(d_pre, weight(layer.weight), rows, in, out, d_h);
    }
    return d_h;
}

void Network::backward(int rows, const BatchNoise& noise, double scale, double beta) {
    const DenseLayer& output = layout_.output;
    output_backward(rows, scale);
    const float* d_product = output_product_.data();
    matmul_.backward_weight(d_product, output_input(), rows, width(output.in), width(output.out),
                            gradient(output.weight));
    float* d_h = d_h_[0].data();
    matmul_.backward_input(d_product, weight(output.weight), rows, width(output.in),
                           width(output.out), d_h);
    const float* d_z = backward(layout_.decoder, decoder_, z_.data(), d_h, rows, true);

    const Heads& heads = layout_.heads;
    const int heads_out = width(2 * heads.stride);
    float* d_heads = heads_product_.data();
    kernels::reparameterize_backward(heads_view(rows), noise.stream, noise.index, noise.first_index,
                                     d_z, static_cast<float>(scale * beta), d_heads,
                                     gradient(heads.mu_bias), gradient(heads.logvar_bias), scratch_,
                                     stream_.get());
    matmul_.backward_weight(d_heads, heads_input(), rows, width(heads.in), heads_out,
                            gradient(heads.mu_weight));
    if (encoder_.empty()) return;
    d_h = d_h_[0].data();
    matmul_.backward_input(d_heads, weight(heads.mu_weight), rows, width(heads.in), heads_out, d_h);
    backward(layout_.encoder, encoder_, x_.data(), d_h, rows, false);
}

}  // namespace vae::gpu
