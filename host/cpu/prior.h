// p(z) where it is learned, over a workspace that is allocated once: a mixture of Gaussians, or of
// the encoder's posteriors of pseudo-inputs (VampPrior, Tomczak & Welling 2018). T is float
// or double. Knows nothing of how z was drawn.
#pragma once

#include <cstddef>

#include "host/config.h"
#include "host/cpu/buffer.h"
#include "host/cpu/mixture_prior.h"
#include "host/parameters.h"

namespace vae::cpu {

// The prior N(0, I) has nothing to do: its functions return at once, and score() is null.
template <class T>
class LearnedPrior {
  public:
    LearnedPrior(const ModelConfig& model, const ParameterLayout& layout);

    bool is_normal() const { return prior_ == Prior::normal; }
    // Rows that the encoder sees behind the examples: its pseudo-inputs.
    std::size_t encoder_rows() const;
    // Room for `rows` draws of z. Throws RunError when there is no memory.
    void reserve(std::size_t rows);

    // x[encoder_rows(), pixels] ← the pseudo-inputs.
    void copy_pseudo_inputs(const T* parameters, T* x) const;
    // What depends on the parameters alone. heads_product: of the encoder_rows().
    void set_components(const T* parameters, const T* heads_product);
    // Of draws z: log_ratio, which is log q(z|x) − log N(z; 0, I), becomes log q(z|x) − log p(z).
    void apply(const T* z, std::size_t rows, T* log_ratio);
    // ∂ log p(z)/∂z of those draws.
    const T* score() const { return is_normal() ? nullptr : score_.data(); }
    // After apply on the same z. The loss has scale·weight[r] of each −log p(z). Writes the
    // gradients of the prior's own parameters; of pseudo-inputs those of their rows' heads instead,
    // d_heads[encoder_rows(), 2·stride] with zero padding, and adds those of the heads' biases.
    void backward(const T* z, const T* weight, std::size_t rows, double scale, T* d_heads,
                  T* gradients) const;
    // Where the gradient of the pseudo-inputs belongs.
    T* pseudo_input_gradient(T* gradients) const {
        return gradients + layout_.pseudo_inputs.offset;
    }

  private:
    Prior prior_;
    std::size_t count_;  // of components
    T logvar_min_;
    T logvar_max_;
    ParameterLayout layout_;
    MixtureSource<T> source_;  // as set_components found it
    Buffer<T> mean_;
    Buffer<T> inverse_sigma_;
    Buffer<T> excess_;
    Buffer<T> offset_;
    Buffer<double> log_weight_;
    MixtureComponents<T> components_;  // the five above
    Buffer<T> score_;
    Buffer<T> gamma_;
};

extern template class LearnedPrior<float>;
extern template class LearnedPrior<double>;

}  // namespace vae::cpu
