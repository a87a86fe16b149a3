// p(z) where it is learned, on the device: a mixture of Gaussians, or of the encoder's posteriors
// of pseudo-inputs (VampPrior, Tomczak & Welling 2018). Knows nothing of how z was drawn.
#pragma once

#include "host/config.h"
#include "host/gpu/device_array.h"
#include "host/parameters.h"
#include "kernels/mixture_prior.h"

namespace vae::gpu {

// The prior N(0, I) has nothing to do: its functions return at once, and score() is null.
class LearnedPrior {
  public:
    // For at most `draws` draws of z.
    LearnedPrior(const ModelConfig& model, const ParameterLayout& layout, int draws,
                 const Stream& stream, DeviceArena& arena);
    // Once the arena is allocated.
    void start();

    bool is_normal() const { return prior_ == Prior::normal; }
    // Rows that the encoder sees behind the examples: its pseudo-inputs.
    static int encoder_rows(const ModelConfig& model) {
        return model.prior == Prior::vamp ? static_cast<int>(model.prior_components) : 0;
    }
    int encoder_rows() const { return encoder_rows_; }
    kernels::ScratchSize scratch_size() const;

    // x[encoder_rows(), pixels] ← the pseudo-inputs; stored alike.
    void copy_pseudo_inputs(kernels::ConstReals parameters, kernels::Reals x) const;
    // What depends on the parameters alone. heads_product: of the encoder_rows().
    void set_components(const float* parameters, const float* heads_product);
    // Of draws z: log_ratio, which is log q(z|x) − log N(z; 0, I), becomes log q(z|x) − log p(z).
    void apply(const float* z, int rows, float* log_ratio);
    // ∂ log p(z)/∂z of those draws.
    const float* score() const { return score_.data(); }
    // After apply on the same z. The loss has scale·weight[r] of each −log p(z). Writes the
    // gradients of the prior's own parameters; of pseudo-inputs those of their rows' heads instead,
    // d_heads[encoder_rows(), 2·stride] with zero padding, and adds those of the heads' biases.
    void backward(const kernels::MixtureRows& rows, kernels::Reals d_heads, float* gradients,
                  const kernels::Scratch& scratch) const;

  private:
    const Prior prior_;
    const int count_;  // of components
    const int encoder_rows_;
    const int draws_;
    const float logvar_min_;
    const float logvar_max_;
    const ParameterLayout layout_;
    const Stream& stream_;
    kernels::MixtureSource source_;  // as set_components found it
    DeviceArray<float> mean_;
    DeviceArray<float> inverse_sigma_;
    DeviceArray<float> excess_;
    DeviceArray<float> offset_;
    DeviceArray<double> log_weight_;
    kernels::MixtureComponents components_;  // the five above
    DeviceArray<float> score_;               // [draws, latent]
    DeviceArray<float> gamma_;               // [draws, components]
};

}  // namespace vae::gpu
