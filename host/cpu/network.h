// The model on one batch: forward, loss and backward over a workspace that is allocated once. T is
// float or double. Knows nothing of data sets, noise addresses or the optimiser.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "host/config.h"
#include "host/cpu/buffer.h"
#include "host/cpu/likelihood.h"
#include "host/cpu/reparameterize.h"
#include "host/parameters.h"

namespace vae::cpu {

// Each forward function reads what the one before left in the workspace; `parameters` and
// `gradients` are arenas of the layout. rows never exceeds what was reserved.
template <class T>
class Network {
  public:
    Network(const ModelConfig& model, const ParameterLayout& layout);

    // Room for a batch. Throws RunError when there is no memory. Growing discards the contents.
    void reserve(std::size_t rows);

    // x → the heads' product.
    void encode(const T* parameters, std::size_t rows);
    // The heads' product, epsilon → mu, logvar, z, kl.
    void sample(const T* parameters, std::size_t rows);
    // z → the output layer's product.
    void decode(const T* parameters, std::size_t rows);
    // The output layer's product, x → recon.
    void reconstruct(const T* parameters, std::size_t rows);
    // The output layer's product → the likelihood's mean[rows, pixels].
    void mean(const T* parameters, std::size_t rows, T* mean) const;
    // The output layer's product → the same with its bias, [rows, layout.output.out].
    void outputs(const T* parameters, std::size_t rows, T* outputs) const;
    // After decode: recon, and the gradients of mean over rows of (recon + beta·kl). Overwrites
    // the products of the heads and of the output layer. Padding of gradients is left as it is,
    // but for the heads' padding rows, which become zero.
    void backward(const T* parameters, std::size_t rows, double beta, T* gradients);

    // See OutputLikelihood.
    void keep_variance(bool is_first, T* parameters) const {
        likelihood_.keep_variance(is_first, parameters);
    }

    T* x() { return x_.data(); }              // [rows, pixels]
    T* epsilon() { return epsilon_.data(); }  // [rows, latent]
    T* z() { return z_.data(); }              // [rows, latent]
    std::span<const T> x_values(std::size_t rows) const { return x_.first(rows * layout_.pixels); }
    const T* mu() const { return mu_.data(); }
    const T* logvar() const { return logvar_.data(); }
    const T* recon() const { return recon_.data(); }  // [rows]
    const T* kl() const { return kl_.data(); }        // [rows]
    const T* encoder_hidden(std::size_t i) const { return encoder_[i].h.data(); }
    const T* decoder_hidden(std::size_t i) const { return decoder_[i].h.data(); }

  private:
    struct Hidden {
        Buffer<T> product;  // without bias
        Buffer<T> h;
    };

    const T* forward(const std::vector<DenseLayer>& layers, std::vector<Hidden>& hidden,
                     const T* input, const T* parameters, std::size_t rows);
    T* backward(const std::vector<DenseLayer>& layers, std::vector<Hidden>& hidden, const T* input,
                bool input_gradient, const T* parameters, std::size_t rows, T* d_h, T* gradients);
    T* dense_backward(const DenseLayer& layer, const T* input, const T* d_product,
                      bool input_gradient, const T* parameters, std::size_t rows, T* gradients);
    HeadsView<T> heads(const T* parameters, std::size_t rows) const;
    DecoderOutput<T> output(std::size_t rows) const;
    const T* last_of(const std::vector<Hidden>& hidden, const T* input) const;

    ModelConfig model_;
    ParameterLayout layout_;
    OutputLikelihood<T> likelihood_;
    std::size_t capacity_ = 0;  // rows
    std::vector<Hidden> encoder_;
    std::vector<Hidden> decoder_;
    Buffer<T> x_;
    Buffer<T> heads_product_;
    Buffer<T> mu_;
    Buffer<T> logvar_;
    Buffer<T> epsilon_;
    Buffer<T> z_;
    Buffer<T> output_product_;
    Buffer<T> recon_;
    Buffer<T> kl_;
    Buffer<T> d_even_;  // gradients of layer inputs, alternating: a product's operands stay apart
    Buffer<T> d_odd_;
    Buffer<T> partials_;
};

extern template class Network<float>;
extern template class Network<double>;

}  // namespace vae::cpu
