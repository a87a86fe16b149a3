// The encoder's heads on tensor cores with the reparameterisation in the same kernel, and the
// gradient of z with its backward: for one draw an example whose KL term is in closed form.
#pragma once

#include <cuda_runtime.h>

#include "kernels/dense.h"
#include "kernels/reparameterize.h"

namespace vae::kernels {

// Computes  product = h·Wᵀ of both heads; z, rounded_z, kl, mu, logvar and epsilon of `draws` as
//           reparameterize_forward does
// Shapes    h[examples, in] and weight[2·stride, in] stored alike; product[examples, 2·stride]; of
//           `heads` the product is not looked at, samples is 1, latent at least 1
// Writes    overwrites product, but for its padding, and what of `draws` is not null; log_ratio is
//           null
// Numerics  of the product as kernels/dense.h says; of the rest as reparameterize_forward, kl in
//           float over 16 dimensions and in double over these sums
// Cost      4·examples·in·latent flops, and the instructions of reparameterize_forward, noise for
//           every two elements
// Launch    a block of 256 threads for 32 examples and 16 dimensions, see dense_gated_forward.
//           Throws std::invalid_argument if scratch is smaller than
//           scratch_size(examples, 2·latent).
void dense_reparameterize(FloatFactors factors, int in, ConstReals h, ConstReals weight,
                          const HeadsView& heads, const EpsilonSource& source, float* product,
                          const Draws& draws, const Scratch& scratch, const DenseStream& stream);

// The part of a LatentGradient that there is here.
struct KlGradient {
    double scale = 0;                  // of each kl in closed form …
    const StepState* state = nullptr;  // … times its beta, if there is one
};

// Computes  d_z = d_product·W of the decoder's first layer; of it d_heads, as
//           reparameterize_backward does of a gradient that has d_z and the closed form alone
// Shapes    d_product[rows, out], weight[out, latent] and d_heads[rows, 2·stride] stored alike, as
//           `size` says, whose rows are the examples and whose in is the latent space; of `heads`
//           samples is 1
// Writes    overwrites d_heads, its padding with zero; nothing may overlap. The gradients of the
//           heads' biases are those of dense_backward_weight.
// Numerics  of the product as kernels/dense.h says; of the rest as reparameterize_backward
// Cost      2·rows·out·latent flops, and the instructions of reparameterize_backward, noise once
//           for every four elements
// Launch    as dense_backward
void dense_reparameterize_backward(FloatFactors factors, const DenseSize& size,
                                   ConstReals d_product, ConstReals weight, const HeadsView& heads,
                                   const EpsilonSource& source, const KlGradient& kl, Reals d_heads,
                                   const DenseStream& stream);

}  // namespace vae::kernels
