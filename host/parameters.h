// Where each named tensor lives in the parameter arena. Gradients and both Adam moments use the
// same layout, so one offset names a tensor in all four.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "host/config.h"

namespace vae {

struct Tensor {
    std::string name;
    std::vector<std::size_t> shape;  // (out, in) for weights, (out) for biases
    std::size_t offset = 0;          // in elements from the arena's start; a multiple of 64
    std::size_t size = 0;            // product of the shape
};

// A fully connected layer a[B, out] = x[B, in] W[out, in]^T + b[out]. A gated one (stride > 0) also
// has g = x V^T + c, and its output is a ⊙ sigmoid(g). W and V are one matrix of 2·stride rows:
// rows [0, out) are W, rows [stride, stride + out) are V. The rows between are padding: zero, with
// zero gradient. stride >= out is the least multiple of 8 (tensor cores want it as a leading
// dimension) that keeps both weights aligned to 256 bytes.
struct DenseLayer {
    std::size_t in = 0;
    std::size_t out = 0;
    Tensor weight;  // the joint matrix starts at weight.offset
    Tensor bias;
    std::size_t stride = 0;  // 0: not gated
    Tensor gate_weight;      // V, at weight.offset + stride·in
    Tensor gate_bias;        // c

    bool is_gated() const { return stride > 0; }
    // Columns of the layer's matrix product.
    std::size_t product_width() const { return is_gated() ? 2 * stride : out; }
    // In arena order.
    std::vector<Tensor> tensors() const;
};

// With a full covariance: its Cholesky factor has latent²/2 entries, and the backward keeps a row
// of them at hand.
inline constexpr std::uint32_t kMostFullLatent = 1024;

// The heads of the encoder as one matrix product of 2·stride rows, as those of a gated layer: rows
// [0, latent) are mu, rows [stride, stride + latent) are logvar. A posterior with a full covariance
// has tril_stride more, of which the first tril_size() are what stands below the diagonal of its
// Cholesky factor, row by row; tril_stride is the least multiple of 8 that has room for them.
struct Heads {
    std::size_t in = 0;
    std::size_t latent = 0;
    std::size_t stride = 0;
    Tensor mu_weight;  // the joint matrix starts at mu_weight.offset
    Tensor mu_bias;
    Tensor logvar_weight;  // at mu_weight.offset + stride·in
    Tensor logvar_bias;
    std::size_t tril_stride = 0;  // 0: the covariance is diagonal, as it always is of one dimension
    Tensor tril_weight;           // at mu_weight.offset + 2·stride·in
    Tensor tril_bias;

    bool is_full() const { return tril_stride > 0; }
    std::size_t tril_size() const { return is_full() ? latent * (latent - 1) / 2 : 0; }
    // Columns of the heads' matrix product.
    std::size_t product_width() const { return 2 * stride + tril_stride; }
    // In arena order.
    std::vector<Tensor> tensors() const;
};

struct ParameterLayout {
    // Throws InputError when a width is 0 or a full covariance has too many dimensions, the arena
    // would not fit 32-bit tensor sizes, or pixels are no whole one-hot groups.
    ParameterLayout(const ModelConfig& model, std::size_t pixels);

    std::size_t pixels;               // dimensions of x
    std::vector<DenseLayer> encoder;  // encoder.0, encoder.1, …: dense + activation, or gated
    Heads heads;                      // encoder.mu, encoder.logvar, encoder.tril
    std::vector<DenseLayer> decoder;  // decoder.0, …: likewise
    DenseLayer output;                // decoder.out: dense, no activation; see output_layer.h
    Tensor output_logvar;             // decoder.logvar[1], of size 0 unless has_logvar(model)
    // Of size 0 unless the prior is a mixture: prior.mean and prior.logvar [components, latent],
    // and prior.logits[components], whose softmax is the components' weights.
    Tensor prior_mean;
    Tensor prior_logvar;
    Tensor prior_logits;
    Tensor pseudo_inputs;    // prior.pseudo_inputs[components, pixels], of size 0 unless
                             // the prior is a VampPrior
    std::size_t arena_size;  // elements, padding included; a multiple of 64

    // All tensors in arena order.
    std::vector<Tensor> tensors() const;
};

// Draws initial parameters into an arena (padding is zero). Noise is addressed by
// (seed, initialization, tensor's index in layout order, element). pytorch: U(±1/sqrt(in)) for
// weights and biases (torch.nn.Linear). glorot: U(±sqrt(6/(in+out))), zero biases (Glorot & Bengio
// 2010, eq. 16). he: N(0, 2/in), zero biases (He et al. 2015, eq. 10). decoder.logvar is zero.
// encoder.tril has 1/sqrt(latent) of that, so that the variance which a row of the Cholesky factor
// has below its diagonal does not grow with its length.
// prior.mean is N(0, 1), prior.logvar and prior.logits are zero: components of the width of N(0,
// I). prior.pseudo_inputs is U(0, 1), which set_pseudo_inputs replaces where there are data.
std::vector<float> initial_parameters(const ParameterLayout& layout, Initialization initialization,
                                      std::uint64_t seed);

}  // namespace vae
