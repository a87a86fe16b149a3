// The decoder's output layer as p(x|z) on the device: which likelihood the settings ask for, and
// where its parameters are.
#pragma once

#include "host/config.h"
#include "host/gpu/device_array.h"
#include "host/gpu/layer_products.h"
#include "host/output_layer.h"
#include "host/parameters.h"
#include "kernels/gaussian.h"
#include "kernels/gaussian_variance.h"
#include "kernels/likelihood.h"
#include "kernels/scratch.h"

namespace vae::gpu {

// The output layer's product and the data, on the device; row r is of example r / samples.
struct DecoderOutput {
    const float* product = nullptr;  // [rows, layout.output.out], without the bias
    const float* x = nullptr;        // [rows / samples, pixels]
    int rows = 0;
    int samples = 1;
};

// Where the gradients of Σ_r scale·row_weight[r]·recon[r] go.
struct OutputGradient {
    double scale = 1;
    const float* row_weight = nullptr;  // [rows] on the device; null: all 1
    kernels::Reals d_product;           // [rows, layout.output.out]; may be the product if fp32
    float* gradients = nullptr;         // an arena of the layout, on the device
};

// Everything is queued on the stream. Parameters are an arena of the layout, on the device.
class OutputLikelihood {
  public:
    OutputLikelihood(const ModelConfig& model, const ParameterLayout& layout, int capacity,
                     const Stream& stream, DeviceArena& arena);
    // Once the arena is allocated.
    void start();

    // What its kernels need for up to `capacity` rows.
    kernels::ScratchSize scratch_size() const;

    // recon[r] = −log p(x | row r), as in evaluation.
    void recon(const DecoderOutput& output, const float* parameters,
               const kernels::Scratch& scratch, float* recon);
    // recon as in training, and the gradients of the product and of all parameters of the layer
    // but its weight. The optimal variance is that of these rows, and is held constant.
    void recon_and_gradients(const DecoderOutput& output, const float* parameters,
                             const OutputGradient& gradient, const kernels::Scratch& scratch,
                             float* recon);
    // The same of the Bernoulli likelihood from the layer's input h[rows, layout.output.in]: with
    // the product in the same kernel, and without the gradient of the bias.
    void recon_and_gradients(const LayerProducts& products, ConstReals h,
                             const DecoderOutput& output, const OutputGradient& gradient,
                             const kernels::Scratch& scratch, float* recon);
    // After a training step and its update: decoder.logvar of the optimal variance becomes the log
    // of the moving average of the batches' variances, whatever the update did to it. is_taken:
    // on the device, 0 if there was no update. ema, null if there is none, is mended likewise. Does
    // nothing for other likelihoods.
    void keep_variance(const unsigned* is_taken, float* parameters, double ema_decay, float* ema);
    // The mean of p(x|z), [rows, pixels]; it does not overlap the product. x is not used.
    void mean(const DecoderOutput& output, const float* parameters, float* mean);
    // The product with its bias, [rows, layout.output.out], which may be the product. x is not
    // used.
    void outputs(const DecoderOutput& output, const float* parameters, float* outputs);

  private:
    kernels::LikelihoodInput input_of(const DecoderOutput& output, const float* parameters) const;
    kernels::LogBounds kernel_bounds() const;
    // variance_ of a Gaussian with one variance of all pixels, as in evaluation.
    void read_variance(const float* parameters);
    void gaussian_gradients(const kernels::LikelihoodInput& in, const float* parameters,
                            const kernels::LikelihoodGradient& to, float* gradients,
                            const kernels::Scratch& scratch, float* recon);

    const ModelConfig model_;
    const int pixels_;
    const DenseLayer layer_;
    const Tensor logvar_;
    const LogBounds bounds_;
    const int capacity_;
    const Stream& stream_;
    DeviceArray<kernels::GaussianVariance> variance_;
    DeviceArray<float> squares_;  // [rows], if decoder.logvar is there
};

}  // namespace vae::gpu
