// The model on one batch: forward, loss and backward over a workspace that is allocated once. T is
// float or double. Knows nothing of data sets, noise addresses or the optimiser.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "host/config.h"
#include "host/cpu/buffer.h"
#include "host/cpu/cholesky_posterior.h"
#include "host/cpu/likelihood.h"
#include "host/cpu/objective.h"
#include "host/cpu/prior.h"
#include "host/cpu/reparameterize.h"
#include "host/parameters.h"

namespace vae::cpu {

// Each forward function reads what the one before left in the workspace; `parameters` and
// `gradients` are arenas of the layout. An example has `samples` draws of z, which are neighbouring
// rows of what the decoder sees: rows = examples·samples, never more than was reserved.
template <class T>
class Network {
  public:
    Network(const Config& config, const ParameterLayout& layout);

    // Room for a batch. Throws RunError when there is no memory. Growing discards the contents.
    void reserve(std::size_t examples, std::size_t samples);

    // x → the heads' product, and what the prior needs of the parameters.
    void encode(const T* parameters, std::size_t examples);
    // The heads' product, epsilon → mu, logvar, kl, z, log_ratio.
    void sample(const T* parameters, std::size_t examples, std::size_t samples);
    // z → the output layer's product.
    void decode(const T* parameters, std::size_t rows);
    // The output layer's product, x → recon of each draw.
    void reconstruct(const T* parameters, std::size_t examples, std::size_t samples);
    // The output layer's product → the likelihood's mean[rows, pixels].
    void mean(const T* parameters, std::size_t rows, T* mean) const;
    // The output layer's product → the same with its bias, [rows, layout.output.out].
    void outputs(const T* parameters, std::size_t rows, T* outputs) const;
    // After decode, with the objective's own number of draws: recon of each draw and the losses of
    // each example.
    void losses(const T* parameters, std::size_t examples, double beta);
    // losses, and the gradients of their mean. running_mean is the score function's baseline of
    // that name; returns the mean of its signal. Overwrites the products of gated layers and of the
    // output layer. Padding of gradients is left as it is, but for the padding rows of joint
    // weights, which become zero.
    double backward(const T* parameters, std::size_t examples, double beta, double running_mean,
                    T* gradients);

    // See OutputLikelihood.
    void keep_variance(T* parameters, double ema_decay, T* ema) const {
        likelihood_.keep_variance(parameters, ema_decay, ema);
    }

    T* x() { return x_.data(); }              // [examples, pixels]
    T* epsilon() { return epsilon_.data(); }  // [rows, latent]
    T* z() { return z_.data(); }              // [rows, latent]
    std::span<const T> x_values(std::size_t examples) const {
        return x_.first(examples * layout_.pixels);
    }
    const T* mu() const { return mu_.data(); }                  // [examples, latent]
    const T* logvar() const { return logvar_.data(); }          // [examples, latent]
    const T* tril() const { return tril_.data(); }              // [examples, heads.tril_size()]
    const T* draw_recon() const { return draw_recon_.data(); }  // [rows]
    const T* log_ratio() const { return log_ratio_.data(); }    // [rows]
    // [examples], as host/cpu/objective.h defines them.
    const T* recon() const { return recon_.data(); }
    const T* kl() const { return kl_.data(); }
    const T* loss() const { return loss_.data(); }
    const T* encoder_hidden(std::size_t i) const { return encoder_[i].h.data(); }
    const T* decoder_hidden(std::size_t i) const { return decoder_[i].h.data(); }

  private:
    struct Hidden {
        Buffer<T> product;  // [rows, product_width], without bias
        Buffer<T> h;
    };

    const T* forward(const std::vector<DenseLayer>& layers, std::vector<Hidden>& hidden,
                     const T* input, const T* parameters, std::size_t rows);
    const T* backward(const std::vector<DenseLayer>& layers, std::vector<Hidden>& hidden,
                      const T* input, const T* parameters, std::size_t rows, T* d_h, T* gradients);
    T* input_backward(const DenseLayer& layer, const T* d_product, const T* parameters,
                      std::size_t rows);
    // From d_h to the gradient of the layer's product, which is returned, and those of its biases.
    const T* hidden_backward(const DenseLayer& layer, Hidden& hidden, const T* parameters,
                             std::size_t rows, T* d_h, T* gradients);
    HeadsView<T> heads(const T* parameters, std::size_t examples, std::size_t samples) const;
    CholeskyHeads<T> cholesky_heads(const T* parameters, std::size_t examples,
                                    std::size_t samples) const;
    // From d_z to d_heads_ and the gradients of the heads' biases.
    void posterior_backward(const T* parameters, std::size_t examples,
                            const LatentGradient<T>& gradient, T* gradients);
    DecoderOutput<T> output(std::size_t examples, std::size_t samples) const;
    // kl_mask_ and loss_kl_.
    void apply_free_bits(std::size_t examples);
    double apply_objective(std::size_t examples, double beta, double running_mean,
                           const DrawWeights<T>& weights);
    const T* decoder_backward(const T* parameters, std::size_t rows, T* gradients);
    void encoder_backward(const T* parameters, std::size_t examples,
                          const LatentGradient<T>& gradient, double beta, T* gradients);
    DrawWeights<T> draw_weights();
    const T* last_of(const std::vector<Hidden>& hidden, const T* input) const;
    // x, or what the encoder sees instead.
    const T* encoder_input() const;

    ModelConfig model_;
    ObjectiveConfig objective_;
    ParameterLayout layout_;
    OutputLikelihood<T> likelihood_;
    LearnedPrior<T> prior_;
    std::size_t capacity_ = 0;       // examples
    std::size_t draw_capacity_ = 0;  // rows
    std::vector<Hidden> encoder_;
    std::vector<Hidden> decoder_;
    Buffer<T> x_;  // of the encoder: the examples, then the prior's pseudo-inputs, as the next
    Buffer<T> log_counts_;  // of x, where the encoder sees them
    Buffer<T> heads_product_;
    Buffer<T> mu_;
    Buffer<T> logvar_;
    Buffer<T> tril_;
    Buffer<T> draw_gradient_;  // of cholesky_backward
    Buffer<T> epsilon_;
    Buffer<T> z_;
    Buffer<T> d_heads_;
    Buffer<T> output_product_;
    Buffer<T> closed_kl_;  // the divergence in closed form
    Buffer<T> kl_mask_;    // [latent]: ones, or those of free bits
    Buffer<T> loss_kl_;    // what stands for it in the loss, of free bits
    Buffer<T> log_ratio_;
    Buffer<T> draw_recon_;
    Buffer<T> recon_;
    Buffer<T> kl_;
    Buffer<T> loss_;
    Buffer<T> weights_[4];  // of DrawWeights, in its order
    Buffer<T> d_even_;  // gradients of layer inputs, alternating: a product's operands stay apart
    Buffer<T> d_odd_;
    Buffer<T> partials_;
};

extern template class Network<float>;
extern template class Network<double>;

}  // namespace vae::cpu
