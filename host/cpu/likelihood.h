// The decoder's output layer as p(x|z): which likelihood the settings ask for, and where its
// parameters are. T is float or double.
#pragma once

#include <cstddef>

#include "host/config.h"
#include "host/cpu/buffer.h"
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

    // recon[r] = −log p(x | row r), as in evaluation.
    void recon(const DecoderOutput<T>& output, const T* parameters, T* recon) const;
    // recon as in training, and the gradients of the product and of all parameters of the layer
    // but its weight.
    void recon_and_gradients(const DecoderOutput<T>& output, const T* parameters,
                             const OutputGradient<T>& gradient, T* recon) const;
    // The mean of p(x|z), [rows, pixels]. x is not used.
    void mean(const DecoderOutput<T>& output, const T* parameters, T* mean) const;
    // The product with its bias, [rows, layout.output.out]. x is not used.
    void outputs(const DecoderOutput<T>& output, const T* parameters, T* outputs) const;

  private:
    ModelConfig model_;
    std::size_t pixels_;
    DenseLayer layer_;
};

extern template class OutputLikelihood<float>;
extern template class OutputLikelihood<double>;

}  // namespace vae::cpu
