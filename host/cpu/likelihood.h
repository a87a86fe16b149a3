// The decoder's output layer as p(x|z): which likelihood the settings ask for, and where its
// parameters are. T is float or double.
#pragma once

#include <cstddef>

#include "host/config.h"
#include "host/cpu/buffer.h"
#include "host/cpu/likelihood_rows.h"
#include "host/output_layer.h"
#include "host/parameters.h"

namespace vae::cpu {

// The output layer's product and the data; row r is of example r / samples.
template <class T>
struct DecoderOutput {
    const T* product = nullptr;  // [rows, layout.output.out], without the bias
    const T* x = nullptr;        // [rows / samples, pixels]
    std::size_t rows = 0;
    std::size_t samples = 1;
};

// Where the gradients of Σ_r scale·row_weight[r]·recon[r] go.
template <class T>
struct OutputGradient {
    double scale = 1;
    const T* row_weight = nullptr;  // [rows]; null: all 1
    T* d_product = nullptr;         // [rows, layout.output.out]; may be the product
    T* gradients = nullptr;         // an arena of the layout
    T* partials = nullptr;          // [chunk_count(rows), layout.output.out], overwritten
};

template <class T>
class OutputLikelihood {
  public:
    OutputLikelihood(const ModelConfig& model, const ParameterLayout& layout);

    // Room for a batch. Throws RunError when there is no memory.
    void reserve(std::size_t rows);

    // recon[r] = −log p(x | row r), as in evaluation.
    void recon(const DecoderOutput<T>& output, const T* parameters, T* recon) const;
    // recon as in training, and the gradients of the product and of all parameters of the layer
    // but its weight. The optimal variance is that of these rows, and is held constant.
    void recon_and_gradients(const DecoderOutput<T>& output, const T* parameters,
                             const OutputGradient<T>& gradient, T* recon);
    // After a training step and its update: decoder.logvar of the optimal variance becomes the log
    // of the moving average of the batches' variances, whatever the update did to it. ema, null
    // if there is none, has averaged in what the update made of it, and is mended. Does nothing for
    // other likelihoods.
    void keep_variance(T* parameters, double ema_decay, T* ema) const;
    // The mean of p(x|z), [rows, pixels]. x is not used.
    void mean(const DecoderOutput<T>& output, const T* parameters, T* mean) const;
    // The product with its bias, [rows, layout.output.out]. x is not used.
    void outputs(const DecoderOutput<T>& output, const T* parameters, T* outputs) const;

  private:
    LikelihoodInput<T> input_of(const DecoderOutput<T>& output, const T* parameters) const;
    // Of a Gaussian with one variance of all pixels, in evaluation.
    double variance(const T* parameters) const;
    // Of the batch, which is remembered for keep_variance.
    double optimal_variance(const LikelihoodInput<T>& in, const T* parameters);
    void gaussian_gradients(const LikelihoodInput<T>& in, const T* parameters,
                            const LikelihoodGradient<T>& to, T* gradients, T* recon);

    ModelConfig model_;
    std::size_t pixels_;
    DenseLayer layer_;
    Tensor logvar_;
    LogBounds bounds_;
    Buffer<T> squares_;          // [rows]
    double batch_variance_ = 0;  // of the last training step
    double average_before_ = 0;  // decoder.logvar before it
};

extern template class OutputLikelihood<float>;
extern template class OutputLikelihood<double>;

}  // namespace vae::cpu
