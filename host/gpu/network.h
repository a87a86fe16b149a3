// The model on the device: its arenas, its activations, and the forward and backward passes as a
// sequence of matrix products and kernels on one stream.
#pragma once

#include <cstdint>
#include <vector>

#include "host/config.h"
#include "host/gpu/device_array.h"
#include "host/gpu/likelihood.h"
#include "host/gpu/matmul.h"
#include "host/parameters.h"
#include "kernels/noise.h"
#include "kernels/reparameterize.h"
#include "kernels/scratch.h"

namespace vae::gpu {

// Where a batch's noise comes from: row r is example first_index + index[r].
struct BatchNoise {
    kernels::NoiseStream stream;
    const std::uint32_t* index = nullptr;  // device
    std::uint32_t first_index = 0;
};

// Optional outputs of the encoder, [rows, latent] on the device; null: not written.
struct PosteriorOutputs {
    float* mu = nullptr;
    float* logvar = nullptr;
    float* epsilon = nullptr;
};

class Network {
  public:
    // Allocates everything for batches of up to `capacity` rows. Parameters and gradients are zero.
    // Throws RunError when the device is full.
    Network(const ModelConfig& model, const ParameterLayout& layout, int capacity,
            const Stream& stream);

    // x() of rows × pixels through the encoder to z() and kl().
    void encode(int rows, const BatchNoise& noise, const PosteriorOutputs& outputs);
    // z() through the decoder to output_product(), without the output's bias.
    void decode(int rows);
    // recon() of output_product() and x().
    void reconstruction_loss(int rows);
    // x() becomes the likelihood's mean of output_product().
    void output_mean(int rows);
    // See OutputLikelihood.
    void keep_variance(bool is_first) { likelihood_.keep_variance(is_first, parameters_.data()); }
    // output_product() gets its bias.
    void add_output_bias(int rows);
    // After encode and decode: recon(), and the gradients of
    // Σ over rows of scale·(recon + beta·kl). Destroys output_product().
    void backward(int rows, const BatchNoise& noise, double scale, double beta);

    int capacity() const { return capacity_; }
    DeviceArray<float>& parameters() { return parameters_; }
    DeviceArray<float>& gradients() { return gradients_; }
    DeviceArray<float>& x() { return x_; }
    DeviceArray<float>& z() { return z_; }
    DeviceArray<float>& kl() { return kl_; }
    DeviceArray<float>& recon() { return recon_; }
    DeviceArray<float>& output_product() { return output_product_; }
    const DeviceArray<float>& encoder_h(std::size_t layer) const { return encoder_[layer].h; }
    const DeviceArray<float>& decoder_h(std::size_t layer) const { return decoder_[layer].h; }

  private:
    // What a hidden layer leaves for its backward.
    struct Hidden {
        DeviceArray<float> product;  // x·Wᵀ, without the bias
        DeviceArray<float> h;        // f(product + bias)
    };

    static std::vector<Hidden> allocate(const std::vector<DenseLayer>& layers, int capacity);
    // Runs hidden layers on x; returns their output.
    const float* forward(const std::vector<DenseLayer>& layers, std::vector<Hidden>& hidden,
                         const float* x, int rows);
    // From the gradient of the last layer's h to that of the layers' input x, which is skipped
    // (and null returned) unless wanted. Both live in d_h_.
    float* backward(const std::vector<DenseLayer>& layers, std::vector<Hidden>& hidden,
                    const float* x, float* d_h, int rows, bool want_input);
    DecoderOutput decoder_output(int rows) const;
    kernels::HeadsView heads_view(int rows) const;
    // The one of the two d_h_ buffers that `in_use` is not.
    float* other_d_h(const float* in_use);
    const float* weight(const Tensor& tensor) const { return parameters_.data() + tensor.offset; }
    float* gradient(const Tensor& tensor) { return gradients_.data() + tensor.offset; }
    const float* heads_input() const;
    const float* output_input() const;

    const ModelConfig model_;
    const ParameterLayout layout_;
    const int capacity_;
    const Stream& stream_;
    Matmul matmul_;
    OutputLikelihood likelihood_;

    DeviceArray<float> parameters_;
    DeviceArray<float> gradients_;
    std::vector<Hidden> encoder_;
    std::vector<Hidden> decoder_;
    DeviceArray<float> x_;               // [rows, pixels]
    DeviceArray<float> heads_product_;   // [rows, 2·stride]
    DeviceArray<float> z_;               // [rows, latent]
    DeviceArray<float> kl_;              // [rows]
    DeviceArray<float> output_product_;  // [rows, layout.output.out]
    DeviceArray<float> recon_;           // [rows]
    DeviceArray<float> d_h_[2];          // [rows, widest hidden layer or latent]
    DeviceArray<float> partials_;
    DeviceArray<unsigned> tickets_;
    kernels::Scratch scratch_;
};

}  // namespace vae::gpu
